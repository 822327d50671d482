//! One stream: what came on it and was not taken yet, and how much may go either way.

use std::collections::VecDeque;
use std::task::Waker;

use super::Code;
use super::head::Head;
use crate::message::head::Fields;

/// Why nothing more comes or goes on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other side gave it up.
    Reset(Code),
    /// This side did, since the other broke the protocol on it.
    Wrong(Code),
    /// Its connection is over, or was never going to carry it: with `unseen`, the other side has said that it did not look at
    /// it (RFC 9113 §6.8).
    Over {
        /// Whether it is known not to have been looked at.
        unseen: bool,
    },
}

/// What was taken of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many bytes.
    pub bytes: usize,
    /// Whether the body is over with them.
    pub end: bool,
}

/// A head that came, and whether nothing follows it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) head: Box<Head>,
    pub(super) end: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// The head that came and was not taken yet, and informational ones before it.
    pub(super) head: Option<Arrived>,
    pub(super) early: VecDeque<Box<Head>>,
    /// Whether the head came that a body follows, and whether it is of a response that has none (RFC 9110 §6.4.1).
    pub(super) is_headed: bool,
    pub(super) is_bodiless: bool,
    /// What came of the body, from `taken` on.
    data: Vec<u8>,
    taken: usize,
    /// How long the body is said to be, and how much of it came.
    pub(super) declared: Option<u64>,
    pub(super) came: u64,
    /// How many frames in a row carried nothing.
    pub(super) empty: u32,
    pub(super) trailers: Option<Box<Fields>>,
    /// Whether the other side has said that nothing more comes, and whether this side has.
    pub(super) recv_over: bool,
    pub(super) send_over: bool,
    pub(super) broken: Option<Broken>,
    /// What the other side did wrong on it, if it was given up for that.
    pub(super) fault: Option<&'static str>,
    /// How much the other side may still send, of how much ahead, and how much was taken of which it was not told yet.
    pub(super) recv_window: i64,
    pub(super) ahead: u32,
    pub(super) owed: u32,
    /// How much may still be sent.
    pub(super) send_window: i64,
    /// Whether it stands in the queue of those that wait for room on the connection.
    pub(super) waits: bool,
    /// Whether it was its turn, of which it has not made use yet.
    pub(super) has_turn: bool,
    /// Whether the request is for the head of the response alone.
    pub(super) to_head: bool,
    /// Whether somebody has it.
    pub(super) is_held: bool,
    waker: Option<Waker>,
}

impl Stream {
    pub(super) fn new(ahead: u32, send_window: i64) -> Self {
        Self {
            head: None,
            early: VecDeque::new(),
            is_headed: false,
            is_bodiless: false,
            data: Vec::new(),
            taken: 0,
            declared: None,
            came: 0,
            empty: 0,
            trailers: None,
            recv_over: false,
            send_over: false,
            broken: None,
            fault: None,
            recv_window: ahead.into(),
            ahead,
            owed: 0,
            send_window,
            waits: false,
            has_turn: false,
            to_head: false,
            is_held: false,
            waker: None,
        }
    }

    /// Whether neither side has anything more to say.
    pub(super) fn is_closed(&self) -> bool {
        self.broken.is_some() || self.recv_over && self.send_over
    }

    /// Sees to it that somebody hears of the next change.
    pub(super) fn listen(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(own) => own.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Gives it up for this reason, unless it was before.
    pub(super) fn fail(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
        self.wake();
    }

    /// Keeps what came of the body.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.data.drain(..self.taken);
            self.taken = 0;
        }
        self.data.extend_from_slice(bytes);
    }

    /// Whether something waits to be taken.
    pub(super) fn has_waiting(&self) -> bool {
        self.taken < self.data.len()
    }

    /// Forgets what waits to be taken. Returns how much was never given credit for.
    pub(super) fn drop_waiting(&mut self) -> u32 {
        let waiting = self.data.len() - self.taken;
        (self.data, self.taken) = (Vec::new(), 0);
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// Takes what there is room for; no memory is held for nothing.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.data.get(self.taken..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        if let (Some(room), Some(rest)) = (buffer.get_mut(..bytes), rest.get(..bytes)) {
            room.copy_from_slice(rest);
        }
        self.taken += bytes;
        if self.taken == self.data.len() {
            self.taken = 0;
            self.data = Vec::new();
        }
        bytes
    }
}
