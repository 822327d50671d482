//! HTTP/2 towards a server: connections that carry many requests at once, and one stream of such.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Ping;
use h2::client::{ResponseFuture, SendRequest};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::STREAM_WINDOW;
use super::heads;
use super::stream::{Receiver, Sender, Tunnelled};
use crate::message::head::Fields;
use crate::message::line::Limits;
use crate::message::response::Response;
use crate::proxy::Desk;
use crate::proxy::ends::ServerEnd;
use crate::proxy::http::body::{BodyFault, Piece};
use crate::proxy::http::request::PATIENCE;
use crate::proxy::http::server::NoHead;
use crate::proxy::http::upstream::Making;
use crate::relay::{Broken, WireIo};

/// How much a server may send ahead on all streams of a connection: no less than on each of them together, since they are of
/// many clients, and those that do not read would hold up the others.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// A connection to a server, as those know it that send requests on it. It ends when nobody does any more.
#[derive(Clone, Debug)]
pub(in crate::proxy::http) struct Http2Connection {
    requests: SendRequest<Bytes>,
    facts: Rc<Facts>,
}

#[derive(Debug)]
struct Facts {
    made: Instant,
    /// Requests under way, and all there ever were.
    active: Cell<usize>,
    total: Cell<u32>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
    over: Cell<bool>,
    /// Whether the server's settings have come, or will not any more; and who waits for them.
    settled: Cell<bool>,
    settling: Notify,
}

impl Facts {
    fn settle(&self) {
        self.settled.set(true);
        self.settling.notify_waiters();
    }
}

