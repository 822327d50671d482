//! The life of one connection after the gate.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::live::{Entry, Live};
use super::record::Record;
use super::{Desk, reasons};
use crate::backend::{Lease, State};
use crate::config::model::ListenerTimeouts;
use crate::ending::Reason;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::address::ClientAddr;
use crate::net::dial::dial;
use crate::net::stream::Stream;
use crate::pool::{Picked, Tried};
use crate::relay::{Direction, Limits, Meter, relay};
use crate::snapshot::{PoolInEffect, Snapshot};
use crate::units::Name;

/// A connection that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// Its socket, not yet watched by any runtime.
    pub socket: OwnedFd,
    /// Who it is from.
    pub client: ClientAddr,
    /// When it was accepted.
    pub accepted: Instant,
    /// The listener it came through.
    pub listener: Name,
    /// The snapshot that was in effect then; it decides everything about this connection.
    pub snapshot: Arc<Snapshot>,
    /// Its place among those that are counted.
    pub place: Place,
}

/// One connection's place among the connections of its listener, its worker and the process, until it is dropped.
#[derive(Debug)]
pub struct Place {
    catalogue: Arc<Catalogue>,
    /// What is counted of its listener.
    pub listener: Arc<ListenerMetrics>,
    worker: usize,
}

impl Place {
    /// A place for one more connection, unless its listener or the process has all it may have.
    #[must_use]
    pub fn take(
        catalogue: &Arc<Catalogue>,
        listener: &Arc<ListenerMetrics>,
        worker: usize,
        most_of_listener: u32,
        most_of_process: u32,
    ) -> Option<Self> {
        if !listener.active.enter(most_of_listener) {
            return None;
        }
        if !catalogue.active.enter(most_of_process) {
            listener.active.leave();
            return None;
        }
        if let Some(worker) = catalogue.workers().get(worker) {
            let _always = worker.active.enter(u32::MAX);
        }
        Some(Self { catalogue: Arc::clone(catalogue), listener: Arc::clone(listener), worker })
    }

    /// Counts the connection as another worker's from here on.
    pub fn move_to(&mut self, worker: usize) {
        if let Some(other) = self.catalogue.workers().get(worker) {
            let _always = other.active.enter(u32::MAX);
            self.leave_worker();
            self.worker = worker;
        }
    }

    fn leave_worker(&self) {
        if let Some(worker) = self.catalogue.workers().get(self.worker) {
            worker.active.leave();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_worker();
        self.catalogue.active.leave();
        self.listener.active.leave();
    }
}

/// Serves a connection to its end, on the worker that carries it.
pub async fn serve(desk: Rc<Desk>, admitted: Admitted, entry: Entry) {
    let Admitted { socket, client, accepted, listener, snapshot, place } = admitted;
    let mut record = Record::open(&desk, Arc::clone(&place.listener), client, accepted);
    let Ok(client) = Stream::new(socket) else {
        return record.close(Reason::Internal);
    };
    let Some((timeouts, pool)) =
        snapshot.listener(&listener).and_then(|listener| Some((listener.timeouts, snapshot.pool_of(listener)?)))
    else {
        client.reset();
        return record.close(Reason::Internal);
    };
    record.routed(pool.pool.name());
    let connected = tokio::select! {
        connected = connect(&desk, pool, &mut record) => connected,
        () = entry.live.recall.due() => Err(entry.live.recalled_for().unwrap_or(Reason::Internal)),
    };
    match connected {
        Ok((server, lease)) => {
            // From here on nothing of this generation is needed: the connection may outlive many.
            drop(snapshot);
            entry.live.set_server(lease.server());
            converse(&desk, &entry.live, client, server, lease, timeouts, record).await;
        }
        Err(reason) => {
            client.reset();
            record.close(reason);
        }
    }
}

/// Picks a server and connects to it; if that fails, picks another, as often as the pool allows. Nothing was read from the
/// client before, so nothing has to be replayed.
async fn connect(desk: &Desk, pool: &PoolInEffect, record: &mut Record<'_>) -> Result<(Stream, Lease), Reason> {
    let pool = &pool.pool;
    let mut tried = Tried::new();
    let mut failure = Reason::NoServer;
    loop {
        let Some(Picked { server, lease }) = pool.pick(&tried) else {
            return Err(failure);
        };
        if tried.count() > 0 {
            record.retried();
        }
        let started = Instant::now();
        match dial(&server.address, pool.next_source(server), pool.connect_timeout()).await {
            Ok(stream) => {
                let connecting = started.elapsed();
                server.state.metrics().connected(desk.worker, connecting);
                record.connected(&server.state, connecting);
                return Ok((stream, lease));
            }
            Err(error) => {
                failure = reasons::of_dial(error.failure);
                if failure == Reason::Internal {
                    tracing::warn!(pool = %pool.name(), server = %server.state.name, "connecting failed: {error}");
                }
                server.state.metrics().connect_failed(desk.worker, failure);
                if reasons::is_servers_fault(failure) {
                    server.state.report_failure();
                }
            }
        }
        tried.add(&server.state);
        if tried.count() > usize::from(pool.retries()) {
            return Err(failure);
        }
    }
}

/// Relays between the two sides until the end, and closes both accordingly.
async fn converse(
    desk: &Desk,
    live: &Live,
    client: Stream,
    server: Stream,
    lease: Lease,
    timeouts: ListenerTimeouts,
    mut record: Record<'_>,
) {
    let ListenerTimeouts { idle, half_close, max_age } = timeouts;
    let expires = (!max_age.is_zero()).then(|| record.accepted() + max_age);
    let meter = BothMeters { worker: desk.worker, listener: record.listener(), server: lease.server() };
    let report =
        relay(&client, &server, Limits { idle, half_close, expires }, &desk.scratch, &live.recall, &meter).await;
    record.moved(report.up, report.down);
    if !report.is_clean() {
        client.reset();
        server.reset();
    }
    record.close(reasons::of_relay(&report, live.recalled_for()));
}

/// Counts bytes for the listener and for the server.
struct BothMeters<'a> {
    worker: usize,
    listener: Arc<ListenerMetrics>,
    server: &'a State,
}

impl Meter for BothMeters<'_> {
    fn moved(&self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        match direction {
            Direction::Up => {
                self.listener.bytes_in(self.worker, bytes);
                self.server.metrics().bytes_in(self.worker, bytes);
            }
            Direction::Down => {
                self.listener.bytes_out(self.worker, bytes);
                self.server.metrics().bytes_out(self.worker, bytes);
            }
        }
    }
}
