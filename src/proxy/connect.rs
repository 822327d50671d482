//! Towards a server: picked, connected to, told whom we speak for, shaken hands with; if that fails, another one is.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Desk;
use super::ends::ServerEnd;
use super::intake::Arrived;
use super::record::{More, Record};
use super::turn::Turn;
use super::{key, reasons};
use crate::backend::{Lapse, Outcome, Server};
use crate::ending::{Reason, TlsVersion};
use crate::net::address::{ClientAddr, Endpoint};
use crate::net::dial::{DialError, DialFailure, First, dial};
use crate::net::proxy_protocol::{Announcement, Origin, TlsFacts, Version, encode};
use crate::net::stream::Stream;
use crate::pool::{Picked, Pool, Tried};
use crate::snapshot::{PoolInEffect, Snapshot};
use crate::tls;

/// Why a server was not reached.
pub(super) struct Unreached {
    /// The reason.
    pub(super) reason: Reason,
    /// More words on it.
    pub(super) words: Option<String>,
}

impl From<Reason> for Unreached {
    fn from(reason: Reason) -> Self {
        Self { reason, words: None }
    }
}

/// Connects to a server and shakes hands with it, if that is to be. `header` says whom we speak for, and `first` who speaks
/// first behind it and behind the handshake.
pub(super) async fn reach(
    desk: &Desk,
    pool: &Pool,
    server: &Server,
    first: First,
    header: &[u8],
) -> Result<ServerEnd, Unreached> {
    let started = Instant::now();
    let _connecting = server.state.connecting();
    let we_begin = server.tls.is_some() || !header.is_empty();
    let first_of_all = if we_begin { First::Us } else { first };
    let dialled = dial_from_any(desk, pool, server, first_of_all).await;
    let reached = match (dialled, &server.tls) {
        (Ok(stream), None) => Ok(ServerEnd::Plain(stream)),
        (Ok(stream), Some(settings)) => {
            // Handshakes are large, and few connections are in one at a time.
            let shaking = Box::pin(tls::connect(stream, header.to_vec(), settings, first));
            match timeout_at(started + pool.connect_timeout(), shaking).await {
                Ok(Ok((stream, resumed))) => {
                    server.state.metrics().shook_hands(desk.worker, resumed);
                    Ok(ServerEnd::Tls(stream))
                }
                Ok(Err(failed)) => Err(Unreached {
                    reason: Reason::ServerTlsError,
                    words: Some(format!("server {}: {failed}", server.state.name)),
                }),
                Err(_elapsed) => Err(Reason::ConnectTimeout.into()),
            }
        }
        (Err(error), _) => {
            let reason = reasons::of_dial(error.failure);
            if reason == Reason::Internal {
                tracing::warn!(pool = %pool.name(), server = %server.state.name, "connecting failed: {error}");
            }
            Err(reason.into())
        }
    };
    if let Err(Unreached { reason, .. }) = &reached {
        server.state.metrics().connect_failed(desk.worker, *reason);
        if reasons::is_servers_fault(*reason) {
            blame(desk, server, *reason, started.elapsed());
        }
    }
    reached
}

/// Has everybody know that it was the server's fault that nobody could connect to it.
pub(super) fn blame(desk: &Desk, server: &Server, reason: Reason, after: Duration) {
    server.state.report_failure();
    server.state.report(desk.worker, Outcome::Failure(Lapse::Ended(reason)));
    server.state.left_unconnected(after);
}

/// Dials from the next local address, and from the others where that has no port left. Where there is no descriptor left,
/// connections that only wait make room.
async fn dial_from_any(desk: &Desk, pool: &Pool, server: &Server, first: First) -> Result<Stream, DialError> {
    let mut sources = pool.sources_in_turn(server).peekable();
    let mut source = sources.next().flatten();
    loop {
        match dial(&server.address, source, pool.connect_timeout(), first).await {
            Err(error) if error.failure == DialFailure::PortsExhausted && sources.peek().is_some() => {
                source = sources.next().flatten();
            }
            Err(error) if error.failure == DialFailure::DescriptorsExhausted && desk.make_room() => {}
            dialled => return dialled,
        }
    }
}

