//! The life of one connection after the gate.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::connect::{connect, header};
use super::ends::{ClientEnd, ServerEnd};
use super::http::{self, Terms};
use super::intake::{Arrived, arrive, arrive_at_once, may_yet_announce, no_longer_than};
use super::live::Entry;
use super::record::{Record, Spoken};
use super::witness::Witness;
use super::{Desk, InEffect, reasons};
use crate::config::model::ListenerTimeouts;
use crate::ending::Reason;
use crate::health::Outlier;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::address::ClientAddr;
use crate::net::dial::First;
use crate::net::stream::Stream;
use crate::relay::{Early, FirstByte, Limits, Wire, relay};
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
    /// The snapshot that was in effect then; it decides everything about this connection.
    pub snapshot: Arc<InEffect>,
    /// Its place among those that are counted.
    pub place: Place,
}

/// A listener, as a worker that accepts for it knows it. What comes through holds this, and nothing that all workers share:
/// whoever takes hold of such a thing or lets go of it writes to a place that others write to as well.
#[derive(Debug)]
pub struct Entrance {
    /// Its name.
    pub name: Name,
    /// What is counted of it.
    pub metrics: Arc<ListenerMetrics>,
    /// The port its socket is bound to, unless that is no TCP socket.
    pub port: Option<u16>,
    /// What is counted of everything.
    pub catalogue: Arc<Catalogue>,
}

/// One connection's place among the connections of its listener, its worker and the process, until it is dropped.
#[derive(Debug)]
pub struct Place {
    /// What it came through.
    pub entrance: Arc<Entrance>,
    worker: usize,
}

impl Place {
    /// A place for one more connection, unless its listener or the process has all it may have.
    #[must_use]
    pub fn take(entrance: &Arc<Entrance>, worker: usize, most_of_listener: u32, most_of_process: u32) -> Option<Self> {
        let Entrance { metrics, catalogue, .. } = &**entrance;
        if !metrics.active.enter(most_of_listener) {
            return None;
        }
        if !catalogue.active.enter(most_of_process) {
            metrics.active.leave();
            return None;
        }
        if let Some(worker) = catalogue.workers().get(worker) {
            let _always = worker.active.enter(u32::MAX);
        }
        Some(Self { entrance: Arc::clone(entrance), worker })
    }

    /// Counts the connection as another worker's from here on.
    pub fn move_to(&mut self, worker: usize) {
        if let Some(other) = self.entrance.catalogue.workers().get(worker) {
            let _always = other.active.enter(u32::MAX);
            self.leave_worker();
            self.worker = worker;
        }
    }

