//! The Prometheus catalogue: typed handles to count with, resolved once when a snapshot is built.
//!
//! What every connection counts lies in one shard per worker, written by that worker alone, so that counting is a load and
//! a store and never contends. What must be exact at every moment, since limits hang on it, is a gauge shared by all.
//! Handles are found by name: whatever keeps its name keeps its counters, and a series ends when nothing holds its handle.

mod discovery;
mod expose;
mod http;
mod pools;
mod ports;
mod shard;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::ending::{Handshake, Reason, TlsVersion};
use crate::units::Name;
pub use discovery::{Answered, DiscoveryMetrics};
use http::{ListenerHttp, ServerHttp};
pub use pools::PoolMetrics;
use pools::PoolShard;
use ports::Supplies;
pub use ports::{SourcePorts, Stock};
use shard::{CONNECT_BOUNDS, CONNECTION_BOUNDS, Histogram, Tally};

/// A number that is exact at every moment and shared by all threads.
///
/// A limit that hangs on it is never exceeded, not even for a moment.
#[derive(Debug, Default)]
pub struct Gauge(CachePadded<AtomicU32>);

impl Gauge {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one, unless there are `most` already; says whether it did. `u32::MAX` sets no limit.
    #[must_use]
    pub fn enter(&self, most: u32) -> bool {
        if most == u32::MAX {
            self.0.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Add and take back would be cheaper and wrong: for a moment the number would show more than there may be.
        let more = |number: u32| (number < most).then(|| number + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Takes away one that has entered.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is counted of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: Name,
    /// Connections that are open.
    pub active: Gauge,
    shards: Box<[CachePadded<ListenerShard>]>,
}

#[derive(Debug)]
struct ListenerShard {
    connections: Tally,
    bytes_in: Tally,
    bytes_out: Tally,
    endings: [Tally; Reason::COUNT],
    /// By the version agreed upon and how it went.
    handshakes: [[Tally; Handshake::COUNT]; TlsVersion::COUNT],
    seconds: Histogram<{ CONNECTION_BOUNDS.len() }>,
    http: ListenerHttp,
}

impl ListenerMetrics {
    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// A connection was accepted.
    pub fn accepted(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            shard.connections.add(1);
        }
    }

    /// Bytes went from the client to the server.
    pub fn bytes_in(&self, worker: usize, bytes: u64) {
        if let Some(shard) = self.shards.get(worker) {
            shard.bytes_in.add(bytes);
        }
    }

    /// Bytes went from the server to the client.
    pub fn bytes_out(&self, worker: usize, bytes: u64) {
        if let Some(shard) = self.shards.get(worker) {
            shard.bytes_out.add(bytes);
        }
    }

    /// A connection ended, this long after it was accepted.
    pub fn ended(&self, worker: usize, reason: Reason, after: Duration) {
        if let Some(shard) = self.shards.get(worker) {
            if let Some(tally) = shard.endings.get(reason.index()) {
                tally.add(1);
            }
            if !reason.is_refusal() {
                shard.seconds.observe(&CONNECTION_BOUNDS, after);
            }
        }
    }

    /// A TLS handshake with a client is over.
    pub fn shook_hands(&self, worker: usize, version: TlsVersion, outcome: Handshake) {
        let by_version = self.shards.get(worker).and_then(|shard| shard.handshakes.get(version.index()));
        if let Some(tally) = by_version.and_then(|by_outcome| by_outcome.get(outcome.index())) {
            tally.add(1);
        }
    }

    /// How many TLS handshakes with clients went so.
    #[must_use]
    pub fn handshakes(&self, version: TlsVersion, outcome: Handshake) -> u64 {
        let by_version = self.shards.iter().filter_map(|shard| shard.handshakes.get(version.index()));
        by_version.filter_map(|by_outcome| by_outcome.get(outcome.index())).map(Tally::get).sum()
    }

    /// How many connections ended for a reason.
    #[must_use]
    pub fn endings(&self, reason: Reason) -> u64 {
        self.shards.iter().filter_map(|shard| shard.endings.get(reason.index())).map(Tally::get).sum()
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.connections.get()).sum()
    }

    /// Bytes from clients, and bytes to clients.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(i, o), shard| (i + shard.bytes_in.get(), o + shard.bytes_out.get()))
    }
}

