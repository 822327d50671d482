//! Of two open members drawn at random, the one that would answer sooner: how long it takes to answer × what it has to do.
//!
//! The measure is Finagle's "peak EWMA" (`PeakEwma.scala`): an exponentially weighted moving average of the time to answer that
//! takes a rise at once and forgets it with time, so that a server that gets slow is left alone at once and tried again by
//! and by. The average is part of the server's state and so survives reloads; how fast it forgets is the pool's setting. Times
//! are what traffic sees: to the first byte of a response, or of whatever comes back where a client speaks first; and where
//! nothing ever does, to be connected.
//!
//! Nobody knows how long a server takes that has not answered yet: it gets one connection, and no more until it has. One that
//! was connected to and has not answered is taken to answer as soon as the other one of the two does, if connecting took no
//! longer than that, so that load decides. A time that is far above the others' is forgotten to a thousandth in seven times
//! `decay`.

use std::any::Any;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::alias::Alias;
use super::key::Key;
use super::p2c::better_of_two;
use super::{Balance, Open, load};
use crate::backend::{Known, Server, State, Until, Watcher};

/// The algorithm.
#[derive(Debug)]
pub(super) struct PeakEwma {
    table: Alias,
    decay: Duration,
}

impl PeakEwma {
    /// How long it takes to forget a time to 37 % of it, unless set.
    pub(super) const DECAY: Duration = Duration::from_secs(10);

    pub(super) fn new(table: Alias, decay: Duration) -> Self {
        Self { table, decay }
    }

    /// Which of two costs less to send one connection more to.
    fn compare(&self, one: &Server, other: &Server, now: Instant) -> Ordering {
        let [one, other] = [one, other].map(|server| {
            let active = server.state.active();
            let known = server.state.latency().at(now, self.decay);
            Expected { known, is_idle: active == 0, load: load(active, server.weight.get()) }
        });
        one.compare(&other)
    }
}

/// What is to be expected of a server.
#[derive(Clone, Copy, Debug)]
struct Expected {
    known: Option<Known>,
    /// Whether it has nothing to do.
    is_idle: bool,
    /// What it has to do, with one connection more.
    load: u64,
}

impl Expected {
    fn compare(&self, other: &Self) -> Ordering {
        // One that nothing is known of comes first while it has nothing to do, and last from then on.
        let unknown = |is_idle| if is_idle { Ordering::Less } else { Ordering::Greater };
        match (self.known, other.known) {
            (Some(one), Some(two)) => self.cost(one, two).total_cmp(&other.cost(two, one)),
            (None, Some(_)) => unknown(self.is_idle),
            (Some(_), None) => unknown(other.is_idle).reverse(),
            // Of two idle ones it was fair to draw the first.
            (None, None) if self.is_idle && other.is_idle => Ordering::Equal,
            (None, None) => other.is_idle.cmp(&self.is_idle).then(self.load.cmp(&other.load)),
        }
    }

    /// How long it takes, as far as that compares with what is known of the one `beside` it, × what it has to do.
    fn cost(&self, known: Known, beside: Known) -> f64 {
        let took = match (known.until, beside.until) {
            (Until::Connected, Until::Answered) => known.nanoseconds.max(beside.nanoseconds),
            (Until::Connected, Until::Connected) | (Until::Answered, _) => known.nanoseconds,
        };
        took * self.load as f64
    }
}

impl Balance for PeakEwma {
    fn pick(&self, members: &[Server], open: Open<'_>, _key: Option<Key>) -> Option<usize> {
        let now = Instant::now();
        better_of_two(&self.table, members, open, |one, other| self.compare(one, other, now))
    }

    fn table(&self) -> Option<&dyn Any> {
        Some(&self.table)
    }

    fn watcher(self: Arc<Self>) -> Option<Arc<dyn Watcher>> {
        Some(self)
    }
}

impl Watcher for PeakEwma {
    fn changed(&self, _place: usize, _state: &State) {}

