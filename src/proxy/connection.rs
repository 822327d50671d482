//! The life of one connection after the gate.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::connect::{ServerEnd, connect, header};
use super::intake::{Arrived, ClientEnd, arrive, may_yet_announce, no_longer_than};
use super::live::Entry;
use super::record::Record;
use super::{Desk, reasons};
use crate::backend::State;
use crate::config::model::ListenerTimeouts;
use crate::ending::Reason;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::address::ClientAddr;
use crate::net::dial::First;
use crate::net::stream::Stream;
use crate::relay::{Direction, Early, Limits, Meter, Wire, relay};
use crate::snapshot::{Listener, Snapshot};
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
    client: ClientEnd,
    server: ServerEnd,
    /// What goes to the server first.
    early: Early,
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
    let Some(listener) = snapshot.listener(listener) else {
        client.reset();
        return Err(Reason::Internal);
    };
    let found = tokio::select! {
        found = find_server(record, client, listener, snapshot) => found?,
        () = live.recall.due() => return Err(live.recalled_for().unwrap_or(Reason::Internal)),
    };
    if let Some(state) = record.server() {
        live.set_server(state);
    }
    let ListenerTimeouts { handshake: _, idle, half_close, max_age } = listener.timeouts;
    let expires = (!max_age.is_zero()).then(|| record.accepted() + max_age);
    let half_close = half_close.min(idle);
    let (client, server, early) = found;
    Ok(Established { client, server, early, live, limits: Limits { idle, half_close, expires } })
}

/// Hears the client out and connects to a server of the pool that leads to. Until there is one, dropping the future
/// resets the client.
async fn find_server(
    record: &mut Record,
    mut client: Stream,
    listener: &Listener,
    snapshot: &Snapshot,
) -> Result<(ClientEnd, ServerEnd, Early), Reason> {
    client.set_abandoned(true);
    let mut arrived = arrive(record, client, listener).await?;
    arrived.set_abandoned(true);
    let offers = |protocol: &[u8]| arrived.protocols.iter().any(|offered| **offered == *protocol);
    let Some(pool) = snapshot.route(listener, arrived.asked_for.as_deref(), offers) else {
        return Err(Reason::NoRoute);
    };
    record.routed(pool.pool.name());
    let header = pool.announce.map(|version| header(record, version, &arrived)).unwrap_or_default();
    let goes_on_at_once = !arrived.early.is_empty() && !arrived.screened;
    let first = if goes_on_at_once { First::Us } else { First::PerhapsServer };
    let mut server = connect(record, pool, first, &header).await?;
    if arrived.screened {
        let until = Instant::now() + listener.timeouts.idle;
        Box::pin(no_longer_than(until, screen(record, &mut arrived, &mut server))).await?;
    }
    arrived.set_abandoned(false);
    let Arrived { end, early, .. } = arrived;
    let early = match &server {
        ServerEnd::Plain(_) if !header.is_empty() => {
            let ours = header.len();
            Early { bytes: [header, early].concat(), ours }
        }
        ServerEnd::Plain(_) | ServerEnd::Tls(_) => Early { bytes: early, ours: 0 },
    };
    Ok((end, server, early))
}

/// Waits until a client that must not send a PROXY header has sent something else, or the server has spoken first, so that
/// it will take whatever follows for what it is.
async fn screen(record: &Record, arrived: &mut Arrived, server: &mut ServerEnd) -> Result<(), Reason> {
    let Arrived { end: ClientEnd::Plain(client), early, .. } = arrived else {
        return Ok(());
    };
    while may_yet_announce(early)? {
        let spoken = poll_fn(|cx| match server {
            ServerEnd::Plain(server) => server.poll_readable(cx).map(Ok),
            ServerEnd::Tls(server) => server.poll_spoken(cx),
        });
        tokio::select! {
            biased;
            read = record.desk.scratch.read_more(client, early) => match read {
                // Its end is the relay's to pass on, and cannot be a header any more.
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(errno) => return Err(reasons::of_read(errno)),
            },
            spoken = spoken => return spoken.map_err(reasons::of_read_from_server),
        }
    }
    Ok(())
}

/// Relays between the two sides until the end, and closes both accordingly.
async fn converse(record: &mut Record, established: Established) {
    let Established { client, server, early, live, limits } = established;
    // Each pair of ends has a relay of its own. Only that of plain ones is part of the task itself, which so stays small.
    match (client, server) {
        (ClientEnd::Plain(client), ServerEnd::Plain(server)) => {
            run(record, client, server, early, live, limits).await;
        }
        (ClientEnd::Plain(client), ServerEnd::Tls(server)) => {
            Box::pin(run(record, client, *server, early, live, limits)).await;
        }
        (ClientEnd::Tls(client), ServerEnd::Plain(server)) => {
            Box::pin(run(record, *client, server, early, live, limits)).await;
        }
        (ClientEnd::Tls(client), ServerEnd::Tls(server)) => {
            Box::pin(run(record, *client, *server, early, live, limits)).await;
        }
    }
}

async fn run(
    record: &mut Record,
    mut client: impl Wire,
    mut server: impl Wire,
    early: Early,
    live: Entry,
    limits: Limits,
) {
    let desk = Rc::clone(&record.desk);
    let meter = Both { worker: desk.worker, listener: record.listener(), server: record.server() };
    let report = relay(&mut client, &mut server, early, limits, &desk.scratch, &live.recall, &meter).await;
    record.moved(report.up, report.down);
    if !report.is_clean() {
        client.abandon();
        server.abandon();
        if let Some(words) = client.words().or_else(|| server.words()) {
            record.failed(words);
        }
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
