//! The open member with the fewest connections for its weight; of equals the one picked longest ago.
//!
//! The best is kept at hand by a tournament tree: the leaves are the members, each inner node names the better of the two
//! its children name, and the root names the best of all. A change of one member replays its matches up to the root, or
//! to the first match it neither plays in nor decides anew, so that a pick and a release cost O(log n) of n members.
//!
//! # Why no node is left wrong, without a lock
//!
//! Every worker replays matches at once. A match is replayed as "read the node, read the children, compare; if the node is
//! wrong, compare-and-swap it and *look again*; leave only when it is right". Then, once all is quiet, each node is right:
//!
//! - After the last change below a node (a child names another, or the rank of the one it names changes) somebody replays
//!   the node: whoever swapped the child, or whoever changed the rank. The latter may stop below only where another had
//!   been named meanwhile, and then the one who swapped the name goes on up in its stead.
//! - Suppose the last swap of the node was wrong, made from what was read before that last change. Whoever made it looked
//!   again. If that was after the change, it saw the error and swapped again. If it was before, the swap was as well, and
//!   the replay that followed the change found the node wrong and swapped it. Either way the swap was not the last.
//!
//! It is the "refresh" of P. Jayanti's f-arrays (PODC 2002) with a second look in place of a second try: nodes whose winner
//! stands are read and not written, which keeps the top of the tree, read by every worker, in every worker's cache. A
//! replay goes round again only when another worker swapped the node meanwhile, so somebody always gets on. All of it is
//! sequentially consistent, as is what [`crate::backend`] does before it tells of a change.
//!
//! The ranking is advice and the servers' own counters are the truth: a winner whose counter moved meanwhile has its matches
//! replayed first, and if the winner is closed all members are looked at. That also serves the last connections of a pool
//! whose servers report to a newer one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::{Balance, Key, Open, load};
use crate::backend::{Server, State, Watcher};
use crate::units::Weight;

/// How often a pick replays the matches of a winner whose counter moved before it takes the winner as it is.
const SECOND_LOOKS: usize = 4;

/// The load of a member that is closed: last of all.
const CLOSED: u64 = u64::MAX;

/// The algorithm.
#[derive(Debug)]
pub(super) struct LeastConn {
    leaves: Box<[Leaf]>,
    /// The inner nodes, each the place of a leaf: node 1 is the root, the children of node k are 2k and 2k + 1, and from
    /// `leaves.len()` on these are leaves. Node 0 is not used.
    nodes: Box<[AtomicU32]>,
    /// Counts picks.
    clock: CachePadded<AtomicU64>,
}

/// What ranks a member. States are not kept here, lest they keep each other: a state holds the tree it reports to.
#[derive(Debug)]
struct Leaf {
    weight: Weight,
    max_connections: u32,
    /// Its load per unit of weight as last reported, or [`CLOSED`].
    load: AtomicU64,
    /// When it was last picked.
    picked: AtomicU64,
}

/// Load, time of the last pick, place: the least is the best.
type Rank = (u64, u64, u32);

impl Leaf {
    fn measure(&self, state: &State) -> u64 {
        if state.is_open(self.weight, self.max_connections) { load(state.active(), self.weight.get()) } else { CLOSED }
    }
}

impl LeastConn {
    pub(super) fn new(members: &[Server]) -> Self {
        let count = members.len() as u64;
        // Not always the first among equals: a pool that is rebuilt every second would send all its traffic there.
        let start = fastrand::u64(..count.max(1));
        let leaf = |(place, server): (u64, &Server)| {
            let Server { state, weight, max_connections, .. } = server;
            let picked = AtomicU64::new(if place < start { place + count } else { place });
            let leaf =
                Leaf { weight: *weight, max_connections: *max_connections, load: AtomicU64::new(CLOSED), picked };
            leaf.load.store(leaf.measure(state), Ordering::SeqCst);
            leaf
        };
        let new = Self {
            leaves: (0u64..).zip(members).map(leaf).collect(),
            nodes: members.iter().map(|_| AtomicU32::new(0)).collect(),
            clock: CachePadded::new(AtomicU64::new(2 * count)),
        };
        for (at, node) in new.nodes.iter().enumerate().skip(1).rev() {
            node.store(new.better_child(at), Ordering::SeqCst);
        }
        new
    }

    fn rank(&self, place: u32) -> Rank {
        let of = |leaf: &Leaf| (leaf.load.load(Ordering::SeqCst), leaf.picked.load(Ordering::SeqCst), place);
        self.leaves.get(place as usize).map_or((CLOSED, u64::MAX, place), of)
    }

