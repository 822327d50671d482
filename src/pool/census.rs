//! How many of some servers are fit and what they carry, kept up to date by the servers themselves, so that a pick need not
//! look at all of them. Only pools with a rule that asks for it have one.
//!
//! What is known of each server is compared with how it does, changed, and *looked at again*, until it is right: by the
//! argument of [`crate::balance`]'s ranking, nothing stays wrong however many report at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::queue::PoolState;
use crate::backend::{Server, State, Until, Watcher};
use crate::units::Weight;

/// Of servers that are fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// How many there are.
    pub(super) count: u64,
    /// What they weigh, all together.
    pub(super) weight: u64,
}

/// What is known of the members of a group. It hears of changes in place of the group's ranking, and passes them on.
#[derive(Debug)]
pub(super) struct Census {
    seats: Box<[Seat]>,
    /// How many are fit, above 32 bits of what those weigh.
    fit: AtomicU64,
    ranking: Option<Arc<dyn Watcher>>,
    occupancy: Arc<Occupancy>,
}

/// What is known of one member.
#[derive(Debug)]
struct Seat {
    weight: Weight,
    max_connections: u32,
    fit: AtomicBool,
    active: AtomicU32,
}

impl Seat {
    /// What it adds to the sum when it is fit.
    fn worth(&self) -> u64 {
        1 << 32 | u64::from(self.weight.get())
    }
}

impl Census {
    /// That of these members, as they are now. Their states are read but not touched.
    pub(super) fn new(members: &[Server], ranking: Option<Arc<dyn Watcher>>, occupancy: &Arc<Occupancy>) -> Self {
        let seat = |server: &Server| Seat {
            weight: server.weight,
            max_connections: server.max_connections,
            fit: AtomicBool::new(false),
            active: AtomicU32::new(0),
        };
        let census = Self {
            seats: members.iter().map(seat).collect(),
            fit: AtomicU64::new(0),
            ranking,
            occupancy: Arc::clone(occupancy),
        };
        for (place, server) in members.iter().enumerate() {
            census.count(place, &server.state);
        }
        census
    }

    /// Those that are fit.
    pub(super) fn fit(&self) -> Fit {
        let sum = self.fit.load(Ordering::SeqCst);
        Fit { count: sum >> 32, weight: sum & u64::from(u32::MAX) }
    }

    fn count(&self, place: usize, state: &State) {
        let Some(seat) = self.seats.get(place) else { return };
        loop {
            let (known, now) = (seat.fit.load(Ordering::SeqCst), state.is_fit(seat.weight));
            if known == now {
                break;
            }
            if seat.fit.compare_exchange(known, now, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                let worth = seat.worth();
                self.fit.fetch_add(if now { worth } else { worth.wrapping_neg() }, Ordering::SeqCst);
            }
        }
        if !self.occupancy.counts {
            return;
        }
        loop {
            let (known, now) = (seat.active.load(Ordering::SeqCst), state.active());
            if known == now {
                break;
            }
            // More is added before it is known and less taken away after, so that the sum is never too small.
            let more = now.saturating_sub(known);
            self.occupancy.add(more);
            if seat.active.compare_exchange(known, now, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                self.occupancy.take(known.saturating_sub(now));
            } else {
                self.occupancy.take(more);
            }
        }
    }
}

impl Watcher for Census {
    fn took(&self, state: &State, took: Duration, until: Until) {
        if let Some(ranking) = &self.ranking {
            ranking.took(state, took, until);
        }
    }

    fn changed(&self, place: usize, state: &State) {
        // First, so that whoever is called finds it ranked and counted.
        if let Some(ranking) = &self.ranking {
            ranking.changed(place, state);
        }
        self.count(place, state);
        if self.occupancy.pool.waiting() > 0
            && self
                .seats
                .get(place)
                .is_some_and(|seat| state.is_wanted(seat.weight) && state.active() < seat.max_connections)
        {
            self.occupancy.pool.call_first();
        }
    }
}

/// The connections of all servers of a pool, where there is a limit to that; and who waits for one of them to end.
#[derive(Debug)]
pub(super) struct Occupancy {
    pool: Arc<PoolState>,
    /// Whether there is a limit, so that they are counted.
    counts: bool,
    most: u32,
    /// Places that are reserved for connections that are not counted yet, above 32 bits of those that are.
    /// The lower half begins in the middle of its range: what several report at once may take it below none for a moment.
    both: AtomicU64,
}

/// What the lower half stands at when there is no connection.
const NONE: u64 = 1 << 31;
/// One place reserved.
const PLACE: u64 = 1 << 32;

impl Occupancy {
    pub(super) fn new(pool: Arc<PoolState>, most: u32) -> Arc<Self> {
        Arc::new(Self { pool, counts: most != u32::MAX, most, both: AtomicU64::new(NONE) })
    }

