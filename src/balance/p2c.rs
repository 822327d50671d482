//! Of two open members drawn at random, the one with fewer connections for its weight.
//!
//! "The power of two choices" (M. Mitzenmacher, IEEE Transactions on Parallel and Distributed Systems 12(10), 2001): nearly
//! as even as looking at all, at the cost of looking at two, and without the herd that runs to a single best server when
//! several balancers see the same counts.

use std::any::Any;
use std::cmp::Ordering;

use super::alias::Alias;
use super::random::draw_open;
use super::{Balance, Key, Open, last_resort, load};
use crate::backend::Server;

/// How often a second member is drawn that differs from the first. Of two equal ones it is missed once in 2³² picks; one that
/// hardly ever turns up beside the first has so small a share of the weight that leaving it out of a comparison does no harm.
const SECOND_DRAWS: usize = 32;

/// The algorithm.
#[derive(Debug)]
pub(super) struct P2c {
    table: Alias,
}

impl P2c {
    pub(super) fn new(table: Alias) -> Self {
        Self { table }
    }
}

impl Balance for P2c {
    fn pick(&self, members: &[Server], open: Open<'_>, _key: Option<Key>) -> Option<usize> {
        let load = |server: &Server| load(server.state.active(), server.weight.get());
        better_of_two(&self.table, members, open, |one, other| load(one).cmp(&load(other)))
    }

    fn table(&self) -> Option<&dyn Any> {
        Some(&self.table)
    }
}

/// Of two open members drawn from a table the one that costs less, as they are compared.
pub(super) fn better_of_two(
    table: &Alias,
    members: &[Server],
    open: Open<'_>,
    compare: impl Fn(&Server, &Server) -> Ordering,
) -> Option<usize> {
    let Some(first) = draw_open(table, members, open) else {
        return last_resort(members, |server| open.has(server), fastrand::u64(..));
    };
    let differs = |place: &usize| *place != first && members.get(*place).is_some_and(|server| open.has(server));
    let second = (0..SECOND_DRAWS).map_while(|_| table.draw()).find(differs);
    // Of equals the first: drawing was fair, and so is keeping to it.
    let costs_less = |second: &usize| compare(members.get(*second)?, members.get(first)?).is_lt().then_some(*second);
    second.as_ref().and_then(costs_less).or(Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::random::Random;
    use crate::balance::testing::{counts, equal, take, weighted};

    #[test]
    fn load_ends_up_more_even_than_with_one_draw() {
        fastrand::seed(4);
        let spread = |build: fn(&[Server]) -> Box<dyn Balance>| {
            let members = equal(100);
            let balance = build(&members);
            let leases: Vec<_> = (0..10_000).map(|_| take(&*balance, &members).unwrap()).collect();
            let most = members.iter().map(|server| server.state.active()).max().unwrap();
            drop(leases);
            most - 100
        };
        let (one, two) =
            (spread(|m| Box::new(Random::new(Alias::new(m)))), spread(|m| Box::new(P2c::new(Alias::new(m)))));
        assert!(two <= 4, "{two} above the mean");
        assert!(one >= 15, "{one} above the mean");
    }

    #[test]
    fn weights_are_honoured_within_one_per_cent() {
        fastrand::seed(5);
        let members = weighted(&[4, 2, 1, 1]);
        let balance = P2c::new(Alias::new(&members));
        let leases: Vec<_> = (0..80_000).map(|_| take(&balance, &members).unwrap().1).collect();
        for (server, share) in members.iter().zip([40_000u32, 20_000, 10_000, 10_000]) {
            assert!(server.state.active().abs_diff(share) <= share / 100, "{:?}", server.state);
        }
        drop(leases);
    }

    #[test]
    fn a_single_open_server_is_both_choices() {
        fastrand::seed(6);
        let members = equal(3);
        members[0].state.set_healthy(false);
        members[2].state.set_healthy(false);
        assert_eq!(counts(&P2c::new(Alias::new(&members)), &members, 100), [0, 100, 0]);
    }
}
