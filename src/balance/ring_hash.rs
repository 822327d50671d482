//! By key, so that hardly any keys move but those of the member that leaves or to the member that joins.
//!
//! Each member has points on a ring, hashes of its name and their number, and a key leads to the next point at or behind its
//! own (D. Karger et al., "Consistent hashing and random trees", STOC 1997; points as in ketama). Where points fall is chance,
//! by which the share of a member with p of them is off by 1 ∕ √p of itself. So the ring is fitted ([`Fit`]): who has less than
//! its share is given points that it had in spare, who has more gives some back, until everybody is within 1 %. Those who have
//! 128 points and more come to that: in pools of up to 1024 members all whose weight is an eighth of the heaviest or more. Ten
//! thousand members, who have 64 and more, would take too long to fit: of those some do, and most come near it.
//!
//! When a member leaves or joins, its own keys move, and of all the others up to two in a hundred, by which the rest is fitted
//! anew. [`super::maglev`] is as good while its table is large beside the number of members and their weights are not far
//! apart. From a closed member its keys go on to whoever comes next on the ring, each stretch to another.
//!
//! The points that a member starts from must not change when others join or leave, or more keys would move. So their number is
//! its weight times a power of two, which is another one only when the heaviest weight gets past a power of two, or the number
//! of members past 1024, 2048 and so on.

use std::sync::Arc;

use super::hashed::{Table, by_name};
use super::key::{Key, hash, mix};
use crate::backend::Server;

/// The points that the heaviest member starts from, up to twice as many, as long as that is no more than [`MOST_POINTS`] in
/// all.
const POINTS: u64 = 1024;

/// The most points that a ring starts from, for 16 MiB of memory, but for those of members that have but one.
const MOST_POINTS: u64 = 1 << 21;

/// The part of a point that says whose it is.
const MEMBER: u64 = SPARE - 1;

/// The mark of a point that is not in use. It is gone when a ring is fitted.
const SPARE: u64 = 1 << 23;

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
        let mut fit = Fit::start(&members);
        fit.run();
        fit.points.retain(|point| point & SPARE == 0);
        Self { points: fit.points.into(), places: members.iter().map(|(place, _)| *place).collect() }
    }
}

impl Table for Ring {
    fn walk(&self, key: Key) -> impl Iterator<Item = usize> {
        let first = self.points.partition_point(|point| *point < key.get());
        let (before, behind) = self.points.split_at_checked(first).unwrap_or_default();
        behind.iter().chain(before).filter_map(|point| Some(*self.places.get((point & MEMBER) as usize)? as usize))
    }
}

/// A ring while it is fitted: which of their points members have in use.
///
/// All is counted in whole numbers, and each member in its turn, in the order of names, so that instances agree.
struct Fit {
    /// All points in ascending order, those in spare as well.
    points: Vec<u64>,
    members: Vec<Fitted>,
}

/// A member of a ring that is fitted.
struct Fitted {
    /// What its points are made of.
    name: u64,
    /// Which of its points are in use, by their numbers.
    used: Vec<bool>,
    /// How much of the ring its points have.
    share: u64,
    /// How much of the ring it is to have.
    target: u64,
}

impl Fitted {
    /// Whether its share is to stay: half of what is promised, since those who are fitted later change it once more.
    fn is_settled(&self) -> bool {
        self.share.abs_diff(self.target) <= self.target / 200
    }

    /// A point's part of the ring, without whose it is.
    fn point(&self, number: usize) -> u64 {
        mix(self.name ^ mix(number as u64)) & !(SPARE | MEMBER)
    }

    /// The points that it could be given, from the first, or that it could give back, from the last. The very first it keeps.
    fn candidates(&self, grows: bool) -> impl Iterator<Item = usize> {
        let last = self.used.len().saturating_sub(1);
        let in_turn = (1..=last).map(move |turn| if grows { turn } else { last + 1 - turn });
        in_turn.filter(move |number| self.used.get(*number).is_some_and(|used| *used != grows))
    }
}

/// A point that a member may get or give.
struct Change {
    /// How far off its share would be then.
    left: u64,
    /// What it has of the ring by it, or would have.
    stretch: u64,
    /// Its number, and where it is among all points.
    number: usize,
    at: usize,
    /// Who loses that, or gets it.
    next: usize,
}

impl Fit {
    /// After how many visits to members the rest stays as it is. That is more than a ring takes on which each has hundreds of
    /// points, and bounds what one of thousands of members costs, who have few points and do each other harm.
    const VISITS: usize = 40_000;
    /// Out of how many points the best one is chosen.
    const CANDIDATES: usize = 4;

