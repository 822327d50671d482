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

use std::sync::Arc;

use super::hashed::{Table, by_name};
use super::key::{Key, hash};
use crate::backend::Server;

/// How many slots a table has: a prime, so that each step width leads past every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u32);

impl TableSize {
    /// That of the paper: shares of 650 equal servers and fewer are exact to 1 %, as are those of 200 slots and more where
    /// weights differ.
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
#[derive(Clone, Debug)]
pub(super) struct Maglev {
    /// The place of the member that each slot belongs to.
    pub(super) slots: Arc<[u32]>,
}

impl Maglev {
    pub(super) fn new(members: &[Server], size: TableSize) -> Self {
        let members = by_name(members);
        let weights = || members.iter().map(|(_, server)| u64::from(server.full_weight.get()));
        let (Some(heaviest), Some(lightest)) = (weights().max(), weights().min()) else {
            return Self { slots: Arc::default() };
        };
        let size = u64::from(size.get());
        let mut takers: Vec<Taker> =
            members.iter().map(|(place, server)| Taker::new(*place, server, heaviest, size)).collect();
        let mut rounds = Rounds::new(takers.len(), heaviest / lightest + 1);
        let mut free = Free::new(size);
        let mut slots = vec![0; size as usize];
        while free.count > 0 {
            for group in 0..rounds.groups {
                for turn in rounds.turns_of(group) {
                    let Some(taker) = takers.get_mut(turn) else { continue };
                    if let Some(slot) = taker.take(&mut free).and_then(|slot| slots.get_mut(slot as usize)) {
                        *slot = taker.place;
                    }
                    rounds.add(turn, taker.wait());
                }
            }
            rounds.next();
        }
        Self { slots: slots.into() }
    }

    /// Whether it has so many slots, or none since no member has weight.
    pub(super) fn is_of(&self, size: TableSize) -> bool {
        self.slots.is_empty() || self.slots.len() == size.get() as usize
    }
}

/// A member that takes slots.
struct Taker {
    place: u32,
    weight: u64,
    /// How many rounds lie between two of its turns, rounded down, and what of its weight that leaves over.
    wait: (u64, u64),
    /// What was left over so far, less than its weight.
    left_over: u64,
    /// Where in its permutation it looks next.
    at: u64,
    /// How far it is from one slot of its permutation to the next.
    skip: u64,
    /// How far it is, in its permutation, from one slot to the one beside it, as a fraction of the whole out of 64 bits. Zero
    /// until it is asked for.
    aside: u64,
}

impl Taker {
    fn new(place: u32, server: &Server, heaviest: u64, size: u64) -> Self {
        let name = server.state.name.as_str().as_bytes();
        let weight = u64::from(server.full_weight.get());
        Self {
            place,
            weight,
            wait: (heaviest / weight, heaviest % weight),
            left_over: 0,
            at: hash(name, 1) % size,
            skip: hash(name, 2) % (size - 1) + 1,
            aside: 0,
        }
    }

    /// Takes the first slot of its permutation that is free.
    fn take(&mut self, free: &mut Free) -> Option<u64> {
        match free.last.is_empty() {
            _ if free.count == 0 => None,
            true => self.walk(free),
            false => self.measure(free),
        }
    }

