//! A server: who it is, how it does, and the guard that counts a connection as its own.
//!
//! [`State`] is what outlives a reload, known by the names of its pool and itself; [`Server`] is that state together with
//! the settings one snapshot gives it. Each flag of a state has one writer.
//!
//! Every access to the load and the flags is sequentially consistent, and so is arc-swap: "change, then look who is
//! watching" on one thread and "start to watch, then read" on another cannot both miss each other, and a watcher that is
//! told of a change sees it. (On x86-64 such loads and counted adds cost what weaker ones do.)

mod latency;
mod outlier;
mod restraint;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use crate::metrics::{Catalogue, ServerMetrics, Vitals};
use crate::net::address::ServerAddr;
use crate::tls::ServerTls;
use crate::units::{Name, Percent, Weight};
pub use latency::{Known, Latency, Until};
use outlier::Conduct;
pub use outlier::{Ejection, Excess, Jury, Lapse, Limits, Outcome, Score, Suspect};
use restraint::Restraint;

/// What a server is and has, for as long as its names stay in the configuration.
///
/// What a pick reads fills one cache line, so that workers busy with different servers do not disturb each other, and a
/// pick among ten thousand servers waits for memory once and not for each field.
#[derive(Debug)]
#[repr(align(64))]
pub struct State {
    /// The pool it belongs to.
    pub pool: Name,
    /// Its name within the pool.
    pub name: Name,
    /// Connections in flight, counted by every worker.
    active: AtomicU32,
    /// Whether the checker holds it fit; written by the checker alone.
    healthy: AtomicBool,
    /// Whether it is given nothing for a while because of what it did to traffic; written by the jury alone.
    ejected: AtomicBool,
    /// What keeps it from its full share, if anything does.
    restraint: Restraint,
    /// Whether another server of its pool is the primary, which alone is given connections; written by the writer alone.
    standby: AtomicBool,
    /// Who wants to know when the load or a flag changes: the ranking of the pool it is in now, if that keeps one.
    watching: ArcSwapOption<Watching>,
    /// Whether anybody ever was: hardly anything is quicker to look at.
    is_watched: AtomicBool,
    /// What no pick reads.
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    /// What is counted of it.
    metrics: Arc<ServerMetrics>,
    /// Attempts to connect to it that are under way.
    pending: AtomicU32,
    /// The health flag for people, with since when and why; written by the checker alone.
    health: Mutex<Health>,
    /// What it says it is, as [`Role::code`]; written by the checker alone.
    role: AtomicU8,
    /// Failures to connect that traffic met and the checker has not heard of yet.
    failures: AtomicU32,
    /// Wakes the checker when there are failures.
    failed: Notify,
    /// How requests went, and who hears of it.
    conduct: Conduct,
    /// How long it takes to answer, for algorithms that go by it.
    latency: Latency,
    /// The ejection for people, with until when and why; written by the jury alone.
    ejection: Mutex<Option<Ejection>>,
}

/// How a server does, and why we think so.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether it counts as up.
    pub up: bool,
    /// Whether a probe has ever come back from it.
    pub tested: bool,
    /// Since when it is up or down.
    pub since: SystemTime,
    /// What was seen then.
    pub reason: String,
}

impl Health {
    fn untested(up: bool) -> Self {
        Self { up, tested: false, since: SystemTime::now(), reason: "not checked yet".to_owned() }
    }
}

/// What a server says it is, where servers of a pool are not all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary and is for reading.
    Replica,
}

impl Role {
    /// Its word in logs and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }

    const fn code(role: Option<Self>) -> u8 {
        match role {
            None => 0,
            Some(Self::Primary) => 1,
            Some(Self::Replica) => 2,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

/// Hears that the load or a flag of a server changed. Called on the path of every connection: it must not block.
pub trait Watcher: Send + Sync + std::fmt::Debug {
    /// The server at this place of the ranking has changed; here is how it does now.
    ///
    /// The state is lent and not kept: a watcher that held its servers would be held by them in turn, for ever.
    fn changed(&self, place: usize, state: &State);

    /// The server took so long. As with changes, nobody may be kept waiting.
    fn took(&self, _state: &State, _took: Duration, _until: Until) {}
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
    /// A server nobody has seen yet: healthy until a probe says otherwise. It counts in `catalogue` under its names.
    #[must_use]
    pub fn counted(pool: Name, name: Name, catalogue: &Catalogue) -> Arc<Self> {
        let metrics = catalogue.server(&pool, &name);
        let rest = Rest {
            conduct: Conduct::new(&metrics),
            metrics,
            pending: AtomicU32::new(0),
            health: Mutex::new(Health::untested(true)),
            role: AtomicU8::new(Role::code(None)),
            failures: AtomicU32::new(0),
            failed: Notify::new(),
            latency: Latency::default(),
            ejection: Mutex::new(None),
        };
        Arc::new(Self {
            pool,
            name,
            active: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            ejected: AtomicBool::new(false),
            standby: AtomicBool::new(false),
            restraint: Restraint::default(),
            watching: ArcSwapOption::empty(),
            is_watched: AtomicBool::new(false),
            rest: Box::new(rest),
        })
    }

    /// The same for a server that no catalogue shows, with one shard to count in.
    #[must_use]
    pub fn new(pool: Name, name: Name) -> Arc<Self> {
        Self::counted(pool, name, &Catalogue::new(1))
    }

    /// Lets the metrics show how this server does, and no earlier one of its names.
    pub fn show(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.rest.metrics.set_vitals(weak);
    }

    /// What is counted of it.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ServerMetrics> {
        &self.rest.metrics
    }

    /// Connections in flight.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::SeqCst)
    }

    /// Whether the checker holds it fit.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::SeqCst)
    }

