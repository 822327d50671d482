//! When a relayed connection has waited, or lived, long enough: arithmetic only.

use std::time::Duration;

use tokio::time::Instant;

/// How long a relayed connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte either way.
    pub idle: Duration,
    /// Without a byte once one side has finished.
    pub half_close: Duration,
    /// The moment at which it is too old, if there is one.
    pub expires: Option<Instant>,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Idle,
    HalfClose,
    MaxAge,
    Recall,
}

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    limits: Limits,
    last_moved: Instant,
}

impl Deadlines {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, last_moved: now }
    }

    /// Bytes moved, or a side finished.
    pub(super) fn moved(&mut self, now: Instant) {
        self.last_moved = now;
    }

    /// The next deadline and what it is for.
    pub(super) fn next(&self, half_closed: bool, recalled: Option<Instant>) -> (Instant, Due) {
        let quiet = if half_closed {
            (self.last_moved + self.limits.half_close, Due::HalfClose)
        } else {
            (self.last_moved + self.limits.idle, Due::Idle)
        };
        let age = self.limits.expires.map(|at| (at, Due::MaxAge));
        let recall = recalled.map(|at| (at, Due::Recall));
        // Ties go to the most deliberate cause, so that a log line names the operator's wish and not a coincidence.
        recall.into_iter().chain(age).chain([quiet]).min_by_key(|(at, _)| *at).unwrap_or(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines(expires: Option<Duration>) -> (Deadlines, Instant) {
        let now = Instant::now();
        let limits = Limits {
            idle: Duration::from_secs(300),
            half_close: Duration::from_secs(30),
            expires: expires.map(|after| now + after),
        };
        (Deadlines::new(limits, now), now)
    }

    #[test]
    fn the_idle_deadline_moves_with_the_traffic() {
        let (mut deadlines, now) = deadlines(None);
        assert_eq!(deadlines.next(false, None), (now + Duration::from_secs(300), Due::Idle));
        deadlines.moved(now + Duration::from_secs(10));
        assert_eq!(deadlines.next(false, None), (now + Duration::from_secs(310), Due::Idle));
    }

    #[test]
    fn a_half_closed_connection_has_the_shorter_deadline() {
        let (deadlines, now) = deadlines(None);
        assert_eq!(deadlines.next(true, None), (now + Duration::from_secs(30), Due::HalfClose));
    }

    #[test]
    fn the_nearest_deadline_counts_and_a_recall_wins_a_tie() {
        let (deadlines, now) = deadlines(Some(Duration::from_secs(5)));
        assert_eq!(deadlines.next(false, None), (now + Duration::from_secs(5), Due::MaxAge));
        assert_eq!(deadlines.next(false, Some(now)), (now, Due::Recall));
        assert_eq!(deadlines.next(false, Some(now + Duration::from_secs(5))).1, Due::Recall);
        assert_eq!(deadlines.next(false, Some(now + Duration::from_secs(6))).1, Due::MaxAge);
    }
}
