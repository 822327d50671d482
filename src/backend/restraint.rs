//! What keeps a server that is up from its full share of the traffic: it has only just come up or back, or says itself that
//! it can do less.
//!
//! Both stand in one word, so that a pick looks once, and in vain most of the time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::State;
use crate::units::Percent;

/// What moments are told by: before any present, also that of a test with a clock of its own, which the first to ask may be
/// ahead of.
static BEGINNING: LazyLock<Instant> = LazyLock::new(|| {
    let now = std::time::Instant::now();
    now.checked_sub(Duration::from_secs(3600)).unwrap_or(now).into()
});

/// The least warmth, so that a server that has only just come up gets something at all.
const COLDEST: f64 = 0.1;
/// How many bits the share takes.
const SHARE_BITS: u32 = 8;
const SHARE: u64 = (1 << SHARE_BITS) - 1;

/// The share in percent, which the checker writes, and above it the moment since when the server is warming, in
/// milliseconds from [`BEGINNING`] and one more; nothing while it is not.
#[derive(Debug)]
pub(super) struct Restraint(AtomicU64);

impl Restraint {
    const NONE: u64 = Percent::ALL.get() as u64;
}

impl Default for Restraint {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }
}

impl State {
    /// What share of its weight the server says that it can do; all unless it is asked.
    #[must_use]
    pub fn share(&self) -> Percent {
        share_of(self.restraint.0.load(Ordering::SeqCst))
    }

    /// Sets that; the checker is the only caller.
    pub fn set_share(&self, share: Percent) {
        let with = |word: u64| Some(word & !SHARE | u64::from(share.get()));
        let _always = self.restraint.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with);
        self.announce();
    }

    /// It has only just begun to serve. Called by the checker when it comes up, by the jury when it is let back in, and by the
    /// writer for one that joins others or is put back into service.
    pub fn warm_up(&self) {
        let since = u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
        let with = |word: u64| Some(word & SHARE | since << SHARE_BITS);
        let _always = self.restraint.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with);
    }

    /// Whether anything keeps it from its full share.
    #[must_use]
    pub fn is_restrained(&self) -> bool {
        self.restraint.0.load(Ordering::Relaxed) != Restraint::NONE
    }

    /// The part of its full share that it is to have, where warming takes so long. Whoever finds that it is warm ends that.
    #[must_use]
    pub fn part(&self, slow_start: Duration) -> f64 {
        let word = self.restraint.0.load(Ordering::SeqCst);
        let share = f64::from(share_of(word).get()) / 100.0;
        let Some(since) = (word >> SHARE_BITS).checked_sub(1) else { return share };
        let elapsed = BEGINNING.elapsed().saturating_sub(Duration::from_millis(since));
        if elapsed >= slow_start {
            // In vain if it began anew meanwhile.
            let _ = self.restraint.0.compare_exchange(word, word & SHARE, Ordering::SeqCst, Ordering::SeqCst);
            return share;
        }
        share * elapsed.div_duration_f64(slow_start).max(COLDEST)
    }

    /// Whether it is warming, where that takes so long.
    #[must_use]
    pub fn is_warming(&self, slow_start: Duration) -> bool {
        let since = (self.restraint.0.load(Ordering::SeqCst) >> SHARE_BITS).checked_sub(1);
        since.is_some_and(|since| BEGINNING.elapsed().saturating_sub(Duration::from_millis(since)) < slow_start)
    }
}

fn share_of(word: u64) -> Percent {
    u8::try_from(word & SHARE).ok().and_then(Percent::new).unwrap_or(Percent::ALL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Name;

    const SLOW: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_up_warms_from_a_tenth_to_all_and_is_free_then() {
        let state = State::new(Name::new("pool"), Name::new("a"));
        assert!(!state.is_restrained(), "a server is warm unless something is said of it");
        state.set_health(false, "seen");
        state.set_health(true, "seen");
        assert!(state.is_restrained() && state.is_warming(SLOW));
        assert!((state.part(SLOW) - COLDEST).abs() < 0.01);
        tokio::time::advance(SLOW / 2).await;
        assert!((state.part(SLOW) - 0.5).abs() < 0.01);
        tokio::time::advance(SLOW / 2).await;
        assert!(!state.is_warming(SLOW) && state.is_restrained());
        assert!((state.part(SLOW) - 1.0).abs() < f64::EPSILON);
        assert!(!state.is_restrained());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_let_back_in_is_warming_and_one_that_never_was_out_is_not() {
        let state = State::new(Name::new("pool"), Name::new("a"));
        state.set_ejected(None);
        assert!(!state.is_restrained());
        let since = std::time::SystemTime::now();
        state.set_ejected(Some(crate::backend::Ejection { since, until: since, reason: "seen".to_owned() }));
        assert!(!state.is_warming(SLOW), "it is given nothing at all");
        state.set_ejected(None);
        assert!(state.is_warming(SLOW));
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_a_server_has_said_stays_when_it_is_warm() {
        let state = State::new(Name::new("pool"), Name::new("a"));
        state.warm_up();
        state.set_share(Percent::HALF);
        tokio::time::advance(SLOW / 2).await;
        assert!((state.part(SLOW) - 0.25).abs() < 0.01);
        assert!((state.part(Duration::ZERO) - 0.5).abs() < f64::EPSILON, "without a slow start it is warm at once");
        assert_eq!(state.share(), Percent::HALF);
        state.set_share(Percent::ALL);
        assert!(!state.is_restrained());
    }
}
