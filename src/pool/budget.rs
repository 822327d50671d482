//! How much of the traffic of a pool may be retries, so that a pool that fails is not buried under second attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How much of the traffic of a pool may be retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries at once for each hundred requests in flight.
    pub percent: u32,
    /// Retries at once that are always allowed.
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, min: 3 }
    }
}

impl RetryBudget {
    /// How many retries there may be at once beside so many requests in flight.
    #[must_use]
    pub fn allows(self, requests: u64) -> u64 {
        (requests.saturating_mul(self.percent.into()) / 100).max(self.min.into())
    }
}

/// Over how many places the requests in flight are counted, so that not all workers write to one with each of theirs.
const SHARDS: usize = 8;

/// What a pool has in flight. Its guards hold these counters and not the pool.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    requests: [CachePadded<AtomicU64>; SHARDS],
    retries: CachePadded<AtomicU64>,
    /// Told when a retry is over.
    over: Notify,
}

impl Traffic {
    /// Counts one more request of a worker.
    pub(super) fn enter(&self, worker: usize) -> InFlight<'_> {
        let [first, ..] = &self.requests;
        let shard = self.requests.get(worker % SHARDS).unwrap_or(first);
        shard.fetch_add(1, Ordering::Relaxed);
        InFlight { shard }
    }

    /// How many requests there are. While some come and go on other workers it may be off by as many.
    fn requests(&self) -> u64 {
        self.requests.iter().fold(0, |sum, shard| sum + shard.load(Ordering::Relaxed))
    }

    /// Counts one more retry, if there may be one.
    pub(super) fn may_retry(self: &Arc<Self>, budget: RetryBudget) -> Option<Retrying> {
        let allowed = budget.allows(self.requests());
        let more = |retries: u64| (retries < allowed).then(|| retries + 1);
        let counted = self.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        counted.then(|| Retrying { traffic: Arc::clone(self) })
    }

    /// The same once others are over, if that is soon enough.
    pub(super) async fn may_retry_by(self: &Arc<Self>, budget: RetryBudget, until: Instant) -> Option<Retrying> {
        loop {
            // Before looking, so that none is over unnoticed in between.
            let over = self.over.notified();
            if let Some(retrying) = self.may_retry(budget) {
                return Some(retrying);
            }
            timeout_at(until, over).await.ok()?;
        }
    }
}

/// One request counted as its pool's, until it is dropped.
#[derive(Debug)]
pub struct InFlight<'t> {
    shard: &'t AtomicU64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.shard.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One retry counted as its pool's, until it is dropped.
#[derive(Debug)]
pub struct Retrying {
    traffic: Arc<Traffic>,
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.traffic.retries.fetch_sub(1, Ordering::Relaxed);
        self.traffic.over.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many retries are allowed beside so many requests.
    fn allowed(budget: RetryBudget, requests: usize) -> usize {
        let traffic = Arc::new(Traffic::default());
        let _requests: Vec<_> = (0..requests).map(|worker| traffic.enter(worker)).collect();
        std::iter::from_fn(|| traffic.may_retry(budget)).take(1000).collect::<Vec<_>>().len()
    }

    #[test]
    fn retries_are_a_part_of_the_requests_in_flight_and_never_fewer_than_the_least() {
        let budget = RetryBudget::default();
        assert_eq!([0, 1, 15, 19, 20, 100].map(|requests| allowed(budget, requests)), [3, 3, 3, 3, 4, 20]);
        assert_eq!(allowed(RetryBudget { percent: 0, min: 0 }, 100), 0);
        assert_eq!(allowed(RetryBudget { percent: 200, min: 0 }, 2), 4);
        assert_eq!(RetryBudget { percent: u32::MAX, min: 0 }.allows(u64::MAX), u64::MAX / 100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_the_place_of_the_next_that_is_over_if_that_is_soon_enough() {
        let traffic = Arc::new(Traffic::default());
        let budget = RetryBudget { percent: 0, min: 1 };
        let first = traffic.may_retry(budget).unwrap();
        let soon = || Instant::now() + std::time::Duration::from_secs(1);
        assert!(traffic.may_retry_by(budget, soon()).await.is_none());
        let (second, ()) = tokio::join!(traffic.may_retry_by(budget, soon()), async { drop(first) });
        assert!(second.is_some() && traffic.may_retry(budget).is_none());
    }

    #[test]
    fn what_ends_makes_room_for_other_retries_or_takes_theirs() {
        let traffic = Arc::new(Traffic::default());
        let budget = RetryBudget { percent: 50, min: 1 };
        let mut requests: Vec<_> = (0..4).map(|worker| traffic.enter(worker)).collect();
        let first = traffic.may_retry(budget).unwrap();
        let _second = traffic.may_retry(budget).unwrap();
        assert!(traffic.may_retry(budget).is_none());
        drop(first);
        let third = traffic.may_retry(budget).unwrap();
        requests.clear();
        drop(third);
        assert!(traffic.may_retry(budget).is_none(), "the second one is all that is allowed by now");
    }
}
