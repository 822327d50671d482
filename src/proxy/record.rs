//! What will be said of a connection when it ends, gathered while it lasts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Desk;
use crate::backend::State;
use crate::ending::Reason;
use crate::logging::Line;
use crate::metrics::ListenerMetrics;
use crate::net::address::ClientAddr;
use crate::units::Name;

/// The record of one connection. It is closed with [`Record::close`]; one that is dropped open, as when its task panics, says
/// so as `internal`.
#[derive(Debug)]
pub(super) struct Record<'a> {
    desk: &'a Desk,
    listener: Arc<ListenerMetrics>,
    client: ClientAddr,
    accepted: Instant,
    pool: Option<Name>,
    server: Option<Arc<State>>,
    connecting: Duration,
    retries: u8,
    /// Bytes up and bytes down.
    bytes: (u64, u64),
    reason: Reason,
}

impl<'a> Record<'a> {
    pub(super) fn open(desk: &'a Desk, listener: Arc<ListenerMetrics>, client: ClientAddr, accepted: Instant) -> Self {
        let (pool, server, connecting) = (None, None, Duration::ZERO);
        Self {
            desk,
            listener,
            client,
            accepted,
            pool,
            server,
            connecting,
            retries: 0,
            bytes: (0, 0),
            reason: Reason::Internal,
        }
    }

    /// When it was accepted.
    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// What is counted of its listener.
    pub(super) fn listener(&self) -> Arc<ListenerMetrics> {
        Arc::clone(&self.listener)
    }

    /// It goes to this pool.
    pub(super) fn routed(&mut self, pool: &Name) {
        self.pool = Some(pool.clone());
    }

    /// It is given to this server, after so many that could not be connected to.
    pub(super) fn connected(&mut self, server: &Arc<State>, connecting: Duration) {
        self.server = Some(Arc::clone(server));
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
    pub(super) fn close(mut self, reason: Reason) {
        self.reason = reason;
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let lasted = self.accepted.elapsed();
        self.listener.ended(self.desk.worker, self.reason, lasted);
        if !self.desk.access.is_on() {
            return;
        }
        self.desk.access.write(&Line {
            listener: self.listener.name().as_str(),
            protocol: "tcp",
            client: self.client.to_string(),
            pool: self.pool.as_ref().map(Name::as_str),
            server: self.server.as_ref().map(|server| server.name.as_str()),
            bytes_in: self.bytes.0,
            bytes_out: self.bytes.1,
            connect_ms: self.server.is_some().then(|| millis(self.connecting)),
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
