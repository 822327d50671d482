//! Which servers are ejected for what they do to traffic, and for how long. Pure: who counts is a server's
//! [`State`](crate::backend::State), who acts is told what to do here.

use std::time::Duration;

use tokio::time::Instant;

use super::success_rate::SuccessRate;
use crate::backend::Limits;
use crate::units::Percent;

/// When a server of a pool is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// How much in a row is too much.
    pub limits: Limits,
    /// When it is too much compared with others, if they are compared.
    pub success_rate: Option<SuccessRate>,
    /// How long a server may take to its first byte before that counts as no answer; zero sets no limit.
    pub first_byte: Duration,
    /// Whether servers speak first where traffic is not HTTP, so that one which says nothing owes something.
    pub server_speaks_first: bool,
    /// How long the first ejection lasts; the next ones last longer by as much each.
    pub ejection: Duration,
    /// How long one lasts at most.
    pub max_ejection: Duration,
    /// How many of the servers are ejected at a time, at most; one always may be if there are others.
    pub max_ejected: Percent,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            limits: Limits { server_errors: 5, gateway_errors: 3, failures: 3 },
            success_rate: Some(SuccessRate::default()),
            first_byte: Duration::ZERO,
            server_speaks_first: false,
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: Percent::HALF,
        }
    }
}

/// The servers of a pool, when one of them did badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// How many there are.
    pub servers: usize,
    /// How many of them are ejected.
    pub ejected: usize,
    /// How many others could be given what this one is not.
    pub others_fit: usize,
}

/// Whether a server is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Eject,
    /// It stays, since as many are ejected as may be.
    TooMany,
    /// It stays, since there would be none left.
    LastOne,
}

impl Outlier {
    /// Whether one more server of the crowd is ejected.
    #[must_use]
    pub fn judge(&self, crowd: Crowd) -> Verdict {
        if crowd.others_fit == 0 {
            Verdict::LastOne
        } else if crowd.ejected >= self.max_ejected.of(crowd.servers).max(1) {
            Verdict::TooMany
        } else {
            Verdict::Eject
        }
    }

    /// How long an ejection that begins now lasts, which the record remembers.
    pub fn sentence(&self, record: &mut Record, now: Instant) -> Duration {
        let times = record.times(self.ejection, now).saturating_add(1);
        let length = self.ejection.saturating_mul(times).min(self.max_ejection);
        *record = Record { times, ended: Some(now + length) };
        length
    }
}

/// What is remembered of a server's ejections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    times: u32,
    /// When the last one ended, or will.
    ended: Option<Instant>,
}

impl Record {
    /// How many ejections count against it: one is forgotten for each `ejection` of time that passed since the last.
    #[must_use]
    pub fn times(&self, ejection: Duration, now: Instant) -> u32 {
        let good = self.ended.map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended));
        let forgotten = good.as_nanos().checked_div(ejection.as_nanos()).unwrap_or(0);
        self.times.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// The last ejection is over.
    pub fn end(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_ejection_is_longer_than_the_one_before_until_time_passes_without_one() {
        let outlier = Outlier::default();
        let (mut record, mut now) = (Record::default(), Instant::now());
        for expected in [30, 60, 90, 120] {
            let length = outlier.sentence(&mut record, now);
            assert_eq!(length, expected * SECOND);
            now += length + 29 * SECOND;
        }
        // Of four, one is forgotten every thirty seconds.
        now += SECOND;
        assert_eq!(record.times(outlier.ejection, now), 3);
        now += 60 * SECOND;
        assert_eq!(outlier.sentence(&mut record, now), 60 * SECOND);
        now += Duration::from_secs(1_000_000);
        assert_eq!(outlier.sentence(&mut record, now), 30 * SECOND);
    }

    #[test]
    fn no_ejection_is_longer_than_the_longest_may_be() {
        let outlier = Outlier::default();
        let (mut record, mut now) = (Record::default(), Instant::now());
        for _ in 0..50 {
            now += outlier.sentence(&mut record, now);
        }
        assert_eq!(outlier.sentence(&mut record, now), outlier.max_ejection);
    }

    #[test]
    fn an_ejection_that_ends_early_is_forgotten_earlier() {
        let outlier = Outlier::default();
        let (mut record, now) = (Record::default(), Instant::now());
        outlier.sentence(&mut record, now);
        record.end(now + SECOND);
        assert_eq!(record.times(outlier.ejection, now + 30 * SECOND), 1);
        assert_eq!(record.times(outlier.ejection, now + 31 * SECOND), 0);
    }

    #[test]
    fn a_share_of_a_pool_is_ejected_at_most_and_never_the_last_one() {
        let judge = |percent, servers, ejected, others_fit| {
            let max_ejected = Percent::new(percent).unwrap();
            Outlier { max_ejected, ..Outlier::default() }.judge(Crowd { servers, ejected, others_fit })
        };
        assert_eq!(judge(50, 1, 0, 0), Verdict::LastOne);
        assert_eq!(judge(50, 2, 0, 1), Verdict::Eject);
        assert_eq!(judge(50, 3, 1, 1), Verdict::TooMany);
        assert_eq!(judge(50, 4, 1, 2), Verdict::Eject);
        assert_eq!(judge(0, 2, 0, 1), Verdict::Eject, "one always may be");
        assert_eq!(judge(100, 3, 2, 0), Verdict::LastOne);
        assert_eq!(judge(100, 3, 0, 0), Verdict::LastOne, "the others are down");
    }
}
