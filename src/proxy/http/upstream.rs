//! The connections of a worker to servers that wait for the next request: by server, the last used first, within bounds.
//!
//! They belong to a server's state, which outlives reloads, and are of use for as long as the server is reached in the same
//! way. Those that a server closes are noticed before they are given out; those nobody asks for again are closed in time by
//! [`Upstreams::keep_house`].

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::http2::Http2Connection;
use super::server::Http1Server;
use crate::backend::{Server, State};
use crate::config::model::http::Keep;
use crate::ending::Reason;
use crate::net::address::ServerAddr;
use crate::proxy::Desk;
use crate::snapshot::Snapshot;
use crate::tls::ServerTls;

/// How often it is looked for connections that have waited too long.
const ROUND: Duration = Duration::from_secs(1);

/// With fewer descriptors left than one in so many, none wait: checks need some as well, and a server whose check cannot be
/// made counts as down.
const SCARCE: u32 = 16;

/// The waiting connections of a worker.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Upstreams {
    servers: RefCell<FxHashMap<usize, Shelf>>,
    /// Whether there is anything to tidy, to who does that.
    is_in_use: Notify,
}

/// Those to one server.
#[derive(Debug)]
struct Shelf {
    /// Held, so that its address in memory is no other's.
    state: Arc<State>,
    address: ServerAddr,
    tls: Option<Arc<ServerTls>>,
    keep: Keep,
    /// The last used at the back.
    idle: VecDeque<Idle>,
    /// Those of HTTP/2, which carry requests while they stand here.
    shared: Vec<Http2Connection>,
    gate: Rc<Gate>,
    demand: Demand,
}

/// How many more connections than `max_idle` are worth keeping.
///
/// With many requests at a time, responses come in bursts, and the connections of one burst that are too many are those that
/// the next burst of requests has to make anew: that costs more than all else about a request. So each that is closed for
/// want of room and then missed within the second makes room for one more, until a second has passed in which that was not
/// used. An idle server's connections are as many as `max_idle` soon after its traffic has gone.
#[derive(Debug, Default)]
struct Demand {
    /// How many more than `max_idle` may wait.
    beyond: usize,
    /// How many were closed for want of room in this round, and not missed so far.
    closed: usize,
    /// The most that waited at once in this round.
    most: usize,
}

impl Demand {
    /// A request finds none.
    const fn missed(&mut self) {
        if self.closed > 0 {
            self.closed -= 1;
            self.beyond += 1;
        }
    }

    /// A round is over that leaves so many, of which `max_idle` may wait for long.
    fn next_round(&mut self, waiting: usize, max_idle: usize) {
        self.beyond = self.beyond.min(self.most.saturating_sub(max_idle));
        self.closed = 0;
        self.most = waiting;
    }
}

/// Lets one request make a connection of HTTP/2, and those that want one meanwhile wait for how that goes, and for how many
/// requests the server takes on it.
#[derive(Debug)]
pub(super) struct Gate {
    making: Arc<Semaphore>,
    /// Whether the server has chosen HTTP/1 the last time: then nobody waits for another.
    pub(super) http1: Cell<bool>,
    /// How often it failed, and why the last time.
    failures: Cell<(u64, Option<Reason>)>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { making: Arc::new(Semaphore::new(1)), http1: Cell::default(), failures: Cell::default() }
    }
}

/// That nobody else makes a connection of HTTP/2, until it is dropped.
pub(super) type Making = OwnedSemaphorePermit;

impl Gate {
    /// Waits until nobody else makes one.
    pub(super) async fn enter(&self) -> Option<Making> {
        // It is never closed.
        Arc::clone(&self.making).acquire_owned().await.ok()
    }

    /// How often making one failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.get().0
    }

    /// Making one failed.
    pub(super) fn failed(&self, reason: Reason) {
        self.failures.set((self.failures() + 1, Some(reason)));
    }

    /// Why making one failed since there were so many failures, if it did.
    pub(super) fn failed_since(&self, failures: u64) -> Option<Reason> {
        let (now, reason) = self.failures.get();
        reason.filter(|_| now != failures)
    }
}

#[derive(Debug)]
struct Idle {
    connection: Box<Http1Server>,
    since: Instant,
}

impl Shelf {
    fn is_for(&self, server: &Server) -> bool {
        let same_tls = match (&self.tls, &server.tls) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_tls && self.address == server.address
    }

    /// Closes those that have waited for the longest, until no more wait than may. Those that carry requests do not wait.
    fn bound(&mut self) {
        let Self { keep, idle, shared, demand, .. } = self;
        loop {
            let waiting = shared.iter().enumerate().filter_map(|(at, connection)| Some((connection.idle_since()?, at)));
            let count = idle.len() + waiting.clone().count();
            if count <= keep.max_idle.saturating_add(demand.beyond) {
                demand.most = demand.most.max(count);
                return;
            }
            match waiting.min() {
                Some((since, at)) if idle.front().is_none_or(|idle| since < idle.since) => drop(shared.remove(at)),
                Some(_) | None => {
                    idle.pop_front();
                    demand.closed += 1;
                }
            }
        }
    }