    fn leave_worker(&self) {
        if let Some(worker) = self.entrance.catalogue.workers().get(self.worker) {
            worker.active.leave();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_worker();
        self.entrance.catalogue.active.leave();
        self.entrance.metrics.active.leave();
    }
}

/// Serves a connection to its end in a task of its own, on the worker that carries it.
pub(super) fn begin(desk: &Rc<Desk>, admitted: Admitted) {
    let Admitted { socket, client, accepted, snapshot, place } = admitted;
    let entrance = Arc::clone(&place.entrance);
    // Not only once the task runs: whoever is let in can be called back.
    let live = desk.live.enter(desk, Arc::clone(&entrance));
    let mut record = Record::open(Rc::clone(desk), place, client, accepted);
    let socket = Stream::new(socket);
    // What is to be heard out first has a task for that; requests are waited for in the one that serves them.
    if let Some(in_effect) = snapshot.listener(&entrance.name)
        && let Some(settings) = &in_effect.http
        && in_effect.hears_out_nobody()
    {
        record.spoke(Spoken::Http);
        let terms = Terms::of(in_effect, settings, accepted);
        match arrive_at_once(&record, socket) {
            Ok(arrived) => Serving { arrived, terms, live }.spawn(record),
            Err(reason) => record.close(reason),
        }
        return;
    }
    desk.tasks.spawn_local("connection", serve(record, live, socket, entrance, snapshot));
}

fn serve(
    mut record: Record,
    live: Entry,
    socket: Stream,
    entrance: Arc<Entrance>,
    snapshot: Arc<InEffect>,
) -> impl Future<Output = ()> {
    // Setting up needs much that the connection does not need later: it has a box of its own, so that the task of an
    // established connection is small.
    let setting_up = Box::pin(async move {
        let outcome = set_up(&mut record, live, socket, &entrance.name, &snapshot).await;
        (record, outcome)
    });
    async move {
        let (mut record, outcome) = setting_up.await;
        match outcome {
            Ok(Established::Relay(relayed)) => converse(&mut record, relayed).await,
            // In a task of its own, which is smaller than one with room for a relay.
            Ok(Established::Http(serving)) => serving.spawn(record),
            Err(reason) => record.close(reason),
        }
    }
}

/// A connection that has said where to.
#[derive(Debug)]
enum Established {
    /// There is a server at its other end.
    Relay(Relayed),
    /// Each of its requests is sent on its own.
    Http(Serving),
}

/// A connection whose requests are served.
#[derive(Debug)]
struct Serving {
    arrived: Arrived,
    terms: Terms,
    live: Entry,
}

impl Serving {
    fn spawn(self, record: Record) {
        let Self { arrived, terms, live } = self;
        let desk = Rc::clone(&record.desk);
        desk.tasks.spawn_local("connection", http::serve(record, live, arrived, terms));
    }
}

/// A connection with a server at its other end.
#[derive(Debug)]
struct Relayed {
    client: ClientEnd,
    server: ServerEnd,
    /// What goes to the server first.
    early: Early,
    live: Entry,
    limits: Limits,
    judged: Judged,
}

/// What the server of a connection is judged by.
#[derive(Clone, Copy, Debug)]
struct Judged {
    server_speaks_first: bool,
    /// Whether its pool goes by how long it takes.
    timed: bool,
}

/// Finds the connection a server. What it returns holds nothing of the snapshot: the connection may outlive many.
async fn set_up(
    record: &mut Record,
    live: Entry,
    client: Stream,
    name: &Name,
    snapshot: &Arc<Snapshot>,
) -> Result<Established, Reason> {
    let Some(listener) = snapshot.listener(name) else {
        client.reset();
        return Err(Reason::Internal);
    };
    if let Some(settings) = &listener.http {
        record.spoke(Spoken::Http);
        let mut client = client;
        client.set_abandoned(true);
        let arrived = tokio::select! {
            arrived = arrive(record, client, listener) => arrived?,
            () = live.recall.due() => return Err(live.recalled_for().unwrap_or(Reason::Internal)),
        };
        if arrived.asked_for.is_some() {
            record.more().asked_for.clone_from(&arrived.asked_for);
        }
        let terms = Terms::of(listener, settings, record.accepted());
        return Ok(Established::Http(Serving { arrived, terms, live }));
    }
    let found = tokio::select! {
        found = find_server(record, client, listener, snapshot) => found?,
        () = live.recall.due() => return Err(live.recalled_for().unwrap_or(Reason::Internal)),
    };
    if let Some(state) = record.server() {
        live.set_server(state, found.picked, &record.desk.dismissals);
    }
    let ListenerTimeouts { handshake: _, idle, half_close, max_age: _ } = listener.timeouts;
    let expires = listener.retires(record.accepted());
    let half_close = half_close.min(idle);
    let Found { client, server, picked: _, early, outlier, timed } = found;
    let server_speaks_first = outlier.is_some_and(|outlier| outlier.server_speaks_first);
    let first_byte = match outlier.map(|outlier| outlier.first_byte).filter(|time| !time.is_zero()) {
        None => FirstByte::Settled,
        Some(time) if server_speaks_first => FirstByte::By(Instant::now() + time),
        Some(time) => FirstByte::After(u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
    };
    let limits = Limits { idle, half_close, expires, first_byte };
    let judged = Judged { server_speaks_first, timed };
    Ok(Established::Relay(Relayed { client, server, early, live, limits, judged }))
}

/// Both ends of a connection, and what is held against its server.
struct Found {
    client: ClientEnd,
    server: ServerEnd,
    /// When that was picked.
    picked: Instant,
    early: Early,
    outlier: Option<Outlier>,
    /// Whether its pool goes by how long it takes.
    timed: bool,
}

/// Hears the client out and connects to a server of the pool that leads to. Until there is one, dropping the future
/// resets the client.
async fn find_server(
    record: &mut Record,
    mut client: Stream,
    listener: &Listener,
    snapshot: &Arc<Snapshot>,
) -> Result<Found, Reason> {
    client.set_abandoned(true);
    let mut arrived = arrive(record, client, listener).await?;
    arrived.end.set_abandoned(true);
    let offers = |protocol: &[u8]| arrived.protocols.iter().any(|offered| **offered == *protocol);
    let Some(pool) = snapshot.route(listener, arrived.asked_for.as_deref(), offers) else {
        return Err(Reason::NoRoute);
    };
    record.routed(pool.pool.name());
    let header = pool.announce.map(|version| header(record, version, &arrived)).unwrap_or_default();
    let goes_on_at_once = !arrived.early.is_empty() && !arrived.screened;
    let first = if goes_on_at_once { First::Us } else { First::PerhapsServer };
    let (mut server, picked) = connect(record, snapshot, pool, &arrived, first, &header).await?;
    if arrived.screened {
        let until = Instant::now() + listener.timeouts.idle;
        Box::pin(no_longer_than(until, screen(record, &mut arrived, &mut server))).await?;
    }
    arrived.end.set_abandoned(false);
    let Arrived { end, early, .. } = arrived;
    let early = match &server {
        ServerEnd::Plain(_) if !header.is_empty() => {
            let ours = header.len();
            Early { bytes: [header, early].concat(), ours }
        }
        ServerEnd::Plain(_) | ServerEnd::Tls(_) => Early { bytes: early, ours: 0 },
    };
    let timed = pool.pool.policy().is_timed();
    Ok(Found { client: end, server, picked, early, outlier: pool.outlier, timed })
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
async fn converse(record: &mut Record, relayed: Relayed) {
    let Relayed { client, server, early, live, limits, judged } = relayed;
    // Each pair of ends has a relay of its own. Only that of plain ones is part of the task itself, which so stays small.
    match (client, server) {
        (ClientEnd::Plain(client), ServerEnd::Plain(server)) => {
            run(record, client, server, early, live, limits, judged).await;
        }
        (ClientEnd::Plain(client), ServerEnd::Tls(server)) => {
            Box::pin(run(record, client, *server, early, live, limits, judged)).await;
        }
        (ClientEnd::Tls(client), ServerEnd::Plain(server)) => {
            Box::pin(run(record, *client, server, early, live, limits, judged)).await;
        }
        (ClientEnd::Tls(client), ServerEnd::Tls(server)) => {
            Box::pin(run(record, *client, *server, early, live, limits, judged)).await;
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
    judged: Judged,
) {
    let desk = Rc::clone(&record.desk);
    let Judged { server_speaks_first, timed } = judged;
    let witness = Witness::new(desk.worker, Some(record.listener()), record.server()).timing(timed);
    let report = relay(&mut client, &mut server, early, limits, &desk.scratch, &live.recall, &witness).await;
    witness.relayed(&report, server_speaks_first);
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
