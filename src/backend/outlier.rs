//! What requests to a server came to, counted on their path: how many went well and how many wrong, how many of those in a
//! row, and who hears when it is too many.
//!
//! Workers only count. Whether a server is ejected, and for how long, is decided elsewhere by whoever is told here, and
//! that one alone sets the flag.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::State;
use crate::ending::Reason;
use crate::metrics::ServerMetrics;

/// What a request to a server came to. Connections that are no requests have the first and the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, and not by an error of the server's.
    Ok,
    /// The answer was a 5xx that is none of [`Outcome::Gateway`].
    ServerError,
    /// The answer was 502, 503 or 504.
    Gateway,
    /// There was none, or no whole one, or not in time.
    Failure(Lapse),
}

/// Why there was no whole answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// The attempt ended before it was over, for this reason.
    Ended(Reason),
    /// The first byte was later than it may be.
    Late,
}

impl std::fmt::Display for Lapse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(reason) => write!(f, "{}", reason.label()),
            Self::Late => write!(f, "a late first byte"),
        }
    }
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

/// Outcomes of a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Those that went well.
    pub well: u64,
    /// All the others.
    pub wrong: u64,
}

impl Score {
    /// How many there are.
    #[must_use]
    pub const fn all(self) -> u64 {
        self.well.saturating_add(self.wrong)
    }

    /// The share that went well, from 0 to 1; 1 where there are none.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.all() == 0 { 1.0 } else { self.well as f64 / self.all() as f64 }
    }
}