    /// Sets what the checker found; the checker is the only caller.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::SeqCst);
        self.announce();
    }

    /// Sets what the checker found, with what it saw; the checker is the only caller. A server that comes up is warming.
    pub fn set_health(&self, up: bool, reason: &str) {
        if up && !self.is_healthy() {
            self.warm_up();
        }
        self.with_health(|health| {
            health.up = up;
            health.since = SystemTime::now();
            reason.clone_into(&mut health.reason);
        });
        self.set_healthy(up);
    }

    /// A probe has come back; the checker is the only caller.
    pub fn set_tested(&self, seen: &str) {
        self.with_health(|health| {
            // Traffic may have taken it down before, for a reason of its own.
            if !health.tested && health.up {
                seen.clone_into(&mut health.reason);
            }
            health.tested = true;
        });
    }

    /// Forgets what was found, as for a server that is another machine under the same name: it counts as up, or as down,
    /// until a probe says otherwise.
    pub fn forget_health(&self, up: bool) {
        self.with_health(|health| *health = Health::untested(up));
        self.discard_failures();
        self.forget_words();
        self.set_healthy(up);
    }

    /// Forgets what it said of itself.
    pub fn forget_words(&self) {
        self.set_role(None);
        self.set_share(Percent::ALL);
    }

    /// What it says it is, if anybody has asked it.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        let said = self.rest.role.load(Ordering::SeqCst);
        [Role::Primary, Role::Replica].into_iter().find(|role| Role::code(Some(*role)) == said)
    }

    /// Sets what the server says it is; the checker is the only caller.
    pub fn set_role(&self, role: Option<Role>) {
        self.rest.role.store(Role::code(role), Ordering::SeqCst);
    }

    /// How it does, and why we think so.
    #[must_use]
    pub fn health(&self) -> Health {
        self.with_health(|health| health.clone())
    }

    /// Traffic failed to connect to it, for a reason that is its own: the checker is to hear of it.
    pub fn report_failure(&self) {
        self.rest.failures.fetch_add(1, Ordering::Relaxed);
        self.rest.failed.notify_one();
    }

    /// Forgets failures of traffic that no checker has heard of.
    pub fn discard_failures(&self) {
        self.rest.failures.store(0, Ordering::Relaxed);
    }

    /// Waits until traffic has failed to connect to it and returns how often. The checker is the only caller.
    pub async fn failures(&self) -> u32 {
        loop {
            match self.rest.failures.swap(0, Ordering::Relaxed) {
                0 => self.rest.failed.notified().await,
                failures => return failures,
            }
        }
    }

    fn with_health<T>(&self, work: impl FnOnce(&mut Health) -> T) -> T {
        work(&mut lock(&self.rest.health))
    }

    /// Whether a server of this weight and limit may be given a connection now: it is fit and has room.
    #[must_use]
    pub fn is_open(&self, weight: Weight, max_connections: u32) -> bool {
        self.is_fit(weight) && self.active() < max_connections
    }

    /// Whether a server of this weight may be given connections at all: it has weight, is healthy and is not ejected.
    #[must_use]
    pub fn is_fit(&self, weight: Weight) -> bool {
        self.is_wanted(weight) && self.is_healthy() && !self.is_ejected()
    }

    /// Whether a server of this weight is meant to have connections, be it fit for them or not: neither the operator nor
    /// the server itself has said that it is to have none, and it does not stand by for another.
    #[must_use]
    pub fn is_wanted(&self, weight: Weight) -> bool {
        weight.get() > 0 && self.share() != Percent::ZERO && !self.is_standby()
    }

    /// Whether it stands by for the primary of its pool.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.standby.load(Ordering::SeqCst)
    }

    /// Lets it stand by, or no longer; the writer of what is in effect is the only caller.
    pub fn set_standby(&self, standby: bool) {
        if self.standby.swap(standby, Ordering::SeqCst) != standby {
            self.announce();
        }
    }

    /// Attempts to connect to it that are under way.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.rest.pending.load(Ordering::SeqCst)
    }

    /// Counts an attempt to connect to it until the guard is dropped.
    #[must_use]
    pub fn connecting(self: &Arc<Self>) -> Connecting {
        self.rest.pending.fetch_add(1, Ordering::SeqCst);
        Connecting { state: Arc::clone(self) }
    }

    /// Lets the ranking of a newly published pool hear of changes, in place of any earlier one; it is told at once, so
    /// that it knows what changed since it was built.
    pub fn set_watching(&self, watching: Option<Watching>) {
        let is_watched = watching.is_some();
        self.watching.store(watching.map(Arc::new));
        if is_watched {
            self.is_watched.store(true, Ordering::SeqCst);
        }
        self.announce();
    }

    /// Tells `watcher` nothing more, unless another has taken its place already.
    pub fn stop_watching(&self, watcher: &Arc<dyn Watcher>) {
        let now = self.watching.load();
        if now.as_ref().is_some_and(|now| std::ptr::addr_eq(Arc::as_ptr(&now.watcher), Arc::as_ptr(watcher))) {
            self.watching.compare_and_swap(&now, None);
        }
    }

    fn announce(&self) {
        if let Some(Some(watching)) = self.watching().as_deref() {
            watching.watcher.changed(watching.place, self);
        }
    }

    /// Who wants to know of it. Hardly anything where nobody ever did.
    fn watching(&self) -> Option<Guard<Option<Arc<Watching>>>> {
        self.is_watched.load(Ordering::SeqCst).then(|| self.watching.load())
    }

    /// Counts one more connection, unless there are `most` already.
    fn enter(&self, most: u32) -> bool {
        if most == u32::MAX {
            self.active.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        // Add and take back would be cheaper and wrong: for a moment the count would show a full server over its limit.
        let more = |active: u32| (active < most).then(|| active + 1);
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

impl Vitals for State {
    fn active(&self) -> u32 {
        self.active()
    }

    fn is_up(&self) -> bool {
        self.is_healthy()
    }

    fn is_ejected(&self) -> bool {
        self.is_ejected()
    }
}

/// The operator's word on a server. It stands above what checks find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// It serves.
    #[default]
    Ready,
    /// It gets no new connections, and is still checked.
    Drain,
    /// It gets no new connections, and is not checked.
    Maintenance,
}

impl Duty {
    /// The word for it in the configuration and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
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
    /// Its share of the traffic: none while the operator lets it serve nobody.
    pub weight: Weight,
    /// Its share as the configuration says it.
    pub full_weight: Weight,
    /// Whether the operator lets it serve.
    pub duty: Duty,
    /// Since when.
    pub duty_since: SystemTime,
    /// Its level: the first is asked first.
    pub priority: u8,
    /// Whether it is in a level of its own, behind all others.
    pub backup: bool,
    /// Where it stands.
    pub zone: Option<Name>,
    /// How many connections it is given at once, at most; `u32::MAX` sets no limit.
    pub max_connections: u32,
    /// How to shake hands with it, if TLS is spoken to it, and the sessions it can resume.
    pub tls: Option<Arc<ServerTls>>,
}

impl Server {
    /// A server of weight 1 that nothing special is said of.
    #[must_use]
    pub fn new(state: Arc<State>, address: ServerAddr) -> Self {
        Self {
            state,
            address,
            weight: Weight::ONE,
            full_weight: Weight::ONE,
            duty: Duty::Ready,
            duty_since: SystemTime::now(),
            priority: 0,
            backup: false,
            zone: None,
            max_connections: u32::MAX,
            tls: None,
        }
    }

    /// Whether it may be given a connection now: it is fit and has room.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.is_open(self.weight, self.max_connections)
    }

    /// Whether it has fewer connections than it may have.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.state.active() < self.max_connections
    }

    /// Counts one more connection as this server's, unless it is full by now.
    #[must_use]
    pub fn acquire(&self) -> Option<Lease> {
        let entered = self.state.enter(self.max_connections);
        // In vain as well: a ranking that answered with a full server has something to put right.
        self.state.announce();
        entered.then(|| Lease { state: Arc::clone(&self.state) })
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
        self.state.active.fetch_sub(1, Ordering::SeqCst);
        self.state.announce();
    }
}

/// One attempt to connect counted as its server's, until it is dropped.
#[derive(Debug)]
pub struct Connecting {
    state: Arc<State>,
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.state.rest.pending.fetch_sub(1, Ordering::SeqCst);
        self.state.announce();
    }
}

/// Locks. A panic while it was held left a whole value behind: every writer assigns fields that are made before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
