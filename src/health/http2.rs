//! A connection of HTTP/2 that probes ask over. It is driven by whoever asks, and by nobody between two questions.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::line::MOST_OF_HEAD;
use super::reach::Io;
use crate::http2::hpack::encoder::Packer;
use crate::http2::{Broken, Connection, Side, Taken, Terms};
use crate::logging::words;
use crate::message::head::Fields;

/// How much of a body a server may send ahead.
const WINDOW: u32 = 64 * 1024;
/// How much is read at once.
const AT_ONCE: usize = 8 * 1024;

/// A connection.
pub(super) struct Http2Line {
    io: Box<dyn Io>,
    connection: Connection,
}

/// The head of an answer.
pub(super) struct Answer {
    stream: u32,
    pub(super) status: u16,
    pub(super) fields: Fields,
}

impl Http2Line {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        let terms = Terms {
            streams: 0,
            header_list: MOST_OF_HEAD as u32,
            stream_window: WINDOW,
            connection_window: WINDOW,
            given_up: u32::MAX,
        };
        Self { io, connection: Connection::new(Side::Client, terms) }
    }

    /// Asks what `pack` writes and `body` says. An answer has to be [left](Self::leave) before the next question.
    pub(super) async fn ask(
        &mut self,
        to_head: bool,
        body: &[u8],
        pack: impl FnOnce(&mut Packer<'_>),
    ) -> Result<Answer, String> {
        let asked = self.connection.request(to_head, body.is_empty(), pack);
        let stream = asked.map_err(|_full| self.connection.words())?;
        let mut sent = 0;
        while sent < body.len() {
            let rest = body.get(sent..).unwrap_or_default();
            sent += self.until(|connection, cx| connection.poll_send(cx, stream, rest, true)).await?;
        }
        loop {
            let (mut head, _end) = self.until(|connection, cx| connection.poll_head(cx, stream)).await?;
            let status = head.status().filter(|_| head.fault.is_none());
            let fields = std::mem::take(&mut head.fields);
            head.put_back();
            match status {
                None => return Err("the answer has no head that it could have".to_owned()),
                Some(100..=199) => {}
                Some(status) => return Ok(Answer { stream, status, fields }),
            }
        }
    }

    /// What comes next of the body of an answer; nothing once it is over.
    pub(super) async fn next(&mut self, answer: &Answer) -> Result<Option<Vec<u8>>, String> {
        let mut buffer = vec![0; AT_ONCE];
        let Taken { bytes, end } =
            self.until(|connection, cx| connection.poll_take(cx, answer.stream, &mut buffer)).await?;
        buffer.truncate(bytes);
        Ok((bytes > 0 || !end).then_some(buffer))
    }

    /// The trailer section of an answer whose body is over.
    pub(super) fn trailers(&mut self, answer: &Answer) -> Fields {
        self.connection.take_trailers(answer.stream).map(|fields| *fields).unwrap_or_default()
    }

    /// Needs no more of an answer.
    pub(super) fn leave(&mut self, answer: &Answer) {
        self.connection.release(answer.stream);
    }

    /// Says what is left to be said. Whether something else can be asked then.
    pub(super) async fn settle(&mut self) -> bool {
        poll_fn(|cx| self.poll_write(cx)).await.is_ok() && !self.connection.is_spent()
    }

    /// Lets it come to an orderly end. That the server is gone is no matter then.
    pub(super) async fn end(mut self) {
        self.connection.end();
        if poll_fn(|cx| self.poll_write(cx)).await.is_ok() {
            let _gone = self.io.shutdown().await;
        }
    }

    /// Drives the connection until something is there.
    async fn until<T>(
        &mut self,
        mut look: impl FnMut(&mut Connection, &mut Context<'_>) -> Poll<Result<T, Broken>>,
    ) -> Result<T, String> {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(found) = look(&mut self.connection, cx) {
                    return Poll::Ready(found.map_err(|broken| self.words(broken)));
                }
                // Nobody else is woken: what there is to be read or written wakes this task.
                if let Poll::Ready(Err(words)) = self.poll_write(cx) {
                    return Poll::Ready(Err(words));
                }
                if let Err(words) = ready!(self.poll_read(cx)) {
                    return Poll::Ready(Err(words));
                }
            }
        })
        .await
    }

    fn words(&self, broken: Broken) -> String {
        match broken {
            Broken::Reset(code) => format!("the server gave the request up: {code:?}"),
            Broken::Wrong(code) => format!("the server broke the protocol: {code:?}"),
            Broken::Over { .. } => format!("the connection is over: {}", self.connection.words()),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Self { io, connection } = self;
        while !connection.output().is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, connection.output()));
            connection.sent(written.map_err(|error| words(&error))?);
        }
        Pin::new(io).poll_flush(cx).map_err(|error| words(&error))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut room = [0; AT_ONCE];
        let mut buffer = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)).map_err(|error| words(&error))?;
        match buffer.filled() {
            [] => self.connection.lost(),
            bytes => self.connection.receive(bytes),
        }
        Poll::Ready(Ok(()))
    }
}
