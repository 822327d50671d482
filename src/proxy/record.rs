//! What will be said of a connection when it ends, gathered while it lasts.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Desk, Entrance, Place};
use crate::backend::{Lease, State};
use crate::ending::{Reason, TlsVersion};
use crate::logging::Line;
use crate::message::version::Version;
use crate::metrics::{ListenerMetrics, ServerMetrics};
use crate::net::address::ClientAddr;
use crate::relay::{Direction, Meter};
use crate::tls::Facts;
use crate::units::Name;

/// The record of one connection, which also keeps what it holds for as long as it lasts: its place and its lease. It is
/// closed with [`Record::close`]; one that is dropped open, as when its task panics, says so as `internal`.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) desk: Rc<Desk>,
    place: Place,
    client: ClientAddr,
    accepted: Instant,
    pool: Option<Name>,
    lease: Option<Lease>,
    connecting: Duration,
    /// Bytes up and bytes down.
    bytes: (u64, u64),
    retries: u8,
    reason: Reason,
    spoken: Spoken,
    /// Whether the access log says nothing of it: its requests have lines of their own.
    quiet: bool,
    /// What most connections have not; boxed, since all of them would carry the room for it.
    more: Option<Box<More>>,
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// Bytes.
    Tcp,
    /// Requests. Those of HTTP/1 say themselves of which version they are: a connection that had one has no line of its own.
    Http,
    /// Requests of HTTP/2.
    Http2,
}

impl Spoken {
    const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => Version::Http2.label(),
        }
    }
}

/// What is known of a connection that has said more than its address.
#[derive(Clone, Debug, Default)]
pub(super) struct More {
    /// The server name that the client asked for: by its own word, or else by that of the proxy in front.
    pub(super) server_name: Option<Box<str>>,
    /// The version of TLS spoken with the client.
    pub(super) tls: Option<TlsVersion>,
    /// Whom the client's certificate is about.
    pub(super) identity: Option<Box<Facts>>,
    /// What the proxies on the way know the connection by: any bytes, which are passed on as they are.
    pub(super) unique_id: Option<Box<[u8]>>,
    /// The server name that it asked for itself, which its handshake was held to.
    pub(super) asked_for: Option<Box<str>>,
    /// The server that could not be reached last.
    pub(super) unreached: Option<Name>,
    /// What lies behind the reason it ended for.
    pub(super) error: Option<Box<str>>,
}

impl More {
    /// Makes an id for the connection if it has none.
    pub(super) fn identify(&mut self) {
        if self.unique_id.is_none() {
            self.unique_id = Some(format!("{:032x}", fastrand::u128(..)).into_bytes().into_boxed_slice());
        }
    }
}

impl Record {
    pub(super) fn open(desk: Rc<Desk>, place: Place, client: ClientAddr, accepted: Instant) -> Self {
        Self {
            desk,
            place,
            client,
            accepted,
            pool: None,
            lease: None,
            connecting: Duration::ZERO,
            bytes: (0, 0),
            retries: 0,
            reason: Reason::Internal,
            spoken: Spoken::Tcp,
            quiet: false,
            more: None,
        }
    }

    /// Who it is from, as far as is known.
    pub(super) fn client(&self) -> ClientAddr {
        self.client
    }

    /// It was made on behalf of this client.
    pub(super) fn set_client(&mut self, client: ClientAddr) {
        self.client = client;
    }

