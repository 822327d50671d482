//! A pool: servers that do the same work, and the one place that chooses among them.
//!
//! [`Pool::pick`] decides which level of servers is asked first and which zone within it, has the algorithm choose among
//! those, and counts the connection; [`Pool::pick_this`] lets a client go where it was before. How often to try again, for how
//! long, and how many wait when all are full is written here and done by the caller, who keeps what was [`Tried`]. Names are
//! kept and connections made elsewhere.
//!
//! A pool belongs to one snapshot. Building it touches nothing that lives on; [`Pool::take_over`] makes the servers, which
//! outlive snapshots, report to it, and dropping it ends that.

mod budget;
mod census;
mod level;
mod queue;
mod rules;
mod sources;
pub mod sticky;
mod warming;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Lease, Server};
use crate::balance::{Key, KeySource, Open, Policy};
use crate::net::address::Endpoint;
use crate::units::Name;

pub use self::budget::{InFlight, RetryBudget, Retrying};
pub use self::queue::{PoolState, QueueFull, Ticket};
pub use self::rules::{QueueRules, Rules};
pub use crate::balance::Tried;

use self::budget::Traffic;
use self::census::Occupancy;
use self::level::{Group, Level};
use self::sources::Sources;
use self::sticky::StickyTable;

/// How a pool chooses and how its servers are connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How a server is chosen.
    pub balance: Policy,
    /// How many further servers are tried when connecting to the first fails.
    pub retries: u8,
    /// How long a server may take to accept a connection.
    pub connect_timeout: Duration,
    /// Local addresses to connect from, used in turn; empty leaves the choice to the kernel.
    pub sources: Vec<IpAddr>,
    /// Which servers are asked first, when they are full, and who waits then.
    pub rules: Rules,
}

/// Servers, and how one of them is chosen.
#[derive(Debug)]
pub struct Pool {
    state: Arc<PoolState>,
    policy: Policy,
    rules: Rules,
    retries: u8,
    connect_timeout: Duration,
    /// The first is asked first; never empty ones among them.
    levels: Vec<Level>,
    occupancy: Arc<Occupancy>,
    /// How many of its servers are meant to have connections.
    wanted: u64,
    sources_v4: Sources,
    sources_v6: Sources,
    retry_budget: RetryBudget,
    traffic: Arc<Traffic>,
}

/// What a pick comes to: a server, and the connection counted as its own.
#[derive(Debug)]
pub struct Picked<'a> {
    /// The server.
    pub server: &'a Server,
    /// Holds its place among the server's connections.
    pub lease: Lease,
}

impl Pool {
    /// A pool of these servers, each of which is in no other pool of the same snapshot, under a name nobody has used yet.
    #[must_use]
    pub fn new(name: Name, settings: Settings, servers: Vec<Server>) -> Self {
        Self::counted(PoolState::new(name), settings, servers)
    }

    /// The same with a state that a catalogue shows.
    #[must_use]
    pub fn counted(state: Arc<PoolState>, settings: Settings, servers: Vec<Server>) -> Self {
        Self::build(state, &[], settings, servers)
    }

    /// The same in place of an earlier pool of its name: its queue goes on, and so do the tables of its algorithm where
    /// nothing that they hang on has changed.
    #[must_use]
    pub fn continuing(before: &Self, settings: Settings, servers: Vec<Server>) -> Self {
        Self::build(Arc::clone(&before.state), &before.levels, settings, servers)
    }

    fn build(state: Arc<PoolState>, before: &[Level], settings: Settings, servers: Vec<Server>) -> Self {
        let Settings { balance, retries, connect_timeout, sources, rules } = settings;
        let (v4, v6) = sources.into_iter().partition(IpAddr::is_ipv4);
        let wanted = servers.iter().filter(|server| server.weight.get() > 0).count() as u64;
        let occupancy = Occupancy::new(Arc::clone(&state), rules.max_connections);
        Self {
            state,
            retries,
            connect_timeout,
            levels: level::lay_out(&balance, servers, &rules, &occupancy, before),
            policy: balance,
            occupancy,
            wanted,
            rules,
            sources_v4: Sources::new(v4),
            sources_v6: Sources::new(v6),
            retry_budget: RetryBudget::default(),
            traffic: Arc::default(),
        }
    }

    /// The same pool with another budget for retries than the default.
    #[must_use]
    pub const fn with_retry_budget(mut self, retry_budget: RetryBudget) -> Self {
        self.retry_budget = retry_budget;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.state.name
    }

    /// How it chooses.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What a pick has to be given the key of; nothing if it goes by no key.
    #[must_use]
    pub fn key(&self) -> Option<&KeySource> {
        self.policy.hashing().map(|hashing| &hashing.key)
    }

    /// Which servers it asks first, when they are full, and who waits then.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What of it outlives snapshots.
    #[must_use]
    pub const fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// How many further servers may be tried when connecting to the first fails.
    #[must_use]
    pub const fn retries(&self) -> u8 {
        self.retries
    }

