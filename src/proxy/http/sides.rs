//! The two sides of an exchange, whatever version each speaks.

use std::task::{Context, Poll};

use super::answer::Own;
use super::body::{BodyFault, Outgoing, Piece};
use super::buffers::Stash;
use super::client::{Gone, Http1Client};
use super::copy::Nobody;
use super::forward;
use super::http2::{Client2 as Http2Client, Http2Server};
use super::server::{Http1Server, NoHead};
use crate::config::model::http::HeaderRules;
use crate::message::answer::phrase;
use crate::message::compress::Change;
use crate::message::decimal::Decimal;
use crate::message::framing::{self, Length};
use crate::message::head::Fields;
use crate::message::line::Limits;
use crate::message::response::Response;
use crate::message::version::Version;
use crate::relay::{Broken, Scratch};

/// Towards the client.
pub(super) enum Client<'a> {
    /// A connection of HTTP/1.
    Http1(&'a mut Http1Client),
    /// A stream of HTTP/2.
    Http2(&'a mut Http2Client),
    /// Nobody: it is a copy.
    Nobody(&'a mut Nobody),
}

/// Towards the server.
pub(super) enum Server {
    /// A connection of HTTP/1.
    Http1(Box<Http1Server>),
    /// A stream of HTTP/2.
    Http2(Box<Http2Server>),
}

/// What a client gets to see of a server's response before its body.
pub(super) struct ResponseHead<'a> {
    pub(super) response: &'a Response,
    /// What the route asks for.
    pub(super) rules: &'a HeaderRules,
    /// What follows from how the body is changed on its way.
    pub(super) changes: &'a [Change],
    /// A cookie of ours.
    pub(super) set_cookie: Option<&'a str>,
    /// How long the body is that follows.
    pub(super) length: Length,
    /// Whether the request was for the head alone.
    pub(super) to_head: bool,
    /// Whether the request was read to its end.
    pub(super) uploaded: bool,
}

impl ResponseHead<'_> {
    /// The length of the body that there would be, of a response that has none and says so.
    pub(super) fn length_without_body(&self) -> Option<u64> {
        let is_said = self.length == Length::None && (self.to_head || self.response.status == 304);
        if !is_said || self.changes.contains(&Change::Remove("content-length")) {
            return None;
        }
        framing::content_length(&self.response.fields).ok().flatten()
    }
}

impl Client<'_> {
    /// Whether there is none, since the request is a copy.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody(_))
    }

    /// Whether the request was read to its end.
    pub(super) fn body_is_over(&mut self) -> bool {
        match self {
            Self::Http1(client) => client.body.is_over(),
            Self::Http2(client) => client.stream.is_over(),
            Self::Nobody(client) => client.body_is_over(),
        }
    }

    /// Reads more of the request's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        trailers: &Limits,
    ) -> Poll<Result<Piece, BodyFault>> {
        match self {
            Self::Http1(client) => client.poll_body(cx, buffer, trailers),
            Self::Http2(client) => client.stream.poll_read(cx, buffer, trailers),
            Self::Nobody(client) => client.poll_body(cx, buffer),
        }
    }

    /// The trailer section of the request, once its body is over.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Http1(client) => client.body.trailers(),
            Self::Http2(client) => client.stream.trailers(),
            Self::Nobody(client) => client.trailers(),
        }
    }

    /// Gives it a buffer that the response can be written to.
    pub(super) fn lend(&mut self, stash: &Stash) {
        match self {
            Self::Http1(client) => client.outbound.borrow_buffer(stash),
            // Those write to the buffer of their connection, or to none.
            Self::Http2(_) | Self::Nobody(_) => {}
        }
    }

    /// Passes an informational response on, to a client that knows of such.
    pub(super) fn inform(&mut self, cx: &mut Context<'_>, response: &Response) {
        match self {
            Self::Http1(client) if client.version == Version::Http10 => {}
            Self::Http1(client) => {
                let head = client.outbound.writer();
                first_line(response, head);
                forward::response_fields(response, &HeaderRules::default(), head);
                head.extend_from_slice(b"\r\n");
                let Http1Client { end, outbound, .. } = &mut **client;
                // That it is gone is met again by whoever reads or writes next.
                let _later = outbound.poll_flush(cx, end, false);
            }
            Self::Http2(client) => client.inform(response),
            Self::Nobody(_) => {}
        }
    }

    /// Makes the response that follows the last one, if the connection is called back or has reached its age meanwhile.
    pub(super) fn retire(&mut self, called_back: bool) {
        match self {
            Self::Http1(client) => client.retire(called_back),
            // Its connection says so to all of its streams.
            Self::Http2(_) | Self::Nobody(_) => {}
        }
    }

    /// Begins a response: its body follows.
    pub(super) fn respond(&mut self, head: &ResponseHead<'_>) {
        match self {
            Self::Http1(client) => client.respond(head),
            Self::Http2(client) => client.respond(head),
            Self::Nobody(_) => {}
        }
    }

    /// Answers in place of a server.
    pub(super) fn answer(&mut self, own: &Own<'_>, to_head: bool) {
        match self {
            Self::Http1(client) => client.answer(own, to_head),
            Self::Http2(client) => client.answer(own, to_head),
            Self::Nobody(_) => {}
        }
    }

    /// Whether what is said next could be taken back as a whole, for as long as nothing follows it.
    pub(super) fn may_unsend(&self) -> bool {
        match self {
            Self::Http1(client) => client.outbound.is_empty(),
            Self::Http2(_) | Self::Nobody(_) => false,
        }
    }

    /// Takes back what was said. Whether nothing of it has left.
    pub(super) fn unsend(&mut self) -> bool {
        match self {
            Self::Http1(client) => client.outbound.withdraw(),
            Self::Http2(_) | Self::Nobody(_) => false,
        }
    }

    /// Waits until the client has taken what was sent before.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::Http1(client) => {
                let Http1Client { end, outbound, .. } = &mut **client;
                outbound.poll_flush(cx, end, false)
            }
            Self::Http2(client) => client.stream.poll_ready(cx),
            Self::Nobody(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether it has not taken all that was sent.
    pub(super) fn is_blocked(&self) -> bool {
        match self {
            Self::Http1(client) => !client.outbound.is_empty(),
            Self::Http2(client) => !client.stream.is_empty(),
            Self::Nobody(_) => false,
        }
    }

    /// Sends a piece of the response's body.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, piece: Outgoing<'_>) -> Result<(), Broken> {
        match self {
            Self::Http1(client) => client.send(cx, piece),
            Self::Http2(client) => client.stream.send(cx, piece.bytes(), piece.last, piece.trailers),
            Self::Nobody(client) => client.take(piece.len()),
        }
    }

    /// Whether bytes of a body can go to it inside the kernel.
    pub(super) fn splices(&self) -> bool {
        match self {
            Self::Http1(client) => client.splices(),
            Self::Http2(_) | Self::Nobody(_) => false,
        }
    }

    /// Whether its leaving can be noticed at no cost.
    pub(super) fn is_watched(&self) -> bool {
        match self {
            Self::Http1(client) => client.is_watched(),
            Self::Http2(_) | Self::Nobody(_) => true,
        }
    }

    /// Notices that the client has left.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self {
            Self::Http1(client) => client.poll_gone(cx),
            Self::Http2(client) => client.poll_gone(cx),
            Self::Nobody(_) => Poll::Pending,
        }
    }
}

