//! The life of one connection after the gate.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::live::Entry;
use super::record::Record;
use super::{Desk, reasons};
use crate::backend::State;
use crate::config::model::ListenerTimeouts;
use crate::ending::Reason;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::address::ClientAddr;
use crate::net::dial::{First, dial};
use crate::net::errno;
use crate::net::stream::Stream;
use crate::pool::{Picked, Pool, Tried};
use crate::relay::{Direction, Limits, Meter, relay};
use crate::snapshot::Snapshot;
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
pub fn serve(desk: Rc<Desk>, admitted: Admitted) -> impl Future<Output = ()> {
    let Admitted { socket, client, accepted, listener, snapshot, place } = admitted;
    // Not only once the task runs: whoever is let in can be called back.
    let live = desk.live.enter(&desk, Arc::clone(&place.listener));
    let mut record = Record::open(desk, place, client, accepted);
    // Setting up needs much that the connection does not need later: it has a box of its own, so that the task of an
    // established connection is small.
    let setting_up = Box::pin(async move {
        let outcome = set_up(&mut record, live, socket, &listener, &snapshot).await;
        (record, outcome)
    });
    async move {
        let (mut record, outcome) = setting_up.await;
        match outcome {
            Ok(established) => converse(&mut record, established).await,
            Err(reason) => record.close(reason),
        }
    }
}

/// A connection with a server at its other end.
#[derive(Debug)]
struct Established {
    client: Stream,
    server: Stream,
    /// What the client had sent before the server was connected.
    early: Vec<u8>,
    live: Entry,
    limits: Limits,
}

/// Finds the connection a server. What it returns holds nothing of the snapshot: the connection may outlive many.
async fn set_up(
    record: &mut Record,
    live: Entry,
    socket: OwnedFd,
    listener: &Name,
    snapshot: &Snapshot,
) -> Result<Established, Reason> {
    let client = Stream::new(socket).map_err(|_no_event_queue| Reason::Internal)?;
    let desk = Rc::clone(&record.desk);
    let Some((timeouts, pool)) =
        snapshot.listener(listener).and_then(|listener| Some((listener.timeouts, snapshot.pool_of(listener)?)))
    else {
        client.reset();
        return Err(Reason::Internal);
    };
    record.routed(pool.pool.name());
    // Most clients speak first and have spoken by now. Nothing is lost if not: the server is not kept waiting either way.
    let early = match desk.scratch.read_early(&client) {
        Ok(early) => early,
        Err(errno) => {
            let gone = errno::is_disconnect(errno);
            return Err(if gone { Reason::ClientReset } else { Reason::Internal });
        }
    };
    let first = if early.is_empty() { First::PerhapsServer } else { First::Us };
    let connected = tokio::select! {
        connected = connect(record, &pool.pool, first) => connected,
        () = live.recall.due() => Err(live.recalled_for().unwrap_or(Reason::Internal)),
    };
    match connected {
        Ok(server) => {
            if let Some(state) = record.server() {
                live.set_server(state);
            }
            let ListenerTimeouts { idle, half_close, max_age } = timeouts;
            let expires = (!max_age.is_zero()).then(|| record.accepted() + max_age);
            let half_close = half_close.min(idle);
            Ok(Established { client, server, early, live, limits: Limits { idle, half_close, expires } })
        }
        Err(reason) => {
            client.reset();
            Err(reason)
        }
    }
}

/// Picks a server and connects to it; if that fails, picks another, as often as the pool allows. What the client has sent is
/// sent to none before it is connected, so nothing has to be replayed.
async fn connect(record: &mut Record, pool: &Pool, first: First) -> Result<Stream, Reason> {
    let mut tried = Tried::new();
    let mut failure = Reason::NoServer;
    while let Some(Picked { server, lease }) = pool.pick(&tried) {
        if tried.count() > 0 {
            record.retried();
        }
        let started = Instant::now();
        match dial(&server.address, pool.next_source(server), pool.connect_timeout(), first).await {
            Ok(stream) => {
                record.connected(lease, started.elapsed());
                return Ok(stream);
            }
            Err(error) => {
                failure = reasons::of_dial(error.failure);
                if failure == Reason::Internal {
                    tracing::warn!(pool = %pool.name(), server = %server.state.name, "connecting failed: {error}");
                }
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

/// Relays between the two sides until the end, and closes both accordingly.
async fn converse(record: &mut Record, established: Established) {
    let Established { client, server, early, live, limits } = established;
    let desk = Rc::clone(&record.desk);
    let meter = Both { worker: desk.worker, listener: record.listener(), server: record.server() };
    let report = relay(&client, &server, early, limits, &desk.scratch, &live.recall, &meter).await;
    record.moved(report.up, report.down);
    if !report.is_clean() {
        client.reset();
        server.reset();
    }
    record.close(reasons::of_relay(&report, live.recalled_for()));
}

/// Counts bytes for the listener and for the server.
struct Both<'a> {
    worker: usize,
    listener: &'a ListenerMetrics,
    server: Option<&'a Arc<State>>,
}

impl Meter for Both<'_> {
    fn moved(&self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        let server = self.server.map(|server| server.metrics());
        match direction {
            Direction::Up => {
                self.listener.bytes_in(self.worker, bytes);
                server.inspect(|server| server.bytes_in(self.worker, bytes));
            }
            Direction::Down => {
                self.listener.bytes_out(self.worker, bytes);
                server.inspect(|server| server.bytes_out(self.worker, bytes));
            }
        }
    }
}
