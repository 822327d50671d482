//! What waits on an HTTP/1 connection: bytes that were read too early, and bytes that the kernel has not taken. A connection
//! with neither holds no buffer, or a very small one.

use std::cell::RefCell;
use std::io::Read as _;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::message::forwarded::Forwarding;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::relay::{Broken, Scratch, Then, Wire};

/// Heads and buffers that are used again for the next request of the worker.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "what is handed out and taken back is large, and is not moved")]
pub(in crate::proxy) struct Stash {
    requests: RefCell<Vec<Box<Request>>>,
    responses: RefCell<Vec<Box<Response>>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    forwardings: RefCell<Vec<Rc<Forwarding>>>,
}

/// How many of a kind are kept, and how large a buffer may have grown to be kept.
const KEPT: usize = 256;
const LARGEST: usize = 32 * 1024;

impl Stash {
    pub(super) fn request(&self) -> Box<Request> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn return_request(&self, mut request: Box<Request>) {
        request.clear();
        put(&self.requests, request);
    }

    pub(super) fn response(&self) -> Box<Response> {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn return_response(&self, mut response: Box<Response>) {
        response.clear();
        put(&self.responses, response);
    }

    pub(super) fn forwarding(&self) -> Rc<Forwarding> {
        self.forwardings.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back that nobody else holds, if it is not large.
    pub(super) fn return_forwarding(&self, forwarding: Rc<Forwarding>) {
        if Rc::strong_count(&forwarding) == 1 && forwarding.may_be_kept() {
            put(&self.forwardings, forwarding);
        }
    }

    pub(super) fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn return_buffer(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= LARGEST {
            buffer.clear();
            put(&self.buffers, buffer);
        }
    }
}

fn put<T>(shelf: &RefCell<Vec<T>>, thing: T) {
    let mut shelf = shelf.borrow_mut();
    if shelf.len() < KEPT {
        shelf.push(thing);
    }
}

/// How much is read at once while a head is expected, of a plain wire. What comes behind it has to be copied aside, which is not
/// to happen to much of a large body.
const HEAD: usize = 16 * 1024;

/// As much as what comes behind a head often has.
const LITTLE: usize = 256;

/// What has arrived and was not asked for yet.
#[derive(Debug)]
pub(super) struct Inbound {
    rest: Vec<u8>,
    taken: usize,
    /// What is known of what follows.
    then: Then,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { rest: Vec::new(), taken: 0, then: Then::Unknown }
    }
}

impl Inbound {
    /// Begins with bytes that were read before.
    pub(super) fn new(rest: Vec<u8>) -> Self {
        Self { rest, ..Self::default() }
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.taken >= self.rest.len()
    }

    /// Whether bytes wait here, or the end does.
    pub(super) fn has_news(&self) -> bool {
        !self.is_empty() || self.then != Then::Unknown
    }

    /// Where what follows a head goes.
    pub(super) fn rest(&mut self) -> &mut Vec<u8> {
        if self.is_empty() {
            self.rest.clear();
            self.taken = 0;
        }
        &mut self.rest
    }

    /// Puts bytes back in front.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.rest.splice(..self.taken, bytes.iter().copied());
        self.taken = 0;
    }

