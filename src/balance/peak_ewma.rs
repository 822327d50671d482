//! Of two open members drawn at random, the one that would answer sooner: how long it takes to answer × what it has to do.
//!
//! The measure is Finagle's "peak EWMA" (`PeakEwma.scala`): an exponentially weighted moving average of the time to answer that
//! takes a rise at once and forgets it with time, so that a server that gets slow is left alone at once and tried again by
//! and by. The average is part of the server's state and so survives reloads; how fast it forgets is the pool's setting. Times
//! are what traffic sees: to the first byte of a response, or for a connection of bytes to be connected.
//!
//! Nobody knows how long a server takes that has not answered yet: it gets one connection, and no more until it has. A time
//! that is far above the others' is forgotten to a thousandth in seven times `decay`.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::alias::Alias;
use super::key::Key;
use super::p2c::better_of_two;
use super::{Balance, Open, load};
use crate::backend::{Server, State, Watcher};

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

    /// What it costs to send one connection more there.
    fn cost(&self, server: &Server, now: Instant) -> Cost {
        let active = server.state.active();
        let load = load(active, server.weight.get());
        match server.state.latency().at(now, self.decay) {
            Some(took) => Cost::Known((took * load as f64).to_bits()),
            None if active == 0 => Cost::Unknown,
            None => Cost::UnknownAndBusy(load),
        }
    }
}

/// The variants are in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// It has not answered yet and has nothing to do.
    Unknown,
    /// The bits of a number that is not negative, which are in the order of such numbers.
    Known(u64),
    /// It has not answered yet and has this load.
    UnknownAndBusy(u64),
}

impl Balance for PeakEwma {
    fn pick(&self, members: &[Server], open: Open<'_>, _key: Option<Key>) -> Option<usize> {
        let now = Instant::now();
        better_of_two(&self.table, members, open, |server| self.cost(server, now))
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

    fn answered(&self, state: &State, took: Duration) {
        state.latency().observe(took, Instant::now(), self.decay);
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
        let known = |took: f64| Cost::Known(took.to_bits());
        assert!(Cost::Unknown < known(0.0) && known(0.0) < known(1e-9) && known(1e-9) < known(f64::MAX));
        assert!(known(f64::INFINITY) < Cost::UnknownAndBusy(0) && Cost::UnknownAndBusy(1) < Cost::UnknownAndBusy(2));
    }
}
