//! Towards a server: picked, connected to, told whom we speak for, shaken hands with; if that fails, another one is.

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};

use super::intake::Arrived;
use super::reasons;
use super::record::Record;
use crate::ending::{Reason, TlsVersion};
use crate::net::address::{ClientAddr, Endpoint};
use crate::net::dial::{First, dial};
use crate::net::proxy_protocol::{Announcement, Origin, TlsFacts, Version, encode};
use crate::net::stream::Stream;
use crate::pool::{Picked, Tried};
use crate::snapshot::PoolInEffect;
use crate::tls::{self, TlsStream, ToServer};

/// The server's end of a connection.
#[derive(Debug)]
pub(super) enum ServerEnd {
    Plain(Stream),
    Tls(Box<TlsStream<ToServer>>),
}

/// Picks a server and connects to it; if that fails, picks another, as often as the pool allows. `header` says whom we
/// speak for, and `first` who speaks first behind it and behind the handshake; what the client has sent is sent to none
/// before it is connected, so nothing has to be replayed.
pub(super) async fn connect(
    record: &mut Record,
    pool: &PoolInEffect,
    first: First,
    header: &[u8],
) -> Result<ServerEnd, Reason> {
    let pool = &pool.pool;
    let mut tried = Tried::new();
    let mut failure = Reason::NoServer;
    while let Some(Picked { server, lease }) = pool.pick(&tried) {
        if tried.count() > 0 {
            record.retried();
        }
        let started = Instant::now();
        let we_begin = server.tls.is_some() || !header.is_empty();
        let first_of_all = if we_begin { First::Us } else { first };
        let dialled = dial(&server.address, pool.next_source(server), pool.connect_timeout(), first_of_all).await;
        let connected = match (dialled, &server.tls) {
            (Ok(stream), None) => Ok(ServerEnd::Plain(stream)),
            (Ok(stream), Some(settings)) => {
                // Handshakes are large, and few connections are in one at a time.
                let shaking = Box::pin(tls::connect(stream, header.to_vec(), settings, first));
                match timeout_at(started + pool.connect_timeout(), shaking).await {
                    Ok(Ok((stream, resumed))) => {
                        server.state.metrics().shook_hands(record.desk.worker, resumed);
                        Ok(ServerEnd::Tls(stream))
                    }
                    Ok(Err(failed)) => {
                        record.failed(format_args!("server {}: {failed}", server.state.name));
                        Err(Reason::ServerTlsError)
                    }
                    Err(_elapsed) => Err(Reason::ConnectTimeout),
                }
            }
            (Err(error), _) => {
                let reason = reasons::of_dial(error.failure);
                if reason == Reason::Internal {
                    tracing::warn!(pool = %pool.name(), server = %server.state.name, "connecting failed: {error}");
                }
                Err(reason)
            }
        };
        match connected {
            Ok(end) => {
                record.connected(lease, started.elapsed());
                return Ok(end);
            }
            Err(reason) => {
                failure = reason;
                server.state.metrics().connect_failed(record.desk.worker, failure);
                if reasons::is_servers_fault(failure) {
                    server.state.report_failure();
                }
            }
        }
        tried.add(&server.state);
        if tried.count() > usize::from(pool.retries()) {
            break;
        }
    }
    Err(failure)
}

/// The header that tells a server whom we speak for.
pub(super) fn header(record: &mut Record, version: Version, arrived: &Arrived) -> Vec<u8> {
    let client = record.client();
    let more = record.more();
    if more.unique_id.is_none() {
        more.unique_id = Some(format!("{:032x}", fastrand::u128(..)).into_bytes().into_boxed_slice());
    }
    let tls = more.tls.map(|version| TlsFacts {
        version: match version {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 | TlsVersion::None => "TLSv1.3",
        },
        common_name: more.identity.as_ref().and_then(|identity| identity.common_name.as_deref()),
        certificate: more.identity.is_some(),
    });
    // What a client merely offers is not agreed upon.
    let agreed = arrived.protocols.first().filter(|_| tls.is_some());
    let announcement = Announcement {
        origin: origin(client, arrived),
        authority: more.server_name.as_deref(),
        alpn: agreed.map(AsRef::as_ref),
        unique_id: more.unique_id.as_deref(),
        tls,
    };
    encode(version, &announcement)
}

fn origin(client: ClientAddr, arrived: &Arrived) -> Origin {
    let ClientAddr::Tcp(source) = client else {
        return Origin::Unix;
    };
    let destination = match &arrived.destination {
        Some(Endpoint::Tcp(address)) => Some(*address),
        Some(Endpoint::Unix(_)) => None,
        None => rustix::net::getsockname(arrived.socket()).ok().and_then(|address| SocketAddr::try_from(address).ok()),
    };
    match destination {
        Some(destination) => Origin::Tcp { source, destination },
        None => Origin::Unknown,
    }
}
