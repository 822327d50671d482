//! Members to test algorithms with.

use std::path::Path;
use std::sync::Arc;

use super::alias::Alias;
use super::maglev::Maglev;
use super::ring_hash::Ring;
use super::round_robin::Turns;
use super::source_hash::Line;
use super::{Balance, Key, Open, Tried};
use crate::backend::{Lease, Server, State};
use crate::net::address::ServerAddr;
use crate::units::{Name, Weight};

/// One server per weight, named by its place.
pub(crate) fn weighted(weights: &[u16]) -> Vec<Server> {
    let server = |(place, weight): (usize, &u16)| {
        let state = State::new(Name::new("pool"), Name::new(&place.to_string()));
        let address = ServerAddr::parse("127.0.0.1:1", Path::new("/")).unwrap();
        let weight = Weight::new(*weight).unwrap();
        Server { weight, full_weight: weight, ..Server::new(state, address) }
    };
    weights.iter().enumerate().map(server).collect()
}

/// So many servers of weight 1.
pub(crate) fn equal(count: usize) -> Vec<Server> {
    weighted(&vec![1; count])
}

/// Picks and releases at once, so many times, and says how often each was picked.
pub(crate) fn counts(balance: &dyn Balance, members: &[Server], picks: usize) -> Vec<usize> {
    let mut counts = vec![0; members.len()];
    for _ in 0..picks {
        counts[balance.pick(members, Open::except(&Tried::new()), None).unwrap()] += 1;
    }
    counts
}

/// Picks and keeps.
pub(crate) fn take(balance: &dyn Balance, members: &[Server]) -> Option<(usize, Lease)> {
    let place = balance.pick(members, Open::except(&Tried::new()), None)?;
    Some((place, members[place].acquire()?))
}

/// So many different keys, the same each time.
pub(crate) fn keys(count: u32) -> impl Iterator<Item = Key> {
    (0..count).map(|number| Key::of(&number.to_be_bytes()))
}

/// Whether two algorithms go by the very same table.
pub(crate) fn shares_table(one: &dyn Balance, other: &dyn Balance) -> bool {
    fn share<T: 'static>(one: &dyn Balance, other: &dyn Balance, same: impl Fn(&T, &T) -> bool) -> bool {
        let [one, other] = [one, other].map(|balance| balance.table().and_then(|table| table.downcast_ref::<T>()));
        one.zip(other).is_some_and(|(one, other)| same(one, other))
    }
    share::<Alias>(one, other, |one, other| Arc::ptr_eq(&one.slots, &other.slots))
        || share::<Line>(one, other, |one, other| Arc::ptr_eq(&one.ends, &other.ends))
        || share::<Maglev>(one, other, |one, other| Arc::ptr_eq(&one.slots, &other.slots))
        || share::<Ring>(one, other, |one, other| Arc::ptr_eq(&one.points, &other.points))
        || share::<Turns>(one, other, |one, other| Arc::ptr_eq(&one.0, &other.0))
}
