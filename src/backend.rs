//! A server: who it is, how it does, and the guard that counts a connection as its own.
//!
//! [`State`] is what outlives a reload, known by the names of its pool and itself; [`Server`] is that state together with
//! the settings one snapshot gives it. Each flag of a state has one writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam_utils::CachePadded;

use crate::net::address::ServerAddr;
use crate::units::{Name, Weight};

/// What a server is and has, for as long as its names stay in the configuration.
#[derive(Debug)]
pub struct State {
    /// The pool it belongs to.
    pub pool: Name,
    /// Its name within the pool.
    pub name: Name,
    /// Connections in flight, counted by every worker.
    active: CachePadded<AtomicU32>,
    /// Whether the checker holds it fit; written by the checker alone.
    healthy: AtomicBool,
    /// Who wants to know when the load or a flag changes: the ranking of the pool it is in now, if that keeps one.
    watching: ArcSwapOption<Watching>,
}

/// Hears that the load or a flag of a server changed. Called on the path of every connection: it must not block.
pub trait Watcher: Send + Sync + std::fmt::Debug {
    /// The server at this place of the ranking has changed.
    fn changed(&self, place: usize);
}

/// A watcher and the place it knows the server by.
#[derive(Debug)]
pub struct Watching {
    /// Who hears of changes.
    pub watcher: Arc<dyn Watcher>,
    /// What it calls this server.
    pub place: usize,
}

impl State {
    /// A server nobody has seen yet: healthy until a probe says otherwise.
    #[must_use]
    pub fn new(pool: Name, name: Name) -> Arc<Self> {
        Arc::new(Self {
            pool,
            name,
            active: CachePadded::new(AtomicU32::new(0)),
            healthy: AtomicBool::new(true),
            watching: ArcSwapOption::empty(),
        })
    }

    /// Connections in flight.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether the checker holds it fit.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Sets what the checker found; the checker is the only caller.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
        self.announce();
    }

    /// Lets the ranking of a newly built pool hear of changes, in place of any earlier one.
    pub fn set_watching(&self, watching: Option<Watching>) {
        self.watching.store(watching.map(Arc::new));
        self.announce();
    }

    fn announce(&self) {
        if let Some(watching) = &*self.watching.load() {
            watching.watcher.changed(watching.place);
        }
    }
}

/// A server with the settings one snapshot gives it.
#[derive(Clone, Debug)]
pub struct Server {
    /// What outlives the snapshot.
    pub state: Arc<State>,
    /// Where it listens.
    pub address: ServerAddr,
    /// Its share of the traffic.
    pub weight: Weight,
    /// Whether it is chosen only while no other server can be.
    pub backup: bool,
    /// How many connections it is given at once, at most; `u32::MAX` sets no limit.
    pub max_connections: u32,
}

impl Server {
    /// Whether it may be given a connection now: it has weight, is healthy and has room.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.weight.get() > 0 && self.state.is_healthy() && self.state.active() < self.max_connections
    }

    /// Counts one more connection as this server's, unless it is full by now.
    #[must_use]
    pub fn acquire(&self) -> Option<Lease> {
        let before = self.state.active.fetch_add(1, Ordering::Relaxed);
        if before >= self.max_connections {
            self.state.active.fetch_sub(1, Ordering::Relaxed);
            self.state.announce();
            return None;
        }
        self.state.announce();
        Some(Lease { state: Arc::clone(&self.state) })
    }
}

/// One connection counted as its server's, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    state: Arc<State>,
}

impl Lease {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state.active.fetch_sub(1, Ordering::Relaxed);
        self.state.announce();
    }
}
