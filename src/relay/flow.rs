//! One direction of a relay: from a reader's socket to a writer's, copied while it is small, spliced while it is large.

use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::scratch::{Pipe, Scratch};
use super::wire::{Broken, Then, Wire};
use super::{Direction, Early, Meter};

/// After this many reads in a row that filled the buffer, a direction is spliced.
const FULL_READS: u8 = 3;
/// After this many splices in a row that brought little, a direction is copied again.
const SMALL_SPLICES: u8 = 8;
/// What counts as little for one splice: under this, a copy is cheaper.
const SMALL: usize = 16 * 1024;
/// How much one direction may move before the other connections of the worker have their turn.
const TURN: usize = 2 * 1024 * 1024;

/// What stopped a direction before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Reading failed.
    Read(Broken),
    /// Writing failed.
    Write(Broken),
}

/// One direction and where it stands.
#[derive(Debug)]
pub(super) struct Flow {
    direction: Direction,
    /// Bytes that were read and not taken yet; boxed, since most connections never have any.
    kept: Option<Box<Kept>>,
    /// Whether this direction is spliced, as long as there is a pipe for it.
    splices: bool,
    /// The pipe, while bytes go through it. One that waits for bytes has none.
    pipe: Option<Pipe>,
    /// How many bytes wait in the pipe.
    piped: usize,
    delivered: u64,
    /// Reads in a row that filled the buffer, or splices in a row that brought little.
    streak: u8,
    progress: Progress,
    /// Whether the writer's socket was told to send small writes at once. The first write goes out at once anyway, so a
    /// connection of one request saves the call.
    nodelay: bool,
    /// Whether the reader is known to have sent a reset, which the kernel reports once only: what reads as an end is none.
    broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The reader may send more.
    Open,
    /// The reader has sent its end; what it sent before is being delivered.
    Ended,
    /// All of it was delivered, and only the end itself was not passed on.
    AtEnd,
    /// The end was passed on as well.
    Finished,
    /// It stopped before its end.
    Faulted(Fault),
}

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    taken: usize,
    /// How many of them, from the first on, are no bytes of the reader's and do not count as delivered.
    ours: usize,
}

impl Flow {
    /// A direction in which something goes before what the reader sends from now on.
    pub(super) fn new(direction: Direction, early: Early) -> Self {
        let Early { bytes, ours } = early;
        Self {
            direction,
            kept: (!bytes.is_empty()).then(|| Box::new(Kept { bytes, taken: 0, ours })),
            splices: false,
            pipe: None,
            piped: 0,
            delivered: 0,
            streak: 0,
            progress: Progress::Open,
            // Clients' sockets inherit it from the listening socket.
            nodelay: matches!(direction, Direction::Down),
            broken: false,
        }
    }