/// What a server knows of itself at every moment, and is asked when the catalogue is read.
pub trait Vitals: Send + Sync + std::fmt::Debug {
    /// Connections in flight.
    fn active(&self) -> u32;
    /// Whether it counts as up.
    fn is_up(&self) -> bool;
    /// Whether it is ejected for what it did to traffic.
    fn is_ejected(&self) -> bool;
}

/// What is counted of one server.
#[derive(Debug)]
pub struct ServerMetrics {
    pool: Name,
    name: Name,
    vitals: Mutex<Option<Weak<dyn Vitals>>>,
    shards: Box<[CachePadded<ServerShard>]>,
    checks: Mutex<Checks>,
    ejections: AtomicU64,
}

#[derive(Debug)]
struct ServerShard {
    connections: Tally,
    bytes_in: Tally,
    bytes_out: Tally,
    failures: [Tally; Reason::COUNT],
    /// Outcomes: those that went well, and those that did not.
    outcomes: [Tally; 2],
    full_handshakes: Tally,
    resumed_handshakes: Tally,
    connect_seconds: Histogram<{ CONNECT_BOUNDS.len() }>,
    http: ServerHttp,
}

/// What a probe of a server came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The server is as it is to be.
    Passed,
    /// It is not.
    Failed,
    /// It was not asked, for want of a descriptor or a port.
    Skipped,
}

/// Written by one checker, a few times a second at most.
#[derive(Debug, Default)]
struct Checks {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// How often it went up, and down.
    rises: u64,
    falls: u64,
    seconds: Histogram<{ CONNECT_BOUNDS.len() }>,
}

impl ServerMetrics {
    /// A connection to it was made, and took this long.
    pub fn connected(&self, worker: usize, after: Duration) {
        if let Some(shard) = self.shards.get(worker) {
            shard.connections.add(1);
            shard.connect_seconds.observe(&CONNECT_BOUNDS, after);
        }
    }

    /// A TLS handshake with it was completed, perhaps by resuming an earlier session.
    pub fn shook_hands(&self, worker: usize, resumed: bool) {
        if let Some(shard) = self.shards.get(worker) {
            if resumed { &shard.resumed_handshakes } else { &shard.full_handshakes }.add(1);
        }
    }

    /// Connecting to it failed.
    pub fn connect_failed(&self, worker: usize, reason: Reason) {
        if let Some(tally) = self.shards.get(worker).and_then(|shard| shard.failures.get(reason.index())) {
            tally.add(1);
        }
    }

    /// Bytes went to it.
    pub fn bytes_in(&self, worker: usize, bytes: u64) {
        if let Some(shard) = self.shards.get(worker) {
            shard.bytes_in.add(bytes);
        }
    }

    /// Bytes came from it.
    pub fn bytes_out(&self, worker: usize, bytes: u64) {
        if let Some(shard) = self.shards.get(worker) {
            shard.bytes_out.add(bytes);
        }
    }

    /// A probe came to this, and took this long.
    pub fn checked(&self, result: CheckResult, after: Duration) {
        let mut checks = lock(&self.checks);
        match result {
            CheckResult::Passed => checks.passed += 1,
            CheckResult::Failed => checks.failed += 1,
            CheckResult::Skipped => {
                checks.skipped += 1;
                return;
            }
        }
        checks.seconds.observe(&CONNECT_BOUNDS, after);
    }

    /// It counts as up, or as down, and did not before.
    pub fn changed(&self, up: bool) {
        let mut checks = lock(&self.checks);
        if up { checks.rises += 1 } else { checks.falls += 1 }
    }

