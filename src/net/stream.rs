//! A connected stream socket, TCP or unix, driven by readiness and holding no buffer.
//!
//! It makes the calls the relay needs and no others: a read is tried only when the kernel has said that there is something
//! to read, a write is tried at once, and a short read counts as "nothing more for now" without asking the kernel again.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay, socket_error};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFdReadyGuard;

use super::sockopt::Watched;

/// A connected stream socket. The runtime of the worker that owns it watches it from the first time that somebody waits for
/// it.
#[derive(Debug)]
pub struct Stream {
    socket: Watched,
    /// Whether a reset was met while connecting. The kernel reports it once only: what reads as an end is none.
    reset: bool,
    /// Whether to close with a reset.
    abandoned: bool,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// How many bytes; zero is the end of the stream.
    pub bytes: usize,
    /// Whether the other side is known to have finished, so that what follows these bytes is the end.
    pub end_follows: bool,
}

impl Stream {
    /// Takes a connected, non-blocking socket.
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self { socket: Watched::new(socket), reset: false, abandoned: false }
    }

    /// Whether anybody has waited for it. Until then its worker does not hear what the other side does.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.socket.is_watched()
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, RawFd>>> {
        self.socket.watch()?.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, RawFd>>> {
        self.socket.watch()?.poll_write_ready(cx)
    }

    /// Reads once the kernel says that there is something to read.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read, Errno>> {
        let room = buffer.len();
        self.poll_read_with(
            cx,
            |socket| rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(n, _)| n),
            room,
        )
    }

    /// Reads with `read` once the kernel says that there is something to read; `read` returns how much it got, and
    /// anything under `full` means that it took all there was.
    pub fn poll_read_with(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
        full: usize,
    ) -> Poll<Result<Read, Errno>> {
        loop {
            let mut guard = ready!(self.poll_read_ready(cx)).map_err(errno_of)?;
            let closed = guard.ready().is_read_closed();
            match read(self.socket.as_fd()) {
                Ok(0) if self.reset => return Poll::Ready(Err(Errno::CONNRESET)),
                Ok(bytes) => {
                    if bytes < full {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(Read { bytes, end_follows: closed }));
                }
                Err(Errno::AGAIN) if closed => return Poll::Ready(Err(Errno::CONNRESET)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno)),
            }
        }
    }

    /// Reads without waiting and without asking whether there is anything to read.
    ///
    /// # Errors
    /// `EAGAIN` when there is nothing.
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match rustix::net::recv(&self.socket, buffer, RecvFlags::empty()) {
            Ok((0, _)) if self.reset => Err(Errno::CONNRESET),
            read => read.map(|(n, _)| n),
        }
    }

    /// Writes what the kernel takes of `bytes`. With `more`, the kernel holds a last partial segment back because the end
    /// of the stream or further bytes follow at once (`MSG_MORE`, tcp(7)).
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8], more: bool) -> Poll<Result<usize, Errno>> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        self.poll_write_with(cx, |socket| rustix::net::send(socket, bytes, flags))
    }

    /// Writes with `write`, at once if the kernel lets it and else as soon as it does.
    pub fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<Result<usize, Errno>> {
        match write(self.socket.as_fd()) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return Poll::Ready(done),
        }
        loop {
            let mut guard = ready!(self.poll_write_ready(cx)).map_err(errno_of)?;
            match write(self.socket.as_fd()) {
                Err(Errno::AGAIN) if guard.ready().is_write_closed() => return Poll::Ready(Err(Errno::PIPE)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Whether the other side has sent a reset, for one who has no reason to read or write just now; if not, the task is
    /// woken when it does. The error is told once.
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Errno> {
        loop {
            let Ok(mut guard) = ready!(self.poll_write_ready(cx)) else {
                return Poll::Pending;
            };
            if guard.ready().is_write_closed() {
                // Closed both ways in good order, or broken: the socket knows.
                return match socket_error(&self.socket) {
                    Ok(Err(errno)) | Err(errno) => Poll::Ready(errno),
                    Ok(Ok(())) => Poll::Pending,
                };
            }
            // Writes are tried before they are waited for, so that nothing is lost by forgetting that one is possible.
            guard.clear_ready();
        }
    }

    /// Waits until a connection attempt is over and returns how it went (connect(2), `EINPROGRESS`). A server that accepted
    /// and sent a reset since has connected: what it sent before can still be read, and then the reset.
    pub(super) async fn connected(&mut self) -> io::Result<()> {
        let guard = self.socket.watch()?.writable().await?;
        // A socket that failed is reported as closed for writing; one that is merely writable has connected, and
        // needs no further question.
        if !guard.ready().is_write_closed() {
            return Ok(());
        }
        match socket_error(&self.socket)? {
            Ok(()) => Ok(()),
            // An attempt that is answered with a reset fails with ECONNREFUSED (RFC 9293 §3.10.7.3).
            Err(Errno::CONNRESET | Errno::PIPE) => {
                self.reset = true;
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Tells the other side that nothing more will come, and keeps reading from it. That it is gone already is no error.
    pub fn finish(&self) {
        let _gone = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }

    /// Sends small writes at once instead of waiting for the acknowledgement of earlier ones (`TCP_NODELAY`, tcp(7)); a
    /// unix socket does so anyway.
    pub fn set_nodelay(&self) {
        let _unix_socket = set_tcp_nodelay(&self.socket, true);
    }

    /// Reads and throws away what the other side still sends, up to its end or `most` bytes.
    pub async fn discard(&self, most: usize) {
        let mut seen = 0;
        let mut buffer = [0; 1024];
        while seen < most {
            match poll_fn(|cx| self.poll_recv(cx, &mut buffer)).await {
                Ok(Read { bytes: 0, .. }) | Err(_) => return,
                Ok(Read { bytes, .. }) => seen += bytes,
            }
        }
    }

    /// Whether there is something to read, be it the end; if not, the task is woken when there is.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(|_| ())
    }

    /// Whether the kernel has said that there is something to read, be it the end. Nobody is woken when there is.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.socket.watch().is_ok_and(|watch| watch.try_io(Interest::READABLE, |_| Ok(())).is_ok())
    }

    /// Waits until the other side has closed, for one who does not read just now. Not noticed while bytes wait to be read.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_read_ready(cx)) {
            Ok(guard) if !guard.ready().is_read_closed() => Poll::Pending,
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    /// Whether bytes wait to be read.
    #[must_use]
    pub fn holds_bytes(&self) -> bool {
        let mut byte = [0];
        let peeked = rustix::net::recv(&self.socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked.is_ok_and(|(bytes, _)| bytes > 0)
    }

    /// Whether to close with a reset when it is dropped, so that the other side cannot take the end for a clean one
    /// (`SO_LINGER` of zero, socket(7)).
    pub fn set_abandoned(&mut self, abandoned: bool) {
        self.abandoned = abandoned;
    }

    /// Closes with a reset.
    pub fn reset(mut self) {
        self.abandoned = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.abandoned {
            let _unix_socket = set_socket_linger(&self.socket, Some(std::time::Duration::ZERO));
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The `errno` of an error of the runtime, which has none when it is shutting down.
fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::CANCELED)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::task::Waker;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_watched_from_when_somebody_first_waits_for_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let streams = [ours, theirs].map(|socket| {
            socket.set_nonblocking(true).unwrap();
            Stream::new(OwnedFd::from(socket))
        });
        let [ours, theirs] = &streams;
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(ours.poll_send(&mut cx, b"abc", false), Poll::Ready(Ok(3)));
        let mut buffer = [0; 8];
        assert_eq!(theirs.try_recv(&mut buffer), Ok(3));
        assert!(!ours.is_watched() && !theirs.is_watched());
        assert!(theirs.poll_readable(&mut cx).is_pending());
        assert!(theirs.is_watched());
        ours.finish();
        poll_fn(|cx| theirs.poll_closed(cx)).await;
    }
}
