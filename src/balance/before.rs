//! What an algorithm takes over from the one that chose for its pool before it: a table, where nothing that it depends on has
//! changed. Tables are shared, not copied, and whether one still holds takes one look at each member.

use super::Balance;
use crate::backend::Server;

/// The algorithm that chose for a pool before, and the members it chose among.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// Those it was built for, in that order.
    pub members: &'a [Server],
    /// The algorithm.
    pub balance: &'a dyn Balance,
}

impl Before<'_> {
    /// Its table, if that is one of these and it was made from members that are `alike` to these, one after the other.
    pub(super) fn table<T: Clone + 'static>(
        &self,
        members: &[Server],
        alike: impl Fn(&Server, &Server) -> bool,
    ) -> Option<T> {
        let table: &T = self.balance.table()?.downcast_ref()?;
        let are_as_many = self.members.len() == members.len();
        let still_holds = are_as_many && self.members.iter().zip(members).all(|(before, now)| alike(before, now));
        still_holds.then(|| table.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::State;
    use crate::balance::testing::{shares_table, weighted};
    use crate::balance::{Hashing, LoadFactor, Policy, TableSize};
    use crate::units::{Name, Weight};
    use std::sync::Arc;

    /// Every algorithm that has a table, and whether it goes by names.
    fn with_tables() -> impl Iterator<Item = (&'static Policy, bool)> {
        Policy::ALL.iter().filter(|policy| !policy.ranks()).map(|policy| (policy, policy.hashing().is_some()))
    }

    /// Whether an algorithm for these members keeps the table of the one for those before.
    fn keeps(before: (&Policy, &[Server]), now: (&Policy, &[Server])) -> bool {
        let balance = before.0.build(before.1, None);
        let later = now.0.build(now.1, Some(Before { members: before.1, balance: &*balance }));
        shares_table(&*balance, &*later)
    }

    #[test]
    fn a_table_is_kept_where_states_limits_and_the_load_factor_are_all_that_changed() {
        for (policy, _) in with_tables() {
            let before = weighted(&[1, 2, 3]);
            let mut now = before.clone();
            now[1].max_connections = 7;
            now[2].state.set_healthy(false);
            assert!(keeps((policy, &before), (policy, &now)), "{policy:?}");
        }
        let members = weighted(&[1, 2, 3]);
        let tight = || Hashing { load_factor: LoadFactor::new(1.1), ..Hashing::DEFAULT };
        let maglev = |hashing| Policy::Maglev { hashing, table_size: TableSize::DEFAULT };
        for (one, other) in [
            (Policy::RingHash(Hashing::DEFAULT), Policy::RingHash(tight())),
            (maglev(Hashing::DEFAULT), maglev(tight())),
            (Policy::Random, Policy::P2c),
        ] {
            assert!(keeps((&one, &members), (&other, &members)), "{one:?}");
        }
    }

    #[test]
    fn other_weights_another_order_and_more_or_fewer_members_make_another_table() {
        let before = weighted(&[1, 2, 3]);
        let mut heavier = before.clone();
        let weight = Weight::new(9).unwrap();
        (heavier[2].weight, heavier[2].full_weight) = (weight, weight);
        let mut swapped = before.clone();
        swapped.swap(0, 1);
        let mut more = before.clone();
        more.extend(weighted(&[0]));
        for (policy, _) in with_tables() {
            for now in [&heavier, &swapped, &more, &before[..2].to_vec()] {
                assert!(!keeps((policy, &before), (policy, now)), "{policy:?}");
            }
        }
    }

    #[test]
    fn another_name_makes_another_table_where_names_are_hashed_and_no_other_elsewhere() {
        let before = weighted(&[1, 2, 3]);
        let mut renamed = before.clone();
        renamed[1].state = State::new(Name::new("pool"), Name::new("another"));
        for (policy, goes_by_names) in with_tables() {
            assert_eq!(keeps((policy, &before), (policy, &renamed)), !goes_by_names, "{policy:?}");
        }
    }

    #[test]
    fn who_is_taken_out_by_the_operator_keeps_the_tables_of_hashes_and_changes_the_others() {
        let before = weighted(&[1, 2, 3]);
        let mut without = before.clone();
        without[1].weight = Weight::NONE;
        for (policy, goes_by_names) in with_tables() {
            assert_eq!(keeps((policy, &before), (policy, &without)), goes_by_names, "{policy:?}");
        }
    }

    #[test]
    fn another_size_or_algorithm_makes_another_table() {
        let members = weighted(&[1, 2, 3]);
        let maglev = |size| Policy::Maglev { hashing: Hashing::DEFAULT, table_size: TableSize::new(size).unwrap() };
        assert!(keeps((&maglev(101), &members), (&maglev(101), &members)));
        assert!(!keeps((&maglev(101), &members), (&maglev(251), &members)));
        assert!(!keeps((&maglev(101), &members), (&Policy::RingHash(Hashing::DEFAULT), &members)));
        assert!(!keeps((&Policy::LeastConn, &members), (&Policy::Random, &members)));
    }

    #[test]
    fn a_table_that_was_kept_chooses_as_one_that_is_made_anew() {
        let before = weighted(&[5, 0, 3, 1]);
        for (policy, _) in with_tables().filter(|(policy, _)| policy.hashing().is_some()) {
            let first = policy.build(&before, None);
            let kept = policy.build(&before, Some(Before { members: &before, balance: &*first }));
            let anew = policy.build(&before, None);
            for key in crate::balance::testing::keys(500) {
                let pick = |balance: &Arc<dyn Balance>| {
                    balance.pick(&before, crate::balance::Open::except(&crate::balance::Tried::new()), Some(key))
                };
                assert_eq!(pick(&kept), pick(&anew), "{policy:?}");
            }
        }
    }
}
