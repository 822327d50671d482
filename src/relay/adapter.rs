//! A [`Wire`] for those who know tokio's traits: what speaks HTTP reads and writes through this.
//!
//! Everything is read through a buffer that all connections of a thread share, since a [`Wire`] may need more room than it
//! is offered (a record of TLS is decrypted whole) and room that was never written to costs more to prepare than a few
//! bytes cost to copy. A connection keeps bytes of its own only when more came than was asked for.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{Broken, LEAST, Read, Then, Wire};

/// The size of the buffer that is read to and gathered in.
const SHARED: usize = 64 * 1024;
/// How much is gathered before it is written: what the largest record of TLS holds. A slice of this size is not copied.
const GATHERED: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED].into_boxed_slice());
}

/// A wire with tokio's [`AsyncRead`] and [`AsyncWrite`]. Shutting it down is the half-close of its protocol; reading goes on.
///
/// Errors are those of the system, and where the wire knows better: [`io::ErrorKind::UnexpectedEof`] for a connection that
/// was closed without the end its protocol has, [`io::ErrorKind::InvalidData`] for what cannot be decrypted.
#[derive(Debug)]
pub struct WireIo<W> {
    wire: W,
    /// What was read and not yet asked for, from `taken` on. Holds no memory when that is nothing.
    kept: Vec<u8>,
    taken: usize,
    /// What follows that.
    then: Then,
}

/// What a [`WireIo`] is taken apart into.
#[derive(Debug)]
pub struct WireParts<W> {
    /// The wire.
    pub wire: W,
    /// What was read from it and never asked for: it comes before all else.
    pub kept: Vec<u8>,
    /// The failure that was met behind that, which the system tells once only.
    pub broken: Option<Broken>,
}

impl<W: Wire> WireIo<W> {
    /// Wraps a wire.
    #[must_use]
    pub fn new(wire: W) -> Self {
        Self { wire, kept: Vec::new(), taken: 0, then: Then::Unknown }
    }

    /// The same for one that something was read from before.
    #[must_use]
    pub fn with_kept(wire: W, kept: Vec<u8>) -> Self {
        Self { kept, ..Self::new(wire) }
    }

    /// The wire.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.wire
    }

    /// The wire. What is read from it directly may come after what was read and not yet asked for.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// The wire, and what would be lost without it.
    #[must_use]
    pub fn into_inner(self) -> WireParts<W> {
        let Self { wire, mut kept, taken, then } = self;
        kept.drain(..taken.min(kept.len()));
        let broken = match then {
            Then::Broken(broken) => Some(broken),
            Then::Unknown | Then::End => None,
        };
        WireParts { wire, kept, broken }
    }

    /// Hands out what was kept.
    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let rest = self.kept.get(self.taken..).unwrap_or_default();
        let bytes = rest.len().min(into.remaining());
        into.put_slice(rest.get(..bytes).unwrap_or_default());
        self.taken += bytes;
        if self.taken >= self.kept.len() {
            self.kept = Vec::new();
            self.taken = 0;
        }
    }

    fn error(&self, broken: Broken) -> io::Error {
        let words = |otherwise: &str| self.wire.words().unwrap_or_else(|| otherwise.to_owned());
        match broken {
            Broken::System(errno) => errno.into(),
            Broken::Truncated => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "closed without the end that its protocol has")
            }
            Broken::Garbled => io::Error::new(io::ErrorKind::InvalidData, words("what came cannot be decrypted")),
        }
    }
}

