//! Which of several servers is next: one file per algorithm, and the enum that registers them.
//!
//! An algorithm sees the members of one tier of a pool and answers with a place among them. It never takes a lock or
//! allocates to choose, and what it costs does not grow with the number of servers while a fair share of them is open.
//! Counting the connection, tiers and retries are the pool's business.
//!
//! A new algorithm is a new file here, a variant of [`Policy`] and an arm in [`Policy::build`] and [`Policy::label`].

mod alias;
mod before;
mod hashed;
mod key;
mod least_conn;
mod maglev;
mod p2c;
mod peak_ewma;
mod random;
mod ring_hash;
mod round_robin;
mod source_hash;
mod spread;
#[cfg(test)]
pub(crate) mod testing;

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Server, State, Watcher};

pub use self::before::Before;
pub use self::hashed::Hashing;
pub use self::key::{Key, KeySource};
pub use self::maglev::TableSize;
pub use self::spread::LoadFactor;

use self::alias::Alias;
use self::hashed::Hashed;
use self::maglev::Maglev;

/// The balancing algorithm of a pool, and its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn, in proportion to the weights, never in bursts.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConn,
    /// Any, in proportion to the weights.
    Random,
    /// Of two drawn at random the one with fewer connections for its weight.
    P2c,
    /// Of two drawn at random the one that would answer sooner.
    PeakEwma {
        /// How long it takes to forget how long a server took, to a 1/e of it.
        decay: Duration,
    },
    /// By a key, in proportion to the weights.
    SourceHash(Hashing),
    /// By a key, so that few keys move when servers come and go.
    Maglev {
        /// What it goes by.
        hashing: Hashing,
        /// How many slots there are.
        table_size: TableSize,
    },
    /// By a key, so that only those keys move that have to when servers come and go.
    RingHash(Hashing),
}

impl Policy {
    /// Every algorithm, with its default settings.
    pub const ALL: &'static [Self] = &[
        Self::RoundRobin,
        Self::LeastConn,
        Self::Random,
        Self::P2c,
        Self::PeakEwma { decay: peak_ewma::PeakEwma::DECAY },
        Self::SourceHash(Hashing::DEFAULT),
        Self::Maglev { hashing: Hashing::DEFAULT, table_size: TableSize::DEFAULT },
        Self::RingHash(Hashing::DEFAULT),
    ];

    /// Its word in the configuration and the API.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::Random => "random",
            Self::P2c => "p2c",
            Self::PeakEwma { .. } => "peak_ewma",
            Self::SourceHash(_) => "source_hash",
            Self::Maglev { .. } => "maglev",
            Self::RingHash(_) => "ring_hash",
        }
    }

    /// What it goes by, if it is one that hashes.
    #[must_use]
    pub const fn hashing(&self) -> Option<&Hashing> {
        match self {
            Self::RoundRobin | Self::LeastConn | Self::Random | Self::P2c | Self::PeakEwma { .. } => None,
            Self::SourceHash(hashing) | Self::Maglev { hashing, .. } | Self::RingHash(hashing) => Some(hashing),
        }
    }

    /// Whether it goes by how long servers take.
    #[must_use]
    pub const fn is_timed(&self) -> bool {
        match self {
            Self::PeakEwma { .. } => true,
            Self::RoundRobin | Self::LeastConn | Self::Random | Self::P2c => false,
            Self::SourceHash(_) | Self::Maglev { .. } | Self::RingHash(_) => false,
        }
    }

    /// Whether it keeps a ranking, which knows those alone that are open.
    #[must_use]
    pub const fn ranks(&self) -> bool {
        match self {
            Self::LeastConn => true,
            Self::RoundRobin | Self::Random | Self::P2c | Self::PeakEwma { .. } => false,
            Self::SourceHash(_) | Self::Maglev { .. } | Self::RingHash(_) => false,
        }
    }

    /// The algorithm, ready to choose among `members`. Their states are read but not touched: what is built may be
    /// thrown away. What chose `before` leaves it its table, if that still holds.
    #[must_use]
    pub fn build(&self, members: &[Server], before: Option<Before<'_>>) -> Arc<dyn Balance> {
        match self {
            Self::RoundRobin => Arc::new(round_robin::RoundRobin::new(members, before)),
            Self::LeastConn => Arc::new(least_conn::LeastConn::new(members)),
            Self::Random => Arc::new(random::Random::new(Alias::of(members, before))),
            Self::P2c => Arc::new(p2c::P2c::new(Alias::of(members, before))),
            Self::PeakEwma { decay } => Arc::new(peak_ewma::PeakEwma::new(Alias::of(members, before), *decay)),
            Self::SourceHash(Hashing { load_factor, key: _ }) => {
                let table = hashed::kept(members, before).unwrap_or_else(|| source_hash::Line::new(members));
                Arc::new(Hashed::new(table, *load_factor, members))
            }
            Self::Maglev { hashing: Hashing { load_factor, key: _ }, table_size } => {
                let kept = hashed::kept(members, before).filter(|table: &Maglev| table.is_of(*table_size));
                let table = kept.unwrap_or_else(|| Maglev::new(members, *table_size));
                Arc::new(Hashed::new(table, *load_factor, members))
            }
            Self::RingHash(Hashing { load_factor, key: _ }) => {
                let table = hashed::kept(members, before).unwrap_or_else(|| ring_hash::Ring::new(members));
                Arc::new(Hashed::new(table, *load_factor, members))
            }
        }
    }
}