    /// A request to it, or a connection, came to something good or not.
    pub fn came_to(&self, worker: usize, good: bool) {
        if let Some(ServerShard { outcomes: [well, wrong], .. }) = self.shards.get(worker).map(|shard| &**shard) {
            if good { well } else { wrong }.add(1);
        }
    }

    /// How many of them went well, and how many did not.
    #[must_use]
    pub fn outcomes(&self) -> (u64, u64) {
        let each = self.shards.iter().map(|shard| &shard.outcomes);
        each.fold((0, 0), |(all_well, all_wrong), [well, wrong]| (all_well + well.get(), all_wrong + wrong.get()))
    }

    /// It was ejected for what it did to traffic.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// Whom to ask for what is not counted.
    pub fn set_vitals(&self, vitals: Weak<dyn Vitals>) {
        *lock(&self.vitals) = Some(vitals);
    }

    /// What it knows of itself; `None` when the server is gone and only its last connections are not.
    fn vitals(&self) -> Option<Arc<dyn Vitals>> {
        lock(&self.vitals).as_ref()?.upgrade()
    }

    /// How many connections were made to it.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.connections.get()).sum()
    }

    /// How many attempts to connect to it failed.
    #[must_use]
    pub fn connect_failures(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.failures).map(Tally::get).sum()
    }

    /// Bytes to it, and bytes from it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(i, o), shard| (i + shard.bytes_in.get(), o + shard.bytes_out.get()))
    }
}

/// What is counted of one worker.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Connections it carries, those on their way to it included.
    pub active: Gauge,
    /// Connections it accepted and handed over to another worker.
    pub handed_over: AtomicU64,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Catalogue {
    /// Connections that are open, through all listeners.
    pub active: Gauge,
    workers: Box<[WorkerMetrics]>,
    listeners: Mutex<HashMap<Name, Weak<ListenerMetrics>>>,
    servers: Mutex<HashMap<(Name, Name), Weak<ServerMetrics>>>,
    pools: Mutex<HashMap<Name, Weak<PoolMetrics>>>,
    discoveries: Mutex<HashMap<Name, Weak<DiscoveryMetrics>>>,
    /// The generation of the configuration in effect.
    pub generation: AtomicU64,
    /// Reloads that took effect.
    pub reloads_applied: AtomicU64,
    /// Reloads that changed nothing because the file had problems.
    pub reloads_failed: AtomicU64,
    /// Lines of the access log that were dropped because its writer could not keep up.
    pub access_log_dropped: AtomicU64,
    /// Tasks that panicked; each ended alone.
    pub panics: AtomicU64,
    /// The last second, since 1970, in which there is a valid certificate for a name on a listener.
    certificates: Mutex<BTreeMap<(Name, String), i64>>,
    /// Local ports and descriptors that are left.
    supplies: Mutex<Supplies>,
}