impl<W: Wire + Unpin> AsyncRead for WireIo<W> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.kept.is_empty() {
            this.take(into);
            return Poll::Ready(Ok(()));
        }
        match this.then {
            Then::Unknown => {}
            Then::End => return Poll::Ready(Ok(())),
            Then::Broken(broken) => return Poll::Ready(Err(this.error(broken))),
        }
        let asked = into.remaining();
        let lent = if this.wire.plain().is_some() { asked } else { asked.saturating_mul(2).max(LEAST) };
        BUFFER.with_borrow_mut(|buffer| {
            let lent = buffer.get_mut(..lent.min(SHARED)).unwrap_or_default();
            let Read { bytes, then } = match ready!(this.wire.poll_read(cx, lent)) {
                Ok(read) => read,
                Err(broken) => {
                    this.then = Then::Broken(broken);
                    return Poll::Ready(Err(this.error(broken)));
                }
            };
            this.then = then;
            let (now, later) = lent.get(..bytes).unwrap_or_default().split_at(bytes.min(asked));
            into.put_slice(now);
            if !later.is_empty() {
                this.kept = later.to_vec();
            }
            Poll::Ready(match then {
                Then::Broken(broken) if bytes == 0 => Err(this.error(broken)),
                Then::Broken(_) | Then::Unknown | Then::End => Ok(()),
            })
        })
    }
}

impl<W: Wire + Unpin> AsyncWrite for WireIo<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.wire.poll_write(cx, bytes, false).map_err(|broken| this.error(broken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(first) = slices.iter().find(|slice| !slice.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        if let Some(stream) = this.wire.plain() {
            // sendmsg(2) takes 1024 slices; whoever has more comes again.
            let slices = slices.get(..slices.len().min(1024)).unwrap_or_default();
            let send = |socket: std::os::fd::BorrowedFd<'_>| {
                sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
            };
            return stream.poll_write_with(cx, send).map_err(io::Error::from);
        }
        if first.len() >= GATHERED {
            return this.wire.poll_write(cx, first, false).map_err(|broken| this.error(broken));
        }
        // In one record and one segment, and not in as many as there are slices.
        let written = BUFFER.with_borrow_mut(|buffer| {
            let mut gathered = 0;
            for slice in slices {
                let bytes = slice.len().min(GATHERED - gathered);
                if let (Some(room), Some(bytes)) = (buffer.get_mut(gathered..gathered + bytes), slice.get(..bytes)) {
                    room.copy_from_slice(bytes);
                }
                gathered += bytes;
            }
            this.wire.poll_write(cx, buffer.get(..gathered).unwrap_or_default(), false)
        });
        written.map_err(|broken| this.error(broken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wire.poll_flush(cx).map_err(|broken| this.error(broken))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire.poll_finish(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::ServerAddr;
    use crate::net::dial::{First, dial};
    use crate::net::stream::Stream;
    use std::path::Path;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (WireIo<Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ServerAddr::parse(&listener.local_addr().unwrap().to_string(), Path::new("/")).unwrap();
        let ours = dial(&address, None, Duration::from_secs(5), First::Us).await.unwrap();
        (WireIo::new(ours), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"a question").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "a question");
        theirs.write_all(b"an answer").await.unwrap();
        drop(theirs);
        // A byte at a time: nothing is read that was not asked for.
        let mut answer = Vec::new();
        while let Ok(byte) = ours.read_u8().await {
            answer.push(byte);
        }
        assert_eq!(answer, b"an answer");
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
        assert!(ours.into_inner().kept.is_empty());
    }

    #[tokio::test]
    async fn room_for_nothing_is_no_end() {
        let (mut ours, mut theirs) = pair().await;
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(ours.read(&mut []).await.unwrap(), 0);
        assert_eq!(ours.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_reset_is_an_error_and_no_end() {
        let (mut ours, theirs) = pair().await;
        theirs.set_zero_linger().unwrap();
        drop(theirs);
        for _ in 0..2 {
            let error = ours.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        assert!(matches!(ours.into_inner().broken, Some(Broken::System(_))));
    }

    #[tokio::test]
    async fn slices_arrive_in_their_order_however_many_there_are() {
        let (mut ours, mut theirs) = pair().await;
        let parts: Vec<Vec<u8>> = (0..3000_u32).map(|n| n.to_be_bytes().repeat(20)).collect();
        let whole = parts.concat();
        let sending = async {
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                let sent = ours.write_vectored(rest).await.unwrap();
                IoSlice::advance_slices(&mut rest, sent);
            }
            ours.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (_, read) = tokio::join!(sending, theirs.read_to_end(&mut heard));
        read.unwrap();
        assert!(heard == whole, "{} of {} bytes arrived in order", heard.len(), whole.len());
    }
}
