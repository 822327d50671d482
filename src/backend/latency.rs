//! How long a server takes to answer, as traffic has seen it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::State;

/// What a failure is taken for at least, lest a server that refuses at once looks like the fastest.
const FAILURE: Duration = Duration::from_secs(1);

/// What a time was measured to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To being connected: it takes at least as long to answer, and says nothing else of that.
    Connected,
    /// To the first byte of an answer.
    Answered,
}

/// How long a server takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// The average in nanoseconds.
    pub nanoseconds: f64,
    /// Until when. As soon as it has answered, how long it takes to connect to counts only if that is longer.
    pub until: Until,
}

/// An average that takes a rise at once and forgets it with time; written by every worker, without a lock.
///
/// It is kept as one word, so that time and value change together: the average in nanoseconds as a number of 32 bits with a
/// fraction, which is exact to a ten-millionth, with the sign as long as it is known from connecting alone, and when it was so,
/// in milliseconds since the server is known.
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
    /// The average, as much of it as is left by `now`; nothing if there never was any. Without anything new it falls to a 1/e
    /// of itself in each `decay`.
    #[must_use]
    pub fn at(&self, now: Instant, decay: Duration) -> Option<Known> {
        let (Known { nanoseconds, until }, since) = unpack(self.word.load(Ordering::Relaxed))?;
        Some(Known { nanoseconds: nanoseconds * remainder(since, self.ticks(now), decay), until })
    }

    /// Takes in that it took so long. More than the average becomes the average; less draws it nearer, the more so the longer
    /// it has stood.
    pub fn observe(&self, took: Duration, until: Until, now: Instant, decay: Duration) {
        let (took, now) = ((took.as_nanos() as f64).max(1.0), self.ticks(now));
        let more = |word: u64| match unpack(word) {
            Some((known, since)) if took < known.nanoseconds => {
                let left = remainder(since, now, decay);
                match (known.until, until) {
                    (Until::Answered, Until::Connected) => None,
                    // Within the same millisecond nothing changes, and nothing has to be written.
                    (Until::Connected, Until::Connected) | (Until::Answered, Until::Answered) if left >= 1.0 => None,
                    (Until::Connected, _) | (Until::Answered, Until::Answered) => {
                        Some(pack(known.nanoseconds.mul_add(left, took * (1.0 - left)), until, now))
                    }
                }
            }
            Some((Known { until: Until::Answered, .. }, _)) => Some(pack(took, Until::Answered, now)),
            Some((Known { until: Until::Connected, .. }, _)) | None => Some(pack(took, until, now)),
        };
        let _unchanged = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Milliseconds since the server is known, which come round again after 49 days.
    fn ticks(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.known_since).as_millis() as u32
    }
}

fn pack(average: f64, until: Until, ticks: u32) -> u64 {
    let signed = match until {
        Until::Connected => -average,
        Until::Answered => average,
    };
    u64::from((signed as f32).to_bits()) << 32 | u64::from(ticks)
}

fn unpack(word: u64) -> Option<(Known, u32)> {
    let signed = f32::from_bits((word >> 32) as u32);
    let until = if signed < 0.0 { Until::Connected } else { Until::Answered };
    (signed != 0.0).then_some((Known { nanoseconds: signed.abs().into(), until }, word as u32))
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

    /// It took so long to answer, to the first byte.
    pub fn answered(&self, took: Duration) {
        self.took(took, Until::Answered);
    }

    /// It did not answer, and this is when that was known.
    pub fn left_unanswered(&self, after: Duration) {
        self.answered(after.max(FAILURE));
    }

    /// It took so long to connect to it.
    pub fn connected_in(&self, took: Duration) {
        self.took(took, Until::Connected);
    }

    /// It could not be connected to, and this is when that was known.
    pub fn left_unconnected(&self, after: Duration) {
        self.connected_in(after.max(FAILURE));
    }

    fn took(&self, took: Duration, until: Until) {
        if let Some(Some(watching)) = self.watching().as_deref() {
            watching.watcher.took(self, took, until);
        }
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
            latency.observe(Duration::from_millis(*took), Until::Answered, now, DECAY);
        }
        latency.at(now, DECAY).unwrap().nanoseconds / MILLI
    }

    fn is_about(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 1e-5
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        let latency = Latency::default();
        assert_eq!(latency.at(Instant::now(), DECAY), None);
        latency.observe(Duration::ZERO, Until::Answered, Instant::now(), DECAY);
        let known = Known { nanoseconds: 1.0, until: Until::Answered };
        assert_eq!(latency.at(latency.known_since, DECAY), Some(known));
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
        latency.observe(Duration::from_millis(100), Until::Answered, start, DECAY);
        let left = latency.at(start + 7 * DECAY, DECAY).unwrap().nanoseconds / MILLI;
        assert!((0.05..0.15).contains(&left), "{left}");
        assert!(
            is_about(latency.at(start, DECAY).unwrap().nanoseconds, 100.0 * MILLI),
            "a worker whose present is behind"
        );
    }

    #[test]
    fn connecting_counts_until_there_is_an_answer_and_from_then_on_if_it_takes_longer() {
        use Until::{Answered, Connected};
        let times = |times: &[(u64, Until)]| {
            let latency = Latency::default();
            for (took, until) in times {
                latency.observe(Duration::from_millis(*took), *until, latency.known_since, DECAY);
            }
            let known = latency.at(latency.known_since, DECAY).unwrap();
            ((known.nanoseconds / MILLI).round(), known.until)
        };
        assert_eq!(times(&[(5, Connected), (9, Connected)]), (9.0, Connected));
        assert_eq!(times(&[(5, Connected), (50, Answered)]), (50.0, Answered));
        assert_eq!(times(&[(5, Connected), (2, Answered)]), (5.0, Answered), "a fall takes its time, here as well");
        assert_eq!(times(&[(50, Answered), (5, Connected)]), (50.0, Answered));
        assert_eq!(times(&[(50, Answered), (99, Connected)]), (99.0, Answered));
        let latency = Latency::default();
        let later = latency.known_since + DECAY;
        latency.observe(Duration::from_millis(50), Answered, latency.known_since, DECAY);
        let before = latency.at(later, DECAY);
        latency.observe(Duration::from_millis(5), Connected, later, DECAY);
        assert_eq!(latency.at(later, DECAY), before, "being connected to soon is no answer");
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
            fn took(&self, state: &State, took: Duration, until: Until) {
                state.latency().observe(took, until, Instant::now(), DECAY);
            }
        }
        let state = State::new(Name::new("pool"), Name::new("a"));
        state.answered(Duration::from_millis(5));
        assert_eq!(state.latency().at(Instant::now(), DECAY), None, "nobody goes by it");
        state.set_watching(Some(Watching { watcher: Arc::new(Keeping), place: 0 }));
        state.answered(Duration::from_millis(5));
        state.left_unanswered(Duration::from_millis(1));
        assert!(state.latency().at(Instant::now(), DECAY).unwrap().nanoseconds > 900.0 * MILLI);
    }
}