    /// Closes what need not wait any longer.
    fn tidy(&mut self, desk: &Desk, now: Instant) {
        let Self { keep, idle, shared, demand, .. } = self;
        idle.retain_mut(|idle| !idle.is_too_old(keep, now) && !idle.connection.is_spent(&desk.scratch));
        shared.retain_mut(|connection| !is_spent(connection, keep, now));
        // Those beyond `max_idle` that this round had no use for.
        let unused = idle.iter().take_while(|idle| now.duration_since(idle.since) >= ROUND).count();
        idle.drain(..unused.min(idle.len().saturating_sub(keep.max_idle)));
        demand.next_round(idle.len(), keep.max_idle);
        self.bound();
    }
}

impl Idle {
    fn is_too_old(&self, keep: &Keep, now: Instant) -> bool {
        now.duration_since(self.since) >= keep.idle_timeout || is_aged(&self.connection, keep, now)
    }
}

fn is_aged(connection: &Http1Server, keep: &Keep, now: Instant) -> bool {
    connection.requests >= keep.max_requests
        || !keep.max_age.is_zero() && now.duration_since(connection.made) >= keep.max_age
}

/// Whether a connection of HTTP/2 is to get no further request. One that still carries some is kept by those.
fn is_spent(connection: &mut Http2Connection, keep: &Keep, now: Instant) -> bool {
    let too_old = !keep.max_age.is_zero() && now.duration_since(connection.made()) >= keep.max_age;
    let too_long = connection.idle_since().is_some_and(|since| now.duration_since(since) >= keep.idle_timeout);
    // Its server takes none any more.
    let useless = connection.idle_since().is_some() && !connection.has_room();
    too_old || too_long || useless || connection.requests() >= keep.max_requests || connection.is_over()
}

impl Upstreams {
    /// A connection to this server that waits for a request.
    pub(super) fn take(&self, desk: &Desk, server: &Server, keep: &Keep, now: Instant) -> Option<Box<Http1Server>> {
        let mut servers = self.servers.borrow_mut();
        let shelf = servers.get_mut(&Arc::as_ptr(&server.state).addr())?;
        if !shelf.is_for(server) {
            servers.remove(&Arc::as_ptr(&server.state).addr());
            return None;
        }
        while let Some(mut idle) = shelf.idle.pop_back() {
            if !idle.is_too_old(keep, now) && !idle.connection.is_spent(&desk.scratch) {
                return Some(idle.connection);
            }
        }
        shelf.demand.missed();
        None
    }

    /// A connection of HTTP/2 to this server that has room for a request.
    pub(super) fn take_shared(&self, server: &Server, keep: &Keep, now: Instant) -> Option<Http2Connection> {
        let mut servers = self.servers.borrow_mut();
        let shelf = servers.get_mut(&Arc::as_ptr(&server.state).addr()).filter(|shelf| shelf.is_for(server))?;
        shelf.shared.iter_mut().find_map(|connection| {
            let fits = !is_spent(connection, keep, now) && connection.has_room();
            fits.then(|| connection.clone())
        })
    }

    /// What lets one request at a time make a connection of HTTP/2 to this server.
    pub(super) fn gate(&self, server: &Server, keep: &Keep) -> Rc<Gate> {
        let mut servers = self.servers.borrow_mut();
        Rc::clone(&self.shelf(&mut servers, server, keep).gate)
    }

    /// Lets other requests use a connection of HTTP/2.
    pub(super) fn put_shared(&self, server: &Server, keep: &Keep, connection: Http2Connection) {
        let mut servers = self.servers.borrow_mut();
        self.shelf(&mut servers, server, keep).shared.push(connection);
    }