/// Chooses among the members it was built for.
pub trait Balance: Debug + Send + Sync {
    /// The place of a member that is open, or `None` when none is. `members` are those it was built for, in that order;
    /// `key` is for algorithms that hash, and where they are given none, any will do.
    ///
    /// The caller counts the connection next ([`Server::acquire`]), which tells the watcher, if there is one.
    fn pick(&self, members: &[Server], open: Open<'_>, key: Option<Key>) -> Option<usize>;

    /// What it has worked out from its members and never changes, for whatever chooses among them next: see [`Before`].
    fn table(&self) -> Option<&dyn Any> {
        None
    }

    /// Who wants to hear of changes of the members, by their places, for as long as the pool is in use.
    fn watcher(self: Arc<Self>) -> Option<Arc<dyn Watcher>> {
        None
    }
}

/// Which members a pick may answer with.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    tried: &'a Tried,
    /// Whether what checks and the jury say counts for nothing.
    unfit_too: bool,
}

impl<'a> Open<'a> {
    /// Those that are open and not among `tried`.
    #[must_use]
    pub const fn except(tried: &'a Tried) -> Self {
        Self { tried, unfit_too: false }
    }

    /// The same, and those that are not fit as well: too few are for that to mean anything.
    #[must_use]
    pub const fn and_unfit(self) -> Self {
        Self { unfit_too: true, ..self }
    }

    /// The same with others that were tried.
    #[must_use]
    pub const fn but<'b>(self, tried: &'b Tried) -> Open<'b> {
        Open { tried, unfit_too: self.unfit_too }
    }

    /// Those that were tried.
    #[must_use]
    pub const fn tried(&self) -> &'a Tried {
        self.tried
    }

    /// Whether it may be the answer as far as its health goes, be it full or not.
    #[must_use]
    pub fn is_eligible(&self, server: &Server) -> bool {
        let fit =
            if self.unfit_too { server.state.is_wanted(server.weight) } else { server.state.is_fit(server.weight) };
        fit && !self.is_tried(server)
    }

    /// Whether this one may be the answer.
    #[must_use]
    pub fn has(&self, server: &Server) -> bool {
        self.is_eligible(server) && server.has_room()
    }

    /// Whether this one cannot be the answer because it was before.
    #[must_use]
    pub fn is_tried(&self, server: &Server) -> bool {
        self.tried.has(&server.state)
    }
}

/// The servers one connection has tried in vain, all of one pool. Inline, so that keeping them costs no allocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Addresses of states: compared, never followed. A pool keeps its states where they are for as long as it lives.
    seen: [usize; Self::MOST],
    count: usize,
}