/// Picks a server and connects to it, having waited for one if all are full; if that fails, picks another, as often as the
/// pool allows. What the client has sent is sent to none before it is connected, so nothing has to be replayed. Says as well when
/// the server was picked.
pub(super) async fn connect(
    record: &mut Record,
    snapshot: &Arc<Snapshot>,
    pool: &PoolInEffect,
    client: &Arrived,
    first: First,
    header: &[u8],
) -> Result<(ServerEnd, Instant), Reason> {
    let desk = Rc::clone(&record.desk);
    let place = snapshot.place_of(pool.pool.name()).ok_or(Reason::NoServer)?;
    let mut turn = Turn::new(&desk, snapshot, place);
    let mut tried = Tried::new();
    let mut failure = None;
    loop {
        let key = |pool| key::of_connection(pool, record.client(), record.server_name());
        let Some(Picked { server, lease }) = turn.pick(&tried, |pool| pool.pool.pick(&tried, key(&pool.pool))) else {
            // Seldom, and nothing that every connection should have room for.
            let waited = Box::pin(async {
                tokio::select! {
                    waited = turn.wait(&tried, None) => waited,
                    reason = left(client) => Err(reason),
                }
            });
            match waited.await {
                Ok(()) => continue,
                Err(Reason::NoServer) => break,
                Err(reason) => return Err(reason),
            }
        };
        if tried.count() > 0 {
            record.retried();
        }
        let started = Instant::now();
        let Some(PoolInEffect { pool, .. }) = turn.pool() else { break };
        match reach(&desk, pool, server, first, header).await {
            Ok(end) => {
                record.connected(lease, started.elapsed());
                return Ok((end, started));
            }
            Err(Unreached { reason, words }) => {
                failure = Some(reason);
                record.failed_at(&server.state);
                if let Some(words) = words {
                    record.failed(words);
                }
            }
        }
        tried.add(&server.state);
        if tried.count() > usize::from(pool.retries()) {
            break;
        }
    }
    Err(failure.unwrap_or(Reason::NoServer))
}

/// Waits until a client has left, for one who does not read just now. One that has sent its end behind what it has said has
/// not.
async fn left(client: &Arrived) -> Reason {
    let socket = client.end.socket();
    let has_spoken = !client.early.is_empty();
    poll_fn(|cx| {
        if socket.poll_reset(cx).is_ready() {
            return Poll::Ready(Reason::ClientReset);
        }
        if has_spoken || socket.poll_closed(cx).is_pending() || socket.holds_bytes() {
            return Poll::Pending;
        }
        Poll::Ready(Reason::ClientClosed)
    })
    .await
}

/// The header that tells a server whom we speak for.
pub(super) fn header(record: &mut Record, version: Version, arrived: &Arrived) -> Vec<u8> {
    let client = record.client();
    let destination = match &arrived.destination {
        Some(Endpoint::Tcp(address)) => Some(*address),
        Some(Endpoint::Unix(_)) => None,
        None => local_address(arrived.end.socket()),
    };
    let more = record.more();
    more.identify();
    // What a client merely offers is not agreed upon.
    let agreed = arrived.protocols.first().filter(|_| more.tls.is_some());
    announce(version, client, destination, more, agreed.map(AsRef::as_ref))
}

/// The header that tells a server that we speak for this client, which connected to `destination`.
pub(super) fn announce(
    version: Version,
    client: ClientAddr,
    destination: Option<SocketAddr>,
    more: &More,
    alpn: Option<&[u8]>,
) -> Vec<u8> {
    let tls = more.tls.map(|version| TlsFacts {
        version: match version {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 | TlsVersion::None => "TLSv1.3",
        },
        common_name: more.identity.as_ref().and_then(|identity| identity.common_name.as_deref()),
        certificate: more.identity.is_some(),
    });
    let origin = match (client, destination) {
        (ClientAddr::Unix, _) => Origin::Unix,
        (ClientAddr::Tcp(source), Some(destination)) => Origin::Tcp { source, destination },
        (ClientAddr::Tcp(_), None) => Origin::Unknown,
    };
    let announcement = Announcement {
        origin,
        authority: more.server_name.as_deref(),
        alpn,
        unique_id: more.unique_id.as_deref(),
        tls,
    };
    encode(version, &announcement)
}

/// The address of this machine that a socket has, unless it is no TCP socket.
pub(super) fn local_address(socket: &Stream) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}
