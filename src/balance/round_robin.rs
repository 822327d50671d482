//! Each open member in turn, in proportion to the weights and never in bursts, exactly so for all workers together.
//!
//! The turns are laid out once, when the pool is built; a pick takes the next tick of one shared counter and looks up whose
//! turn it is. So the turns are dealt out exactly whoever picks. A closed member's turn is passed over by *taking the next
//! tick*: walking to its neighbour instead would give that neighbour twice its share.
//!
//! The layout treats each turn as a unit of work with the window in which an ideal, infinitely divisible rotation would
//! perform it, and deals turns by earliest deadline among those whose window has begun (S. Baruah et al., "Proportionate
//! progress", Algorithmica 15, 1996). At every point each member has had its share up to less than one turn. With weights
//! 5, 1, 1 that is `a a a b a a c`, over and over: no stretch of it holds more of `a` than its share, rounded up.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::{ATTEMPTS, Balance, Before, Key, Open, last_resort};
use crate::backend::Server;

/// The most turns in a rotation, for 1 MiB of memory. Weights that add up to more, after division by what they have in
/// common, are scaled down and rounded: one that keeps 50 turns or more is off by at most 1 %.
const MOST_TURNS: u64 = 1 << 18;

/// The algorithm.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// Whose turn it is at each tick of a rotation.
    turns: Turns,
    tick: CachePadded<AtomicU64>,
    /// Turns dealt where hardly any member is open.
    rest: AtomicU64,
}

/// A rotation, shared with whatever deals the turns of the same members later.
#[derive(Clone, Debug)]
pub(super) struct Turns(pub(super) Arc<[u32]>);

impl Turns {
    fn new(members: &[Server]) -> Self {
        let weights: Vec<_> = members.iter().map(|server| server.weight.get()).collect();
        Self(lay_out(&scale(&weights)).into())
    }
}

impl RoundRobin {
    pub(super) fn new(members: &[Server], before: Option<Before<'_>>) -> Self {
        let kept = before.and_then(|before| before.table(members, |one, other| one.weight == other.weight));
        let turns = kept.unwrap_or_else(|| Turns::new(members));
        // Not at the first: a pool that is rebuilt every second, for discovery, would send all its traffic there.
        let start = fastrand::u64(..turns.0.len().max(1) as u64);
        Self { turns, tick: CachePadded::new(AtomicU64::new(start)), rest: AtomicU64::new(0) }
    }
}

impl Balance for RoundRobin {
    fn pick(&self, members: &[Server], open: Open<'_>, _key: Option<Key>) -> Option<usize> {
        for _ in 0..ATTEMPTS {
            let turn = self.tick.fetch_add(1, Ordering::Relaxed).checked_rem(self.turns.0.len() as u64)?;
            let place = *self.turns.0.get(turn as usize)? as usize;
            if open.has(members.get(place)?) {
                return Some(place);
            }
        }
        last_resort(members, |server| open.has(server), self.rest.fetch_add(1, Ordering::Relaxed))
    }

    fn table(&self) -> Option<&dyn Any> {
        Some(&self.turns)
    }
}