impl Tried {
    /// The most servers that are remembered: one more than the most `retries` a pool may have.
    pub const MOST: usize = 16;
    /// None, for whoever begins.
    pub const NONE: &Self = &Self::new();

    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: [0; Self::MOST], count: 0 }
    }

    /// Remembers one more; past [`Tried::MOST`] it is forgotten at once.
    pub fn add(&mut self, state: &Arc<State>) {
        if let Some(slot) = self.seen.get_mut(self.count) {
            *slot = Arc::as_ptr(state).addr();
            self.count += 1;
        }
    }

    /// These and one more.
    #[must_use]
    pub fn and(mut self, state: &Arc<State>) -> Self {
        self.add(state);
        self
    }

    /// How many.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(&self, state: &Arc<State>) -> bool {
        self.seen.iter().take(self.count).any(|seen| *seen == Arc::as_ptr(state).addr())
    }
}

/// How often an algorithm looks for an open member its own way before it turns to [`last_resort`]. Drawing at random with
/// half of the members closed, it gets there once in 2⁶⁴ picks.
const ATTEMPTS: usize = 64;

/// The last resort where hardly any member is open: looks at them all, twice, and lets `ticket` decide among those that are
/// open. Over consecutive (or random) tickets their shares are exactly their weights, though not interleaved.
fn last_resort(members: &[Server], is_open: impl Fn(&Server) -> bool, ticket: u64) -> Option<usize> {
    let candidates = || members.iter().enumerate().filter(|(_, server)| is_open(server));
    let total: u64 = candidates().map(|(_, server)| u64::from(server.weight.get())).sum();
    let mut left = ticket.checked_rem(total)?;
    let mut last = None;
    for (place, server) in candidates() {
        last = Some(place);
        match left.checked_sub(server.weight.get().into()) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    last // also when one of them closed between the two looks and the ticket was never reached
}

/// The load of a server per unit of weight, in steps of 2⁻²⁰, as it would be with one more connection.
///
/// Two such fractions that differ at all differ by at least 1/1000², which is more than a step, so that numbers compare
/// exactly as the fractions do. Weight 0 compares above everything.
fn load(active: u32, weight: u16) -> u64 {
    ((u64::from(active) + 1) << 20).checked_div(weight.into()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::testing::{counts, equal, weighted};
    use super::*;

    #[test]
    fn the_few_open_servers_of_many_share_by_weight_whatever_the_algorithm() {
        fastrand::seed(9);
        let mut weights = vec![1; 2000];
        weights[500..503].copy_from_slice(&[1, 2, 3]);
        for policy in [Policy::RoundRobin, Policy::Random] {
            let members = weighted(&weights);
            members.iter().enumerate().for_each(|(at, server)| server.state.set_healthy((500..503).contains(&at)));
            let counts = counts(&*policy.build(&members, None), &members, 6_000);
            for (count, share) in counts[500..503].iter().zip([1000, 2000, 3000]) {
                assert!(count.abs_diff(share) <= share / 10, "{policy:?}: {:?}", &counts[500..503]);
            }
        }
    }

    #[test]
    fn the_last_resort_shares_consecutive_tickets_out_exactly_by_weight() {
        let members = weighted(&[3, 0, 1, 9, 2]);
        members[3].state.set_healthy(false);
        let mut counts = [0; 5];
        for ticket in 100..100 + 6 * 50 {
            counts[last_resort(&members, Server::is_open, ticket).unwrap()] += 1;
        }
        assert_eq!(counts, [150, 0, 50, 0, 100]);
        members.iter().for_each(|server| server.state.set_healthy(false));
        assert_eq!(last_resort(&members, Server::is_open, 7), None);
    }

    #[test]
    fn a_server_without_weight_is_never_picked() {
        for policy in Policy::ALL {
            let members = weighted(&[0, 1, 0]);
            assert_eq!(counts(&*policy.build(&members, None), &members, 100), [0, 100, 0]);
            let members = weighted(&[0, 0]);
            assert_eq!(policy.build(&members, None).pick(&members, Open::except(&Tried::new()), None), None);
        }
    }

    #[test]
    fn as_many_servers_as_can_be_tried_are_remembered() {
        let members = equal(Tried::MOST + 1);
        let mut tried = Tried::new();
        members.iter().for_each(|server| tried.add(&server.state));
        assert_eq!(tried.count(), Tried::MOST);
        assert_eq!(members.iter().filter(|server| tried.has(&server.state)).count(), Tried::MOST);
    }
}
