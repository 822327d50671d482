//! Bytes both ways between two streams until both have finished or something stops them.
//!
//! The relay owns neither end and decides nothing: it moves bytes, keeps half-closed connections going, watches its
//! deadlines and returns a [`Report`]. Closing, and whether with a reset, is the caller's; [`Report::is_clean`] says which.

mod adapter;
mod conduit;
mod deadlines;
mod flow;
mod scratch;
mod wire;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::errno::is_disconnect;

pub use adapter::{WireIo, WireParts};
pub use conduit::Conduit;
use deadlines::{Deadlines, Due};
pub use deadlines::{FirstByte, Limits};
use flow::{Fault, Flow};
pub use scratch::Scratch;
pub use wire::{Broken, LEAST, Read, Then, Wire};

/// One of the two ends of a relayed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Who we connected to.
    Server,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Why a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides sent their end and all they sent was delivered; this one was first.
    Finished(Side),
    /// This side sent a reset.
    Reset(Side),
    /// This side closed its connection without the end that its protocol has.
    Truncated(Side),
    /// What this side sent is no TLS, or cannot be decrypted.
    Garbled(Side),
    /// This side had sent its end and then refused what was left to deliver to it.
    Closed(Side),
    /// Nothing moved for the idle timeout.
    Idle,
    /// One side had finished, and nothing moved for the half-close timeout.
    HalfClose,
    /// The connection reached the age it may have.
    MaxAge,
    /// It was called back, and the time it was given for that is over.
    Recalled,
    /// The system failed a read or write on this side in a way that is neither of the above.
    Failed(Side, Errno),
}

/// What a relay did and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why it ended.
    pub end: End,
    /// Bytes delivered from the client to the server.
    pub up: u64,
    /// Bytes delivered from the server to the client.
    pub down: u64,
}

impl Report {
    /// Whether both sides may be closed in the ordinary way; after any other end, a side that is still there must see a
    /// reset, or it would take a truncated stream for a whole one.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self.end, End::Finished(_))
    }
}

/// What goes to the server before anything else.
#[derive(Debug, Default)]
pub struct Early {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many of them, from the first on, are our own and not the client's: they are sent and not counted.
    pub ours: usize,
}

/// Told of bytes as they move, so that a connection that lasts for days is counted while it lasts.
pub trait Meter {
    /// These many bytes were delivered in this direction.
    fn moved(&self, direction: Direction, bytes: usize);

    /// These many bytes were delivered to the server that had been delivered to another one, or to no avail, before.
    fn repeated(&self, _bytes: usize) {}

    /// The server has said nothing for as long as it may; it goes on all the same.
    fn late(&self) {}
}

/// Calls a relay back from outside: by a moment, it is to be over.
#[derive(Debug, Default)]
pub struct Recall {
    by: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    /// Whether it is to be woken for what concerns not itself, but what it carries.
    looks_around: Cell<bool>,
}

impl Recall {
    /// The relay is to be over by `by`, or by an earlier moment it was given before.
    pub fn set(&self, by: Instant) {
        self.by.set(Some(self.by.get().map_or(by, |earlier| earlier.min(by))));
        self.wake();
    }

