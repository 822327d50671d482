//! The admin listener: metrics, health and the read-only API over HTTP, for those who can reach a loopback port.
//!
//! It looks through a [`View`] and changes nothing. [`serve`] answers, `api` is what it answers with, [`is_ready`] asks one
//! from outside.

mod api;
mod client;
mod rfc3339;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::logging::AccessWriter;
use crate::metrics::Catalogue;
use crate::net::address::Endpoint;
use crate::snapshot::{Published, Snapshot};
use crate::units::Name;

pub use client::is_ready;
pub use server::serve;

/// What the admin listener may see. The process writes into it what only it knows; nothing here steers anything.
#[derive(Debug)]
pub struct View {
    published: Arc<Published>,
    catalogue: Arc<Catalogue>,
    access: AccessWriter,
    /// When the process started, by the clock that never jumps and by the one people read.
    started: (Instant, SystemTime),
    draining: AtomicBool,
    endpoints: Mutex<Endpoints>,
    last_reload: Mutex<Option<ReloadNote>>,
    sources: Mutex<BTreeMap<Name, Vec<Arc<Standing>>>>,
}

/// The addresses that are bound, by listener: with the port the kernel chose where port 0 was asked for.
pub type Endpoints = BTreeMap<Name, Vec<Endpoint>>;

/// How a reload went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadNote {
    /// When it was over.
    pub at: SystemTime,
    /// Whether it took effect; if not, nothing changed.
    pub applied: bool,
    /// What it changed, or what kept it from doing so.
    pub message: String,
}

/// How a source does that servers are found by. It is written by who asks it.
#[derive(Debug)]
pub struct Standing {
    source: String,
    state: Mutex<StandingNow>,
}

/// How a source does at a moment.
#[derive(Clone, Debug, Default)]
struct StandingNow {
    /// Servers in the last answer that could be used.
    servers: usize,
    /// When that came.
    answered: Option<SystemTime>,
    /// What is wrong since then.
    trouble: Option<String>,
}

impl Standing {
    /// That of a source which was not asked yet.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), state: Mutex::default() }
    }

    /// It answered with so many servers.
    pub fn answered(&self, servers: usize) {
        *lock(&self.state) = StandingNow { servers, answered: Some(SystemTime::now()), trouble: None };
    }

    /// It did not answer, or not with anything that could be used.
    pub fn failed(&self, trouble: &str) {
        let mut state = lock(&self.state);
        *state = StandingNow { trouble: Some(trouble.to_owned()), ..state.clone() };
    }
}

impl View {
    /// A view of a process that starts now, is not draining and has reloaded nothing yet.
    ///
    /// It holds the access log open for as long as it lives.
    #[must_use]
    pub fn new(published: Arc<Published>, catalogue: Arc<Catalogue>, access: AccessWriter) -> Self {
        Self {
            published,
            catalogue,
            access,
            started: (Instant::now(), SystemTime::now()),
            draining: AtomicBool::new(false),
            endpoints: Mutex::default(),
            last_reload: Mutex::default(),
            sources: Mutex::default(),
        }
    }

    /// Everything that is counted.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// The snapshot in effect.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// The access log.
    #[must_use]
    pub fn access(&self) -> &AccessWriter {
        &self.access
    }

    /// The addresses that are bound.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        lock(&self.endpoints).clone()
    }

    /// The process is stopping: from here on `/readyz` says so, which tells whoever sends it connections to send no more.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Shows these addresses as bound, in place of all earlier ones.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        *lock(&self.endpoints) = endpoints;
    }

    /// Shows this reload as the last one.
    pub fn set_last_reload(&self, note: ReloadNote) {
        *lock(&self.last_reload) = Some(note);
    }

    /// Shows these as what the servers of each pool are found by.
    pub fn set_sources(&self, sources: BTreeMap<Name, Vec<Arc<Standing>>>) {
        *lock(&self.sources) = sources;
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn uptime(&self) -> Duration {
        self.started.0.elapsed()
    }

    fn metrics(&self) -> String {
        self.catalogue.access_log_dropped.store(self.access.dropped(), Ordering::Relaxed);
        self.catalogue.expose()
    }
}

/// Locks; every writer replaces the whole value, so that a panic while it was held left a good one behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
