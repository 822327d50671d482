//! What is: the model made ready for connections, and what of its predecessor lives on in it.
//!
//! A snapshot is built from a model and the snapshot before it by [`Snapshot::build`], which touches nothing that lives
//! and so may be thrown away; one task publishes it through a [`Published`] and then calls [`Snapshot::take_over`].

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::backend::{Server, State};
use crate::config::model::{self, Model, OnDown};
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::pool::{Pool, Settings};
use crate::units::Name;

/// The one place the snapshot in effect is read from.
pub type Published = ArcSwap<Snapshot>;

/// One generation of what is in effect.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number; the first is 1.
    pub generation: u64,
    /// What it was built from.
    pub model: Model,
    listeners: HashMap<Name, Listener>,
    pools: HashMap<Name, PoolInEffect>,
    /// What was in effect before, for as long as it is there.
    previous: Weak<Self>,
}

/// What connections of a listener need to know.
#[derive(Debug)]
pub struct Listener {
    /// What is counted of it, whatever the generation.
    pub metrics: Arc<ListenerMetrics>,
    /// How many connections it serves at once.
    pub max_connections: u32,
    /// How long its connections may take for what.
    pub timeouts: model::ListenerTimeouts,
    pool: Name,
}

/// A pool, with what is done about its servers rather than with them.
#[derive(Debug)]
pub struct PoolInEffect {
    /// The pool.
    pub pool: Pool,
    /// What happens to established connections of a server that goes down.
    pub on_down: OnDown,
}

impl Snapshot {
    /// Builds the next generation. Whatever kept its name keeps its state.
    #[must_use]
    pub fn build(model: Model, previous: Option<&Self>, catalogue: &Catalogue) -> Self {
        let listeners = model
            .listeners
            .iter()
            .map(|listener| {
                let built = Listener {
                    metrics: catalogue.listener(&listener.name),
                    max_connections: listener.max_connections,
                    timeouts: listener.timeouts,
                    pool: listener.pool.clone(),
                };
                (listener.name.clone(), built)
            })
            .collect();
        let pools = model
            .pools
            .iter()
            .map(|pool| {
                let before = previous.and_then(|previous| previous.pools.get(&pool.name));
                let built = PoolInEffect { pool: build_pool(pool, before, catalogue), on_down: pool.on_down };
                (pool.name.clone(), built)
            })
            .collect();
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        Self { generation, model, listeners, pools, previous: Weak::new() }
    }

    /// Lets connections find what is in effect until this is published: see [`Snapshot::with_listener`].
    pub fn succeed(&mut self, previous: &Arc<Self>) {
        self.previous = Arc::downgrade(previous);
    }

    /// This snapshot, or the one before it when only that has the listener: while a reload is under way, a socket still
    /// belongs to a listener that is no more, and what arrives at it is served as that listener would have.
    #[must_use]
    pub fn with_listener(self: Arc<Self>, name: &Name) -> Arc<Self> {
        if self.listeners.contains_key(name) {
            return self;
        }
        self.previous.upgrade().filter(|previous| previous.listeners.contains_key(name)).unwrap_or(self)
    }

    /// The listener of this name.
    #[must_use]
    pub fn listener(&self, name: &Name) -> Option<&Listener> {
        self.listeners.get(name)
    }

    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &Name) -> Option<&PoolInEffect> {
        self.pools.get(name)
    }

    /// The pool that a listener's connections go to.
    #[must_use]
    pub fn pool_of(&self, listener: &Listener) -> Option<&PoolInEffect> {
        self.pools.get(&listener.pool)
    }

    /// Its pools, in the order of the file.
    pub fn pools(&self) -> impl Iterator<Item = &PoolInEffect> {
        self.model.pools.iter().filter_map(|pool| self.pools.get(&pool.name))
    }

    /// How long connections may go on once they are to end.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.model.drain_timeout
    }

    /// Makes the servers report to the pools of this snapshot. The publisher calls it once the snapshot is published.
    pub fn take_over(&self) {
        self.pools.values().for_each(|pool| pool.pool.take_over());
    }
}

fn build_pool(pool: &model::Pool, before: Option<&PoolInEffect>, catalogue: &Catalogue) -> Pool {
    let kept: HashMap<&Name, &Arc<State>> =
        before.into_iter().flat_map(|before| before.pool.servers()).map(|s| (&s.state.name, &s.state)).collect();
    let model::Pool { name, balance, servers, check: _, timeouts, source, retries, on_down: _ } = pool;
    let servers = servers
        .iter()
        .map(|server| {
            let model::Server { name: server_name, address, weight, backup, max_connections } = server;
            let state = kept.get(server_name).map_or_else(
                || State::counted(name.clone(), server_name.clone(), catalogue),
                |state| Arc::clone(state),
            );
            Server {
                state,
                address: address.clone(),
                weight: *weight,
                backup: *backup,
                max_connections: *max_connections,
            }
        })
        .collect();
    let settings =
        Settings { balance: *balance, retries: *retries, connect_timeout: timeouts.connect, sources: source.clone() };
    Pool::new(name.clone(), settings, servers)
}