    /// Has whoever carries requests look around. All others sleep on: there may be many.
    pub fn look_around(&self) {
        if self.looks_around.get() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The moment by which it is to be over, if it was called back.
    #[must_use]
    pub fn by(&self) -> Option<Instant> {
        self.by.get()
    }

    /// Waits until it was called back and the moment has come: for what is not a relay yet.
    pub async fn due(&self) {
        let by = poll_fn(|cx| {
            self.listen(cx);
            self.by.get().map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        sleep_until(by).await;
    }

    /// Wakes the task that asked last when it is called back: a connection may go on in another task than it began in.
    pub fn listen(&self, cx: &Context<'_>) {
        self.looks_around.set(false);
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// The same, and when those who carry requests are to look around.
    pub fn listen_around(&self, cx: &Context<'_>) {
        self.listen(cx);
        self.looks_around.set(true);
    }
}

/// Relays between `client` and `server` until both have finished, one of them fails, a limit is reached or `recall` is due.
///
/// `early` goes to the server first. An end of one side is passed on to the other, which may go on (half-close). No buffer
/// is held while nothing moves.
/// Dropping the future stops it where it is.
pub fn relay(
    client: &mut impl Wire,
    server: &mut impl Wire,
    early: Early,
    limits: Limits,
    scratch: &Scratch,
    recall: &Recall,
    meter: &impl Meter,
) -> impl Future<Output = Report> {
    let mut relay = Relay {
        up: Flow::new(Direction::Up, early),
        down: Flow::new(Direction::Down, Early::default()),
        deadlines: Deadlines::new(limits, Instant::now()),
        first_end: None,
        refused: None,
    };
    // Not an `async fn`, which would hold its arguments twice: before it starts and while it runs.
    async move {
        let mut timer = pin!(sleep_until(relay.deadlines.next(false, None).0));
        let end = poll_fn(|cx| relay.poll(cx, client, server, scratch, recall, meter, timer.as_mut())).await;
        relay.up.release(scratch);
        relay.down.release(scratch);
        Report { end, up: relay.up.delivered(), down: relay.down.delivered() }
    }
}

struct Relay {
    up: Flow,
    down: Flow,
    deadlines: Deadlines,
    /// The side whose end came first.
    first_end: Option<Side>,
    /// The side that could not be written to, with the error and whether it had sent its own end before.
    refused: Option<Refused>,
}

#[derive(Clone, Copy)]
struct Refused {
    by: Side,
    broken: Broken,
    after_its_end: bool,
}

impl Relay {
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site; a struct of borrows would say the same with more words"
    )]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut impl Wire,
        server: &mut impl Wire,
        scratch: &Scratch,
        recall: &Recall,
        meter: &impl Meter,
        timer: Pin<&mut Sleep>,
    ) -> Poll<End> {
        recall.listen(cx);
        let before = self.up.delivered() + self.down.delivered();
        // The server's direction goes first: an end of the server is seen before a write that it will refuse.
        self.down.poll(cx, server, client, scratch, meter);
        self.note(Side::Server);
        self.up.poll(cx, client, server, scratch, meter);
        self.note(Side::Client);
        self.up.poll_reset(cx, client);
        self.down.poll_reset(cx, server);
        match self.end() {
            // Both, even if the first is not done: each says its own.
            Some(End::Finished(side)) => {
                let farewells = [client.poll_farewell(cx), server.poll_farewell(cx)];
                if farewells.iter().all(Poll::is_ready) {
                    return Poll::Ready(End::Finished(side));
                }
            }
            Some(end) => return Poll::Ready(end),
            None => {
                if self.up.is_at_end() {
                    self.up.poll_finish(cx, server);
                }
                if self.down.is_at_end() {
                    self.down.poll_finish(cx, client);
                }
            }
        }
        let (up, down) = (self.up.delivered(), self.down.delivered());
        if up + down != before {
            self.deadlines.spoken(up, down, Instant::now());
        }
        self.poll_deadlines(cx, recall, meter, timer)
    }

    /// Takes down what the flow that reads from `side` has met.
    fn note(&mut self, side: Side) {
        let (flow, opposite, writer) = match side {
            Side::Client => (&self.up, &mut self.down, Side::Server),
            Side::Server => (&self.down, &mut self.up, Side::Client),
        };
        if self.first_end.is_none() && flow.has_ended() {
            self.first_end = Some(side);
            self.deadlines.moved(Instant::now());
        }
        if let (Some(Fault::Write(broken)), None) = (flow.fault(), self.refused) {
            let after_its_end = opposite.has_ended();
            self.refused = Some(Refused { by: writer, broken, after_its_end });
            if !after_its_end {
                opposite.set_broken();
            }
        }
    }

    /// Why it is over, if it is.
    fn end(&self) -> Option<End> {
        // Whoever cannot be read from is gone; what it had sent before was read and handed on first.
        for (side, flow) in [(Side::Client, &self.up), (Side::Server, &self.down)] {
            if let Some(Fault::Read(broken)) = flow.fault() {
                return Some(end_of(side, broken));
            }
        }
        if !(self.up.is_done() && self.down.is_done()) {
            return None;
        }
        // Whoever refused bytes was still read from to its end, so that its last words reached the other side.
        Some(match self.refused {
            Some(Refused { by, after_its_end: true, broken: Broken::System(errno) }) if is_disconnect(errno) => {
                End::Closed(by)
            }
            Some(Refused { by, broken, .. }) => end_of(by, broken),
            None => End::Finished(self.first_end.unwrap_or(Side::Client)),
        })
    }

    fn poll_deadlines(
        &mut self,
        cx: &mut Context<'_>,
        recall: &Recall,
        meter: &impl Meter,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<End> {
        let (mut next, mut due) = self.deadlines.next(self.first_end.is_some(), recall.by());
        // A deadline that moved further away is looked at when the timer fires; only a nearer one sets it anew.
        if next < timer.deadline() {
            timer.as_mut().reset(next);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if next <= Instant::now() {
                match due {
                    Due::Idle => return Poll::Ready(End::Idle),
                    Due::HalfClose => return Poll::Ready(End::HalfClose),
                    Due::MaxAge => return Poll::Ready(End::MaxAge),
                    Due::Recall => return Poll::Ready(End::Recalled),
                    Due::FirstByte => {
                        self.deadlines.settle();
                        meter.late();
                        (next, due) = self.deadlines.next(self.first_end.is_some(), recall.by());
                    }
                }
            }
            timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}

/// The end that a broken side makes.
fn end_of(side: Side, broken: Broken) -> End {
    match broken {
        Broken::System(errno) if is_disconnect(errno) => End::Reset(side),
        Broken::System(errno) => End::Failed(side, errno),
        Broken::Truncated => End::Truncated(side),
        Broken::Garbled => End::Garbled(side),
    }
}
