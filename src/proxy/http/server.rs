//! A connection of HTTP/1 to a server: a request goes out, a response comes in, and then the next.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::body::{Body, BodyFault, Outgoing, Piece};
use super::buffers::{Inbound, Outbound, Stash};
use super::exchange::Deed;
use crate::message::chunked;
use crate::message::framing::Length;
use crate::message::line::{self, Limits};
use crate::message::request::Parsed;
use crate::message::response::Response;
use crate::proxy::ends::ServerEnd;
use crate::relay::{Broken, Scratch, Wire};

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Http1Server {
    pub(super) end: ServerEnd,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// What is still to come of the response's body.
    pub(super) body: Body,
    /// Whether the request's body goes out in chunks.
    chunks: bool,
    /// Whether more than the head's read had room for is there.
    flows: bool,
    /// Whether all of the request was handed to this connection.
    pub(super) is_sent: bool,
    /// When it was made.
    pub(super) made: Instant,
    /// Requests it was given, the present one included.
    pub(super) requests: u32,
}

/// Why there is no head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The connection broke.
    Broken(Broken),
    /// It was closed before the head was whole.
    Closed,
    /// The server says that it has not looked at the request.
    Unseen(Deed),
    /// HTTP/2: the stream was given up, by either side, for what the server did; it may have looked at the request.
    GivenUp(Deed),
    /// It is no head.
    Malformed(line::Fault),
}

impl NoHead {
    /// What the server did, where that says more than how it ended.
    pub(super) fn deed(self) -> Option<Deed> {
        match self {
            Self::Unseen(deed) | Self::GivenUp(deed) => Some(deed),
            Self::Malformed(fault) => Some(Deed::Wrong(fault.words())),
            Self::Broken(_) | Self::Closed => None,
        }
    }
}

impl Http1Server {
    pub(super) fn new(end: ServerEnd) -> Self {
        Self {
            end,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            body: Body::Over,
            chunks: false,
            flows: false,
            is_sent: false,
            made: Instant::now(),
            requests: 0,
        }
    }

    /// Begins a request: `head` goes out with whatever follows it first.
    pub(super) fn begin(&mut self, head: Vec<u8>, length: Length) {
        self.outbound = Outbound::new(head);
        self.chunks = length == Length::Unknown;
        self.is_sent = length.is_empty();
        self.requests = self.requests.saturating_add(1);
    }

    /// Sends a piece of the request's body.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, piece: Outgoing<'_>) -> Result<(), Broken> {
        self.is_sent |= piece.last;
        let Self { end: wire, outbound, chunks, .. } = self;
        send_piece(cx, wire, outbound, piece, *chunks, false)
    }

    /// Waits for the head of the response.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        scratch: &Scratch,
        limits: &Limits,
        to_head: bool,
    ) -> Poll<Result<(), NoHead>> {
        loop {
            let Self { end, inbound, .. } = self;
            let read = inbound.poll_head(cx, end, scratch, |bytes| response.arrived(bytes));
            let (read, flows) = ready!(read).map_err(NoHead::Broken)?;
            self.flows = flows;
            if read == 0 {
                return Poll::Ready(Err(NoHead::Closed));
            }
            match response.parse(limits, to_head, self.inbound.rest()) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Whole(_)) => {
                    self.body = Body::new(response.length);
                    return Poll::Ready(Ok(()));
                }
                Err(fault) => return Poll::Ready(Err(NoHead::Malformed(fault))),
            }
        }
    }

    /// Reads more of the response's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        limits: &Limits,
    ) -> Poll<Result<Piece, BodyFault>> {
        let Self { end, inbound, body, .. } = self;
        body.poll_read(cx, end, inbound, buffer, limits)
    }

    /// Whether more of the response is known to be there than came with its head.
    pub(super) fn flows(&self) -> bool {
        self.flows
    }

    /// Whether so much of the response's body is still to come, and can come inside the kernel.
    pub(super) fn splices(&self, least: u64) -> bool {
        self.body.left() >= least && !self.inbound.has_news() && self.end.plain().is_some()
    }

    /// Whether nothing of the request has left this machine's buffers.
    pub(super) fn is_untouched(&self) -> bool {
        self.outbound.is_untouched()
    }

    /// Whether request and response are over and nothing is left of either.
    pub(super) fn is_clean(&self) -> bool {
        self.is_sent && self.outbound.is_empty() && self.body.is_over() && !self.inbound.has_news()
    }

    /// Whether a server that was left alone has closed the connection or said something unasked, so that it is of no more use.
    pub(super) fn is_spent(&mut self, scratch: &Scratch) -> bool {
        if self.inbound.has_news() {
            return true;
        }
        if !self.end.socket().is_readable() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match &mut self.end {
            // A response that was read to its last byte and no further may have left the socket looking as if there were more.
            ServerEnd::Plain(socket) => socket.poll_recv(&mut cx, &mut [0]).is_ready(),
            // It may be no more than a message of the protocol's own, such as a session ticket.
            ServerEnd::Tls(stream) => scratch.with_buffer(|buffer| stream.poll_read(&mut cx, buffer).is_ready()),
        }
    }

    /// Gives back the buffer it has no use for any more.
    pub(super) fn tidy(&mut self, stash: &Stash) {
        self.outbound.return_buffer(stash);
    }
}

/// Sends a piece of a body, as a chunk or as it is; `closes` says that the end of the connection follows at once.
pub(super) fn send_piece(
    cx: &mut Context<'_>,
    wire: &mut impl Wire,
    outbound: &mut Outbound,
    piece: Outgoing<'_>,
    chunks: bool,
    closes: bool,
) -> Result<(), Broken> {
    let Outgoing { buffer, place, last, trailers } = piece;
    let trailers = trailers.filter(|_| chunks && last);
    let (start, end) = match (chunks, trailers) {
        (false, _) => (place.start, place.end),
        (true, None) => chunked::encode(buffer, place.start, place.end, last),
        (true, Some(_)) => chunked::encode(buffer, place.start, place.end, false),
    };
    let bytes = buffer.get(start..end).unwrap_or_default();
    let Some(trailers) = trailers else {
        return if bytes.is_empty() { Ok(()) } else { outbound.send(cx, wire, bytes, closes) };
    };
    let mut tail = [bytes, b"0\r\n"].concat();
    super::forward::trailer_fields(trailers, &mut tail);
    tail.extend_from_slice(b"\r\n");
    outbound.send(cx, wire, &tail, closes)
}