    /// Goes from slot to slot.
    fn walk(&mut self, free: &mut Free) -> Option<u64> {
        let mut at = self.at;
        for _ in 0..free.size {
            let next = at + self.skip;
            let next = if next < free.size { next } else { next - free.size };
            if free.take(at) {
                self.at = next;
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// Looks which of the slots that are free comes first. One that is s slots behind us is s × skip⁻¹ steps ahead, modulo n of
    /// n slots. As fractions of n out of 64 bits, a multiplication that overflows does that modulo by itself; steps are 2⁶⁴ ÷ n
    /// apart then, and the rounding of the factor, which is off by less than n in all, leaves them in their order.
    fn measure(&mut self, free: &mut Free) -> Option<u64> {
        if self.aside == 0 {
            let inverse = inverse(self.skip, free.size);
            self.aside = ((u128::from(inverse) << 64) / u128::from(free.size)) as u64 + 1;
        }
        let distance = |slot: u64| slot.wrapping_sub(self.at).wrapping_mul(self.aside);
        let (nearest, _) = free.last.iter().enumerate().min_by_key(|(_, slot)| distance(**slot))?;
        self.at = free.take_last(nearest);
        Some(self.at)
    }

    /// How many rounds it is until its next turn.
    fn wait(&mut self) -> u64 {
        let (rounds, left_over) = self.wait;
        self.left_over += left_over;
        match self.left_over.checked_sub(self.weight) {
            Some(rest) => {
                self.left_over = rest;
                rounds + 1
            }
            None => rounds,
        }
    }
}

/// What times a number is 1 modulo a prime, by Euclid's algorithm.
fn inverse(number: u64, prime: u64) -> u64 {
    let (mut rest, mut next) = ((prime, 0), (number, 1));
    while next.0 > 1 {
        let times = rest.0 / next.0;
        (rest, next) = (next, (rest.0 % next.0, (rest.1 + (prime - next.1) * times) % prime));
    }
    next.1
}

/// Slots that nobody has yet.
struct Free {
    size: u64,
    count: u64,
    /// A bit for each slot, set if it is taken: to look for a free one stays in the cache next to the core.
    taken: Vec<u64>,
    /// They themselves, once they are so few that it takes less time to look at all of them than to come upon one.
    last: Vec<u64>,
}

impl Free {
    fn new(size: u64) -> Self {
        Self { size, count: size, taken: vec![0; size.div_ceil(64) as usize], last: Vec::new() }
    }

    /// Takes a slot, if it is free.
    fn take(&mut self, slot: u64) -> bool {
        let bit = 1 << (slot % 64);
        let Some(word) = self.taken.get_mut((slot / 64) as usize).filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.count -= 1;
        // Coming upon one takes size ÷ count steps, each twice as long as a look.
        if self.count == (2 * self.size).isqrt() {
            let is_free =
                |slot: &u64| self.taken.get((slot / 64) as usize).is_some_and(|word| word >> (slot % 64) & 1 == 0);
            self.last = (0..self.size).filter(is_free).collect();
        }
        true
    }

    /// Takes one of the last.
    fn take_last(&mut self, place: usize) -> u64 {
        self.count -= 1;
        self.last.swap_remove(place)
    }
}

/// Who has a turn in this round and in the next ones: for each round a row of bits, one for each member.
struct Rounds {
    bits: Vec<u64>,
    /// How many rounds there are before the row of this one is used again.
    rows: usize,
    row: usize,
    /// How many groups of 64 members there are.
    groups: usize,
}

impl Rounds {
    /// All have a turn in the first round, and nobody waits for more than so many.
    fn new(members: usize, longest_wait: u64) -> Self {
        let (groups, rows) = (members.div_ceil(64), longest_wait as usize + 1);
        let mut rounds = Self { bits: vec![0; groups * rows], rows, row: 0, groups };
        (0..members).for_each(|member| rounds.add(member, 0));
        rounds
    }

    /// Gives a member a turn so many rounds later.
    fn add(&mut self, member: usize, wait: u64) {
        let row = self.row + wait as usize;
        let row = if row < self.rows { row } else { row - self.rows };
        if let Some(bits) = self.bits.get_mut(row * self.groups + member / 64) {
            *bits |= 1 << (member % 64);
        }
    }

    /// Those of a group that have a turn in this round. They have had it.
    fn turns_of(&mut self, group: usize) -> impl Iterator<Item = usize> + use<> {
        let bits = self.bits.get_mut(self.row * self.groups + group);
        let mut bits = bits.map(std::mem::take).unwrap_or_default();
        std::iter::from_fn(move || {
            let first = (bits != 0).then(|| group * 64 + bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            first
        })
    }

    /// Begins the next round.
    fn next(&mut self) {
        self.row = (self.row + 1) % self.rows;
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
    use std::collections::BTreeSet;

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

    /// The same table as one would make it who has time: turn after turn, each from the beginning of the permutation.
    fn by_the_paper(weights: &[u16], size: u32) -> Vec<u32> {
        let members = weighted(weights);
        let members = by_name(&members);
        let Some(heaviest) = members.iter().map(|(_, server)| u64::from(server.full_weight.get())).max() else {
            return Vec::new();
        };
        let permutation = |server: &Server| {
            let name = server.state.name.as_str().as_bytes();
            let (first, skip) = (hash(name, 1) % u64::from(size), hash(name, 2) % u64::from(size - 1) + 1);
            (0..u64::from(size)).map(move |step| ((first + step * skip) % u64::from(size)) as usize)
        };
        let mut turns: BTreeSet<(u64, usize, u64)> = (0..members.len()).map(|member| (0, member, 0)).collect();
        let mut slots = vec![None; size as usize];
        for _ in 0..size {
            let (_, member, turn) = turns.pop_first().unwrap();
            let (place, server) = members[member];
            let slot = permutation(server).find(|slot| slots[*slot].is_none()).unwrap();
            slots[slot] = Some(place);
            turns.insert(((turn + 1) * heaviest / u64::from(server.full_weight.get()), member, turn + 1));
        }
        slots.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn a_table_is_that_of_the_paper_whatever_the_weights_and_the_size() {
        let mut random = fastrand::Rng::with_seed(19);
        let mut compared = 0;
        for size in [101, 103, 251, 1009] {
            for most in [1, 2, 7, 1000] {
                for count in [1, 2, 3, 64, 65, 130, 2000] {
                    let weights: Vec<u16> = (0..count).map(|_| random.u16(0..=most)).collect();
                    let maglev = Maglev::new(&weighted(&weights), TableSize::new(size).unwrap());
                    assert_eq!(*maglev.slots, *by_the_paper(&weights, size), "{size} {weights:?}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 112);
    }

    #[test]
    fn tables_of_the_default_and_the_largest_size_are_as_they_were_in_every_release() {
        let sum = |size, weights: &[u16]| {
            let maglev = Maglev::new(&weighted(weights), TableSize::new(size).unwrap());
            let bytes: Vec<u8> = maglev.slots.iter().flat_map(|place| place.to_le_bytes()).collect();
            hash(&bytes, 0)
        };
        let weights: Vec<u16> = (0..300).map(|place| place * 7 % 1001).collect();
        assert_eq!(sum(65_537, &weights), 16_767_305_598_724_541_830);
        assert_eq!(sum(65_537, &[1; 10]), 7_755_325_069_680_907_444);
        assert_eq!(sum(5_000_011, &weights), 9_211_687_915_792_652_068);
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
    fn shares_of_650_equal_members_and_of_all_that_have_200_slots_are_exact_to_one_per_cent() {
        for count in [2, 7, 100, 649, 650] {
            let exact = 65_537.0 / count as f64;
            for share in shares(&Maglev::new(&equal(count), TableSize::DEFAULT), count) {
                assert!((share as f64 - exact).abs() <= exact / 100.0, "{share} of {exact}");
            }
        }
        let mut random = fastrand::Rng::with_seed(8);
        let weights: Vec<u16> = (0..50).map(|_| random.u16(1..=1000)).collect();
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let maglev = Maglev::new(&weighted(&weights), TableSize::DEFAULT);
        let exact = weights.iter().map(|weight| 65_537.0 * f64::from(*weight) / total);
        let large: Vec<_> = shares(&maglev, 50).into_iter().zip(exact).filter(|(_, exact)| *exact >= 200.0).collect();
        assert!(large.len() > 30);
        for (share, exact) in large {
            assert!((share as f64 - exact).abs() <= exact / 100.0, "{share} of {exact}");
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
                    all.slots.iter().zip(&*fewer.slots).map(|(before, after)| (*before as usize, *after as usize));
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