    /// The server name that was asked for, as far as is known.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.more.as_deref()?.server_name.as_deref()
    }

    /// What else is known of it.
    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Takes out what else is known of it, which is to be known elsewhere.
    pub(super) fn take_more(&mut self) -> More {
        self.more.take().map_or_else(More::default, |more| *more)
    }

    /// What else is known of it is this, where its line says so.
    pub(super) fn is_known_by(&mut self, more: &More) {
        if self.desk.access.is_on() {
            self.more = Some(Box::new(more.clone()));
        }
    }

    /// Something failed; these words say more of it than a reason can. Nobody hears them where there is no access log.
    pub(super) fn failed(&mut self, words: impl std::fmt::Display) {
        if self.desk.access.is_on() {
            self.more().error = Some(words.to_string().into_boxed_str());
        }
    }

    /// A server was not reached. Nobody hears which where there is no access log.
    pub(super) fn failed_at(&mut self, server: &State) {
        if self.desk.access.is_on() {
            self.more().unreached = Some(server.name.clone());
        }
    }

    /// When it was accepted.
    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// What is counted of its listener.
    pub(super) fn listener(&self) -> &ListenerMetrics {
        &self.place.entrance.metrics
    }

    /// What it came through.
    pub(super) fn entrance(&self) -> &Arc<Entrance> {
        &self.place.entrance
    }

    /// The server it is given to.
    pub(super) fn server(&self) -> Option<&Arc<State>> {
        self.lease.as_ref().map(Lease::server)
    }

    /// It goes to this pool.
    pub(super) fn routed(&mut self, pool: &Name) {
        self.pool = Some(pool.clone());
    }

    /// It is given to a server, which took so long to connect to.
    pub(super) fn connected(&mut self, lease: Lease, connecting: Duration) {
        lease.server().metrics().connected(self.desk.worker, connecting);
        lease.server().connected_in(connecting);
        self.lease = Some(lease);
        self.connecting = connecting;
    }

    /// One more server is tried.
    pub(super) fn retried(&mut self) {
        self.retries = self.retries.saturating_add(1);
    }

    /// So many bytes were delivered to the server and to the client.
    pub(super) fn moved(&mut self, up: u64, down: u64) {
        self.bytes = (up, down);
    }

    /// This is what it carries.
    pub(super) fn spoke(&mut self, spoken: Spoken) {
        self.spoken = spoken;
    }

    /// Whether the access log says nothing of it.
    pub(super) fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// It ended for this reason.
    pub(super) fn close(&mut self, reason: Reason) {
        self.reason = reason;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let lasted = self.accepted.elapsed();
        self.desk.turnover.ended();
        self.place.entrance.metrics.ended(self.desk.worker, self.reason, lasted);
        if self.quiet || !self.desk.access.is_on() {
            return;
        }
        let server = self.server();
        let nothing = More::default();
        let More { server_name, tls, identity, unique_id, asked_for: _, unreached, error } =
            self.more.as_deref().unwrap_or(&nothing);
        self.desk.access.write(&Line {
            listener: self.place.entrance.metrics.name().as_str(),
            protocol: self.spoken.label(),
            client: self.client.to_string(),
            server_name: server_name.as_deref(),
            tls: tls.map(TlsVersion::label),
            client_subject: identity.as_ref().map(|identity| identity.subject.as_str()),
            client_names: identity.as_ref().map(|identity| &*identity.alternative_names).unwrap_or_default(),
            unique_id: unique_id.as_deref().map(readable).as_deref(),
            request: None,
            pool: self.pool.as_ref().map(Name::as_str),
            server: server.map(|server| &server.name).or(unreached.as_ref()).map(Name::as_str),
            bytes_in: self.bytes.0,
            bytes_out: self.bytes.1,
            connect_ms: server.is_some().then(|| millis(self.connecting)),
            duration_ms: millis(lasted),
            retries: self.retries,
            reason: self.reason,
            error: error.as_deref(),
        });
    }
}

/// An id as it is where it is text, and else as hexadecimal digits.
pub(super) fn readable(id: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(id) {
        Ok(text) => text.into(),
        Err(_) => id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

/// Milliseconds to the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Counts bytes for the listener and for the server, as they move.
pub(super) struct Both<'a> {
    worker: usize,
    listener: Option<&'a ListenerMetrics>,
    server: Option<&'a ServerMetrics>,
}

impl<'a> Both<'a> {
    pub(super) fn new(worker: usize, listener: Option<&'a ListenerMetrics>, server: Option<&'a Arc<State>>) -> Self {
        Self { worker, listener, server: server.map(|server| &**server.metrics()) }
    }
}

impl Meter for Both<'_> {
    fn moved(&self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        match direction {
            Direction::Up => {
                self.listener.inspect(|listener| listener.bytes_in(self.worker, bytes));
                self.server.inspect(|server| server.bytes_in(self.worker, bytes));
            }
            Direction::Down => {
                self.listener.inspect(|listener| listener.bytes_out(self.worker, bytes));
                self.server.inspect(|server| server.bytes_out(self.worker, bytes));
            }
        }
    }

    fn repeated(&self, bytes: usize) {
        self.server.inspect(|server| server.bytes_in(self.worker, bytes as u64));
    }
}
