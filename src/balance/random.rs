//! Any open member, in proportion to the weights.
//!
//! Draws come from an alias table over all members; one that is closed is drawn again, which leaves the open ones their
//! proportions. Where so few are open that drawing keeps missing, they are counted out instead.

use std::any::Any;

use super::alias::Alias;
use super::{ATTEMPTS, Balance, Key, Open, last_resort};
use crate::backend::Server;

/// The algorithm.
#[derive(Debug)]
pub(super) struct Random {
    table: Alias,
}

impl Random {
    pub(super) fn new(table: Alias) -> Self {
        Self { table }
    }
}

impl Balance for Random {
    fn pick(&self, members: &[Server], open: Open<'_>, _key: Option<Key>) -> Option<usize> {
        draw_open(&self.table, members, open)
            .or_else(|| last_resort(members, |server| open.has(server), fastrand::u64(..)))
    }

    fn table(&self) -> Option<&dyn Any> {
        Some(&self.table)
    }
}

/// Draws until it meets an open member, or gives up.
pub(super) fn draw_open(table: &Alias, members: &[Server], open: Open<'_>) -> Option<usize> {
    (0..ATTEMPTS).map_while(|_| table.draw()).find(|place| members.get(*place).is_some_and(|server| open.has(server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{counts, equal, weighted};

    #[test]
    fn weights_are_honoured_within_one_per_cent() {
        fastrand::seed(1);
        let members = weighted(&[5, 3, 2]);
        let counts = counts(&Random::new(Alias::new(&members)), &members, 1_000_000);
        for (count, share) in counts.iter().zip([500_000, 300_000, 200_000]) {
            assert!(count.abs_diff(share) <= share / 100, "{counts:?}");
        }
    }

    #[test]
    fn survivors_keep_their_proportions_when_one_is_down() {
        fastrand::seed(2);
        let members = weighted(&[4, 2, 1]);
        members[0].state.set_healthy(false);
        let counts = counts(&Random::new(Alias::new(&members)), &members, 300_000);
        assert_eq!(counts[0], 0);
        assert!(counts[1].abs_diff(200_000) <= 2_000, "{counts:?}");
    }

    #[test]
    fn the_last_open_server_of_ten_thousand_is_found() {
        fastrand::seed(3);
        let members = equal(10_000);
        members.iter().for_each(|server| server.state.set_healthy(false));
        members[1234].state.set_healthy(true);
        assert_eq!(
            Random::new(Alias::new(&members)).pick(&members, Open::except(&super::super::Tried::new()), None),
            Some(1234)
        );
    }
}