impl Server {
    /// Waits until the server has taken what was sent before.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::Http1(server) => {
                let Http1Server { end, outbound, .. } = &mut **server;
                outbound.poll_flush(cx, end, false)
            }
            Self::Http2(server) => server.stream.poll_ready(cx),
        }
    }

    /// Whether it has not taken all that was sent.
    pub(super) fn is_blocked(&self) -> bool {
        match self {
            Self::Http1(server) => !server.outbound.is_empty(),
            Self::Http2(server) => !server.stream.is_empty(),
        }
    }

    /// Whether more of the response is known to be there than came with its head.
    pub(super) fn flows(&self) -> bool {
        match self {
            Self::Http1(server) => server.flows(),
            Self::Http2(_) => false,
        }
    }

    /// Whether so much of a body can come from it inside the kernel.
    pub(super) fn splices(&self, least: u64) -> bool {
        match self {
            Self::Http1(server) => server.splices(least),
            Self::Http2(_) => false,
        }
    }

    /// Whether nothing of the request has left this machine's buffers.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Http1(server) => server.is_untouched(),
            Self::Http2(_) => false,
        }
    }

    /// Sends a piece of the request's body.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, piece: Outgoing<'_>) -> Result<(), Broken> {
        match self {
            Self::Http1(server) => server.send(cx, piece),
            Self::Http2(server) => server.stream.send(cx, piece.bytes(), piece.last, piece.trailers),
        }
    }

    /// Waits for the head of a response.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        scratch: &Scratch,
        limits: &Limits,
        to_head: bool,
    ) -> Poll<Result<(), NoHead>> {
        match self {
            Self::Http1(server) => server.poll_head(cx, response, scratch, limits, to_head),
            Self::Http2(server) => server.poll_head(cx, response, limits, to_head),
        }
    }

    /// Reads more of the response's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        trailers: &Limits,
    ) -> Poll<Result<Piece, BodyFault>> {
        match self {
            Self::Http1(server) => server.poll_body(cx, buffer, trailers),
            Self::Http2(server) => server.stream.poll_read(cx, buffer, trailers),
        }
    }

    /// The trailer section of the response, once its body is over.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Http1(server) => server.body.trailers(),
            Self::Http2(server) => server.stream.trailers(),
        }
    }
}

/// Writes the first line of a server's response.
pub(super) fn first_line(response: &Response, head: &mut Vec<u8>) {
    match response.first_line() {
        Some(line) => head.extend_from_slice(line),
        None => status_line(response.status, response.reason(), head),
    }
}

/// Writes the first line of a response of HTTP/1. We speak HTTP/1.1 to everybody (RFC 9112 §2.3).
pub(super) fn status_line(status: u16, reason: &[u8], head: &mut Vec<u8>) {
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(Decimal::new(status.into()).as_bytes());
    head.push(b' ');
    let reason = if reason.is_empty() { phrase(status).as_bytes() } else { reason };
    head.extend_from_slice(reason);
    head.extend_from_slice(b"\r\n");
}