/// Too much that went wrong: too many outcomes in a row, or more than elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Excess {
    /// This many answers were 5xx.
    ServerErrors(u16),
    /// This many answers were 502, 503 or 504.
    GatewayErrors(u16),
    /// This many attempts had no answer, the last for this reason.
    Failures(u16, Lapse),
    /// This much went well, and this share of what others of the pool did, on average.
    Rate(Score, f64),
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ServerErrors(count) => write!(f, "{count} responses in a row were errors of the server (5xx)"),
            Self::GatewayErrors(count) => write!(f, "{count} responses in a row were 502, 503 or 504"),
            Self::Failures(count, last) => write!(f, "{count} attempts in a row failed, the last with {last}"),
            Self::Rate(score, average) => {
                let [own, average] = [score.rate(), *average].map(|rate| rate * 100.0);
                write!(f, "{own:.1}% of {} attempts went well, against {average:.1}% in the pool", score.all())
            }
        }
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
            Outcome::Failure(_) => Self { failures: failures.saturating_add(1), ..self },
        }
    }

    /// What there is too much of, with this outcome as the last.
    fn excess(self, limits: Limits, last: Outcome) -> Option<Excess> {
        let is_full = |count: u16, limit: u16| limit > 0 && count >= limit;
        if let Outcome::Failure(lapse) = last
            && is_full(self.failures, limits.failures)
        {
            Some(Excess::Failures(self.failures, lapse))
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
#[derive(Debug)]
pub(super) struct Conduct {
    streaks: AtomicU64,
    /// Whether the jury was told and has not decided yet; nothing is counted meanwhile.
    told: AtomicBool,
    /// What of the outcomes that are counted in the metrics the jury has seen; it is the only one to touch this.
    seen: Mutex<Score>,
    jury: ArcSwapOption<Jury>,
}

impl Conduct {
    /// That of a server which is new, and whose metrics may still be those of an earlier one of its name.
    pub(super) fn new(metrics: &ServerMetrics) -> Self {
        Self {
            streaks: AtomicU64::new(0),
            told: AtomicBool::new(false),
            seen: Mutex::new(score(metrics)),
            jury: ArcSwapOption::empty(),
        }
    }
}

/// All that was counted.
fn score(metrics: &ServerMetrics) -> Score {
    let (well, wrong) = metrics.outcomes();
    Score { well, wrong }
}

impl State {
    /// Counts what a request came to, or an attempt to connect that led to none; once each, on the worker it names. Does
    /// next to nothing as long as all goes well.
    pub fn report(self: &Arc<Self>, worker: usize, outcome: Outcome) {
        let Conduct { streaks, told, seen: _, jury } = &self.rest.conduct;
        self.metrics().came_to(worker, outcome == Outcome::Ok);
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
        let Some(seen) = Streaks::unpack(before).with(outcome).excess(jury.limits, outcome) else {
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
        let Conduct { streaks, told: _, seen: _, jury: present } = &self.rest.conduct;
        let limits = |jury: &Option<Arc<Jury>>| jury.as_ref().map(|jury| jury.limits);
        let before = present.swap(jury.clone());
        if limits(&before) != limits(&jury) {
            streaks.store(0, Ordering::Relaxed);
        }
    }

    /// What was reported since this was last asked, or since the server is known. The jury is the only caller.
    #[must_use]
    pub fn score(&self) -> Score {
        let now = score(self.metrics());
        let before = std::mem::replace(&mut *super::lock(&self.rest.conduct.seen), now);
        Score { well: now.well.wrapping_sub(before.well), wrong: now.wrong.wrapping_sub(before.wrong) }
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

    /// Sets or ends that; the jury is the only caller. A server that is let back in is warming.
    pub fn set_ejected(&self, ejection: Option<Ejection>) {
        let ejected = ejection.is_some();
        if !ejected && self.is_ejected() {
            self.warm_up();
        }
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
    use crate::metrics::Catalogue;
    use crate::units::Name;

    const FAILURE: Outcome = Outcome::Failure(Lapse::Ended(Reason::ServerReset));
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
        outcomes.iter().for_each(|outcome| state.report(0, *outcome));
        heard.try_recv().ok().map(|suspect| suspect.seen)
    }

    #[test]
    fn each_kind_has_a_streak_of_its_own_that_anything_better_ends() {
        use Outcome::{Gateway, Ok, ServerError};
        let last = Lapse::Late;
        assert_eq!(heard(LIMITS, &[FAILURE, Outcome::Failure(last)]), Some(Excess::Failures(2, last)));
        assert_eq!(heard(LIMITS, &[FAILURE, Ok, FAILURE]), None);
        assert_eq!(heard(LIMITS, &[FAILURE, ServerError, FAILURE]), None);
        assert_eq!(heard(LIMITS, &[Gateway, Gateway, FAILURE, Gateway]), Some(Excess::GatewayErrors(3)));
        assert_eq!(heard(LIMITS, &[Gateway, Gateway, ServerError, Gateway]), None);
        let mixed = [Gateway, Gateway, ServerError, Gateway, ServerError];
        assert_eq!(heard(LIMITS, &mixed), Some(Excess::ServerErrors(5)), "gateway errors are 5xx too");
        assert_eq!(heard(Limits { server_errors: 0, gateway_errors: 0, failures: 0 }, &vec![FAILURE; 100_000]), None);
        assert_eq!(heard(Limits { failures: 0, ..LIMITS }, &vec![FAILURE; 100_000]), None);
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
        (0..20).for_each(|_| state.report(0, FAILURE));
        assert!(heard.try_recv().is_ok() && heard.try_recv().is_err());
        state.count_anew();
        state.report(0, FAILURE);
        assert!(heard.try_recv().is_err(), "the count starts anew");
        state.report(0, FAILURE);
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn a_jury_that_has_no_time_is_told_again() {
        let (state, mut heard) = watched(LIMITS, 1);
        let (other, _) = watched(LIMITS, 1);
        let jury = state.rest.conduct.jury.load_full();
        other.set_jury(jury);
        (0..2).for_each(|_| state.report(0, FAILURE));
        (0..2).for_each(|_| other.report(0, FAILURE));
        assert!(Arc::ptr_eq(&heard.try_recv().unwrap().server, &state));
        other.report(0, FAILURE);
        assert!(Arc::ptr_eq(&heard.try_recv().unwrap().server, &other));
    }

    #[test]
    fn nothing_is_counted_for_nobody() {
        let (state, mut heard) = watched(LIMITS, 1);
        state.report(0, FAILURE);
        state.set_jury(None);
        (0..20).for_each(|_| state.report(0, FAILURE));
        let (tell, mut later) = mpsc::channel(1);
        state.set_jury(Some(Arc::new(Jury { limits: LIMITS, tell })));
        state.report(0, FAILURE);
        assert!(heard.try_recv().is_err() && later.try_recv().is_err());
    }

    #[test]
    fn no_outcome_is_lost_when_all_workers_report_at_once() {
        const EACH: u16 = 1000;
        let (state, mut heard) = watched(Limits { failures: 4 * EACH, ..LIMITS }, 1);
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| (0..EACH).for_each(|_| state.report(0, FAILURE)))));
        });
        assert_eq!(heard.try_recv().unwrap().seen, Excess::Failures(4 * EACH, Lapse::Ended(Reason::ServerReset)));
    }

    #[test]
    fn what_was_seen_is_told_in_words() {
        let last = Lapse::Ended(Reason::ConnectRefused);
        let rate = Excess::Rate(Score { well: 30, wrong: 10 }, 0.9951);
        for (excess, words) in [
            (Excess::Failures(3, last), "3 attempts in a row failed, the last with connect_refused"),
            (Excess::Failures(3, Lapse::Late), "3 attempts in a row failed, the last with a late first byte"),
            (rate, "75.0% of 40 attempts went well, against 99.5% in the pool"),
        ] {
            assert_eq!(excess.to_string(), words);
        }
    }

    #[test]
    fn a_score_is_what_came_since_the_last_one_and_not_an_earlier_servers() {
        let catalogue = Catalogue::new(2);
        let state = |catalogue| State::counted(Name::new("pool"), Name::new("a"), catalogue);
        let first = state(&catalogue);
        first.report(0, Outcome::Ok);
        first.report(1, Outcome::Ok);
        first.report(1, Outcome::ServerError);
        assert_eq!(first.score(), Score { well: 2, wrong: 1 });
        assert_eq!(first.score(), Score::default());
        first.report(1, FAILURE);
        let second = state(&catalogue);
        assert_eq!(second.score(), Score::default());
        assert_eq!(first.score(), Score { well: 0, wrong: 1 });
        assert_eq!((Score::default().rate(), Score { well: 1, wrong: 3 }.rate()), (1.0, 0.25));
    }
}
