//! By key, so that as few keys as possible move when members join or leave and each member has its share all the same.
//!
//! The table of D. Eisenbud et al., "Maglev: a fast and reliable software network load balancer" (NSDI 2016, §3.4): each
//! member has a permutation of the slots, made of two hashes of its name, and the members take turns, each taking the first
//! slot of its permutation that is free. A key leads to one slot, in one step. Of n members that become n − 1, the keys of the
//! one that left move, and few others do.
//!
//! Members take turns in rounds, each round in the order of their names. The heaviest has one in every round, and a member of
//! a third of its weight in every third; all begin with one. With equal weights these are the rounds of the paper. Each member
//! is within two slots of its share, and has one slot at least.

use std::collections::VecDeque;

use super::hashed::{Table, by_name};
use super::key::{Key, hash};
use crate::backend::Server;

/// How many slots a table has: a prime, so that each step width leads past every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u32);

impl TableSize {
    /// That of the paper: shares of 650 servers and fewer are exact to 1 %.
    pub const DEFAULT: Self = Self(65_537);
    /// The least.
    pub const LEAST: u32 = 101;
    /// The most, for 20 MiB of memory.
    pub const MOST: u32 = 5_000_011;

    /// A size, if it is a prime from [`TableSize::LEAST`] to [`TableSize::MOST`].
    #[must_use]
    pub fn new(slots: u32) -> Option<Self> {
        ((Self::LEAST..=Self::MOST).contains(&slots) && is_prime(slots)).then_some(Self(slots))
    }