    /// How long a server may take to accept a connection.
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Its servers, level after level.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.groups().flat_map(|group| &group.members)
    }

    /// How many of its servers may be given a connection now.
    #[must_use]
    pub fn open_servers(&self) -> usize {
        let open = self.open(&NONE_TRIED);
        self.servers().filter(|server| open.has(server)).count()
    }

    /// Whether so few of its servers are fit that nobody asks whether they are.
    #[must_use]
    pub fn fails_open(&self) -> bool {
        let least = u64::from(self.rules.fail_open.get());
        least > 0 && {
            let fit: u64 = self.levels.iter().map(|level| level.fit().count).sum();
            fit * 100 < least * self.wanted
        }
    }

    /// Chooses a server that is open and was not tried, and counts a connection as its own; `None` when there is none. The
    /// key is that of what [`Pool::key`] names; without one, an algorithm that goes by it takes any.
    #[must_use]
    pub fn pick(&self, tried: &Tried, key: Option<Key>) -> Option<Picked<'_>> {
        let _reserved = self.occupancy.reserve()?;
        let blind = self.fails_open();
        let open = open_except(tried, blind);
        let first = if blind || self.rules.spill_below.get() == 0 { 0 } else { self.first_level(key) };
        let others = self.levels.iter().enumerate().filter(|(place, _)| *place != first).map(|(_, level)| level);
        self.levels.get(first).into_iter().chain(others).find_map(|level| level.pick(open, key, blind, &self.rules))
    }

    /// Chooses the server at this place of [`Pool::servers`] if it is open and was not tried, backup or not, and counts a
    /// connection as its own. The algorithm is not asked, but hears of it as of any other.
    #[must_use]
    pub fn pick_this(&self, place: usize, tried: &Tried) -> Option<Picked<'_>> {
        let server = self.server(place)?;
        let _reserved = self.occupancy.reserve()?;
        let may_have_it = self.open(tried).has(server) && server.state.pending() < self.rules.max_pending;
        let lease = may_have_it.then(|| server.acquire()).flatten()?;
        Some(Picked { server, lease })
    }

    /// Whether a pick in vain was so because everybody who could serve is full.
    #[must_use]
    pub fn is_full(&self, tried: &Tried) -> bool {
        let open = self.open(tried);
        self.servers().any(|server| open.is_eligible(server))
    }

    fn server(&self, mut place: usize) -> Option<&Server> {
        for group in self.groups() {
            match place.checked_sub(group.members.len()) {
                Some(behind) => place = behind,
                None => return group.members.get(place),
            }
        }
        None
    }

    /// The level that is asked first.
    fn first_level(&self, key: Option<Key>) -> usize {
        level::first_level(&self.levels, self.rules.spill_below.get().into(), level::point(key))
    }

    fn open<'t>(&self, tried: &'t Tried) -> Open<'t> {
        open_except(tried, self.fails_open())
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.levels.iter().flat_map(Level::groups)
    }

    /// Which cookies are for which of its servers, by their places in [`Pool::servers`].
    #[must_use]
    pub fn sticky_table(&self) -> StickyTable {
        StickyTable::new(self.name(), self.servers().map(|server| &server.state.name))
    }

    /// Counts a request as this pool's, on the worker that it names.
    #[must_use]
    pub fn enter(&self, worker: usize) -> InFlight<'_> {
        self.traffic.enter(worker)
    }

    /// Whether the budget lets a request be tried again now; the guard is kept until that attempt is over.
    #[must_use]
    pub fn may_retry(&self) -> Option<Retrying> {
        self.traffic.may_retry(self.retry_budget)
    }

    /// The same as soon as the budget lets it, if that is by `until`.
    pub async fn may_retry_by(&self, until: Instant) -> Option<Retrying> {
        self.traffic.may_retry_by(self.retry_budget, until).await
    }

    /// The local addresses that this server may be connected to from, those of its family; none leaves it to the kernel.
    #[must_use]
    pub fn sources_for(&self, server: &Server) -> &[IpAddr] {
        self.sources(server).map(Sources::addresses).unwrap_or_default()
    }

    /// The same in the order in which they are to be tried now, which begins with the next one. There is always one, and a
    /// `None` leaves it to the kernel.
    pub fn sources_in_turn(&self, server: &Server) -> impl Iterator<Item = Option<IpAddr>> {
        let is_free = self.sources_for(server).is_empty();
        let addresses = self.sources(server).into_iter().flat_map(Sources::in_turn);
        addresses.map(Some).chain(is_free.then_some(None))
    }

    /// The first of the local addresses that this server may be connected to from: the one its checks use.
    #[must_use]
    pub fn first_source(&self, server: &Server) -> Option<IpAddr> {
        self.sources_for(server).first().copied()
    }

    /// Makes its servers report their load to it from now on, in place of an earlier pool. The publisher calls it once the
    /// snapshot is published; a pool that never takes over still picks well, but from a ranking that lags behind.
    pub fn take_over(&self) {
        self.groups().for_each(Group::take_over);
    }

    const fn sources(&self, server: &Server) -> Option<&Sources> {
        match &server.address.0 {
            Endpoint::Tcp(SocketAddr::V4(_)) => Some(&self.sources_v4),
            Endpoint::Tcp(SocketAddr::V6(_)) => Some(&self.sources_v6),
            Endpoint::Unix(_) => None,
        }
    }
}

impl Drop for Pool {
    /// Servers may live on in a newer pool, which they report to by then, or through their last connections, which must
    /// not keep the ranking alive.
    fn drop(&mut self) {
        self.groups().for_each(Group::step_down);
    }
}

/// Nobody was tried yet.
static NONE_TRIED: Tried = Tried::new();

/// Who may be picked.
const fn open_except(tried: &Tried, blind: bool) -> Open<'_> {
    let open = Open::except(tried);
    if blind { open.and_unfit() } else { open }
}

#[cfg(test)]
mod level_tests;
#[cfg(test)]
mod tests;
