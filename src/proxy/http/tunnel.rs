//! A request that became a tunnel: after 101 (RFC 9110 §7.8) bytes go both ways as they are, spliced where both ends are
//! plain.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use super::body::Piece;
use super::client::Http1Client;
use super::exchange::of_client_broken;
use super::forward::{self, Pen};
use super::http2::{Client2 as Http2Client, Http2Stream, Tunnelled};
use super::record::RequestRecord;
use super::request::{PATIENCE, RESPONSE_LIMITS, Upgraded};
use super::sides::{Server, status_line};
use crate::config::model::ListenerTimeouts;
use crate::config::model::http::HeaderRules;
use crate::ending::Reason;
use crate::http2::Code;
use crate::message::head::Known;
use crate::net::stream::Stream;
use crate::proxy::live::Live;
use crate::proxy::reasons;
use crate::proxy::record::Both;
use crate::relay::{Broken, Direction, Early, FirstByte, Limits, Meter, Read, Recall, Report, Then, Wire, relay};
use crate::snapshot::Listener;

/// What a request has become. It holds nothing of the snapshot.
pub(super) struct Tunnel {
    pub(super) upgraded: Box<Upgraded>,
    pub(super) record: RequestRecord,
    pub(super) limits: Limits,
}

/// What one may take that came by this listener.
pub(super) fn limits(listener: &Listener, expires: Option<Instant>) -> Limits {
    let ListenerTimeouts { handshake: _, idle, half_close, max_age: _ } = listener.timeouts;
    Limits { idle, half_close: half_close.min(idle), expires, first_byte: FirstByte::Settled }
}

