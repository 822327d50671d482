//! What a relay needs of the two ends it moves bytes between: a plain socket, or one with TLS on it.
//!
//! The relay is compiled for each pair of ends, so that a plain connection pays nothing for what TLS needs.

use std::task::{Context, Poll, ready};

use rustix::io::Errno;

use crate::net::stream::Stream;

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// How many bytes.
    pub bytes: usize,
    /// What is known of what follows them.
    pub then: Then,
}

/// What follows the bytes of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nobody knows yet.
    Unknown,
    /// The end of the stream, so that it can leave in one segment with the last bytes.
    End,
    /// No end but a failure.
    Broken(Broken),
}

/// Why an end can be used no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The system failed a call; a reset is among these.
    System(Errno),
    /// The connection was closed without the end that its protocol has (TLS without `close_notify`, RFC 8446 §6.1), so
    /// that nobody can tell whether something is missing.
    Truncated,
    /// What came is no TLS, or cannot be decrypted.
    Garbled,
}

/// The least room that a wire is lent that is not plain: it takes half of it for a record and half for what is in it.
pub const LEAST: usize = 40 * 1024;

/// One end of a relayed connection. A method that returns `Pending` has seen to it that the task is woken.
pub trait Wire {
    /// Reads into `buffer` what there is; no bytes come with [`Then::End`] only. A wire that is not [plain](Wire::plain) needs
    /// room for [`LEAST`] bytes, however few come.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read, Broken>>;

    /// Takes what it can of `bytes`. With `last`, the end follows at once and may leave with them.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<Result<usize, Broken>>;

    /// Waits until the kernel has all that was taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// Tells the other side that nothing more will come, and leaves it free to send. That it is gone is no failure.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Says what has to be said before the socket is closed in good order. That the other side is gone is no failure.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Whether the other side has sent a reset, for one who has no reason to read or write just now.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Errno>;

    /// Sends small writes at once from here on (`TCP_NODELAY`).
    fn set_nodelay(&self);

    /// Closes with a reset when it is dropped.
    fn abandon(&mut self);

    /// Why it broke, where more is known of it than [`Broken`] says.
    fn words(&self) -> Option<String>;

    /// The socket, if bytes go through it as they are and can be spliced.
    fn plain(&self) -> Option<&Stream>;
}

impl Wire for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read, Broken>> {
        let first = ready!(self.poll_recv(cx, buffer)).map_err(Broken::System)?;
        let mut bytes = first.bytes;
        if bytes == 0 {
            return Poll::Ready(Ok(Read { bytes, then: Then::End }));
        }
        let rest = buffer.get_mut(bytes..).filter(|rest| first.end_follows && !rest.is_empty());
        let then = match rest.map(|rest| self.try_recv(rest)) {
            // The end is known to follow and is fetched now.
            Some(Ok(0)) => Then::End,
            Some(Ok(more)) => {
                bytes += more;
                Then::Unknown
            }
            Some(Err(Errno::AGAIN | Errno::INTR)) | None => Then::Unknown,
            Some(Err(errno)) => Then::Broken(Broken::System(errno)),
        };
        Poll::Ready(Ok(Read { bytes, then }))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<Result<usize, Broken>> {
        self.poll_send(cx, bytes, last).map_err(Broken::System)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.finish();
        Poll::Ready(())
    }

    fn poll_farewell(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // Closing says it.
        Poll::Ready(())
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Errno> {
        Stream::poll_reset(self, cx)
    }

    fn set_nodelay(&self) {
        Stream::set_nodelay(self);
    }

    fn abandon(&mut self) {
        self.set_abandoned(true);
    }

    fn words(&self) -> Option<String> {
        None
    }

    fn plain(&self) -> Option<&Stream> {
        Some(self)
    }
}
