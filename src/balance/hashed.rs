//! What the algorithms that hash have in common: from a key to a server, past those that are closed or have their share.
//!
//! An algorithm lays out a [`Table`] when the pool is built and says where in it a key leads, first and then on. A member that
//! is closed is passed over in that order, so that only those who would have gone to it go elsewhere.
//!
//! With a load factor none is given more than its share times that factor, however hot a key is ("Consistent hashing with
//! bounded loads", V. Mirrokni, M. Thorup, M. Zadimoghaddam, SODA 2018): the key spills to where its order leads next. A few
//! connections are never too many, which the paper has not: see [`super::spread::FEW`].

use std::any::Any;
use std::sync::Arc;

use super::key::{Key, KeySource};
use super::spread::{LoadFactor, Spread};
use super::{ATTEMPTS, Balance, Before, Open, last_resort};
use crate::backend::{Server, State, Watcher};

/// What the algorithms that hash go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// What is hashed.
    pub key: KeySource,
    /// How much more than its share a server is given, if that is bounded.
    pub load_factor: Option<LoadFactor>,
}

impl Hashing {
    /// The default: by the client's address, bounded.
    pub const DEFAULT: Self = Self { key: KeySource::Source, load_factor: Some(LoadFactor::DEFAULT) };
}

/// Where keys lead among the members of a tier. It hangs on their names, their full weights and their order; a clone is the
/// same table.
pub(super) trait Table: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The places of members a key leads to, one after the other; one may come again. None if no member has weight.
    fn walk(&self, key: Key) -> impl Iterator<Item = usize>;
}

/// An algorithm that goes by a table.
#[derive(Debug)]
pub(super) struct Hashed<T> {
    table: T,
    /// How many connections there are in all, if that bounds what each is given.
    spread: Option<Spread>,
}

impl<T: Table> Hashed<T> {
    pub(super) fn new(table: T, load_factor: Option<LoadFactor>, members: &[Server]) -> Self {
        Self { table, spread: load_factor.map(|factor| Spread::new(factor, members)) }
    }
}

impl<T: Table> Balance for Hashed<T> {
    fn pick(&self, members: &[Server], open: Open<'_>, key: Option<Key>) -> Option<usize> {
        // Who cannot be told apart goes anywhere.
        let key = key.unwrap_or_else(Key::any);
        let is_open = |place: &usize| members.get(*place).is_some_and(|server| open.has(server));
        let mut walk = self.table.walk(key).take(ATTEMPTS).filter(is_open);
        let Some(spread) = &self.spread else {
            return walk.next().or_else(|| last_resort(members, |server| open.has(server), key.get()));
        };
        let first = walk.next();
        let has_room = |place: &usize| members.get(*place).is_some_and(|server| spread.has_room(server));
        let first_with_room = first.into_iter().chain(walk).find(has_room);
        // There is always one with room, unless what is counted is not up to date: this pool was published a moment ago, or
        // is no more.
        first_with_room
            .or_else(|| last_resort(members, |server| open.has(server) && spread.has_room(server), key.get()))
            .or(first)
            .or_else(|| last_resort(members, |server| open.has(server), key.get()))
    }

    fn table(&self) -> Option<&dyn Any> {
        Some(&self.table)
    }

    fn watcher(self: Arc<Self>) -> Option<Arc<dyn Watcher>> {
        self.spread.is_some().then_some(self as Arc<dyn Watcher>)
    }
}

impl<T: Table> Watcher for Hashed<T> {
    fn changed(&self, place: usize, state: &State) {
        if let Some(spread) = &self.spread {
            spread.changed(place, state);
        }
    }
}

/// The table from before, if these are the members that it was made from.
pub(super) fn kept<T: Table>(members: &[Server], before: Option<Before<'_>>) -> Option<T> {
    let alike = |one: &Server, other: &Server| {
        one.full_weight == other.full_weight
            && (Arc::ptr_eq(&one.state, &other.state) || one.state.name == other.state.name)
    };
    before?.table(members, alike)
}

