//! By key, so that only the keys of the member that leaves move, and only to the member that joins.
//!
//! Each member has points on a ring, hashes of its name and their number, and a key leads to the next point at or behind its
//! own (D. Karger et al., "Consistent hashing and random trees", STOC 1997; points as in ketama). Points are chance: the share
//! of a member with p points deviates by 1 ∕ √p of itself, so by 4 % with the 512 that the heaviest have at least, mostly by
//! less than a tenth and now and then by up to a third; one of a sixteenth of their weight by 18 %. [`super::maglev`] does that
//! better, while here no other keys move at all. From a closed member its keys go on to whoever comes next on the ring, each
//! stretch to another.
//!
//! The points of a member must not change when others join or leave, or more keys would move. So their number is its weight
//! times a power of two, which is another one only when the heaviest weight gets past a power of two, or the number of
//! members past 2048, 4096 and so on.

use std::sync::Arc;

use super::hashed::{Table, by_name};
use super::key::{Key, hash, mix};
use crate::backend::Server;

/// The points of the heaviest member, up to twice as many, as long as that is no more than [`MOST_POINTS`] in all.
const POINTS: u64 = 512;

/// The most points of a ring, for 16 MiB of memory, but for those of members that have but one.
const MOST_POINTS: u64 = 1 << 21;

/// The part of a point that says whose it is.
const MEMBER: u64 = (1 << 24) - 1;

/// The ring.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// Hashes in ascending order, with the members in place of their lowest bits.
    pub(super) points: Arc<[u64]>,
    /// The places of members in the order of names.
    places: Arc<[u32]>,
}

impl Ring {
    pub(super) fn new(members: &[Server]) -> Self {
        let members = by_name(members);
        let heaviest = members.iter().map(|(_, server)| server.full_weight.get()).max();
        let too_many = (members.len() as u64 * 2 * POINTS).div_ceil(MOST_POINTS).max(1).next_power_of_two();
        let halvings = heaviest.map_or(0, u16::ilog2) + too_many.ilog2();
        let mut points: Vec<u64> = (0..=MEMBER)
            .zip(&members)
            .flat_map(|(member, (_, server))| {
                let name = hash(server.state.name.as_str().as_bytes(), 3);
                let count = ((u64::from(server.full_weight.get()) * POINTS) >> halvings).max(1);
                (0..count).map(move |number| (mix(name ^ mix(number)) & !MEMBER) | member)
            })
            .collect();
        points.sort_unstable();
        Self { points: points.into(), places: members.iter().map(|(place, _)| *place).collect() }
    }
}

impl Table for Ring {
    fn walk(&self, key: Key) -> impl Iterator<Item = usize> {
        let first = self.points.partition_point(|point| *point < key.get());
        let (before, behind) = self.points.split_at_checked(first).unwrap_or_default();
        behind.iter().chain(before).filter_map(|point| Some(*self.places.get((point & MEMBER) as usize)? as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{equal, keys, weighted};

    #[test]
    fn a_ring_of_three_is_as_it_was_in_every_release() {
        let ring = Ring::new(&equal(3));
        assert_eq!(ring.points.len(), 1536);
        let owners: String = keys(60).map(|key| ring.walk(key).next().unwrap().to_string()).collect();
        assert_eq!(owners, "110111122220022122020220021002011100102110020222101202110120");
    }

    #[test]
    fn when_one_leaves_only_its_keys_move() {
        for weights in [&[1; 10][..], &[1; 500], &[1, 2, 3, 40, 1000, 600, 500], &[100; 20]] {
            let members = weighted(weights);
            let all = Ring::new(&members);
            for gone in [0, weights.len() / 2, weights.len() - 1] {
                let mut left = members.clone();
                left.remove(gone);
                let fewer = Ring::new(&left);
                for key in keys(5_000) {
                    let before = all.walk(key).next().unwrap();
                    if before != gone {
                        let after = fewer.walk(key).next().unwrap();
                        assert_eq!(members[before].state.name, left[after].state.name);
                    }
                }
            }
        }
    }

    #[test]
    fn members_have_their_shares_mostly_up_to_a_tenth_and_always_to_a_third() {
        let members = weighted(&[1, 1, 2, 4, 0]);
        let ring = Ring::new(&members);
        let mut counts = [0usize; 5];
        keys(80_000).for_each(|key| counts[ring.walk(key).next().unwrap()] += 1);
        for (count, share) in counts.iter().zip([10_000usize, 10_000, 20_000, 40_000, 0]) {
            assert!(count.abs_diff(share) <= share / 6, "{counts:?}");
        }
        let members = equal(1000);
        let ring = Ring::new(&members);
        let mut counts = vec![0usize; 1000];
        keys(1_000_000).for_each(|key| counts[ring.walk(key).next().unwrap()] += 1);
        let within = counts.iter().filter(|count| count.abs_diff(1000) <= 100).count();
        assert!(within >= 900, "{within} of 1000");
        assert!(counts.iter().all(|count| count.abs_diff(1000) <= 333), "{:?}", counts.iter().max());
    }

    #[test]
    fn shares_deviate_by_one_over_the_root_of_the_points() {
        let weights: Vec<u16> = (0..400).map(|place| if place % 2 == 0 { 16 } else { 1 }).collect();
        let ring = Ring::new(&weighted(&weights));
        let mut counts = vec![0f64; weights.len()];
        const KEYS: u32 = 1_000_000;
        keys(KEYS).for_each(|key| counts[ring.walk(key).next().unwrap()] += 1.0);
        for (first, weight, points) in [(0, 16.0, 512.0f64), (1, 1.0, 32.0)] {
            let exact = f64::from(KEYS) * weight / (200.0 * 17.0);
            let squares = counts.iter().skip(first).step_by(2).map(|count| (count / exact - 1.0).powi(2));
            let deviation = (squares.sum::<f64>() / 200.0).sqrt() * points.sqrt();
            assert!((0.7..1.3).contains(&deviation), "{deviation} for {weight}");
        }
    }

    #[test]
    fn a_ring_is_never_endless_and_drops_nobody() {
        let mut weights = vec![1000; 5000];
        weights.push(1);
        let ring = Ring::new(&weighted(&weights));
        assert!(ring.points.len() as u64 <= MOST_POINTS + 1);
        let light = ring.places.iter().position(|place| *place == 5000).unwrap() as u64;
        assert_eq!(ring.points.iter().filter(|point| **point & MEMBER == light).count(), 1);
    }

    #[test]
    fn without_weight_a_key_leads_nowhere() {
        assert_eq!(Ring::new(&weighted(&[0, 0])).walk(Key::of(b"a")).next(), None);
    }
}