impl Catalogue {
    /// An empty catalogue for this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            active: Gauge::default(),
            workers: (0..workers).map(|_| WorkerMetrics::default()).collect(),
            listeners: Mutex::default(),
            servers: Mutex::default(),
            pools: Mutex::default(),
            discoveries: Mutex::default(),
            generation: AtomicU64::new(0),
            reloads_applied: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            access_log_dropped: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            certificates: Mutex::default(),
            supplies: Mutex::default(),
        })
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &[WorkerMetrics] {
        &self.workers
    }

    /// The counters of the listener of this name: those it has, or new ones.
    #[must_use]
    pub fn listener(&self, name: &Name) -> Arc<ListenerMetrics> {
        find_or_make(&self.listeners, name, || ListenerMetrics {
            name: name.clone(),
            active: Gauge::default(),
            shards: self.shards(|| ListenerShard {
                connections: Tally::default(),
                bytes_in: Tally::default(),
                bytes_out: Tally::default(),
                endings: [const { Tally::new() }; Reason::COUNT],
                handshakes: [const { [const { Tally::new() }; Handshake::COUNT] }; TlsVersion::COUNT],
                seconds: Histogram::default(),
                http: ListenerHttp::default(),
            }),
        })
    }

    /// The counters of the server of this name: those it has, or new ones.
    #[must_use]
    pub fn server(&self, pool: &Name, name: &Name) -> Arc<ServerMetrics> {
        find_or_make(&self.servers, &(pool.clone(), name.clone()), || ServerMetrics {
            pool: pool.clone(),
            name: name.clone(),
            vitals: Mutex::new(None),
            shards: self.shards(|| ServerShard {
                connections: Tally::default(),
                bytes_in: Tally::default(),
                bytes_out: Tally::default(),
                failures: [const { Tally::new() }; Reason::COUNT],
                outcomes: [const { Tally::new() }; 2],
                full_handshakes: Tally::default(),
                resumed_handshakes: Tally::default(),
                connect_seconds: Histogram::default(),
                http: ServerHttp::default(),
            }),
            checks: Mutex::default(),
            ejections: AtomicU64::new(0),
        })
    }

    /// The counters of the pool of this name: those it has, or new ones.
    #[must_use]
    pub fn pool(&self, name: &Name) -> Arc<PoolMetrics> {
        find_or_make(&self.pools, name, || PoolMetrics::new(name.clone(), self.shards(PoolShard::default)))
    }

    /// The counters of what the servers of a pool are found by: those there are, or new ones.
    #[must_use]
    pub fn discovery(&self, pool: &Name) -> Arc<DiscoveryMetrics> {
        find_or_make(&self.discoveries, pool, || DiscoveryMetrics::new(pool))
    }

    /// How many connections ended for a reason, through the listeners that are or still have connections.
    #[must_use]
    pub fn endings(&self, reason: Reason) -> u64 {
        living(&self.listeners).iter().map(|listener| listener.endings(reason)).sum()
    }

    /// The certificates in use from now on: listener, name, and the last second each is valid in. Of several for a name the
    /// one that runs out first counts.
    pub fn set_certificates<'n>(&self, all: impl Iterator<Item = (&'n Name, String, i64)>) {
        let mut certificates = BTreeMap::new();
        for (listener, name, until) in all {
            let earliest = certificates.entry((listener.clone(), name)).or_insert(until);
            *earliest = until.min(*earliest);
        }
        *lock(&self.certificates) = certificates;
    }

    /// Everything, in the Prometheus text format (version 0.0.4).
    #[must_use]
    pub fn expose(&self) -> String {
        expose::expose(self)
    }

    fn shards<T>(&self, make: impl Fn() -> T) -> Box<[CachePadded<T>]> {
        self.workers.iter().map(|_| CachePadded::new(make())).collect()
    }
}

fn find_or_make<K: std::hash::Hash + Eq + Clone, V>(
    map: &Mutex<HashMap<K, Weak<V>>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let mut map = lock(map);
    if let Some(found) = map.get(key).and_then(Weak::upgrade) {
        return found;
    }
    let made = Arc::new(make());
    map.insert(key.clone(), Arc::downgrade(&made));
    made
}

/// The entries that something still holds, in the order of their names; those that nothing holds are forgotten.
fn living<K: std::hash::Hash + Eq + Ord + Clone, V>(map: &Mutex<HashMap<K, Weak<V>>>) -> Vec<Arc<V>> {
    let mut map = lock(map);
    map.retain(|_, weak| weak.strong_count() > 0);
    let mut all: Vec<(K, Arc<V>)> = map.iter().filter_map(|(k, weak)| Some((k.clone(), weak.upgrade()?))).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.into_iter().map(|(_, value)| value).collect()
}

/// Locks; a thread that panicked while it held the lock leaves numbers behind, which are still good to read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
