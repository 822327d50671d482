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
    /// Until when the server is to have spoken.
    pub first_byte: FirstByte,
}

/// Until when a server is to have spoken, for the meter to hear of it. It ends nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// It has spoken, or its time is over, or nobody asks.
    Settled,
    /// So many milliseconds after the client's first byte: a number that leaves every connection small.
    After(u32),
    /// By then.
    By(Instant),
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Idle,
    HalfClose,
    MaxAge,
    Recall,
    FirstByte,
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

    /// So many bytes moved to the server and to the client in all.
    pub(super) fn spoken(&mut self, up: u64, down: u64, now: Instant) {
        self.moved(now);
        match self.limits.first_byte {
            FirstByte::Settled => {}
            FirstByte::After(_) | FirstByte::By(_) if down > 0 => self.settle(),
            FirstByte::After(millis) if up > 0 => {
                self.limits.first_byte = FirstByte::By(now + Duration::from_millis(millis.into()));
            }
            FirstByte::After(_) | FirstByte::By(_) => {}
        }
    }

    /// Nobody waits for the server's first byte any more.
    pub(super) fn settle(&mut self) {
        self.limits.first_byte = FirstByte::Settled;
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
        let first_byte = match self.limits.first_byte {
            FirstByte::By(at) => Some((at, Due::FirstByte)),
            FirstByte::Settled | FirstByte::After(_) => None,
        };
        // Ties go to the most deliberate cause, so that a log line names the operator's wish and not a coincidence.
        recall.into_iter().chain(age).chain(first_byte).chain([quiet]).min_by_key(|(at, _)| *at).unwrap_or(quiet)
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
            first_byte: FirstByte::Settled,
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

    #[test]
    fn the_first_byte_of_a_server_is_waited_for_from_the_clients_on_and_once() {
        let (mut deadlines, now) = deadlines(None);
        let second = Duration::from_secs(1);
        deadlines.limits.first_byte = FirstByte::After(1000);
        assert_eq!(deadlines.next(false, None).1, Due::Idle, "the client has said nothing");
        deadlines.spoken(1, 0, now + second);
        deadlines.spoken(2, 0, now + second * 3 / 2);
        assert_eq!(deadlines.next(false, None), (now + 2 * second, Due::FirstByte));
        deadlines.spoken(2, 1, now + 2 * second);
        assert_eq!(deadlines.next(false, None).1, Due::Idle);
        deadlines.spoken(3, 1, now + 3 * second);
        assert_eq!(deadlines.next(false, None).1, Due::Idle);
        deadlines.limits.first_byte = FirstByte::By(now + 4 * second);
        assert_eq!(deadlines.next(false, None), (now + 4 * second, Due::FirstByte), "a server that speaks first");
        deadlines.settle();
        assert_eq!(deadlines.next(false, None).1, Due::Idle);
    }
}
