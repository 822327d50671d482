//! By key, in exact proportion to the weights: the members side by side in the order of their names, each as wide as its
//! weight, and a key is a point on that line.
//!
//! It takes no table, and no member is off its share of the keys by more than chance. But where members join or leave or
//! weights change, the line is another one and most keys move, as with HAProxy's `hash-type map-based`; [`super::maglev`] and
//! [`super::ring_hash`] are for those whom that hurts. A member that is merely closed keeps its place, and only its keys go
//! elsewhere: each is hashed again until it meets an open one.

use std::sync::Arc;

use super::hashed::{Table, by_name};
use super::key::Key;
use crate::backend::Server;

/// The line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Where each member ends, in the order of names.
    pub(super) ends: Arc<[u64]>,
    /// The places of these members.
    places: Arc<[u32]>,
}

impl Line {
    pub(super) fn new(members: &[Server]) -> Self {
        let members = by_name(members);
        let ends = members.iter().scan(0, |end, (_, server)| {
            *end += u64::from(server.full_weight.get());
            Some(*end)
        });
        Self { ends: ends.collect(), places: members.iter().map(|(place, _)| *place).collect() }
    }
}

impl Table for Line {
    fn walk(&self, key: Key) -> impl Iterator<Item = usize> {
        let whole = self.ends.last().copied().unwrap_or_default();
        key.chain().map_while(move |key| {
            let point = key.below(whole);
            let member = self.ends.partition_point(|end| *end <= point);
            self.places.get(member).map(|place| *place as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{keys, weighted};

    #[test]
    fn a_member_has_its_share_of_the_keys_up_to_chance() {
        let members = weighted(&[5, 3, 0, 1, 1]);
        let line = Line::new(&members);
        assert_eq!(*line.ends, [5, 8, 9, 10], "as wide as their weights");
        let mut counts = [0usize; 5];
        keys(500_000).for_each(|key| counts[line.walk(key).next().unwrap()] += 1);
        let mut chi_squared = 0.0;
        for (count, share) in counts.iter().zip([250_000usize, 150_000, 0, 50_000, 50_000]) {
            let off = count.abs_diff(share);
            assert!(off <= share / 100, "{counts:?}");
            chi_squared += (off as f64).powi(2) / share.max(1) as f64;
        }
        // Of 3 degrees of freedom, more than 16.3 comes up once in a thousand.
        assert!(chi_squared < 16.3, "{chi_squared} of {counts:?}");
    }

    #[test]
    fn without_weight_a_key_leads_nowhere() {
        assert_eq!(Line::new(&weighted(&[0, 0])).walk(Key::of(b"a")).next(), None);
        assert_eq!(Line::new(&[]).walk(Key::of(b"a")).next(), None);
    }
}
