//! What all relays of a worker borrow while they move bytes: one buffer, and pipes for splicing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::task::{Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::net::stream::Stream;

/// The buffer and the pipes that the relays of one worker share.
#[derive(Debug)]
pub struct Scratch {
    buffer: RefCell<Box<[u8]>>,
    idle_pipes: RefCell<Vec<Pipe>>,
    pipes: Cell<usize>,
    most_pipes: usize,
}

/// A pipe for bytes on their way from one socket to another inside the kernel.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
}

impl Scratch {
    /// The size of the buffer. Large enough that small traffic takes one read, small enough to stay in a core's cache.
    pub const BUFFER: usize = 64 * 1024;
    /// The size pipes are asked to have; an unprivileged process may get less (pipe(7), `pipe-max-size`).
    pub const PIPE: usize = 1024 * 1024;
    /// How many pipes are kept for the next bulk transfer when nobody uses them.
    const IDLE_PIPES: usize = 16;

    /// A buffer, and pipes up to `most_pipes` at once (two descriptors each); transfers that get none are copied.
    #[must_use]
    pub fn new(most_pipes: usize) -> Self {
        Self {
            buffer: RefCell::new(vec![0; Self::BUFFER].into_boxed_slice()),
            idle_pipes: RefCell::default(),
            pipes: Cell::new(0),
            most_pipes,
        }
    }

    /// What a client has already sent, up to the size of the buffer; nothing if it has sent nothing yet, or only its end.
    ///
    /// # Errors
    /// When it cannot be read from, as after a reset.
    pub fn read_early(&self, client: &Stream) -> Result<Vec<u8>, Errno> {
        self.with_buffer(|buffer| match client.try_recv(buffer) {
            Ok(bytes) => Ok(buffer.get(..bytes).unwrap_or_default().to_vec()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        })
    }

    /// Waits for more from a client and adds it to what it has sent so far; returns how much, and nothing at its end.
    ///
    /// # Errors
    /// When it cannot be read from, as after a reset.
    pub async fn read_more(&self, client: &Stream, so_far: &mut Vec<u8>) -> Result<usize, Errno> {
        poll_fn(|cx| {
            self.with_buffer(|buffer| {
                let read = ready!(client.poll_recv(cx, buffer))?;
                so_far.extend_from_slice(buffer.get(..read.bytes).unwrap_or_default());
                Poll::Ready(Ok(read.bytes))
            })
        })
        .await
    }

    /// Lends the buffer for the time of one call.
    pub fn with_buffer<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut self.buffer.borrow_mut())
    }

    /// An empty pipe, unless all are in use or the system gives none.
    pub(super) fn take_pipe(&self) -> Option<Pipe> {
        if let Some(pipe) = self.idle_pipes.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.pipes.get() >= self.most_pipes {
            return None;
        }
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // A pipe of the default size splices as well, only in smaller portions.
        let _granted = fcntl_setpipe_size(&writer, Self::PIPE);
        self.pipes.set(self.pipes.get() + 1);
        Some(Pipe { reader, writer })
    }

    /// Takes a pipe back; one that still holds bytes of its connection is closed, never reused.
    pub(super) fn return_pipe(&self, pipe: Pipe, is_empty: bool) {
        let mut idle = self.idle_pipes.borrow_mut();
        if is_empty && idle.len() < Self::IDLE_PIPES {
            idle.push(pipe);
        } else {
            self.pipes.set(self.pipes.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_reused_only_when_empty() {
        let scratch = Scratch::new(2);
        let first = scratch.take_pipe().unwrap();
        let second = scratch.take_pipe().unwrap();
        assert!(scratch.take_pipe().is_none());
        scratch.return_pipe(first, true);
        scratch.return_pipe(second, false);
        assert_eq!(scratch.idle_pipes.borrow().len(), 1);
        assert_eq!(scratch.pipes.get(), 1);
    }
}