    /// How many bytes the writer's socket has taken.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether the reader has sent its end.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.progress, Progress::Ended | Progress::AtEnd | Progress::Finished)
    }

    /// Whether nothing more will move in this direction.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.progress, Progress::AtEnd | Progress::Finished | Progress::Faulted(_))
    }

    /// What stopped it before its end.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self.progress {
            Progress::Faulted(fault) => Some(fault),
            Progress::Open | Progress::Ended | Progress::AtEnd | Progress::Finished => None,
        }
    }

    /// Writing to the reader failed before it had sent its end: it is gone, though what it sent before may still be read.
    pub(super) fn set_broken(&mut self) {
        self.broken = true;
    }

    /// Notices a reset of the reader while the writer takes nothing, when it would not be read from for a long time.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>, reader: &impl Wire) {
        let is_blocked = self.progress == Progress::Open && (self.kept.is_some() || self.piped > 0);
        if is_blocked && let Poll::Ready(errno) = reader.poll_reset(cx) {
            self.progress = Progress::Faulted(Fault::Read(Broken::System(errno)));
        }
    }

    /// Gives the pipe back.
    pub(super) fn release(&mut self, scratch: &Scratch) {
        if let Some(pipe) = self.pipe.take() {
            scratch.return_pipe(pipe, self.piped == 0);
        }
    }

    /// Whether all that the reader sent was delivered and only its end was not yet passed on.
    pub(super) fn is_at_end(&self) -> bool {
        self.progress == Progress::AtEnd
    }

    /// Passes the end on. When both directions are at their end, closing the sockets does so as well and saves two calls.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>, writer: &mut impl Wire) {
        if writer.poll_finish(cx).is_ready() {
            self.progress = Progress::Finished;
        }
    }

    /// Moves what can be moved now. When it returns with the direction neither finished nor faulted, the task is woken as
    /// soon as there is more to do.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Wire,
        writer: &mut impl Wire,
        scratch: &Scratch,
        meter: &impl Meter,
    ) {
        if self.is_done() {
            return;
        }
        let mut turn = 0;
        loop {
            let before = self.delivered;
            let step = self.poll_step(cx, reader, writer, scratch);
            let moved = usize::try_from(self.delivered - before).unwrap_or(usize::MAX);
            if moved > 0 {
                meter.moved(self.direction, moved);
                turn += moved;
            }
            match step {
                Poll::Pending => return,
                Poll::Ready(Err(fault)) => {
                    self.progress = Progress::Faulted(fault);
                    return;
                }
                Poll::Ready(Ok(())) if self.progress == Progress::AtEnd => return,
                Poll::Ready(Ok(())) if turn >= TURN => {
                    cx.waker().wake_by_ref();
                    return;
                }
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    /// Delivers what was read before; then reads more, unless the reader has ended.
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Wire,
        writer: &mut impl Wire,
        scratch: &Scratch,
    ) -> Poll<Result<(), Fault>> {
        ready!(writer.poll_flush(cx)).map_err(Fault::Write)?;
        ready!(self.poll_kept(cx, writer))?;
        ready!(self.poll_piped(cx, writer))?;
        if self.progress == Progress::Ended {
            self.progress = Progress::AtEnd;
            return Poll::Ready(Ok(()));
        }
        if !self.splices {
            self.release(scratch);
        } else if self.pipe.is_none() {
            self.pipe = scratch.take_pipe();
        }
        if self.pipe.is_some() {
            self.poll_splice(cx, reader, scratch)
        } else {
            self.poll_copy(cx, reader, writer, scratch)
        }
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>, writer: &mut impl Wire) -> Poll<Result<(), Fault>> {
        while let Some(kept) = &mut self.kept {
            let rest = kept.bytes.get(kept.taken..).unwrap_or_default();
            let sent = ready!(writer.poll_write(cx, rest, false)).map_err(Fault::Write)?;
            kept.taken += sent;
            let ours = sent.min(kept.ours);
            kept.ours -= ours;
            self.delivered += (sent - ours) as u64;
            if kept.taken >= kept.bytes.len() {
                self.kept = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_piped(&mut self, cx: &mut Context<'_>, writer: &mut impl Wire) -> Poll<Result<(), Fault>> {
        let (Some(pipe), Some(writer)) = (&self.pipe, writer.plain()) else {
            return Poll::Ready(Ok(()));
        };
        while self.piped > 0 {
            let sent = ready!(writer.poll_write_with(cx, |socket| {
                splice(&pipe.reader, None, socket, None, self.piped, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
            }))
            .map_err(|errno| Fault::Write(Broken::System(errno)))?;
            self.piped = self.piped.saturating_sub(sent);
            self.delivered += sent as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads through the worker's buffer and writes at once what was read; keeps what is not taken.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Wire,
        writer: &mut impl Wire,
        scratch: &Scratch,
    ) -> Poll<Result<(), Fault>> {
        scratch.with_buffer(|buffer| {
            let read = ready!(reader.poll_read(cx, buffer)).map_err(|broken| self.read_fault(broken))?;
            let full = read.bytes == buffer.len();
            if read.bytes > 0 {
                let last = read.then == Then::End && !self.broken;
                self.forward(cx, writer, buffer.get(..read.bytes).unwrap_or_default(), last)?;
            }
            match read.then {
                Then::End => return Poll::Ready(self.end()),
                Then::Broken(broken) => return Poll::Ready(Err(Fault::Read(broken))),
                Then::Unknown => {}
            }
            self.streak = if full { self.streak.saturating_add(1) } else { 0 };
            if self.streak >= FULL_READS {
                self.streak = 0;
                if reader.plain().is_some() && writer.plain().is_some() {
                    self.splices = true;
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Reading failed.
    fn read_fault(&self, broken: Broken) -> Fault {
        match broken {
            // The kernel reports a reset once, and it was the write that heard of it.
            Broken::Truncated if self.broken => Fault::Read(Broken::System(Errno::CONNRESET)),
            Broken::Truncated | Broken::Garbled | Broken::System(_) => Fault::Read(broken),
        }
    }

    /// The reader's socket has nothing more.
    fn end(&mut self) -> Result<(), Fault> {
        if self.broken {
            return Err(Fault::Read(Broken::System(Errno::CONNRESET)));
        }
        self.progress = Progress::Ended;
        Ok(())
    }

    fn forward(&mut self, cx: &mut Context<'_>, writer: &mut impl Wire, bytes: &[u8], last: bool) -> Result<(), Fault> {
        if !self.nodelay && self.delivered > 0 {
            self.nodelay = true;
            writer.set_nodelay();
        }
        let sent = match writer.poll_write(cx, bytes, last) {
            Poll::Ready(Ok(sent)) => sent,
            Poll::Ready(Err(broken)) => return Err(Fault::Write(broken)),
            Poll::Pending => 0,
        };
        self.delivered += sent as u64;
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.kept = Some(Box::new(Kept { bytes: rest.to_vec(), taken: 0, ours: 0 }));
        }
        Ok(())
    }

    /// Moves bytes from the reader's socket into the pipe; when there are none, gives the pipe back until there are.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Wire,
        scratch: &Scratch,
    ) -> Poll<Result<(), Fault>> {
        let (Some(pipe), Some(reader)) = (&self.pipe, reader.plain()) else {
            return Poll::Ready(Ok(()));
        };
        // A splice that brings less than asked for may have filled the pipe's slots and not emptied the socket, so
        // only EAGAIN means empty: hence the 0.
        let read = reader.poll_read_with(
            cx,
            |socket| splice(socket, None, &pipe.writer, None, Scratch::PIPE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK),
            0,
        );
        match read {
            Poll::Pending => {
                self.release(scratch);
                Poll::Pending
            }
            Poll::Ready(Err(errno)) => Poll::Ready(Err(Fault::Read(Broken::System(errno)))),
            Poll::Ready(Ok(read)) => {
                self.piped = read.bytes;
                if read.bytes == 0 {
                    return Poll::Ready(self.end());
                }
                self.streak = if read.bytes < SMALL { self.streak.saturating_add(1) } else { 0 };
                if self.streak >= SMALL_SPLICES {
                    self.streak = 0;
                    self.splices = false;
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}