    /// The points that members start from, and as many in spare as they may come to want.
    fn start(members: &[(u32, &Server)]) -> Self {
        let weights = || members.iter().map(|(_, server)| u64::from(server.full_weight.get()));
        let heaviest = weights().max().unwrap_or(1);
        let total = weights().sum::<u64>().max(1);
        let too_many = (members.len() as u64 * 2 * POINTS).div_ceil(MOST_POINTS).max(1).next_power_of_two();
        let halvings = heaviest.max(1).ilog2() + too_many.ilog2();
        let members: Vec<_> = members
            .iter()
            .zip(weights())
            .map(|((_, server), weight)| {
                let points = ((weight * POINTS) >> halvings).max(1) as usize;
                let mut used = vec![true; points];
                // Six deviations.
                used.resize(points + 6 * points.isqrt(), false);
                Fitted {
                    name: hash(server.state.name.as_str().as_bytes(), 3),
                    used,
                    share: 0,
                    target: u64::try_from((u128::from(weight) << 64) / u128::from(total)).unwrap_or(u64::MAX),
                }
            })
            .collect();
        let mut points: Vec<u64> = (0..=MEMBER)
            .zip(&members)
            .flat_map(|(place, member)| {
                let used = member.used.iter().enumerate();
                used.map(move |(number, used)| member.point(number) | if *used { 0 } else { SPARE } | place)
            })
            .collect();
        points.sort_unstable();
        let mut fit = Self { points, members };
        fit.measure();
        fit
    }

    /// Counts what each member has.
    fn measure(&mut self) {
        let in_use = || self.points.iter().filter(|point| *point & SPARE == 0);
        let Some(mut before) = in_use().next_back().copied() else { return };
        for point in in_use() {
            if let Some(member) = self.members.get_mut((point & MEMBER) as usize) {
                member.share = member.share.saturating_add(point.wrapping_sub(before));
            }
            before = *point;
        }
    }

