//! How long a server takes to answer, as traffic has seen it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::State;

/// What a failure is taken for at least, lest a server that refuses at once looks like the fastest.
const FAILURE: Duration = Duration::from_secs(1);

/// An average that takes a rise at once and forgets it with time; written by every worker, without a lock.
///
/// It is kept as one word, so that time and value change together: the average in nanoseconds as a number of 32 bits with a
/// fraction, which is exact to a ten-millionth, and when it was so, in milliseconds since the server is known.
#[derive(Debug)]
pub struct Latency {
    known_since: Instant,
    /// Zero as long as there is nothing to tell.
    word: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { known_since: Instant::now(), word: AtomicU64::new(0) }
    }
}

impl Latency {
    /// The average in nanoseconds, as much of it as is left by `now`; nothing if there never was any. Without anything new it
    /// falls to a 1/e of itself in each `decay`.
    #[must_use]
    pub fn at(&self, now: Instant, decay: Duration) -> Option<f64> {
        let (average, since) = unpack(self.word.load(Ordering::Relaxed))?;
        Some(average * remainder(since, self.ticks(now), decay))
    }

    /// Takes in that an answer took so long. More than the average becomes the average; less draws it nearer, the more so the
    /// longer it has stood.
    pub fn observe(&self, took: Duration, now: Instant, decay: Duration) {
        let (took, now) = ((took.as_nanos() as f64).max(1.0), self.ticks(now));
        let more = |word: u64| match unpack(word) {
            Some((average, since)) if took < average => {
                let left = remainder(since, now, decay);
                // Within the same millisecond nothing changes, and nothing has to be written.
                (left < 1.0).then(|| pack(average.mul_add(left, took * (1.0 - left)), now))
            }
            Some(_) | None => Some(pack(took, now)),
        };
        let _unchanged = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Milliseconds since the server is known, which come round again after 49 days.
    fn ticks(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.known_since).as_millis() as u32
    }
}

fn pack(average: f64, ticks: u32) -> u64 {
    u64::from((average as f32).to_bits()) << 32 | u64::from(ticks)
}

fn unpack(word: u64) -> Option<(f64, u32)> {
    let average = f32::from_bits((word >> 32) as u32);
    (average > 0.0).then_some((f64::from(average), word as u32))
}

/// How much is left of an average.
fn remainder(since: u32, now: u32, decay: Duration) -> f64 {
    // Another worker's present may be ahead of ours.
    let elapsed = (now.wrapping_sub(since) as i32).max(0);
    (-f64::from(elapsed) / (decay.as_secs_f64() * 1000.0)).exp()
}

impl State {
    /// How long it takes to answer, if that is what the pool goes by.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.rest.latency
    }

    /// It took so long to answer: to the first byte of a response, or to connect where bytes are all there is.
    pub fn answered(&self, took: Duration) {
        if let Some(watching) = &*self.watching.load() {
            watching.watcher.answered(self, took);
        }
    }

    /// It did not answer, and this is when that was known.
    pub fn left_unanswered(&self, after: Duration) {
        self.answered(after.max(FAILURE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const MILLI: f64 = 1e6;

    /// Answers that took so many milliseconds, each so many milliseconds after the one before, and what is known then.
    fn after(answers: &[(u64, u64)]) -> f64 {
        let latency = Latency::default();
        let mut now = latency.known_since;
        for (later, took) in answers {
            now += Duration::from_millis(*later);
            latency.observe(Duration::from_millis(*took), now, DECAY);
        }
        latency.at(now, DECAY).unwrap() / MILLI
    }

    fn is_about(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 1e-5
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        let latency = Latency::default();
        assert_eq!(latency.at(Instant::now(), DECAY), None);
        latency.observe(Duration::ZERO, Instant::now(), DECAY);
        assert_eq!(latency.at(latency.known_since, DECAY), Some(1.0));
    }

    #[test]
    fn a_rise_is_taken_at_once_and_a_fall_by_and_by() {
        assert!(is_about(after(&[(0, 10), (1, 500)]), 500.0));
        assert!(is_about(after(&[(0, 500), (0, 10)]), 500.0));
        let e = std::f64::consts::E;
        assert!(is_about(after(&[(0, 500), (10_000, 10)]), 500.0 / e + 10.0 * (1.0 - 1.0 / e)));
        // However often it answers, a fall takes its time.
        let often: Vec<_> = std::iter::once((0, 500)).chain((0..10_000).map(|_| (1, 10))).collect();
        assert!((after(&often) / (500.0 / e + 10.0 * (1.0 - 1.0 / e)) - 1.0).abs() < 0.001);
    }

    #[test]
    fn without_answers_it_is_forgotten() {
        let latency = Latency::default();
        let start = latency.known_since;
        latency.observe(Duration::from_millis(100), start, DECAY);
        let left = latency.at(start + 7 * DECAY, DECAY).unwrap() / MILLI;
        assert!((0.05..0.15).contains(&left), "{left}");
        assert!(is_about(latency.at(start, DECAY).unwrap(), 100.0 * MILLI), "a worker whose present is behind");
    }

    #[test]
    fn a_failure_is_no_quick_answer() {
        use crate::backend::{Watcher, Watching};
        use crate::units::Name;
        use std::sync::Arc;
        #[derive(Debug)]
        struct Keeping;
        impl Watcher for Keeping {
            fn changed(&self, _place: usize, _state: &State) {}
            fn answered(&self, state: &State, took: Duration) {
                state.latency().observe(took, Instant::now(), DECAY);
            }
        }
        let state = State::new(Name::new("pool"), Name::new("a"));
        state.answered(Duration::from_millis(5));
        assert_eq!(state.latency().at(Instant::now(), DECAY), None, "nobody goes by it");
        state.set_watching(Some(Watching { watcher: Arc::new(Keeping), place: 0 }));
        state.answered(Duration::from_millis(5));
        state.left_unanswered(Duration::from_millis(1));
        assert!(state.latency().at(Instant::now(), DECAY).unwrap() > 900.0 * MILLI);
    }
}
