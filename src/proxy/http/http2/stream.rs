//! The two directions of one stream of HTTP/2, towards whichever side: bodies in pieces, with the flow control of the
//! protocol as back-pressure.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::heads;
use crate::message::head::Fields;
use crate::proxy::http::body::{BodyFault, Piece};
use crate::relay::Broken;

/// How many DATA frames in a row may be empty: they carry nothing and cost as much as others.
const MOST_EMPTY: u32 = 64;

/// What comes in on a stream.
#[derive(Debug)]
pub(in crate::proxy::http) struct Receiver {
    stream: RecvStream,
    /// What has arrived and had no room.
    kept: Bytes,
    over: bool,
    /// Whether what comes is of another protocol, which nobody has agreed to speak yet.
    held: bool,
    empty: u32,
    trailers: Option<Box<Fields>>,
}

impl Receiver {
    pub(in crate::proxy::http) fn new(stream: RecvStream) -> Self {
        let over = stream.is_end_stream();
        Self { stream, kept: Bytes::new(), over, held: false, empty: 0, trailers: None }
    }

    /// Whether all has come that may be read now.
    pub(in crate::proxy::http) fn is_over(&self) -> bool {
        self.over || self.held
    }

    /// Holds back what comes, or no longer: it is no body, and a server that does not change the protocol would take it for
    /// the next request.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The trailer section, once all has come.
    pub(in crate::proxy::http) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// Reads more of the body.
    pub(in crate::proxy::http) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<Piece, BodyFault>> {
        let mut filled = 0;
        loop {
            let bytes = self.kept.len().min(buffer.len() - filled);
            if let Some(room) = buffer.get_mut(filled..filled + bytes) {
                room.copy_from_slice(&self.kept.split_to(bytes));
            }
            filled += bytes;
            // The sender may send as much again. That the stream is over is met by who reads on.
            let _over = self.stream.flow_control().release_capacity(bytes);
            if self.over || filled == buffer.len() {
                return Poll::Ready(Ok(Piece { bytes: filled, end: self.over && self.kept.is_empty() }));
            }
            let data = match self.stream.poll_data(cx) {
                Poll::Ready(data) => data,
                Poll::Pending if filled > 0 => return Poll::Ready(Ok(Piece { bytes: filled, end: false })),
                Poll::Pending => return Poll::Pending,
            };
            match data {
                Some(Ok(data)) => {
                    self.empty = if data.is_empty() { self.empty + 1 } else { 0 };
                    if self.empty > MOST_EMPTY {
                        return Poll::Ready(Err(BodyFault::Reset(Reason::ENHANCE_YOUR_CALM)));
                    }
                    self.kept = data;
                    self.over = self.stream.is_end_stream();
                }
                Some(Err(error)) => {
                    return Poll::Ready(Err(BodyFault::Reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR))));
                }
                None if filled > 0 && !self.stream.is_end_stream() => {
                    return Poll::Ready(Ok(Piece { bytes: filled, end: false }));
                }
                None => match ready!(self.stream.poll_trailers(cx)) {
                    Ok(trailers) => {
                        self.trailers = trailers.map(|trailers| Box::new(heads::fields_of(&trailers)));
                        self.over = true;
                    }
                    Err(error) => {
                        return Poll::Ready(Err(BodyFault::Reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR))));
                    }
                },
            }
        }
    }
}

/// What goes out on a stream.
#[derive(Debug)]
pub(in crate::proxy::http) struct Sender {
    stream: SendStream<Bytes>,
    /// What there is no room for yet in the windows.
    pending: Bytes,
    /// What is sent behind it, if it is the last.
    last: Option<Last>,
    ended: bool,
}

#[derive(Debug)]
enum Last {
    End,
    Trailers(HeaderMap),
}

impl Sender {
    /// A stream whose head was sent; with `ended`, nothing follows.
    pub(in crate::proxy::http) fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self { stream, pending: Bytes::new(), last: None, ended }
    }

    /// Whether all was handed over.
    pub(in crate::proxy::http) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.last.is_none()
    }

    /// Sends a piece; what has no room in the windows waits.
    pub(in crate::proxy::http) fn send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
        trailers: Option<&Fields>,
    ) -> Result<(), Broken> {
        self.pending = Bytes::copy_from_slice(bytes);
        if last && !self.ended {
            let trailers = trailers.map(heads::trailers);
            self.last = Some(trailers.filter(|map| !map.is_empty()).map_or(Last::End, Last::Trailers));
        }
        match self.poll_ready(cx) {
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Waits until all was handed over that was sent before.
    pub(in crate::proxy::http) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.pending.is_empty() {
            self.stream.reserve_capacity(self.pending.len());
            let room = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(Err(RESET)),
                },
                room => room,
            };
            let portion = self.pending.split_to(room.min(self.pending.len()));
            let end = self.pending.is_empty() && matches!(self.last, Some(Last::End));
            if end {
                self.last = None;
                self.ended = true;
            }
            self.stream.send_data(portion, end).map_err(|_gone| RESET)?;
        }
        let sent = match self.last.take() {
            None => return Poll::Ready(Ok(())),
            Some(Last::End) => self.stream.send_data(Bytes::new(), true),
            Some(Last::Trailers(trailers)) => self.stream.send_trailers(trailers),
        };
        self.ended = true;
        Poll::Ready(sent.map_err(|_gone| RESET))
    }

    /// Waits until the other side gives the stream up, or the connection is gone.
    pub(in crate::proxy::http) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }

    /// Gives the stream up, so that what was sent is not taken for the whole.
    pub(in crate::proxy::http) fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.ended = true;
            self.stream.send_reset(reason);
        }
    }
}

/// A stream, towards whichever side, that carries another protocol.
pub(in crate::proxy::http) trait Tunnelled {
    /// Reads more of what comes in.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Piece, BodyFault>>;
    /// Waits until all was handed over that was sent before.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;
    /// Sends a piece; what has no room in the windows waits.
    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Result<(), Broken>;
    /// Gives the stream up.
    fn reset(&mut self, reason: Reason);
}

/// The other side gave the stream up, or is gone.
pub(in crate::proxy::http) const RESET: Broken = Broken::System(rustix::io::Errno::CONNRESET);