    /// Takes out what waits here.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.drain(..self.taken.min(rest.len()));
        self.taken = 0;
        rest
    }

    /// Reads of a head what there is: all that waits here, or some of what the wire has. No bytes mean the end of the stream.
    /// Says as well whether the wire has more.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut impl Wire,
        scratch: &Scratch,
        take: impl FnOnce(&[u8]),
    ) -> Poll<Result<(usize, bool), Broken>> {
        scratch.with_buffer(|buffer| {
            let waits = !self.is_empty();
            let takes_little = !waits && wire.plain().is_some();
            let room = if takes_little { HEAD.min(buffer.len()) } else { buffer.len() };
            let (buffer, _) = buffer.split_at_mut(room);
            let read = ready!(self.poll_read(cx, wire, buffer))?;
            take(buffer.get(..read).unwrap_or_default());
            Poll::Ready(Ok((read, takes_little && read == room)))
        })
    }

    /// Reads what there is; no bytes mean the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut impl Wire,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, Broken>> {
        if !self.is_empty() {
            let mut waiting = self.rest.get(self.taken..).unwrap_or_default();
            // Reading from memory does not fail.
            let bytes = waiting.read(buffer).unwrap_or_default();
            self.taken += bytes;
            if self.is_empty() {
                // Little is kept by a connection with nothing to keep.
                if self.rest.capacity() > LITTLE {
                    self.rest = Vec::new();
                }
                self.rest.clear();
                self.taken = 0;
            }
            return Poll::Ready(Ok(bytes));
        }
        match self.then {
            Then::Unknown => {}
            Then::End => return Poll::Ready(Ok(0)),
            Then::Broken(broken) => return Poll::Ready(Err(broken)),
        }
        let read = match ready!(wire.poll_read(cx, buffer)) {
            Ok(read) => read,
            Err(broken) => {
                self.then = Then::Broken(broken);
                return Poll::Ready(Err(broken));
            }
        };
        self.then = read.then;
        match (read.bytes, read.then) {
            (0, Then::Broken(broken)) => Poll::Ready(Err(broken)),
            (bytes, _) => Poll::Ready(Ok(bytes)),
        }
    }
}

/// What was written and the kernel has not taken.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pending: Vec<u8>,
    sent: usize,
}

impl Outbound {
    /// Begins with a buffer to write to; what it holds goes first.
    pub(super) fn new(pending: Vec<u8>) -> Self {
        Self { pending, sent: 0 }
    }

    /// Whether all was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.sent >= self.pending.len()
    }

    /// Whether there are bytes and the kernel has taken none of them.
    pub(super) fn is_untouched(&self) -> bool {
        self.sent == 0 && !self.pending.is_empty()
    }

    /// Takes back all that was written, if the kernel has taken none of it; whether that is so.
    pub(super) fn withdraw(&mut self) -> bool {
        let is_untouched = self.is_untouched();
        if is_untouched {
            self.pending.clear();
        }
        is_untouched
    }

    /// Where a head is written to; it goes with what follows it, or with the next [`Outbound::poll_flush`].
    pub(super) fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Gets a buffer from the stash, if it has none.
    pub(super) fn borrow_buffer(&mut self, stash: &Stash) {
        if self.pending.capacity() == 0 {
            self.pending = stash.buffer();
        }
    }

    /// Gives the buffer to the stash, if all was taken.
    pub(super) fn return_buffer(&mut self, stash: &Stash) {
        if self.is_empty() {
            self.sent = 0;
            stash.return_buffer(std::mem::take(&mut self.pending));
        }
    }

    /// Sends bytes behind all that was written before; what the kernel does not take waits. With `last`, the end of the
    /// connection follows at once and may leave with them.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut impl Wire,
        bytes: &[u8],
        last: bool,
    ) -> Result<(), Broken> {
        let mut bytes = bytes;
        if self.is_empty() {
            match wire.poll_write(cx, bytes, last) {
                Poll::Ready(Ok(sent)) => bytes = bytes.get(sent..).unwrap_or_default(),
                Poll::Ready(Err(broken)) => return Err(broken),
                Poll::Pending => {}
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.pending.clear();
            self.sent = 0;
        }
        self.pending.extend_from_slice(bytes);
        match self.poll_flush(cx, wire, last) {
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Waits until the kernel has taken all that was written; `last` as for [`Outbound::send`].
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut impl Wire,
        last: bool,
    ) -> Poll<Result<(), Broken>> {
        while let Some(rest) = self.pending.get(self.sent..).filter(|rest| !rest.is_empty()) {
            self.sent += ready!(wire.poll_write(cx, rest, last))?;
        }
        self.pending.clear();
        self.sent = 0;
        wire.poll_flush(cx)
    }
}