/// Tells a client of HTTP/1 that the protocol changes, and relays. Returns why it ended, and whether in good order.
pub(super) async fn of_http1(client: &mut Http1Client, tunnel: Tunnel, live: &Live) -> (Reason, bool) {
    let Tunnel { upgraded, mut record, limits } = tunnel;
    let Upgraded { mut server, response, accept, set_cookie } = *upgraded;
    let head = client.outbound.writer();
    status_line(101, if response.status == 101 { response.reason() } else { b"" }, head);
    forward::response_fields(&response, &HeaderRules::default(), head);
    if let Some(cookie) = set_cookie {
        head.field(b"Set-Cookie", cookie.as_bytes());
    }
    head.field(b"Connection", b"Upgrade");
    let mut said = 0;
    match &mut server {
        Server::Http1(server) => {
            head.field(b"Upgrade", response.fields.first(Known::Upgrade).unwrap_or_default());
            head.extend_from_slice(b"\r\n");
            // What the server has said already, in the new protocol.
            let mut early = server.inbound.take();
            said = early.len();
            head.append(&mut early);
        }
        // It has agreed to WebSocket without what HTTP/1 has for that (RFC 8441 §5).
        Server::Http2(_) => {
            head.field(b"Upgrade", b"websocket");
            head.field(b"Sec-WebSocket-Accept", accept.unwrap_or_default().as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    record.context.desk.requests.stash.return_response(response);
    record.told(101);
    let Http1Client { end, inbound, outbound, .. } = client;
    let flushed = timeout(PATIENCE, poll_fn(|cx| outbound.poll_flush(cx, end, false))).await;
    if let Err(reason) = flushed.map_or(Err(Reason::IdleTimeout), |flushed| flushed.map_err(of_client_broken)) {
        give_up(server);
        record.close(reason);
        return (reason, false);
    }
    count_said(&mut record, said);
    let early = Early { bytes: inbound.take(), ours: 0 };
    run(end, server, early, limits, Some(live), &mut record).await
}

/// Counts what the server had said in the new protocol before there was a relay.
fn count_said(record: &mut RequestRecord, bytes: usize) {
    let context = Rc::clone(&record.context);
    Both::new(context.desk.worker, Some(&context.entrance.metrics), record.server()).moved(Direction::Down, bytes);
    record.moved(0, bytes as u64);
}

/// Closes a server's end so that nobody takes what was sent for the whole.
fn give_up(server: Server) {
    match server {
        Server::Http1(mut server) => server.end.set_abandoned(true),
        // A stream that nobody has any more is reset.
        Server::Http2(_) => {}
    }
}

/// Relays, and closes the server's end accordingly. With `live`, the connection is the tunnel's alone and hears for it of
/// what calls it back.
async fn run(
    client: &mut impl Wire,
    server: Server,
    early: Early,
    limits: Limits,
    live: Option<&Live>,
    record: &mut RequestRecord,
) -> (Reason, bool) {
    match server {
        Server::Http1(mut server) => {
            let (reason, clean) = between(client, &mut server.end, early, limits, live, record).await;
            server.end.set_abandoned(!clean);
            (reason, clean)
        }
        Server::Http2(stream) => {
            let mut wire = StreamWire(*stream);
            let (reason, clean) = between(client, &mut wire, early, limits, live, record).await;
            if !clean {
                wire.abandon();
            }
            (reason, clean)
        }
    }
}

/// Relays between two ends. Returns why it ended, and whether in good order.
async fn between(
    client: &mut impl Wire,
    server: &mut impl Wire,
    early: Early,
    limits: Limits,
    live: Option<&Live>,
    record: &mut RequestRecord,
) -> (Reason, bool) {
    let state = record.server().cloned();
    let (context, sent) = (Rc::clone(&record.context), record.sent());
    let desk = &context.desk;
    if let (Some(state), Some(live)) = (&state, live) {
        live.set_server(state, sent, &desk.dismissals);
    }
    // One that shares its connection with others is called back alone.
    let (own, mut dismissed) = (Recall::default(), None);
    let recall = live.map_or(&own, |live| &live.recall);
    let meter = Both::new(desk.worker, Some(&context.entrance.metrics), state.as_ref());
    let mut relaying = pin!(relay(client, server, early, limits, &desk.scratch, recall, &meter));
    let report: Report = poll_fn(|cx| {
        if let (Some(state), None, None) = (&state, live, dismissed)
            && let Some((by, reason)) = desk.dismissals.due(state, sent)
        {
            dismissed = Some(reason);
            own.set(by);
        }
        relaying.as_mut().poll(cx)
    })
    .await;
    record.moved(report.up, report.down);
    let reason = reasons::of_relay(&report, live.map_or(dismissed, Live::recalled_for));
    record.close(reason);
    (reason, report.is_clean())
}

/// Tells a client of HTTP/2 that its extended CONNECT is granted (RFC 8441 §5), and relays. Its connection ends it when that
/// is called back. Returns why it ended, and what there is to be said of it.
pub(super) async fn of_http2(client: &mut Http2Client, tunnel: Tunnel) -> (Reason, RequestRecord) {
    let Tunnel { upgraded, mut record, limits } = tunnel;
    let Upgraded { mut server, response, accept: _, set_cookie } = *upgraded;
    client.open_tunnel(&response, set_cookie.as_deref());
    record.told(200);
    record.context.desk.requests.stash.return_response(response);
    let mut stream = StreamWire(&mut *client);
    let early = match &mut server {
        Server::Http1(server) => server.inbound.take(),
        Server::Http2(_) => Vec::new(),
    };
    let sent = timeout(PATIENCE, poll_fn(|cx| stream.poll_write_all(cx, &early))).await;
    if !matches!(sent, Ok(Ok(()))) {
        give_up(server);
        stream.abandon();
        record.close(Reason::ClientReset);
        return (Reason::ClientReset, record);
    }
    count_said(&mut record, early.len());
    let (reason, clean) = run(&mut stream, server, Early::default(), limits, None, &mut record).await;
    if !clean {
        stream.abandon();
    }
    (reason, record)
}

/// A stream of HTTP/2 whose bytes are those of another protocol.
struct StreamWire<S>(S);

impl<S: Tunnelled> StreamWire<S> {
    fn stream(&mut self) -> &mut Http2Stream {
        self.0.stream()
    }

    /// Hands these bytes over; once, since what has no room is kept by the stream.
    fn poll_write_all(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<(), Broken>> {
        match bytes {
            [] => Poll::Ready(Ok(())),
            _ => Poll::Ready(self.stream().send(cx, bytes, false, None)),
        }
    }
}

impl<S: Tunnelled> Wire for StreamWire<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read, Broken>> {
        // Trailers would be of no use to anybody.
        let piece = ready!(self.stream().poll_read(cx, buffer, &RESPONSE_LIMITS));
        Poll::Ready(match piece {
            Ok(Piece { bytes, end: true }) => Ok(Read { bytes, then: Then::End }),
            Ok(Piece { bytes, end: false }) => Ok(Read { bytes, then: Then::Unknown }),
            Err(_reset) => Err(Broken::System(Errno::CONNRESET)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<Result<usize, Broken>> {
        ready!(self.stream().poll_ready(cx))?;
        // The end itself comes with `poll_finish`: others may follow what is the last for now.
        let _ = last;
        self.stream().send(cx, bytes, false, None)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.stream().poll_ready(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _gone = ready!(self.stream().poll_ready(cx));
        let _gone = self.stream().send(cx, &[], true, None);
        self.stream().poll_ready(cx).map(|_gone| ())
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_finish(cx)
    }

    fn poll_reset(&self, _: &mut Context<'_>) -> Poll<Errno> {
        // Met by whoever reads or writes; an idle tunnel has its deadline.
        Poll::Pending
    }

    fn set_nodelay(&self) {}

    fn abandon(&mut self) {
        self.stream().reset(Code::CANCEL);
    }

    fn words(&self) -> Option<String> {
        None
    }

    fn plain(&self) -> Option<&Stream> {
        None
    }
}
