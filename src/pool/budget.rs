//! How much of the traffic of a pool may be retries, so that a pool that fails is not buried under second attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

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

/// What a pool has in flight. Its guards hold these counters and not the pool.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    requests: CachePadded<AtomicU64>,
    retries: CachePadded<AtomicU64>,
}

impl Traffic {
    /// Counts one more request.
    pub(super) fn enter(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight { traffic: Arc::clone(self) }
    }

    /// Counts one more retry, if there may be one.
    pub(super) fn may_retry(self: &Arc<Self>, budget: RetryBudget) -> Option<Retrying> {
        let allowed = budget.allows(self.requests.load(Ordering::Relaxed));
        let more = |retries: u64| (retries < allowed).then(|| retries + 1);
        let counted = self.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        counted.then(|| Retrying { traffic: Arc::clone(self) })
    }
}

/// One request counted as its pool's, until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    traffic: Arc<Traffic>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.traffic.requests.fetch_sub(1, Ordering::Relaxed);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many retries are allowed beside so many requests.
    fn allowed(budget: RetryBudget, requests: usize) -> usize {
        let traffic = Arc::new(Traffic::default());
        let _requests: Vec<_> = (0..requests).map(|_| traffic.enter()).collect();
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

    #[test]
    fn what_ends_makes_room_for_other_retries_or_takes_theirs() {
        let traffic = Arc::new(Traffic::default());
        let budget = RetryBudget { percent: 50, min: 1 };
        let mut requests: Vec<_> = (0..4).map(|_| traffic.enter()).collect();
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