    /// Reserves a place for one more connection, which the guard holds until the connection is counted; `None` when there
    /// is none.
    pub(super) fn reserve(&self) -> Option<Reserved<'_>> {
        if self.counts {
            let more = |both: u64| {
                let taken = (both >> 32) + (both & u64::from(u32::MAX)).saturating_sub(NONE);
                (taken < u64::from(self.most)).then(|| both + PLACE)
            };
            self.both.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        }
        Some(Reserved(self))
    }

    fn add(&self, connections: u32) {
        if connections > 0 {
            self.both.fetch_add(connections.into(), Ordering::SeqCst);
        }
    }

    fn take(&self, connections: u32) {
        if connections > 0 {
            self.both.fetch_sub(connections.into(), Ordering::SeqCst);
        }
    }
}

/// A place that is reserved.
#[derive(Debug)]
pub(super) struct Reserved<'a>(&'a Occupancy);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let Self(occupancy) = self;
        if occupancy.counts {
            // Nobody is called if it was not used: whoever found no server would call itself, over and over.
            occupancy.both.fetch_sub(PLACE, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Lease, Watching};
    use crate::net::address::ServerAddr;
    use crate::units::Name;
    use std::path::Path;
    use std::thread;

    fn servers(weights: &[u16]) -> Vec<Server> {
        let server = |weight: &u16| Server {
            weight: Weight::new(*weight).unwrap(),
            ..Server::new(
                State::new(Name::new("pool"), Name::new("a")),
                ServerAddr::parse("127.0.0.1:1", Path::new("/")).unwrap(),
            )
        };
        weights.iter().map(server).collect()
    }

    fn census(members: &[Server], most: u32) -> (Arc<Census>, Arc<Occupancy>) {
        let occupancy = Occupancy::new(PoolState::new(Name::new("pool")), most);
        let census = Arc::new(Census::new(members, None, &occupancy));
        for (place, server) in members.iter().enumerate() {
            let watcher: Arc<dyn Watcher> = Arc::<Census>::clone(&census);
            server.state.set_watching(Some(Watching { watcher, place }));
        }
        (census, occupancy)
    }

    #[test]
    fn what_is_fit_is_known_after_every_change() {
        let members = servers(&[3, 0, 5]);
        let (census, _) = census(&members, u32::MAX);
        assert_eq!(census.fit(), Fit { count: 2, weight: 8 });
        members[2].state.set_healthy(false);
        members[1].state.set_healthy(false);
        assert_eq!(census.fit(), Fit { count: 1, weight: 3 });
        members[0].state.set_healthy(false);
        assert_eq!(census.fit(), Fit::default());
        members[2].state.set_healthy(true);
        assert_eq!(census.fit(), Fit { count: 1, weight: 5 });
    }

    #[test]
    fn there_are_never_more_connections_than_there_may_be_whoever_begins_them() {
        const MOST: u32 = 7;
        let members = servers(&[1, 1, 1]);
        let (_, occupancy) = census(&members, MOST);
        let active = || members.iter().map(|server| server.state.active()).sum::<u32>();
        thread::scope(|scope| {
            let worker = || {
                let mut held: Vec<Lease> = Vec::new();
                for round in 0..20_000 {
                    if let Some(_reserved) = occupancy.reserve() {
                        held.extend(members[round % 3].acquire());
                        assert!(active() <= MOST);
                    }
                    if round % 5 == 0 {
                        held.clear();
                    }
                }
            };
            (0..4).for_each(|_| drop(scope.spawn(worker)));
        });
        assert_eq!(occupancy.both.load(Ordering::SeqCst), NONE);
    }

    #[test]
    fn connections_from_before_count_too() {
        let members = servers(&[1]);
        let held = members[0].acquire();
        let (_, occupancy) = census(&members, 1);
        assert!(occupancy.reserve().is_none());
        drop(held);
        assert!(occupancy.reserve().is_some());
    }

    #[test]
    fn all_that_report_at_once_leave_the_truth_behind() {
        let members = servers(&[1, 2, 3, 4]);
        let (census, occupancy) = census(&members, 1_000_000);
        thread::scope(|scope| {
            for seed in 0..4 {
                let members = &members;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..20_000 {
                        let server = &members[random.usize(..4)];
                        match random.u8(..3) {
                            0 => server.state.set_healthy(random.bool()),
                            1 => held.extend(server.acquire()),
                            _ => drop(held.pop()),
                        }
                    }
                });
            }
        });
        let fit = members.iter().filter(|server| server.state.is_fit(server.weight));
        let (count, weight) = fit.fold((0, 0), |(c, w), server| (c + 1, w + u64::from(server.weight.get())));
        assert_eq!(census.fit(), Fit { count, weight });
        assert_eq!(occupancy.both.load(Ordering::SeqCst), NONE);
    }
}
