//! When the servers of which pool are compared next.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::snapshot::Snapshot;
use crate::units::Name;

/// The pools whose servers are compared, each with when that is next.
#[derive(Debug, Default)]
pub(super) struct Rounds(HashMap<Name, Instant>);

impl Rounds {
    /// When the next one is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Follows what is in effect: a pool that is new has its first round when its interval is over, and none is further away
    /// than that.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        let mut followed = HashMap::new();
        for pool in snapshot.pools() {
            if let Some(rates) = pool.outlier.and_then(|outlier| outlier.success_rate) {
                let (name, first) = (pool.pool.name(), now + rates.interval);
                followed.insert(name.clone(), self.0.get(name).map_or(first, |due| first.min(*due)));
            }
        }
        self.0 = followed;
    }

    /// The pools whose time has come. The next round of each is an interval later.
    pub(super) fn due(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<Name> {
        let names: Vec<Name> = self.0.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone()).collect();
        self.0.retain(|_, due| *due > now);
        self.follow(snapshot, now);
        names
    }
}
