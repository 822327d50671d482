//! A connection of HTTP/1 from a client: a request comes in, a response goes out, and then the next.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::answer::Own;
use super::body::{Body, BodyFault, Outgoing, Piece};
use super::buffers::{Inbound, Outbound};
use super::forward::{self, Pen};
use super::server::send_piece;
use super::sides::{ResponseHead, first_line};
use crate::message::framing::Length;
use crate::message::line::Limits;
use crate::message::version::Version;
use crate::proxy::ends::ClientEnd;
use crate::relay::{Broken, Scratch, Wire};

/// A connection from a client.
#[derive(Debug)]
pub(super) struct Http1Client {
    pub(super) end: ClientEnd,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// What is still to come of the request's body.
    pub(super) body: Body,
    /// Whether the response's body goes out in chunks.
    chunks: bool,
    /// The version of the request.
    pub(super) version: Version,
    /// Whether the connection can have another request after the present one.
    pub(super) persists: bool,
    /// When it has to be closed at the next opportunity, if it has to.
    pub(super) retires: Option<Instant>,
}

impl Http1Client {
    pub(super) fn new(end: ClientEnd, early: Vec<u8>, retires: Option<Instant>) -> Self {
        Self {
            end,
            inbound: Inbound::new(early),
            outbound: Outbound::default(),
            body: Body::Over,
            chunks: false,
            version: Version::Http11,
            persists: true,
            retires,
        }
    }

    /// Whether it has reached the age it may have.
    pub(super) fn is_aged(&self) -> bool {
        self.retires.is_some_and(|retires| retires <= Instant::now())
    }

    /// The response that follows is the last, if the connection is called back or has reached its age meanwhile.
    pub(super) fn retire(&mut self, called_back: bool) {
        self.persists &= !called_back && !self.is_aged();
    }

    /// Waits until the client has said something, be it the end. A client that waits holds no buffer.
    pub(super) fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.inbound.has_news() {
            return Poll::Ready(());
        }
        match &mut self.end {
            ClientEnd::Plain(socket) => socket.poll_readable(cx),
            // What the system tells once only is met again by who reads.
            ClientEnd::Tls(stream) => stream.poll_spoken(cx).map(|_| ()),
        }
    }

    /// Reads what there is of a head to `take`; no bytes mean the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        take: impl FnOnce(&[u8]),
    ) -> Poll<Result<usize, Broken>> {
        let Self { end, inbound, .. } = self;
        inbound.poll_head(cx, end, scratch, take).map_ok(|(read, _)| read)
    }

    /// Reads more of the request's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        limits: &Limits,
    ) -> Poll<Result<Piece, BodyFault>> {
        let Self { end, inbound, body, .. } = self;
        body.poll_read(cx, end, inbound, buffer, limits)
    }

    /// Begins a response: its head goes out with the first of its body. To one whose request was not read to its end, it is
    /// the last.
    pub(super) fn respond(&mut self, of: &ResponseHead<'_>) {
        let length = match of.length {
            Length::Unknown | Length::UntilClose if self.version == Version::Http10 => Length::UntilClose,
            Length::UntilClose => Length::Unknown,
            length @ (Length::None | Length::Exactly(_) | Length::Unknown) => length,
        };
        self.chunks = length == Length::Unknown;
        self.persists &= of.uploaded && length != Length::UntilClose;
        let head = self.outbound.writer();
        first_line(of.response, head);
        forward::response_head(of, head);
        // What a response without a body says of it is for the client to know (RFC 9110 §8.6).
        forward::framing(of.length_without_body().map_or(length, Length::Exactly), head);
        if let Some(connection) = self.connection() {
            self.outbound.writer().field(b"Connection", connection);
        }
        self.outbound.writer().extend_from_slice(b"\r\n");
    }

    /// Answers in place of a server. To one whose request was not read to its end, it is the last.
    pub(super) fn answer(&mut self, own: &Own<'_>, to_head: bool) {
        self.persists &= self.body.is_over();
        let connection = self.connection();
        own.write(to_head, connection, self.outbound.writer());
    }

    /// What is said of the connection where the version does not say it.
    fn connection(&self) -> Option<&'static [u8]> {
        match (self.version, self.persists) {
            (Version::Http10, true) => Some(b"keep-alive"),
            (Version::Http11 | Version::Http2, true) => None,
            (Version::Http10 | Version::Http11 | Version::Http2, false) => Some(b"close"),
        }
    }

    /// Sends a piece of the response's body. The end of the connection leaves with the last one, if it follows.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, piece: Outgoing<'_>) -> Result<(), Broken> {
        let Self { end: wire, outbound, chunks, persists, .. } = self;
        let last = piece.last && !*persists;
        send_piece(cx, wire, outbound, piece, *chunks, last)
    }

    /// Whether bytes of the response's body can go out inside the kernel.
    pub(super) fn splices(&self) -> bool {
        !self.chunks && self.end.plain().is_some()
    }

    /// Whether its leaving could be noticed without asking the system to watch it.
    pub(super) fn is_watched(&self) -> bool {
        self.end.socket().is_watched()
    }

    /// Notices that the client has left while nothing is read from it: by a reset, or by an end where no further request
    /// waits. A client that closes its half only is taken for one that left, as most servers do.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let may_close = self.body.is_over() && self.inbound.is_empty();
        // Whatever comes then, be it the end or a reset, can be read.
        if may_close && self.end.socket().poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        if let Poll::Ready(_errno) = self.end.poll_reset(cx) {
            return Poll::Ready(Gone::Reset);
        }
        if may_close {
            ready!(self.end.socket().poll_closed(cx));
            return Poll::Ready(Gone::Closed);
        }
        Poll::Pending
    }
}

/// How a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Reset,
    Closed,
}
