//! What goes out on streams, and what was taken of them: the side of those who have a stream.

use std::task::{Context, Poll};

use super::Code;
use super::connection::{Connection, Ended, Side};
use super::frame::{DATA, END_STREAM, FrameHead, MOST_PAYLOAD, WINDOW_UPDATE, put, put_headers};
use super::head::Head;
use super::hpack::encoder::{NO_TABLE, Packer};
use super::stream::{Broken, Stream, Taken};

/// The last stream there can be.
const LAST: u32 = (1 << 31) - 1;

/// A connection that takes no further request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Connection {
    /// Whether this side may make no request any more: either side goes away, or all streams were used.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.ended.is_some() || self.peer.gone.is_some() || self.next > LAST
    }

    /// How many requests this side may make at once, and has under way.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (usize::try_from(self.peer.streams).unwrap_or(usize::MAX), self.open as usize)
    }

    /// Whether the settings of the other side have come.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.peer.is_settled
    }

    /// Whether the other side takes an extended CONNECT (RFC 8441 §3).
    #[must_use]
    pub fn takes_connect(&self) -> bool {
        self.peer.takes_connect
    }

    /// Makes a request, whose head `pack` writes; with `end`, no body follows. Whoever makes it has to
    /// [release](Self::release) it in the end.
    ///
    /// # Errors
    /// The connection takes no further one.
    pub fn request(&mut self, to_head: bool, end: bool, pack: impl FnOnce(&mut Packer<'_>)) -> Result<u32, Full> {
        if self.side != Side::Client || self.is_spent() {
            return Err(Full);
        }
        let id = self.next;
        self.next += 2;
        let mut stream = Stream::new(self.terms.first_window(), self.peer.stream_window);
        (stream.is_held, stream.to_head) = (true, to_head);
        self.streams.insert(id, stream);
        self.open += 1;
        self.head(id, end, pack);
        Ok(id)
    }

    /// Sends a head: of a response, an informational one, or trailers. With `end`, nothing follows it.
    ///
    /// # Errors
    /// Why nothing goes out on the stream any more.
    pub fn respond(&mut self, id: u32, end: bool, pack: impl FnOnce(&mut Packer<'_>)) -> Result<(), Broken> {
        let stream = self.streams.get(&id).ok_or(Broken::Over { unseen: false })?;
        if let Some(broken) = stream.broken {
            return Err(broken);
        }
        self.head(id, end, pack);
        Ok(())
    }

    fn head(&mut self, id: u32, end: bool, pack: impl FnOnce(&mut Packer<'_>)) {
        let (is_first, from) = (std::mem::take(&mut self.is_fresh), self.out.len());
        put_headers(id, end, &mut self.out, |out| {
            if is_first {
                out.push(NO_TABLE);
            }
            pack(&mut Packer::new(out));
        });
        if self.side == Side::Server {
            // Whoever answers reads what it is answered: two sides that waited for one another would wait for ever.
            self.replies += self.out.len() - from;
        }
        if end {
            self.sent_all(id);
        }
        self.stir();
    }

    fn sent_all(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send_over = true;
            self.side_over(id);
        }
    }

    /// Sends as much of a body as there is room for; with `end`, it is over with the last of these bytes. Where there is no
    /// room for all, the task hears when it is worth trying again.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, id: u32, bytes: &[u8], end: bool) -> Poll<Result<usize, Broken>> {
        let had_turn = self.take_turn(id);
        let room = match (self.turns.is_empty(), had_turn) {
            (true, _) => self.room(),
            (false, true) => self.room().min(MOST_PAYLOAD),
            // Others were there before.
            (false, false) => 0,
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Over { unseen: false }));
        };
        if let Some(broken) = stream.broken {
            return Poll::Ready(Err(broken));
        }
        let window = usize::try_from(stream.send_window).unwrap_or(0);
        let many = bytes.len().min(window).min(room);
        if many < bytes.len() {
            stream.listen(cx.waker());
        }
        let waited = std::mem::replace(&mut stream.waits, many < bytes.len() && window > many);
        if stream.waits && !waited {
            self.turns.push_back(id);
        }
        if many == 0 && !bytes.is_empty() {
            // Who could not make use of its turn leaves it to the next, which may be the one that has come last.
            self.offer();
            return Poll::Pending;
        }
        stream.send_window -= many as i64;
        self.send_window -= many as i64;
        let is_last = end && many == bytes.len();
        self.put_data(id, bytes.get(..many).unwrap_or_default(), is_last);
        self.budget.earn(many);
        if is_last {
            self.sent_all(id);
        }
        self.stir();
        Poll::Ready(Ok(many))
    }

    fn put_data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let mut rest = bytes;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MOST_PAYLOAD));
            let flags = if end && later.is_empty() { END_STREAM } else { 0 };
            let head = FrameHead { length: now.len(), kind: DATA, flags, stream };
            self.out.extend_from_slice(&head.bytes());
            self.out.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Takes the head of a request, which is there; of a response, waits for it or an informational one before it. Says
    /// whether nothing follows. It is to be [put back](Head::put_back).
    pub fn poll_head(&mut self, cx: &mut Context<'_>, id: u32) -> Poll<Result<(Box<Head>, bool), Broken>> {
        let (is_client, fault) = (self.side == Side::Client, self.fault());
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Over { unseen: false }));
        };
        // A response that is malformed is so from its head on (§8.1.1).
        let is_wrong = is_client && !stream.recv_over && stream.fault.or(fault).is_some();
        if let Some(broken) = stream.broken.filter(|_| is_wrong) {
            return Poll::Ready(Err(broken));
        }
        if let Some(head) = stream.early.pop_front() {
            return Poll::Ready(Ok((head, false)));
        }
        match (stream.head.take(), stream.broken) {
            (Some(arrived), _) => Poll::Ready(Ok((arrived.head, arrived.end))),
            (None, Some(broken)) => Poll::Ready(Err(broken)),
            (None, None) => {
                stream.listen(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Takes what came of a body. The other side may send as much again.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, id: u32, buffer: &mut [u8]) -> Poll<Result<Taken, Broken>> {
        let most = self.terms.stream_window;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Over { unseen: false }));
        };
        if !stream.has_waiting() {
            return match (stream.recv_over, stream.broken) {
                (true, _) => Poll::Ready(Ok(Taken { bytes: 0, end: true })),
                (false, Some(broken)) => Poll::Ready(Err(broken)),
                (false, None) => {
                    stream.listen(cx.waker());
                    Poll::Pending
                }
            };
        }
        let bytes = stream.take(buffer);
        let end = stream.recv_over && !stream.has_waiting();
        let owed = u32::try_from(bytes).unwrap_or(u32::MAX);
        stream.owed += owed;
        let is_worth_it = u64::from(stream.owed) * 2 >= u64::from(stream.ahead);
        if is_worth_it && !stream.recv_over && stream.broken.is_none() {
            // Whoever takes all that there is could take more at once.
            let wider = if stream.has_waiting() { 0 } else { stream.ahead.min(most - stream.ahead) };
            stream.ahead += wider;
            let more = std::mem::take(&mut stream.owed) + wider;
            stream.recv_window += i64::from(more);
            put(WINDOW_UPDATE, 0, id, &more.to_be_bytes(), &mut self.out);
            self.stir();
        }
        self.credit(owed);
        Poll::Ready(Ok(Taken { bytes, end }))
    }

    /// The trailer section, once the body is over.
    pub fn take_trailers(&mut self, id: u32) -> Option<Box<crate::message::head::Fields>> {
        self.streams.get_mut(&id)?.trailers.take()
    }

    /// Waits until nothing goes out on a stream any more since the other side gave it up, or is gone.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>, id: u32) -> Poll<Broken> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Broken::Over { unseen: false }) };
        match stream.broken {
            Some(broken) => Poll::Ready(broken),
            None => {
                stream.listen(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Gives a stream up, so that what was sent is not taken for the whole.
    pub fn give_up(&mut self, id: u32, code: Code) {
        let is_open = self.streams.get(&id).is_some_and(|stream| !stream.is_closed());
        if is_open && self.ended.is_none() {
            self.reset(id, code);
            self.break_stream(id, Broken::Wrong(code));
        }
    }

    /// Why it is over, in words for the log.
    #[must_use]
    pub fn words(&self) -> String {
        match self.ended() {
            Some(Ended::Fault(_, words)) => words.to_owned(),
            Some(Ended::Gone(code)) => format!("it went away: {code:?}"),
            Some(Ended::Done) | None => "it goes away".to_owned(),
        }
    }
}