    /// The shelf of a server, made anew if it is reached in another way now.
    fn shelf<'s>(&self, servers: &'s mut FxHashMap<usize, Shelf>, server: &Server, keep: &Keep) -> &'s mut Shelf {
        if servers.is_empty() {
            self.is_in_use.notify_one();
        }
        let new = || Shelf {
            state: Arc::clone(&server.state),
            address: server.address.clone(),
            tls: server.tls.clone(),
            keep: *keep,
            idle: VecDeque::new(),
            shared: Vec::new(),
            gate: Rc::default(),
            demand: Demand::default(),
        };
        let shelf = servers.entry(Arc::as_ptr(&server.state).addr()).or_insert_with(new);
        if !shelf.is_for(server) {
            *shelf = new();
        }
        shelf.keep = *keep;
        shelf
    }

    /// Lets a connection wait for the next request, if there is room for it.
    pub(super) fn put(&self, server: &Server, keep: &Keep, connection: Box<Http1Server>, now: Instant) {
        if keep.max_idle == 0 || is_aged(&connection, keep, now) {
            return;
        }
        let mut servers = self.servers.borrow_mut();
        let shelf = self.shelf(&mut servers, server, keep);
        shelf.idle.push_back(Idle { connection, since: now });
        shelf.bound();
    }

    /// A request on a connection of HTTP/2 is over, which may wait now.
    pub(super) fn settle(&self, server: &Server, keep: &Keep) {
        if let Some(shelf) = self.servers.borrow_mut().get_mut(&Arc::as_ptr(&server.state).addr()) {
            // A reload may have changed it.
            shelf.keep = *keep;
            shelf.bound();
        }
    }

    /// Closes those to a server, as when it went down.
    pub(in crate::proxy) fn close(&self, state: &Arc<State>) {
        self.servers.borrow_mut().remove(&Arc::as_ptr(state).addr());
    }

    /// Closes those that wait, for want of descriptors. Returns whether that has made room.
    pub(in crate::proxy) fn make_room(&self) -> bool {
        let mut made = false;
        self.retain(|_, shelf| {
            made |= !shelf.idle.is_empty();
            shelf.idle.clear();
            shelf.demand = Demand::default();
            // Their descriptors are closed when their tasks have ended.
            shelf.shared.retain(|connection| connection.idle_since().is_none());
            true
        });
        made
    }

    /// Closes all.
    fn close_all(&self) {
        self.servers.borrow_mut().clear();
    }

    fn is_empty(&self) -> bool {
        self.servers.borrow().is_empty()
    }

    /// Closes what has waited for too long, what its server has closed, and what leads to servers that are no more, for as
    /// long as the worker runs.
    pub(in crate::proxy) async fn keep_house(desk: Rc<Desk>) {
        let stopping = desk.tasks.stopping().clone();
        let mut edition = 0;
        let rounds = async {
            loop {
                if desk.requests.upstreams.is_empty() {
                    desk.requests.upstreams.is_in_use.notified().await;
                }
                tokio::time::sleep(ROUND).await;
                let snapshot = desk.published.load();
                if edition != snapshot.edition {
                    edition = snapshot.edition;
                    desk.requests.upstreams.forget_others(&snapshot);
                }
                drop(snapshot);
                desk.requests.upstreams.tidy(&desk, Instant::now());
                if desk.catalogue.descriptors().is_some_and(|stock| stock.free < stock.total / SCARCE) {
                    desk.requests.upstreams.make_room();
                }
            }
        };
        let room = async {
            loop {
                desk.shortage.notified().await;
                desk.requests.upstreams.make_room();
            }
        };
        let _stopped: Option<((), ())> = stopping.run_until_cancelled(async { tokio::join!(rounds, room) }).await;
        desk.requests.upstreams.close_all();
    }

    /// Closes what leads to servers that this snapshot has not.
    fn forget_others(&self, snapshot: &Snapshot) {
        let servers = snapshot.pools().flat_map(|pool| pool.pool.servers());
        let known: HashSet<usize> = servers.map(|server| Arc::as_ptr(&server.state).addr()).collect();
        self.retain(|at, _| known.contains(at));
    }

    fn tidy(&self, desk: &Desk, now: Instant) {
        self.retain(|_, shelf| {
            if !shelf.state.is_healthy() {
                return false;
            }
            shelf.tidy(desk, now);
            // All may be lent just now.
            let Shelf { idle, shared, gate, demand, .. } = shelf;
            !idle.is_empty() || !shared.is_empty() || demand.beyond > 0 || Rc::strong_count(gate) > 1
        });
    }

    fn retain(&self, mut stays: impl FnMut(&usize, &mut Shelf) -> bool) {
        let mut servers = self.servers.borrow_mut();
        servers.retain(|at, shelf| stays(at, shelf));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_more_may_wait_as_were_closed_and_missed_in_a_round_until_one_has_no_use_for_them() {
        let mut demand = Demand::default();
        demand.missed();
        assert_eq!(demand.beyond, 0, "nothing was closed that could be missed");
        demand.closed = 3;
        for _ in 0..5 {
            demand.missed();
        }
        assert_eq!((demand.beyond, demand.closed), (3, 0));
        (demand.most, demand.closed) = (7, 1);
        demand.next_round(6, 4);
        demand.missed();
        assert_eq!((demand.beyond, demand.most), (3, 6), "all were of use, and what was closed before is forgotten");
        demand.next_round(5, 4);
        assert_eq!(demand.beyond, 2);
        demand.next_round(0, 4);
        demand.next_round(0, 4);
        assert_eq!(demand.beyond, 0);
    }
}