    /// The place a node or leaf names.
    fn named(&self, at: usize) -> u32 {
        match self.nodes.get(at) {
            Some(node) => node.load(Ordering::SeqCst),
            None => (at - self.nodes.len()) as u32,
        }
    }

    /// The better of the two places the children of an inner node name.
    fn better_child(&self, at: usize) -> u32 {
        let (left, right) = (self.named(2 * at), self.named(2 * at + 1));
        if self.rank(left) <= self.rank(right) { left } else { right }
    }

    /// Replays the matches above a member whose rank changed.
    fn replay(&self, place: u32) {
        let mut at = (place as usize + self.leaves.len()) / 2;
        while let Some(node) = self.nodes.get(at).filter(|_| at > 0) {
            let mut swapped = false;
            let winner = loop {
                let named = node.load(Ordering::SeqCst);
                let better = self.better_child(at);
                if named == better {
                    break better;
                }
                swapped |= node.compare_exchange(named, better, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            };
            if !swapped && winner != place {
                return;
            }
            at /= 2;
        }
    }

    /// The best rank below a node without the members that were tried: only nodes that name one of those are opened.
    fn best(&self, at: usize, tried: &impl Fn(u32) -> bool) -> Option<Rank> {
        let place = self.named(at);
        if !tried(place) {
            return Some(self.rank(place));
        }
        if at >= self.nodes.len() {
            return None;
        }
        [self.best(2 * at, tried), self.best(2 * at + 1, tried)].into_iter().flatten().min()
    }

    /// The best open member by the servers' own counters.
    fn scan(&self, members: &[Server], open: Open<'_>) -> Option<u32> {
        let candidates = (0u32..).zip(members).filter(|(_, server)| open.has(server));
        let rank = |(place, server): (u32, &Server)| {
            let (_, picked, _) = self.rank(place);
            (load(server.state.active(), server.weight.get()), picked, place)
        };
        candidates.map(rank).min().map(|(_, _, place)| place)
    }

    /// The best open member, if the ranking is right about it.
    fn ranked(&self, members: &[Server], open: Open<'_>) -> Option<u32> {
        let tried = |place: u32| members.get(place as usize).is_none_or(|server| open.is_tried(server));
        let mut best = None;
        for _ in 0..SECOND_LOOKS {
            let (load, _, place) = self.best(1, &tried)?;
            best = Some(place);
            let state = &members.get(place as usize)?.state;
            if self.leaves.get(place as usize)?.measure(state) == load {
                break;
            }
            self.changed(place as usize, state);
        }
        best.filter(|place| members.get(*place as usize).is_some_and(|server| open.has(server)))
    }
}

impl Balance for LeastConn {
    fn pick(&self, members: &[Server], open: Open<'_>, _key: Option<Key>) -> Option<usize> {
        let place = self.ranked(members, open).or_else(|| self.scan(members, open))? as usize;
        // No replay: the caller counts the connection next, and the server tells of that even if it turns out full.
        self.leaves.get(place)?.picked.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::SeqCst);
        Some(place)
    }

    fn watcher(self: Arc<Self>) -> Option<Arc<dyn Watcher>> {
        Some(self)
    }
}