    /// The smallest size of so many slots or more, as far as there is one.
    #[must_use]
    pub fn at_least(slots: u32) -> Self {
        (slots.max(Self::LEAST)..=Self::MOST).find_map(Self::new).unwrap_or(Self(Self::MOST))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn is_prime(number: u32) -> bool {
    let is_divisor = |divisor: &u32| number.is_multiple_of(*divisor);
    number > 1 && !(2..).take_while(|divisor| u64::from(*divisor).pow(2) <= u64::from(number)).any(|d| is_divisor(&d))
}

/// The table.
#[derive(Debug)]
pub(super) struct Maglev {
    /// The place of the member that each slot belongs to.
    slots: Box<[u32]>,
}

impl Maglev {
    pub(super) fn new(members: &[Server], size: TableSize) -> Self {
        let size = size.get() as usize;
        let mut members: Vec<Permutation> =
            by_name(members).into_iter().map(|(place, server)| Permutation::of(place, server, size)).collect();
        let Some(heaviest) = members.iter().map(|member| member.weight).max() else {
            return Self { slots: Box::default() };
        };
        let mut slots = vec![0; size];
        let mut taken = Taken(vec![0; size.div_ceil(64)]);
        let mut free = size;
        // Who has a turn in a round and the next ones; nobody waits for longer than there are rounds to note down.
        let mut rounds: VecDeque<Vec<usize>> = (0..=heaviest).map(|_| Vec::new()).collect();
        if let Some(first) = rounds.front_mut() {
            first.extend(0..members.len());
        }
        for round in 0.. {
            let Some(mut turns) = rounds.pop_front().filter(|_| free > 0) else { break };
            rounds.push_back(Vec::new());
            turns.sort_unstable();
            for turn in turns.drain(..).take(free) {
                let Some(member) = members.get_mut(turn) else { continue };
                if let Some(slot) = member.next(&mut taken).and_then(|slot| slots.get_mut(slot)) {
                    *slot = member.place;
                    free -= 1;
                }
                member.turns += 1;
                let next = member.turns * heaviest / member.weight;
                if let Some(turns) = rounds.get_mut((next - round - 1) as usize) {
                    turns.push(turn);
                }
            }
        }
        Self { slots: slots.into_boxed_slice() }
    }
}

/// Where a member looks for its next slot.
struct Permutation {
    place: u32,
    weight: u64,
    /// How many it had.
    turns: u64,
    at: usize,
    skip: usize,
    size: usize,
}

impl Permutation {
    fn of(place: u32, server: &Server, size: usize) -> Self {
        let name = server.state.name.as_str().as_bytes();
        Self {
            place,
            weight: server.full_weight.get().into(),
            turns: 0,
            at: (hash(name, 1) % size as u64) as usize,
            skip: (hash(name, 2) % (size as u64 - 1)) as usize + 1,
            size,
        }
    }

    /// Takes the first slot that is free yet.
    fn next(&mut self, taken: &mut Taken) -> Option<usize> {
        for _ in 0..self.size {
            let at = self.at;
            self.at += self.skip;
            if self.at >= self.size {
                self.at -= self.size;
            }
            if taken.take(at) {
                return Some(at);
            }
        }
        None
    }
}

/// A bit for each slot, so that looking for the last free ones stays in the cache next to the core.
struct Taken(Vec<u64>);

impl Taken {
    /// Takes a slot, if it is free.
    fn take(&mut self, slot: usize) -> bool {
        let bit = 1 << (slot % 64);
        let Some(word) = self.0.get_mut(slot / 64) else { return false };
        let is_free = *word & bit == 0;
        *word |= bit;
        is_free
    }
}

impl Table for Maglev {
    fn walk(&self, key: Key) -> impl Iterator<Item = usize> {
        let slot = |key: Key| self.slots.get(key.below(self.slots.len() as u64) as usize);
        key.chain().map_while(move |key| slot(key).map(|place| *place as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{equal, weighted};

    fn shares(maglev: &Maglev, members: usize) -> Vec<u64> {
        let mut shares = vec![0; members];
        maglev.slots.iter().for_each(|place| shares[*place as usize] += 1);
        shares
    }

    #[test]
    fn a_table_of_three_is_as_it_was_in_every_release() {
        let maglev = Maglev::new(&weighted(&[1, 2, 1]), TableSize::new(101).unwrap());
        let slots: String = maglev.slots.iter().map(|place| place.to_string()).collect();
        assert_eq!(
            slots,
            "10111111111011101100111010101010011001111101110110022222022222202212121212121012101202121210121012001"
        );
    }

    #[test]
    fn each_member_is_within_two_slots_of_its_share_and_has_one_at_least() {
        let mut random = fastrand::Rng::with_seed(7);
        for count in [1, 2, 3, 10, 100, 1000] {
            let weights: Vec<u16> = (0..count).map(|_| random.u16(1..=1000)).collect();
            let maglev = Maglev::new(&weighted(&weights), TableSize::DEFAULT);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (share, weight) in shares(&maglev, count).iter().zip(&weights) {
                let exact = 65_537.0 * f64::from(*weight) / total as f64;
                assert!(*share >= 1 && (*share as f64 - exact).abs() <= 2.0, "{share} {exact}");
            }
        }
    }

    #[test]
    fn weights_are_honoured_within_one_per_cent() {
        let maglev = Maglev::new(&weighted(&[1, 2, 3, 0, 94]), TableSize::DEFAULT);
        for (share, percent) in shares(&maglev, 5).iter().zip([1.0, 2.0, 3.0, 0.0, 94.0]) {
            let exact = 65_537.0 * percent / 100.0;
            assert!((*share as f64 - exact).abs() <= exact / 100.0, "{share} for {percent} %");
        }
    }

    #[test]
    fn when_one_leaves_its_keys_move_and_at_most_two_per_cent_of_the_others() {
        for count in [3, 10, 100, 1000] {
            let members = equal(count);
            let all = Maglev::new(&members, TableSize::DEFAULT);
            for gone in [0, count / 2, count - 1] {
                let mut left = members.clone();
                left.remove(gone);
                let fewer = Maglev::new(&left, TableSize::DEFAULT);
                // Slots are keys: as many lead to each.
                let slots =
                    all.slots.iter().zip(&fewer.slots).map(|(before, after)| (*before as usize, *after as usize));
                let moved = slots.filter(|(before, after)| {
                    *before != gone && members[*before].state.name != left[*after].state.name
                });
                let moved = moved.count();
                assert!(moved * 50 <= all.slots.len(), "{moved} of {} with {count} servers", all.slots.len());
            }
        }
    }

    #[test]
    fn only_primes_are_sizes() {
        for size in [101, 251, 65_537, 655_373, 5_000_011] {
            assert_eq!(TableSize::new(size).map(TableSize::get), Some(size));
        }
        for size in [0, 1, 2, 100, 65_536, 65_539 - 1, 5_000_012, 5_000_077] {
            assert_eq!(TableSize::new(size), None, "{size}");
        }
        assert_eq!([0, 65_000, u32::MAX].map(|size| TableSize::at_least(size).get()), [101, 65_003, 5_000_011]);
    }

    #[test]
    fn without_weight_a_key_leads_nowhere() {
        assert_eq!(Maglev::new(&weighted(&[0, 0]), TableSize::DEFAULT).walk(Key::of(b"a")).next(), None);
    }
}
