//! What requests to a server came to, counted on their path: how many in a row went wrong, and who hears when it is too many.
//!
//! Workers only count. Whether a server is ejected, and for how long, is decided elsewhere by whoever is told here, and
//! that one alone sets the flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::State;

/// What a request to a server came to. Connections that are no requests have the first and the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, and not by an error of the server's.
    Ok,
    /// The answer was a 5xx that is none of [`Outcome::Gateway`].
    ServerError,
    /// The answer was 502, 503 or 504.
    Gateway,
    /// There was none: no connection, a reset, or not in time.
    Failure,
}

impl Outcome {
    /// What a response of this status comes to.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::Gateway,
            500.. => Self::ServerError,
            _ => Self::Ok,
        }
    }
}

/// How many outcomes in a row are too many. Zero is never too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Answers of 5xx, whichever.
    pub server_errors: u16,
    /// Answers of 502, 503 or 504.
    pub gateway_errors: u16,
    /// Requests without an answer.
    pub failures: u16,
}

/// Too many outcomes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// This many answers were 5xx.
    ServerErrors(u16),
    /// This many answers were 502, 503 or 504.
    GatewayErrors(u16),
    /// This many requests had no answer.
    Failures(u16),
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, of_what) = match self {
            Self::ServerErrors(count) => (count, "responses in a row were errors of the server (5xx)"),
            Self::GatewayErrors(count) => (count, "responses in a row were 502, 503 or 504"),
            Self::Failures(count) => (count, "attempts in a row had no answer"),
        };
        write!(f, "{count} {of_what}")
    }
}

/// Outcomes in a row, of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Streaks {
    server_errors: u16,
    gateway_errors: u16,
    failures: u16,
}

impl Streaks {
    /// With one more outcome. Whatever is no answer leaves the streaks of answers as they are; an answer of another kind
    /// ends a streak.
    fn with(self, outcome: Outcome) -> Self {
        let Self { server_errors, gateway_errors, failures } = self;
        match outcome {
            Outcome::Ok => Self::default(),
            Outcome::ServerError => {
                Self { server_errors: server_errors.saturating_add(1), gateway_errors: 0, failures: 0 }
            }
            Outcome::Gateway => Self {
                server_errors: server_errors.saturating_add(1),
                gateway_errors: gateway_errors.saturating_add(1),
                failures: 0,
            },
            Outcome::Failure => Self { failures: failures.saturating_add(1), ..self },
        }
    }

    /// What there is too much of.
    fn excess(self, limits: Limits) -> Option<Excess> {
        let is_full = |count: u16, limit: u16| limit > 0 && count >= limit;
        if is_full(self.failures, limits.failures) {
            Some(Excess::Failures(self.failures))
        } else if is_full(self.gateway_errors, limits.gateway_errors) {
            Some(Excess::GatewayErrors(self.gateway_errors))
        } else if is_full(self.server_errors, limits.server_errors) {
            Some(Excess::ServerErrors(self.server_errors))
        } else {
            None
        }
    }

    /// As one word, so that all of them change at once.
    const fn pack(self) -> u64 {
        (self.server_errors as u64) << 32 | (self.gateway_errors as u64) << 16 | self.failures as u64
    }

    const fn unpack(word: u64) -> Self {
        Self { server_errors: (word >> 32) as u16, gateway_errors: (word >> 16) as u16, failures: word as u16 }
    }
}

/// What is too much for the servers of a pool, and who hears of it.
#[derive(Debug)]
pub struct Jury {
    /// How many are too many.
    pub limits: Limits,
    /// Hears of each server once, until it has decided.
    pub tell: mpsc::Sender<Suspect>,
}

/// A server that did badly too often.
#[derive(Debug)]
pub struct Suspect {
    /// The server.
    pub server: Arc<State>,
    /// What was seen of it.
    pub seen: Excess,
}

/// That a server is given nothing for a while, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Since when.
    pub since: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// What was seen.
    pub reason: String,
}

/// What is counted of a server.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    streaks: AtomicU64,
    /// Whether the jury was told and has not decided yet; nothing is counted meanwhile.
    told: AtomicBool,
    jury: ArcSwapOption<Jury>,
}

impl State {
    /// Counts what a request came to, or an attempt to connect that led to none; once each, from any worker. Does next to
    /// nothing as long as all goes well.
    pub fn report(self: &Arc<Self>, outcome: Outcome) {
        let Conduct { streaks, told, jury } = &self.rest.conduct;
        if outcome == Outcome::Ok {
            if streaks.load(Ordering::Relaxed) != 0 {
                streaks.store(0, Ordering::Relaxed);
            }
            return;
        }
        let jury = jury.load();
        let Some(jury) = jury.as_ref().filter(|_| !told.load(Ordering::Relaxed)) else {
            return;
        };
        let more = |word: u64| Some(Streaks::unpack(word).with(outcome).pack());
        let (Ok(before) | Err(before)) = streaks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let Some(seen) = Streaks::unpack(before).with(outcome).excess(jury.limits) else {
            return;
        };
        if told.swap(true, Ordering::Relaxed) {
            return;
        }
        let suspect = Suspect { server: Arc::clone(self), seen };
        if jury.tell.try_send(suspect).is_err() {
            // It has its hands full, or is gone: the next outcome tries again.
            told.store(false, Ordering::Relaxed);
        }
    }