/// How many turns of a rotation each member gets: its weight, divided by what all have in common, and scaled down where
/// there would be too many. A member with weight keeps one turn at least.
fn scale(weights: &[u16]) -> Vec<u64> {
    let common = weights.iter().fold(0, |a, b| greatest_common_divisor(a, u64::from(*b))).max(1);
    let turns: Vec<_> = weights.iter().map(|weight| u64::from(*weight) / common).collect();
    let total: u64 = turns.iter().sum();
    if total <= MOST_TURNS {
        return turns;
    }
    let scaled = |turns: u64| if turns == 0 { 0 } else { ((turns * MOST_TURNS + total / 2) / total).max(1) };
    turns.into_iter().map(scaled).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// One rotation in which each member has so many turns, spread evenly.
fn lay_out(turns: &[u64]) -> Box<[u32]> {
    let total: u64 = turns.iter().sum();
    // The next turn of each member, by the tick its window begins with until then, by the one it ends before from then on.
    let mut waiting: BinaryHeap<_> =
        (0u32..).zip(turns).filter(|(_, turns)| **turns > 0).map(|(place, _)| Reverse((0, place))).collect();
    let mut due = BinaryHeap::with_capacity(waiting.len());
    let mut had = vec![0; turns.len()];
    let mut layout = Vec::with_capacity(total as usize);
    for tick in 0..total {
        while let Some(Reverse((_, place))) = waiting.peek().filter(|Reverse((begin, _))| *begin <= tick).copied() {
            waiting.pop();
            if let (Some(had), Some(turns)) = (had.get(place as usize), turns.get(place as usize)) {
                due.push(Reverse((((had + 1) * total).div_ceil(*turns), place)));
            }
        }
        // Somebody is due at every tick: the ideal rotation performs one turn a tick, each within its window.
        let Some(Reverse((_, place))) = due.pop() else { break };
        layout.push(place);
        if let (Some(had), Some(turns)) = (had.get_mut(place as usize), turns.get(place as usize)) {
            *had += 1;
            if *had < *turns {
                waiting.push(Reverse((*had * total / turns, place)));
            }
        }
    }
    layout.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::testing::{counts, equal, weighted};
    use std::thread;

    /// Picks from so many threads at once.
    fn counts_of_threads(members: &[Server], threads: usize, picks_each: usize) -> Vec<usize> {
        let balance = RoundRobin::new(members, None);
        let mut sum = vec![0; members.len()];
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| counts(&balance, members, picks_each))).collect();
            for worker in workers {
                sum.iter_mut().zip(worker.join().unwrap()).for_each(|(sum, count)| *sum += count);
            }
        });
        sum
    }

    fn spread(counts: &[usize]) -> usize {
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    #[test]
    fn a_thousand_picks_over_three_equal_servers_differ_by_one_at_most_for_one_to_eight_workers() {
        for threads in 1..=8 {
            let counts = counts_of_threads(&equal(3), threads, 1000);
            assert!(spread(&counts) <= 1, "{threads} workers: {counts:?}");
        }
    }

    #[test]
    fn with_one_of_three_down_the_other_two_differ_by_one_at_most() {
        for down in 0..3 {
            for threads in 1..=4 {
                let members = equal(3);
                members[down].state.set_healthy(false);
                let mut counts = counts_of_threads(&members, threads, 1001);
                assert_eq!(counts.remove(down), 0);
                assert!(spread(&counts) <= 1, "{threads} workers: {counts:?}");
            }
        }
    }

    #[test]
    fn survivors_of_a_block_that_is_down_share_evenly() {
        let members = equal(1000);
        members[200..700].iter().for_each(|server| server.state.set_healthy(false));
        let mut counts = counts(&RoundRobin::new(&members, None), &members, 500_000);
        let down: usize = counts.drain(200..700).sum();
        assert_eq!(down, 0);
        assert!(spread(&counts) <= 10, "{} of about 1000", spread(&counts));
    }

    #[test]
    fn a_whole_rotation_honours_the_weights_exactly() {
        let members = weighted(&[5, 1, 0, 1, 100, 20]);
        assert_eq!(counts(&RoundRobin::new(&members, None), &members, 127), [5, 1, 0, 1, 100, 20]);
    }

    #[test]
    fn weights_are_divided_by_what_they_have_in_common() {
        assert_eq!(scale(&[1000, 500, 0]), [2, 1, 0]);
        assert_eq!(scale(&[7, 7, 7]), [1, 1, 1]);
        assert_eq!(scale(&[0, 0]), [0, 0]);
    }

    #[test]
    fn a_rotation_is_never_endless_and_drops_nobody() {
        let mut weights = vec![999; 2000];
        weights.extend([1, 1000]);
        let turns = scale(&weights);
        let total: u64 = turns.iter().sum();
        assert!(total <= MOST_TURNS + weights.len() as u64);
        assert_eq!(turns[2000], 1);
        let exact = 999.0 * MOST_TURNS as f64 / (999.0 * 2000.0 + 1001.0);
        assert!((turns[0] as f64 / exact - 1.0).abs() <= 0.01);
        assert_eq!(lay_out(&turns).len() as u64, total);
    }

    #[test]
    fn five_one_one_is_interleaved() {
        let layout = lay_out(&[5, 1, 1]);
        assert_eq!(*layout, [0, 0, 0, 1, 0, 0, 2]);
        let twice: Vec<_> = layout.iter().chain(&*layout).collect();
        for width in 1..=7 {
            for window in twice.windows(width) {
                let most = (5 * width).div_ceil(7);
                assert!(window.iter().filter(|place| ***place == 0).count() <= most, "{window:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn at_every_point_of_a_rotation_each_member_has_had_its_share_up_to_less_than_one_turn(
            turns in proptest::collection::vec(0u64..60, 1..20)
        ) {
            let layout = lay_out(&turns);
            let total: u64 = turns.iter().sum();
            assert_eq!(layout.len() as u64, total);
            let mut had = vec![0u64; turns.len()];
            for (tick, place) in (1u64..).zip(&layout) {
                had[*place as usize] += 1;
                for (had, turns) in had.iter().zip(&turns) {
                    assert!((had * total).abs_diff(turns * tick) < total, "{turns} of {total} at {tick}: {had}");
                }
            }
            assert_eq!(had, turns);
        }
    }

    #[test]
    fn nobody_is_picked_where_nobody_is_open() {
        let members = equal(3);
        let balance = RoundRobin::new(&members, None);
        members.iter().for_each(|server| server.state.set_healthy(false));
        assert_eq!(balance.pick(&members, Open::except(&Tried::new()), None), None);
        assert_eq!(RoundRobin::new(&[], None).pick(&[], Open::except(&Tried::new()), None), None);
    }
}