/// One request counted as its connection's, until it is dropped.
#[derive(Debug)]
struct Active(Rc<Facts>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

impl Http2Connection {
    /// Begins to speak on a connection that was made. A request may go out at once (RFC 9113 §3.4), and others once the
    /// server has said how many it takes: who makes another connection waits for that as well, by `making`.
    pub(in crate::proxy::http) async fn begin(
        desk: &Rc<Desk>,
        end: ServerEnd,
        header_bytes: usize,
        making: Option<Making>,
    ) -> Result<Self, h2::Error> {
        // Frames are small and many, and none may wait for the acknowledgement of the one before.
        end.socket().set_nodelay();
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .enable_push(false)
            .initial_max_send_streams(1)
            .handshake(WireIo::new(end))
            .await?;
        let now = Instant::now();
        let facts = Rc::new(Facts {
            made: now,
            active: Cell::new(0),
            total: Cell::new(0),
            idle_since: Cell::new(now),
            over: Cell::new(false),
            settled: Cell::new(false),
            settling: Notify::new(),
        });
        let (driven, waited_for) = (Rc::clone(&facts), Rc::clone(&facts));
        let ping = connection.ping_pong();
        desk.tasks.spawn_local("http2 to a server", async move {
            let settled = async {
                if let Some(mut ping) = ping {
                    // Its settings come before the answer to this.
                    let _later = timeout(PATIENCE, ping.ping(Ping::opaque())).await;
                }
                waited_for.settle();
                drop(making);
            };
            // Each of its streams hears of a failure by itself.
            let driving = async {
                let _failed = connection.await;
                driven.over.set(true);
                driven.settle();
            };
            tokio::join!(driving, settled);
        });
        Ok(Self { requests, facts })
    }

    /// Whether it can take another request now.
    pub(in crate::proxy::http) fn has_room(&mut self, most: usize) -> bool {
        if self.facts.over.get() || self.facts.active.get() >= self.requests.current_max_send_streams().min(most) {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        matches!(self.requests.poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Whether it is of no more use.
    pub(in crate::proxy::http) fn is_over(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.facts.over.get() || matches!(self.requests.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether its server is known to take an extended CONNECT (RFC 8441 §3).
    pub(in crate::proxy::http) fn takes_connect(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// The same once its settings have come, for which this waits.
    pub(in crate::proxy::http) async fn will_take_connect(&self) -> bool {
        loop {
            let settling = self.facts.settling.notified();
            if self.facts.settled.get() {
                return self.takes_connect();
            }
            settling.await;
        }
    }

    /// Since when it has had no request, if it has none.
    pub(in crate::proxy::http) fn idle_since(&self) -> Option<Instant> {
        (self.facts.active.get() == 0).then(|| self.facts.idle_since.get())
    }

    /// When it was made.
    pub(in crate::proxy::http) fn made(&self) -> Instant {
        self.facts.made
    }

    /// How many requests it was given.
    pub(in crate::proxy::http) fn requests(&self) -> u32 {
        self.facts.total.get()
    }

    /// Sends the head of a request; with `ended`, it has no body.
    pub(in crate::proxy::http) fn send(
        &mut self,
        request: http::Request<()>,
        ended: bool,
    ) -> Result<Http2Server, h2::Error> {
        let (response, stream) = self.requests.send_request(request, ended)?;
        self.facts.active.set(self.facts.active.get() + 1);
        self.facts.total.set(self.facts.total.get().saturating_add(1));
        Ok(Http2Server {
            response: Some(response),
            sender: Sender::new(stream, ended),
            receiver: None,
            _active: Active(Rc::clone(&self.facts)),
        })
    }
}

/// One stream of a connection to a server.
#[derive(Debug)]
pub(in crate::proxy::http) struct Http2Server {
    response: Option<ResponseFuture>,
    pub(in crate::proxy::http) sender: Sender,
    receiver: Option<Receiver>,
    _active: Active,
}

impl Http2Server {
    /// Waits for the head of the response, or an informational one before it.
    pub(in crate::proxy::http) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        limits: &Limits,
        to_head: bool,
    ) -> Poll<Result<(), NoHead>> {
        let Some(future) = &mut self.response else { return Poll::Pending };
        if let Poll::Ready(Some(Ok(informational))) = future.poll_informational(cx) {
            let status = informational.status().as_u16();
            let read = heads::read_response(status, informational.headers(), false, to_head, response);
            return Poll::Ready(read.map_err(NoHead::Malformed));
        }
        let head = ready!(std::pin::Pin::new(future).poll(cx)).map_err(of_error)?;
        self.response = None;
        let (parts, stream) = head.into_parts();
        if parts.headers.len() > limits.fields {
            return Poll::Ready(Err(NoHead::Malformed(crate::message::line::Fault::TooLarge)));
        }
        let receiver = Receiver::new(stream);
        let ended = receiver.is_over();
        self.receiver = Some(receiver);
        let read = heads::read_response(parts.status.as_u16(), &parts.headers, ended, to_head, response);
        Poll::Ready(read.map_err(NoHead::Malformed))
    }

    /// Reads more of the response's body.
    pub(in crate::proxy::http) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<Piece, BodyFault>> {
        match &mut self.receiver {
            Some(receiver) => receiver.poll_read(cx, buffer),
            None => Poll::Ready(Err(BodyFault::Cut)),
        }
    }

    /// The trailer section, once the body is over.
    pub(in crate::proxy::http) fn trailers(&self) -> Option<&Fields> {
        self.receiver.as_ref().and_then(Receiver::trailers)
    }

    /// Sends a piece of the request's body.
    pub(in crate::proxy::http) fn send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
        trailers: Option<&Fields>,
    ) -> Result<(), Broken> {
        self.sender.send(cx, bytes, last, trailers)
    }
}

impl Tunnelled for Http2Server {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Piece, BodyFault>> {
        self.poll_body(cx, buffer)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.sender.poll_ready(cx)
    }

    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Result<(), Broken> {
        self.sender.send(cx, bytes, last, None)
    }

    fn reset(&mut self, reason: h2::Reason) {
        self.sender.reset(reason);
    }
}

/// Why there is no response. A request that the server says it has not looked at may be sent again, whatever it asks for
/// (RFC 9113 §8.7).
fn of_error(error: h2::Error) -> NoHead {
    // Of a connection that goes away, only requests above the last one it names fail so (§6.8).
    let refused = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let unseen = refused || error.is_go_away() && error.is_remote();
    if unseen { NoHead::Unseen } else { NoHead::Broken(super::stream::RESET) }
}
