//! A pipe that is lent to whoever moves many bytes from one socket to another inside the kernel (splice(2)).

use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::scratch::{Pipe, Scratch};
use crate::net::stream::Stream;

/// A lent pipe. It goes back when this is dropped; what is still in it is lost then.
#[derive(Debug)]
pub struct Conduit<'a> {
    scratch: &'a Scratch,
    pipe: Option<Pipe>,
    /// How many bytes are in it.
    piped: usize,
}

impl<'a> Conduit<'a> {
    /// One of the worker's pipes, unless all are in use.
    #[must_use]
    pub fn lend(scratch: &'a Scratch) -> Option<Self> {
        Some(Self { scratch, pipe: Some(scratch.take_pipe()?), piped: 0 })
    }

    /// Takes in what there is, up to `most` bytes and what has room; none is the end of the stream. Only when all that was
    /// taken in before has gone out.
    ///
    /// # Errors
    /// When reading failed.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream, most: usize) -> Poll<Result<usize, Errno>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(0)) };
        let most = most.min(Scratch::PIPE);
        // A splice that brings less than asked for may have filled the pipe's slots and not emptied the socket, so only
        // EAGAIN means empty: hence the 0.
        let read = from.poll_read_with(
            cx,
            |socket| splice(socket, None, &pipe.writer, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK),
            0,
        );
        let bytes = ready!(read)?.bytes;
        self.piped = bytes;
        Poll::Ready(Ok(bytes))
    }

    /// Hands on what was taken in, and waits until all has gone.
    ///
    /// # Errors
    /// When writing failed.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<Result<(), Errno>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(())) };
        while self.piped > 0 {
            let piped = self.piped;
            let sent = ready!(to.poll_write_with(cx, |socket| {
                splice(&pipe.reader, None, socket, None, piped, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
            }))?;
            self.piped = piped.saturating_sub(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Conduit<'_> {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.scratch.return_pipe(pipe, self.piped == 0);
        }
    }
}
