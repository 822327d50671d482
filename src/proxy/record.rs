//! What will be said of a connection when it ends, gathered while it lasts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Desk, Place};
use crate::backend::{Lease, State};
use crate::ending::Reason;
use crate::logging::Line;
use crate::metrics::ListenerMetrics;
use crate::net::address::ClientAddr;
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
        }
    }

    /// When it was accepted.
    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// What is counted of its listener.
    pub(super) fn listener(&self) -> &Arc<ListenerMetrics> {
        &self.place.listener
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

    /// It ended for this reason.
    pub(super) fn close(&mut self, reason: Reason) {
        self.reason = reason;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let lasted = self.accepted.elapsed();
        self.desk.turnover.ended();
        self.place.listener.ended(self.desk.worker, self.reason, lasted);
        if !self.desk.access.is_on() {
            return;
        }
        let server = self.server();
        self.desk.access.write(&Line {
            listener: self.place.listener.name().as_str(),
            protocol: "tcp",
            client: self.client.to_string(),
            pool: self.pool.as_ref().map(Name::as_str),
            server: server.map(|server| server.name.as_str()),
            bytes_in: self.bytes.0,
            bytes_out: self.bytes.1,
            connect_ms: server.is_some().then(|| millis(self.connecting)),
            duration_ms: millis(lasted),
            retries: self.retries,
            reason: self.reason,
        });
    }
}

/// Milliseconds to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
