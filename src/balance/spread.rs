//! How many connections the open members of a tier have in all, and with that how many each may have at most.
//!
//! A pick reads two sums. They are kept by whoever changes a member, without a lock: each member has a word for what is
//! counted of it, and whoever finds that word wrong swaps it, adds the difference to the sums and *looks again*, as with a
//! leaf of [`super::least_conn`]. So the sums are those of the words at any time, but for differences on their way, and the
//! words are right once all is quiet.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::backend::{Server, State};
use crate::units::Weight;

/// How many times its share of the connections a server may have, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadFactor(u32);

impl LoadFactor {
    /// No more than its share.
    const ONE: Self = Self(1000);
    /// The default, 1.25.
    pub const DEFAULT: Self = Self(1250);
    /// The least: the closer to 1 it is, the longer a key has to look for a server with room.
    pub const LEAST: f64 = 1.1;
    /// The most.
    pub const MOST: f64 = 100.0;

    /// A factor from [`LoadFactor::LEAST`] to [`LoadFactor::MOST`], rounded to thousandths.
    #[must_use]
    pub fn new(factor: f64) -> Option<Self> {
        (Self::LEAST..=Self::MOST).contains(&factor).then_some(Self((factor * 1000.0).round() as u32))
    }
}

/// So many connections are never too many. Where there are few in all, shares are so small that a client that opens two at
/// once, or whose request comes before the end of the last one is counted, would be sent elsewhere for nothing.
pub(super) const FEW: u32 = 8;

/// The sums.
#[derive(Debug)]
pub(super) struct Spread {
    factor: LoadFactor,
    members: Box<[Member]>,
    sums: CachePadded<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    active: AtomicI64,
    weight: AtomicI64,
}

/// A member, without its state: a state holds the watcher it reports to.
#[derive(Debug)]
struct Member {
    weight: Weight,
    max_connections: u32,
    /// What is in the sums of it: connections and weight, as one word; zero if it is closed.
    counted: AtomicU64,
}

/// What is counted of a member.
const fn pack(active: u32, weight: u16) -> u64 {
    (active as u64) << 16 | weight as u64
}

/// The same as parts of the sums.
const fn unpack(word: u64) -> (i64, i64) {
    ((word >> 16) as i64, (word & 0xffff) as i64)
}

impl Member {
    fn measure(&self, state: &State) -> u64 {
        match state.is_open(self.weight, self.max_connections) {
            true => pack(state.active(), self.weight.get()),
            false => 0,
        }
    }
}

impl Spread {
    pub(super) fn new(factor: LoadFactor, members: &[Server]) -> Self {
        let member = |server: &Server| {
            let Server { weight, max_connections, .. } = server;
            Member { weight: *weight, max_connections: *max_connections, counted: AtomicU64::new(0) }
        };
        let new = Self { factor, members: members.iter().map(member).collect(), sums: CachePadded::default() };
        members.iter().enumerate().for_each(|(place, server)| new.changed(place, &server.state));
        new
    }

    /// Counts a member as it is now.
    pub(super) fn changed(&self, place: usize, state: &State) {
        let Some(member) = self.members.get(place) else { return };
        loop {
            let known = member.counted.load(Ordering::SeqCst);
            let now = member.measure(state);
            if known == now {
                break;
            }
            // Whoever loses looks again as well.
            if member.counted.compare_exchange(known, now, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                let ((active, weight), (active_before, weight_before)) = (unpack(now), unpack(known));
                self.sums.active.fetch_add(active - active_before, Ordering::SeqCst);
                if weight != weight_before {
                    self.sums.weight.fetch_add(weight - weight_before, Ordering::SeqCst);
                }
            }
        }
    }

    /// Whether one connection more leaves a server within its share of all, times the factor: whether it has fewer than
    /// ⌈factor × (all + 1) × its weight / the weight of all⌉, or than [`FEW`].
    pub(super) fn has_room(&self, server: &Server) -> bool {
        if server.state.active() < FEW {
            return true;
        }
        let Sums { active, weight } = &*self.sums;
        // A difference on its way may make a sum look negative.
        let [all, whole] = [active, weight].map(|sum| u128::try_from(sum.load(Ordering::SeqCst)).unwrap_or(0));
        // Below the rounded bound is below the bound, and multiplied out nothing is rounded at all.
        let has = u128::from(server.state.active()) * whole * u128::from(LoadFactor::ONE.0);
        has < u128::from(self.factor.0) * (all + 1) * u128::from(server.weight.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{equal, weighted};
    use std::thread;

    fn sums(spread: &Spread) -> (i64, i64) {
        (spread.sums.active.load(Ordering::SeqCst), spread.sums.weight.load(Ordering::SeqCst))
    }

    fn naive(members: &[Server]) -> (i64, i64) {
        let open = || members.iter().filter(|server| server.is_open());
        (
            open().map(|server| i64::from(server.state.active())).sum(),
            open().map(|server| i64::from(server.weight.get())).sum(),
        )
    }

    #[test]
    fn a_server_has_room_up_to_its_share_of_all_times_the_factor_rounded_up() {
        let members = weighted(&[2, 1, 1]);
        let spread = Spread::new(LoadFactor(1500), &members);
        let mut leases = Vec::new();
        for all in 0u32..100 {
            for (server, share) in members.iter().zip([0.5, 0.25, 0.25]) {
                let most = FEW.max((1.5 * f64::from(all + 1) * share).ceil() as u32);
                assert_eq!(spread.has_room(server), server.state.active() < most, "{all}");
            }
            let place = [0, 1, 1, 0, 2][all as usize % 5];
            leases.push(members[place].acquire().unwrap());
            spread.changed(place, &members[place].state);
        }
    }

    #[test]
    fn somebody_has_room_whoever_has_how_many() {
        let mut random = fastrand::Rng::with_seed(31);
        for _ in 0..300 {
            let members = weighted(&(0..random.usize(1..9)).map(|_| random.u16(1..20)).collect::<Vec<_>>());
            let leases: Vec<_> =
                (0..random.usize(..500)).map(|_| members[random.usize(..members.len())].acquire()).collect();
            members.iter().skip(1).for_each(|server| server.state.set_healthy(random.bool()));
            let spread = Spread::new(LoadFactor::ONE, &members);
            assert!(members.iter().any(|server| server.is_open() && spread.has_room(server)));
            drop(leases);
        }
    }

    #[test]
    fn the_sums_are_right_once_four_threads_are_done_with_them() {
        let mut members = equal(7);
        members.iter_mut().for_each(|server| server.max_connections = 3);
        let spread = Spread::new(LoadFactor::DEFAULT, &members);
        let kept: Vec<_> = thread::scope(|scope| {
            let worker = |seed: u64| {
                let (members, spread) = (&members, &spread);
                move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut leases = Vec::new();
                    for _ in 0..5_000 {
                        let place = random.usize(..members.len());
                        match random.u8(0..8) {
                            0..4 => leases.extend(members[place].acquire().map(|lease| (place, lease))),
                            4..7 if !leases.is_empty() => {
                                let (place, lease) = leases.swap_remove(random.usize(..leases.len()));
                                drop(lease);
                                spread.changed(place, &members[place].state);
                            }
                            _ => members[place].state.set_healthy(random.bool()),
                        }
                        spread.changed(place, &members[place].state);
                    }
                    leases
                }
            };
            let workers: Vec<_> = (0..4).map(|seed| scope.spawn(worker(seed))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(sums(&spread), naive(&members));
        drop(kept);
        members.iter().enumerate().for_each(|(place, server)| spread.changed(place, &server.state));
        assert_eq!(sums(&spread), naive(&members));
    }
}
