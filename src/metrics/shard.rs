//! The two things a shard is made of, each written by one thread and read by any.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets for connecting and probing.
pub(super) const CONNECT_BOUNDS: [Duration; 12] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(10),
];

/// Upper bounds of the buckets for the first byte of a response: closer together where people have set themselves goals.
pub(super) const RESPONSE_BOUNDS: [Duration; 16] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Upper bounds of the buckets for the life of a connection.
pub(super) const CONNECTION_BOUNDS: [Duration; 11] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(3600),
    Duration::from_secs(21_600),
    Duration::from_secs(86_400),
];

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds without a locked instruction: there is no other writer to lose an addition to.
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Observations by the first bound they do not exceed, and their sum.
#[derive(Debug)]
pub(super) struct Histogram<const BOUNDS: usize> {
    buckets: [Tally; BOUNDS],
    over: Tally,
    nanoseconds: Tally,
}

impl<const BOUNDS: usize> Default for Histogram<BOUNDS> {
    fn default() -> Self {
        Self { buckets: [const { Tally::new() }; BOUNDS], over: Tally::new(), nanoseconds: Tally::new() }
    }
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    pub(super) fn observe(&self, bounds: &[Duration; BOUNDS], value: Duration) {
        let place = bounds.iter().position(|bound| value <= *bound);
        place.and_then(|place| self.buckets.get(place)).unwrap_or(&self.over).add(1);
        self.nanoseconds.add(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds this shard to a total.
    pub(super) fn add_to(&self, total: &mut Total<BOUNDS>) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.over += self.over.get();
        total.seconds += Duration::from_nanos(self.nanoseconds.get()).as_secs_f64();
    }
}

/// The sum of several shards of a histogram.
#[derive(Debug)]
pub(super) struct Total<const BOUNDS: usize> {
    pub(super) buckets: [u64; BOUNDS],
    pub(super) over: u64,
    pub(super) seconds: f64,
}

impl<const BOUNDS: usize> Default for Total<BOUNDS> {
    fn default() -> Self {
        Self { buckets: [0; BOUNDS], over: 0, seconds: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for value in [Duration::ZERO, CONNECT_BOUNDS[0], CONNECT_BOUNDS[0] + Duration::from_nanos(1), Duration::MAX] {
            histogram.observe(&CONNECT_BOUNDS, value);
        }
        let mut total = Total::default();
        histogram.add_to(&mut total);
        assert_eq!((total.buckets[0], total.buckets[1], total.over), (2, 1, 1));
    }

    #[test]
    fn bounds_rise() {
        assert!(CONNECT_BOUNDS.is_sorted() && RESPONSE_BOUNDS.is_sorted() && CONNECTION_BOUNDS.is_sorted());
    }
}