impl Watcher for LeastConn {
    fn changed(&self, place: usize, state: &State) {
        let Some(leaf) = self.leaves.get(place) else { return };
        // A leaf is one match more, between what is known and what is so, and is played by the same rule.
        loop {
            let known = leaf.load.load(Ordering::SeqCst);
            let now = leaf.measure(state);
            if known == now {
                break;
            }
            // Whoever loses looks again as well.
            let _ = leaf.load.compare_exchange(known, now, Ordering::SeqCst, Ordering::SeqCst);
        }
        self.replay(place as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Watching;
    use crate::balance::Tried;
    use crate::balance::testing::{equal, take, weighted};
    use std::thread;

    /// The algorithm, told of every change.
    fn watched(members: &[Server]) -> Arc<LeastConn> {
        let balance = Arc::new(LeastConn::new(members));
        for (place, server) in members.iter().enumerate() {
            let watcher = Arc::<LeastConn>::clone(&balance).watcher().unwrap();
            server.state.set_watching(Some(Watching { watcher, place }));
        }
        balance
    }

    /// What the root must name: the best by looking at all.
    fn naive(balance: &LeastConn, members: &[Server]) -> Rank {
        let rank = |(place, server): (u32, &Server)| {
            let leaf = &balance.leaves[place as usize];
            (leaf.measure(&server.state), leaf.picked.load(Ordering::SeqCst), place)
        };
        (0u32..).zip(members).map(rank).min().unwrap()
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_picked_at_every_size_and_after_every_change() {
        let mut random = fastrand::Rng::with_seed(8);
        for count in 1..=300 {
            let mut members = weighted(&(0..count).map(|_| random.u16(0..=10)).collect::<Vec<_>>());
            members.iter_mut().for_each(|server| server.max_connections = random.u32(1..6));
            let balance = watched(&members);
            let mut leases = Vec::new();
            for _ in 0..200 {
                match random.u8(0..4) {
                    0 => members[random.usize(..count)].state.set_healthy(random.u8(0..3) > 0),
                    1 if !leases.is_empty() => drop(leases.swap_remove(random.usize(..leases.len()))),
                    _ => {
                        let (load, _, place) = naive(&balance, &members);
                        let expected = (load < CLOSED).then_some(place as usize);
                        let taken = take(&*balance, &members);
                        assert_eq!(taken.as_ref().map(|(place, _)| *place), expected);
                        leases.extend(taken.map(|(_, lease)| lease));
                    }
                }
                assert_eq!(balance.best(1, &|_| false), Some(naive(&balance, &members)));
            }
        }
    }

    #[test]
    fn fractions_of_different_weights_are_compared_exactly() {
        assert!(load(998, 999) == load(999, 1000));
        assert!(load(997, 999) < load(998, 1000), "998/999 is 10⁻⁶ less than 999/1000");
        assert!(load(u32::MAX, 1) < load(0, 0));
    }

    #[test]
    fn an_idle_pool_rotates() {
        let members = equal(5);
        let balance = watched(&members);
        let picks: Vec<_> = (0..10).map(|_| take(&*balance, &members).unwrap().0).collect();
        assert_eq!(picks[..5], picks[5..]);
        assert_eq!(picks[..5].iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn what_was_tried_is_left_out_and_the_next_best_found() {
        let members = equal(100);
        let balance = watched(&members);
        let busy: Vec<_> = members[5..].iter().map(|server| server.acquire().unwrap()).collect();
        let mut tried = Tried::new();
        let mut picks: Vec<_> = std::iter::repeat_with(|| {
            let place = balance.pick(&members, Open::except(&tried), None).unwrap();
            tried.add(&members[place].state);
            place
        })
        .take(5)
        .collect();
        picks.sort_unstable();
        assert_eq!(picks, [0, 1, 2, 3, 4]);
        drop(busy);
    }

    #[test]
    fn connections_are_spread_in_proportion_to_the_weights() {
        let members = weighted(&[5, 3, 2, 0]);
        let balance = watched(&members);
        let leases: Vec<_> = (0..1000).map(|_| take(&*balance, &members).unwrap().1).collect();
        assert_eq!(members.iter().map(|server| server.state.active()).collect::<Vec<_>>(), [500, 300, 200, 0]);
        drop(leases);
    }

    #[test]
    fn a_ranking_nobody_reports_to_still_spreads() {
        let members = equal(10);
        let balance = LeastConn::new(&members);
        let leases: Vec<_> = (0..100).map(|_| take(&balance, &members).unwrap().1).collect();
        assert!(members.iter().all(|server| server.state.active() == 10));
        drop(leases);
    }

    #[test]
    fn the_ranking_is_right_once_four_threads_are_done_with_it() {
        for (round, count) in (0u64..).zip([2, 3, 17, 1000, 1000]) {
            let mut members = equal(count);
            members.iter_mut().for_each(|server| server.max_connections = 3);
            let balance = watched(&members);
            let kept: Vec<_> = thread::scope(|scope| {
                let worker = |seed: u64| {
                    let (members, balance) = (&members, &balance);
                    move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut leases = Vec::new();
                        for _ in 0..5_000 {
                            match random.u8(0..8) {
                                0..4 => leases.extend(take(&**balance, members)),
                                4..7 if !leases.is_empty() => drop(leases.swap_remove(random.usize(..leases.len()))),
                                _ => members[random.usize(..members.len())].state.set_healthy(random.bool()),
                            }
                            assert!(members[random.usize(..members.len())].state.active() <= 3);
                        }
                        leases
                    }
                };
                let workers: Vec<_> = (0..4).map(|thread| scope.spawn(worker(4 * round + thread))).collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
            });
            let check_all = || {
                for (place, server) in (0u32..).zip(&members) {
                    assert_eq!(balance.rank(place).0, balance.leaves[place as usize].measure(&server.state));
                }
                for at in 1..balance.nodes.len() {
                    assert_eq!(balance.named(at), balance.better_child(at), "node {at} of {count}");
                }
                assert_eq!(balance.best(1, &|_| false), Some(naive(&balance, &members)));
            };
            check_all();
            drop(kept);
            check_all();
            assert!(members.iter().all(|server| server.state.active() == 0));
        }
    }
}