/// The places of the members that have weight, in the order of their names: instances whose files list the same servers
/// in another order agree. One that the operator has taken out keeps its part of the table, which is as closed as that of
/// one that is down, so that the others keep their keys.
pub(super) fn by_name(members: &[Server]) -> Vec<(u32, &Server)> {
    let mut members: Vec<_> = (0u32..).zip(members).filter(|(_, server)| server.full_weight.get() > 0).collect();
    members.sort_unstable_by(|(_, one), (_, other)| one.state.name.cmp(&other.state.name));
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Watching;
    use crate::balance::spread::FEW;
    use crate::balance::testing::{equal, keys, weighted};
    use crate::balance::{Policy, TableSize, Tried};
    use crate::units::Weight;

    /// Every algorithm that hashes.
    fn hashing(load_factor: Option<LoadFactor>) -> [Policy; 3] {
        let hashing = || Hashing { load_factor, ..Hashing::DEFAULT };
        let maglev = Policy::Maglev { hashing: hashing(), table_size: TableSize::DEFAULT };
        [Policy::SourceHash(hashing()), maglev, Policy::RingHash(hashing())]
    }

    fn pick(balance: &dyn Balance, members: &[Server], key: Key) -> usize {
        balance.pick(members, Open::except(&Tried::new()), Some(key)).unwrap()
    }

    /// The algorithm, told of every change.
    fn watched(policy: &Policy, members: &[Server]) -> Arc<dyn Balance> {
        let balance = policy.build(members, None);
        for (place, server) in members.iter().enumerate() {
            let watcher = Arc::clone(&balance).watcher().unwrap();
            server.state.set_watching(Some(Watching { watcher, place }));
        }
        balance
    }

    #[test]
    fn a_key_leads_to_the_same_server_each_time() {
        let members = weighted(&[1, 5, 2, 0, 7]);
        for policy in hashing(Some(LoadFactor::DEFAULT)) {
            let balance = watched(&policy, &members);
            for key in keys(200) {
                let first = pick(&*balance, &members, key);
                assert!((0..5).all(|_| pick(&*balance, &members, key) == first), "{policy:?}");
            }
        }
    }

    #[test]
    fn instances_whose_files_list_the_servers_in_another_order_agree() {
        let mut random = fastrand::Rng::with_seed(41);
        let members = weighted(&(0..100).map(|_| random.u16(0..20)).collect::<Vec<_>>());
        for policy in hashing(None) {
            let balance = policy.build(&members, None);
            let mut shuffled = members.clone();
            random.shuffle(&mut shuffled);
            let other = policy.build(&shuffled, None);
            for key in keys(2_000) {
                let (one, two) = (pick(&*balance, &members, key), pick(&*other, &shuffled, key));
                assert_eq!(members[one].state.name, shuffled[two].state.name, "{policy:?}");
            }
        }
    }

    #[test]
    fn when_one_closes_only_its_keys_move_and_all_the_others_share_them() {
        for policy in hashing(None) {
            let members = equal(10);
            let balance = policy.build(&members, None);
            let before: Vec<_> = keys(50_000).map(|key| pick(&*balance, &members, key)).collect();
            members[4].state.set_healthy(false);
            let mut taken_over = [0usize; 10];
            for (key, before) in keys(50_000).zip(before) {
                let after = pick(&*balance, &members, key);
                if before == 4 {
                    taken_over[after] += 1;
                } else {
                    assert_eq!(before, after, "{policy:?}");
                }
            }
            let total: usize = taken_over.iter().sum();
            assert_eq!(taken_over[4], 0);
            for share in [&taken_over[..4], &taken_over[5..]].concat() {
                assert!(share.abs_diff(total / 9) <= total / 18, "{policy:?}: {taken_over:?}");
            }
        }
    }

    #[test]
    fn when_one_is_taken_out_by_the_operator_only_its_keys_move() {
        for policy in hashing(None) {
            let members = weighted(&[1, 2, 3, 4]);
            let mut without = members.clone();
            without[1].weight = Weight::new(0).unwrap();
            let (before, after) = (policy.build(&members, None), policy.build(&without, None));
            for key in keys(2_000) {
                let (before, after) = (pick(&*before, &members, key), pick(&*after, &without, key));
                assert!(after != 1 && (before == 1 || before == after), "{policy:?}");
            }
        }
    }

    #[test]
    fn one_that_was_tried_is_passed_over_and_the_few_open_ones_of_many_are_found() {
        for policy in hashing(None) {
            let members = equal(3000);
            members.iter().enumerate().for_each(|(at, server)| server.state.set_healthy((1200..1203).contains(&at)));
            let balance = policy.build(&members, None);
            let mut counts = [0usize; 3];
            for key in keys(600) {
                let first = pick(&*balance, &members, key);
                counts[first - 1200] += 1;
                let mut tried = Tried::new();
                tried.add(&members[first].state);
                let second = balance.pick(&members, Open::except(&tried), Some(key)).unwrap();
                assert!(second != first && (1200..1203).contains(&second));
            }
            assert!(counts.iter().all(|count| (100..300).contains(count)), "{policy:?}: {counts:?}");
        }
    }

    #[test]
    fn a_hot_key_spills_and_nobody_has_more_than_the_load_factor_times_its_share() {
        for policy in hashing(Some(LoadFactor::DEFAULT)) {
            let members = weighted(&[4, 2, 1, 1]);
            let balance = watched(&policy, &members);
            let hot = Key::of(b"everybody's");
            let mut leases = Vec::new();
            for all in 1u32..=400 {
                leases.push(members[pick(&*balance, &members, hot)].acquire().unwrap());
                for (server, share) in members.iter().zip([0.5, 0.25, 0.125, 0.125]) {
                    let most = FEW.max((1.25 * f64::from(all) * share).ceil() as u32);
                    assert!(server.state.active() <= most, "{policy:?}: {} of {all}", server.state.active());
                }
            }
            drop(leases);
            let alone = policy.build(&members, None);
            assert_eq!(pick(&*balance, &members, hot), pick(&*alone, &members, hot), "it is back when there is room");
        }
    }

    #[test]
    fn without_a_load_factor_a_hot_key_stays_where_it_is() {
        for policy in hashing(None) {
            let members = equal(4);
            let balance = policy.build(&members, None);
            assert!(Arc::clone(&balance).watcher().is_none());
            let hot = Key::of(b"everybody's");
            let leases: Vec<_> = (0..100).map(|_| members[pick(&*balance, &members, hot)].acquire().unwrap()).collect();
            assert!(members.iter().any(|server| server.state.active() == 100));
            drop(leases);
        }
    }

    #[test]
    fn a_pool_nobody_reports_to_still_picks() {
        for policy in hashing(Some(LoadFactor::DEFAULT)) {
            let members = equal(4);
            let balance = policy.build(&members, None);
            let take = |key| members[pick(&*balance, &members, key)].acquire().unwrap();
            let leases: Vec<_> = keys(100).map(take).collect();
            members.iter().skip(1).for_each(|server| server.state.set_healthy(false));
            assert!(keys(100).all(|key| pick(&*balance, &members, key) == 0));
            drop(leases);
        }
    }

    #[test]
    fn many_keys_fit_their_shares_as_chance_has_it() {
        // Of 9 degrees of freedom, a χ² over 27.9 comes up once in a thousand.
        let members = equal(10);
        for policy in &hashing(None) {
            let balance = policy.build(&members, None);
            let mut counts = [0f64; 10];
            keys(20_000).for_each(|key| counts[pick(&*balance, &members, key)] += 1.0);
            let chi_squared: f64 = counts.iter().map(|count| (count - 2000.0).powi(2) / 2000.0).sum();
            assert!(chi_squared < 27.9, "{policy:?}: {chi_squared} of {counts:?}");
        }
    }
}