    /// Goes through all until everybody has what it is to have.
    fn run(&mut self) {
        let mut visits = 0;
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for place in 0..self.members.len() {
                while self.settle(place) {
                    visits += 1;
                    changed = true;
                }
                visits += 1;
                if visits > Self::VISITS {
                    return;
                }
            }
        }
    }

    /// Gives a member some points more or less, each time the one that brings it nearest to what it is to have. Says whether
    /// there were any.
    fn settle(&mut self, place: usize) -> bool {
        let Some(member) = self.members.get(place).filter(|member| !member.is_settled()) else { return false };
        let grows = member.share < member.target;
        let find = |number| {
            let at = self.find(place, member.point(number))?;
            let (_, next) = self.around(at)?;
            // Between two points of its own a point makes no difference.
            (next != place).then_some((number, at))
        };
        let mut candidates: Vec<_> = member.candidates(grows).filter_map(find).take(Self::CANDIDATES).collect();
        let before = candidates.len();
        while let Some(best) = self.best(place, grows, &candidates) {
            self.change(place, grows, &best);
            candidates.retain(|(number, _)| *number != best.number);
        }
        candidates.len() < before
    }

    /// The point that brings a member nearest to what it is to have, if any brings it nearer.
    fn best(&self, place: usize, grows: bool, candidates: &[(usize, usize)]) -> Option<Change> {
        let member = self.members.get(place).filter(|member| !member.is_settled())?;
        let off =
            if grows { member.target.checked_sub(member.share) } else { member.share.checked_sub(member.target) }?;
        let change = |(number, at): &(usize, usize)| {
            let (stretch, next) = self.around(*at)?;
            (next != place).then_some(Change { left: off.abs_diff(stretch), stretch, number: *number, at: *at, next })
        };
        candidates.iter().filter_map(change).min_by_key(|change| change.left).filter(|change| change.left < off)
    }

    fn change(&mut self, place: usize, grows: bool, change: &Change) {
        let Change { left: _, stretch, number, at, next } = *change;
        let changed = |share: u64, grows: bool| {
            if grows { share.saturating_add(stretch) } else { share.saturating_sub(stretch) }
        };
        if let Some(point) = self.points.get_mut(at) {
            *point ^= SPARE;
        }
        if let Some(next) = self.members.get_mut(next) {
            next.share = changed(next.share, !grows);
        }
        if let Some(member) = self.members.get_mut(place) {
            member.share = changed(member.share, grows);
            if let Some(used) = member.used.get_mut(number) {
                *used = grows;
            }
        }
    }

    /// Where a point of a member is. As hashes are spread evenly it is near its part of the way: it is looked for around there,
    /// further and further, until it must lie between.
    fn find(&self, place: usize, point: u64) -> Option<usize> {
        let whole = place as u64 | point;
        let key = |other: &u64| *other & !SPARE;
        let len = self.points.len();
        let guess = ((u128::from(point) * len as u128) >> 64) as usize;
        let mut reach = 64;
        let (mut low, mut high) = (guess.saturating_sub(reach), (guess + reach).min(len));
        loop {
            let below = low == 0 || self.points.get(low).is_some_and(|other| key(other) <= whole);
            let above = high == len || self.points.get(high).is_some_and(|other| key(other) > whole);
            reach *= 4;
            match (below, above) {
                (true, true) => break,
                (false, _) => (low, high) = (low.saturating_sub(reach), low + 1),
                (true, false) => (low, high) = (high, (high + reach).min(len)),
            }
        }
        let first = low + self.points.get(low..high)?.partition_point(|other| key(other) < whole);
        (first < high && key(self.points.get(first)?) == whole).then_some(first)
    }

    /// How long the stretch is from the point in use before one to that one, and whose the point in use behind it is.
    fn around(&self, at: usize) -> Option<(u64, usize)> {
        let (until, behind) = self.points.split_at_checked(at)?;
        let (point, behind) = behind.split_first()?;
        let in_use = |point: &&u64| **point & SPARE == 0;
        let before = until.iter().rev().chain(behind.iter().rev()).find(in_use)?;
        let next = behind.iter().chain(until).find(in_use)?;
        Some(((point & !SPARE).wrapping_sub(*before), (next & MEMBER) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{equal, keys, weighted};

    #[test]
    fn a_ring_of_three_is_as_it_was_in_every_release() {
        let ring = Ring::new(&equal(3));
        assert_eq!(ring.points.len(), 3065);
        let owners: String = keys(60).map(|key| ring.walk(key).next().unwrap().to_string()).collect();
        assert_eq!(owners, "110020122220022122020121221002012101101011020222121022110120");
    }

    /// By how much of itself the share of each is off. Whoever has no weight has no share either.
    fn errors(weights: &[u16]) -> Vec<f64> {
        let ring = Ring::new(&weighted(weights));
        let mut shares = vec![0f64; weights.len()];
        let mut before = *ring.points.last().unwrap();
        for point in &*ring.points {
            shares[ring.places[(point & MEMBER) as usize] as usize] +=
                point.wrapping_sub(before) as f64 / 2f64.powi(64);
            before = *point;
        }
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let error = |(share, weight): (&f64, &u16)| match f64::from(*weight) / total {
            0.0 => *share,
            exact => (share / exact - 1.0).abs(),
        };
        shares.iter().zip(weights).map(error).collect()
    }

    #[test]
    fn weights_are_honoured_within_one_per_cent() {
        let rings = [
            vec![1; 2],
            vec![1; 3],
            vec![1; 10],
            vec![1; 100],
            vec![1; 1500],
            vec![1, 1, 2, 4, 0],
            vec![100, 100, 50, 50, 200, 200, 25],
            (0..100).map(|place| 1 + place * 79 % 8).collect(),
            vec![1000, 900, 800, 125, 200],
        ];
        for weights in rings {
            let worst = errors(&weights).into_iter().fold(0.0, f64::max);
            assert!(worst <= 0.01, "{worst} of {}: {:?}", weights.len(), &weights[..10.min(weights.len())]);
        }
    }

    #[test]
    fn of_those_with_few_points_many_have_their_shares_as_well() {
        for (weights, share) in [((0..100).map(|place| 1 + place * 79 % 100).collect(), 0.95), (vec![1; 10_000], 0.45)]
        {
            let within = errors(&weights).into_iter().filter(|error| *error <= 0.01).count();
            assert!(within as f64 >= share * weights.len() as f64, "{within} of {}", weights.len());
        }
    }

    #[test]
    fn when_one_leaves_its_keys_move_and_at_most_two_per_cent_of_the_others() {
        const KEYS: u32 = 20_000;
        for weights in [&[1; 2][..], &[1; 3], &[1; 5], &[1; 10], &[1; 500], &[1, 2, 3, 40, 1000, 600, 500], &[100; 20]]
        {
            let members = weighted(weights);
            let all = Ring::new(&members);
            for gone in [0, weights.len() / 2, weights.len() - 1] {
                let mut left = members.clone();
                left.remove(gone);
                let fewer = Ring::new(&left);
                let owners = keys(KEYS).map(|key| (all.walk(key).next().unwrap(), fewer.walk(key).next().unwrap()));
                let moved = owners
                    .filter(|(before, _)| *before != gone)
                    .filter(|(before, after)| members[*before].state.name != left[*after].state.name)
                    .count();
                assert!(moved * 50 <= KEYS as usize, "{moved} of {KEYS} when {gone} of {} leaves", weights.len());
            }
        }
    }

    #[test]
    fn a_ring_is_fitted_by_what_its_points_have() {
        let members = weighted(&[3, 1, 4, 1, 5]);
        let mut fit = Fit::start(&by_name(&members));
        fit.run();
        let counted: Vec<_> = fit.members.iter().map(|member| member.share).collect();
        fit.members.iter_mut().for_each(|member| member.share = 0);
        fit.measure();
        assert_eq!(counted, fit.members.iter().map(|member| member.share).collect::<Vec<_>>());
        for (place, member) in fit.members.iter().enumerate() {
            let of_it = fit.points.iter().filter(|point| *point & MEMBER == place as u64 && *point & SPARE == 0);
            assert_eq!(of_it.count(), member.used.iter().filter(|used| **used).count());
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