    /// Who hears when too much goes wrong from now on; without anybody, nothing is counted. The writer is the only caller.
    pub fn set_jury(&self, jury: Option<Arc<Jury>>) {
        let Conduct { streaks, told: _, jury: present } = &self.rest.conduct;
        let limits = |jury: &Option<Arc<Jury>>| jury.as_ref().map(|jury| jury.limits);
        let before = present.swap(jury.clone());
        if limits(&before) != limits(&jury) {
            streaks.store(0, Ordering::Relaxed);
        }
    }

    /// The jury has decided: counting starts anew. It is the only caller.
    pub fn count_anew(&self) {
        self.rest.conduct.streaks.store(0, Ordering::Relaxed);
        self.rest.conduct.told.store(false, Ordering::Relaxed);
    }

    /// Whether it is given nothing for a while because of what it did to traffic.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::SeqCst)
    }

    /// Sets or ends that; the jury is the only caller.
    pub fn set_ejected(&self, ejection: Option<Ejection>) {
        let ejected = ejection.is_some();
        *super::lock(&self.rest.ejection) = ejection;
        self.ejected.store(ejected, Ordering::SeqCst);
        self.announce();
    }

    /// Since when, until when and why it is ejected, if it is.
    #[must_use]
    pub fn ejection(&self) -> Option<Ejection> {
        super::lock(&self.rest.ejection).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Name;

    const LIMITS: Limits = Limits { server_errors: 5, gateway_errors: 3, failures: 2 };

    fn watched(limits: Limits, room: usize) -> (Arc<State>, mpsc::Receiver<Suspect>) {
        let state = State::new(Name::new("pool"), Name::new("a"));
        let (tell, heard) = mpsc::channel(room);
        state.set_jury(Some(Arc::new(Jury { limits, tell })));
        (state, heard)
    }

    /// What the jury hears of these outcomes.
    fn heard(limits: Limits, outcomes: &[Outcome]) -> Option<Excess> {
        let (state, mut heard) = watched(limits, 1);
        outcomes.iter().for_each(|outcome| state.report(*outcome));
        heard.try_recv().ok().map(|suspect| suspect.seen)
    }

    #[test]
    fn each_kind_has_a_streak_of_its_own_that_anything_better_ends() {
        use Outcome::{Failure, Gateway, Ok, ServerError};
        assert_eq!(heard(LIMITS, &[Failure, Failure]), Some(Excess::Failures(2)));
        assert_eq!(heard(LIMITS, &[Failure, Ok, Failure]), None);
        assert_eq!(heard(LIMITS, &[Failure, ServerError, Failure]), None);
        assert_eq!(heard(LIMITS, &[Gateway, Gateway, Failure, Gateway]), Some(Excess::GatewayErrors(3)));
        assert_eq!(heard(LIMITS, &[Gateway, Gateway, ServerError, Gateway]), None);
        let mixed = [Gateway, Gateway, ServerError, Gateway, ServerError];
        assert_eq!(heard(LIMITS, &mixed), Some(Excess::ServerErrors(5)), "gateway errors are 5xx too");
        assert_eq!(heard(Limits { server_errors: 0, gateway_errors: 0, failures: 0 }, &vec![Failure; 100_000]), None);
        assert_eq!(heard(Limits { failures: 0, ..LIMITS }, &vec![Failure; 100_000]), None);
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        for (status, outcome) in [
            (200, Outcome::Ok),
            (404, Outcome::Ok),
            (499, Outcome::Ok),
            (500, Outcome::ServerError),
            (501, Outcome::ServerError),
            (502, Outcome::Gateway),
            (504, Outcome::Gateway),
            (505, Outcome::ServerError),
            (599, Outcome::ServerError),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }

    #[test]
    fn the_jury_hears_once_until_it_has_decided() {
        let (state, mut heard) = watched(LIMITS, 8);
        (0..20).for_each(|_| state.report(Outcome::Failure));
        assert!(heard.try_recv().is_ok() && heard.try_recv().is_err());
        state.count_anew();
        state.report(Outcome::Failure);
        assert!(heard.try_recv().is_err(), "the count starts anew");
        state.report(Outcome::Failure);
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn a_jury_that_has_no_time_is_told_again() {
        let (state, mut heard) = watched(LIMITS, 1);
        let (other, _) = watched(LIMITS, 1);
        let jury = state.rest.conduct.jury.load_full();
        other.set_jury(jury);
        (0..2).for_each(|_| state.report(Outcome::Failure));
        (0..2).for_each(|_| other.report(Outcome::Failure));
        assert!(Arc::ptr_eq(&heard.try_recv().unwrap().server, &state));
        other.report(Outcome::Failure);
        assert!(Arc::ptr_eq(&heard.try_recv().unwrap().server, &other));
    }

    #[test]
    fn nothing_is_counted_for_nobody() {
        let (state, mut heard) = watched(LIMITS, 1);
        state.report(Outcome::Failure);
        state.set_jury(None);
        (0..20).for_each(|_| state.report(Outcome::Failure));
        let (tell, mut later) = mpsc::channel(1);
        state.set_jury(Some(Arc::new(Jury { limits: LIMITS, tell })));
        state.report(Outcome::Failure);
        assert!(heard.try_recv().is_err() && later.try_recv().is_err());
    }

    #[test]
    fn no_outcome_is_lost_when_all_workers_report_at_once() {
        const EACH: u16 = 1000;
        let (state, mut heard) = watched(Limits { failures: 4 * EACH, ..LIMITS }, 1);
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| (0..EACH).for_each(|_| state.report(Outcome::Failure)))));
        });
        assert_eq!(heard.try_recv().unwrap().seen, Excess::Failures(4 * EACH));
    }
}
