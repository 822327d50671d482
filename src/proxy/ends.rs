//! The two ends of a connection that is served: each is a plain socket or has TLS on it.

use std::task::{Context, Poll};

use rustix::io::Errno;

use crate::net::stream::Stream;
use crate::relay::{Broken, Read, Wire};
use crate::tls::{Engine, TlsStream, ToClient, ToServer};

/// One end.
pub(super) enum End<E> {
    Plain(Stream),
    Tls(Box<TlsStream<E>>),
}

/// The client's end.
pub(super) type ClientEnd = End<ToClient>;
/// The server's end.
pub(super) type ServerEnd = End<ToServer>;

impl<E: Engine> End<E> {
    /// The socket.
    pub(super) fn socket(&self) -> &Stream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    /// Whether to close with a reset when it is dropped.
    pub(super) fn set_abandoned(&mut self, abandoned: bool) {
        match self {
            Self::Plain(socket) => socket.set_abandoned(abandoned),
            Self::Tls(stream) => stream.set_abandoned(abandoned),
        }
    }
}

impl<E> std::fmt::Debug for End<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(socket) => socket.fmt(f),
            Self::Tls(stream) => stream.fmt(f),
        }
    }
}

macro_rules! either {
    ($end:expr, $wire:ident => $work:expr) => {
        match $end {
            Self::Plain($wire) => $work,
            Self::Tls($wire) => $work,
        }
    };
}

impl<E: Engine> Wire for End<E> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read, Broken>> {
        either!(self, wire => wire.poll_read(cx, buffer))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<Result<usize, Broken>> {
        either!(self, wire => wire.poll_write(cx, bytes, last))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        either!(self, wire => wire.poll_flush(cx))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, wire => wire.poll_finish(cx))
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, wire => wire.poll_farewell(cx))
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Errno> {
        match self {
            Self::Plain(socket) => Wire::poll_reset(socket, cx),
            Self::Tls(stream) => Wire::poll_reset(&**stream, cx),
        }
    }

    fn set_nodelay(&self) {
        self.socket().set_nodelay();
    }

    fn abandon(&mut self) {
        self.set_abandoned(true);
    }

    fn words(&self) -> Option<String> {
        either!(self, wire => wire.words())
    }

    fn plain(&self) -> Option<&Stream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(_) => None,
        }
    }
}