    fn took(&self, state: &State, took: Duration, until: Until) {
        state.latency().observe(took, until, Instant::now(), self.decay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Watching;
    use crate::balance::testing::{counts, equal, take, weighted};

    fn watched(members: &[Server]) -> Arc<PeakEwma> {
        let balance = Arc::new(PeakEwma::new(Alias::new(members), PeakEwma::DECAY));
        for (place, server) in members.iter().enumerate() {
            let watcher = Arc::clone(&balance).watcher().unwrap();
            server.state.set_watching(Some(Watching { watcher, place }));
        }
        balance
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_longer_is_left_alone_until_that_is_forgotten() {
        fastrand::seed(21);
        let members = equal(3);
        let balance = watched(&members);
        members.iter().for_each(|server| server.state.answered(MILLI));
        members[1].state.answered(500 * MILLI);
        // It is drawn twice in one pick of nine, and then there is no choice.
        assert!(counts(&*balance, &members, 900)[1] <= 200);
        let mut waited = Duration::ZERO;
        while counts(&*balance, &members, 900)[1] < 250 {
            tokio::time::advance(Duration::from_secs(1)).await;
            waited += Duration::from_secs(1);
            [0, 2].iter().for_each(|place: &usize| members[*place].state.answered(MILLI));
        }
        assert!((55..75).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_server_gets_one_connection_and_no_more_until_it_has_answered() {
        fastrand::seed(22);
        let members = equal(2);
        let balance = watched(&members);
        members[0].state.answered(MILLI);
        let mut leases: Vec<_> = (0..20).map(|_| take(&*balance, &members).unwrap()).collect();
        assert_eq!(leases.iter().filter(|(place, _)| *place == 1).count(), 1);
        members[1].state.answered(MILLI);
        leases.extend((0..200).map(|_| take(&*balance, &members).unwrap()));
        let [one, other] = [&members[0], &members[1]].map(|server| server.state.active());
        assert!(one.abs_diff(other) <= 10, "{one} and {other}");
    }

    #[tokio::test(start_paused = true)]
    async fn of_equally_fast_servers_each_gets_its_share_by_weight() {
        fastrand::seed(23);
        let members = weighted(&[4, 2, 1, 1]);
        let balance = watched(&members);
        members.iter().for_each(|server| server.state.answered(MILLI));
        let leases: Vec<_> = (0..8_000).map(|_| take(&*balance, &members).unwrap().1).collect();
        for (server, share) in members.iter().zip([4_000u32, 2_000, 1_000, 1_000]) {
            assert!(server.state.active().abs_diff(share) <= share / 100, "{:?}", server.state);
        }
        drop(leases);
    }

    #[test]
    fn what_is_unknown_and_idle_comes_first_and_what_is_unknown_and_busy_last() {
        let known = |nanoseconds, load| {
            let known = Some(Known { nanoseconds, until: Until::Answered });
            Expected { known, is_idle: false, load }
        };
        let unknown = |is_idle, load| Expected { known: None, is_idle, load };
        let order =
            [unknown(true, 9), known(0.0, 5), known(1.0, 2), known(1.0, 3), unknown(false, 1), unknown(false, 2)];
        for (at, one) in order.iter().enumerate() {
            for (beside, other) in order.iter().enumerate() {
                assert_eq!(one.compare(other), at.cmp(&beside), "{one:?} {other:?}");
            }
        }
        assert_eq!(unknown(true, 1).compare(&unknown(true, 2)), Ordering::Equal, "drawing was fair");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_accepts_soon_gets_no_more_than_its_share_until_it_has_answered_and_less_if_that_is_late() {
        fastrand::seed(24);
        let members = equal(2);
        let balance = watched(&members);
        members[0].state.answered(50 * MILLI);
        members[1].state.connected_in(MILLI);
        let leases: Vec<_> = (0..200).map(|_| take(&*balance, &members).unwrap()).collect();
        let [one, other] = [&members[0], &members[1]].map(|server| server.state.active());
        assert!(one.abs_diff(other) <= 2, "{one} and {other}");
        drop(leases);
        members[1].state.answered(500 * MILLI);
        members[1].state.connected_in(MILLI);
        assert_eq!(counts(&*balance, &members, 900), [900, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_connected_to_is_left_alone_whether_or_not_another_has_answered() {
        fastrand::seed(25);
        for answers in [false, true] {
            let members = equal(2);
            let balance = watched(&members);
            members.iter().for_each(|server| server.state.connected_in(MILLI));
            if answers {
                members[0].state.answered(50 * MILLI);
            }
            members[1].state.left_unconnected(Duration::ZERO);
            assert_eq!(counts(&*balance, &members, 100), [100, 0]);
        }
    }
}
