//! What traffic sees of its server, reported once: that it answered, that it did not, or that it did so too late; and how long
//! it took, where somebody goes by that.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::record::Both;
use crate::backend::{Lapse, Outcome, State};
use crate::ending::Reason;
use crate::metrics::ListenerMetrics;
use crate::relay::{Direction, End, Meter, Report, Side};

/// Counts bytes, and reports what came of a connection or a request as soon as that is known: at the server's first byte
/// unless somebody knows better before.
pub(super) struct Witness<'a> {
    both: Both<'a>,
    worker: usize,
    server: Option<&'a Arc<State>>,
    /// Whether it is for others to say what came of it: a first byte is no answer yet.
    waits: bool,
    has_reported: Cell<bool>,
    clock: Cell<Clock>,
}

/// How long a server takes, from what it was last sent before its first byte to that: what a client uploads does not count
/// against it.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// Nobody asks, or nobody has to ask any more.
    Stopped,
    /// It was sent nothing yet.
    Set,
    /// It was last sent something then.
    Runs(Instant),
}

impl<'a> Witness<'a> {
    pub(super) fn new(worker: usize, listener: Option<&'a ListenerMetrics>, server: Option<&'a Arc<State>>) -> Self {
        let both = Both::new(worker, listener, server);
        Self { both, worker, server, waits: false, has_reported: Cell::new(false), clock: Cell::new(Clock::Stopped) }
    }

    /// The same of a request: what came of it is known when its response is over.
    pub(super) fn of_request(self) -> Self {
        Self { waits: true, ..self }
    }

    /// The same, which tells how long the server of a connection takes, if that is `timed`. Of one that speaks first nobody
    /// knows since when it had something to say.
    pub(super) fn timing(self, timed: bool) -> Self {
        self.clock.set(if timed { Clock::Set } else { Clock::Stopped });
        self
    }

    fn tick(&self, direction: Direction) {
        match (self.clock.get(), direction) {
            (Clock::Stopped, _) => {}
            (Clock::Set | Clock::Runs(_), Direction::Up) => self.clock.set(Clock::Runs(Instant::now())),
            (Clock::Set, Direction::Down) => self.clock.set(Clock::Stopped),
            (Clock::Runs(since), Direction::Down) => {
                self.clock.set(Clock::Stopped);
                self.server.inspect(|server| server.answered(since.elapsed()));
            }
        }
    }

    /// It has not answered, and is not measured any more.
    fn unanswered(&self) {
        let waited = match self.clock.replace(Clock::Stopped) {
            Clock::Stopped => return,
            Clock::Set => Duration::ZERO,
            Clock::Runs(since) => since.elapsed(),
        };
        self.server.inspect(|server| server.left_unanswered(waited));
    }

    /// Reports, unless it has.
    pub(super) fn report(&self, outcome: Outcome) {
        if let (false, Some(server)) = (self.has_reported.replace(true), self.server) {
            server.report(self.worker, outcome);
        }
    }

    /// The relay is over: reports what that says of the server, if anything.
    pub(super) fn relayed(&self, report: &Report, server_speaks_first: bool) {
        if let Some(outcome) = of_relay(report, server_speaks_first) {
            if let Outcome::Failure(_) = outcome {
                self.unanswered();
            }
            self.report(outcome);
        }
    }
}

impl Meter for Witness<'_> {
    fn moved(&self, direction: Direction, bytes: usize) {
        if direction == Direction::Down && !self.waits && !self.has_reported.get() {
            self.report(Outcome::Ok);
        }
        self.tick(direction);
        self.both.moved(direction, bytes);
    }

    fn repeated(&self, bytes: usize) {
        self.tick(Direction::Up);
        self.both.repeated(bytes);
    }

    fn late(&self) {
        self.unanswered();
        self.report(Outcome::Failure(Lapse::Late));
    }
}

/// What the end of a relay says of a server that has not said a word. Whoever is asked something, or speaks first, owes an
/// answer; whoever is only connected to may close, but not reset. A client that has sent something and ends content is
/// content: some protocols have no answers.
fn of_relay(report: &Report, server_speaks_first: bool) -> Option<Outcome> {
    let failure = |reason| Some(Outcome::Failure(Lapse::Ended(reason)));
    let owes = server_speaks_first || report.up > 0;
    match report.end {
        _ if report.down > 0 => None,
        End::Reset(Side::Server) => failure(Reason::ServerReset),
        End::Garbled(Side::Server) => failure(Reason::ServerTlsError),
        End::Truncated(Side::Server) if owes => failure(Reason::ServerTruncated),
        End::Finished(Side::Server) | End::Closed(Side::Server) if owes => failure(Reason::ServerClosed),
        End::Finished(Side::Client) if report.up > 0 && !server_speaks_first => Some(Outcome::Ok),
        End::Finished(_)
        | End::Reset(Side::Client)
        | End::Truncated(_)
        | End::Garbled(Side::Client)
        | End::Closed(_)
        | End::Idle
        | End::HalfClose
        | End::MaxAge
        | End::Recalled
        | End::Failed(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// What is known of a server, in milliseconds, after a connection on which bytes moved so, each so much later; and how
    /// that ended, if it did.
    async fn known(timed: bool, moves: &[(u32, Direction)], end: Option<End>) -> Option<u64> {
        use crate::balance::{Policy, testing};
        let members = testing::equal(1);
        let pool = Policy::PeakEwma { decay: Duration::from_secs(10) }.build(&members, None);
        let watching = crate::backend::Watching { watcher: pool.watcher().unwrap(), place: 0 };
        let server = &members[0].state;
        server.set_watching(Some(watching));
        let witness = Witness::new(0, None, Some(server)).timing(timed);
        for (later, direction) in moves {
            tokio::time::advance(*later * MILLI).await;
            witness.moved(*direction, 1);
        }
        let moved = |way| moves.iter().filter(|(_, direction)| *direction == way).count() as u64;
        if let Some(end) = end {
            let report = Report { end, up: moved(Direction::Up), down: moved(Direction::Down) };
            witness.relayed(&report, false);
        }
        let known = server.latency().at(Instant::now(), Duration::from_secs(10))?;
        Some((known.nanoseconds / 1e6).round() as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_takes_as_long_as_from_what_it_was_last_sent_to_its_first_byte() {
        use Direction::{Down, Up};
        assert_eq!(known(true, &[(5, Up), (7, Down)], None).await, Some(7));
        assert_eq!(known(true, &[(5, Up), (500, Up), (7, Down)], None).await, Some(7), "an upload takes its time");
        assert_eq!(known(true, &[(5, Up), (7, Down), (1, Up), (9, Down)], None).await, Some(7), "its first byte alone");
        assert_eq!(known(true, &[(900, Down), (1, Up), (50, Down)], None).await, None, "it spoke first");
        assert_eq!(known(true, &[(5, Up)], None).await, None);
        assert_eq!(known(false, &[(5, Up), (7, Down)], None).await, None, "nobody goes by it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_without_an_answer_is_no_quick_one() {
        use Direction::{Down, Up};
        let end = |side| Some(End::Finished(side));
        assert_eq!(known(true, &[(5, Up)], end(Side::Server)).await, Some(1000));
        assert_eq!(known(true, &[(5, Up)], Some(End::Reset(Side::Server))).await, Some(1000));
        assert_eq!(known(true, &[(5, Up), (7, Down)], Some(End::Reset(Side::Server))).await, Some(7));
        assert_eq!(known(true, &[(5, Up)], end(Side::Client)).await, None, "its client wants no answer");
        assert_eq!(known(true, &[], end(Side::Server)).await, None, "nobody asked it");
        assert_eq!(known(false, &[(5, Up)], end(Side::Server)).await, None, "nobody goes by it");
    }

    #[test]
    fn a_server_that_ends_without_a_word_has_failed_if_it_owed_one() {
        let failed = |reason| Some(Outcome::Failure(Lapse::Ended(reason)));
        let (closed, reset) = (failed(Reason::ServerClosed), failed(Reason::ServerReset));
        for (end, up, down, expected, of_one_that_speaks_first) in [
            (End::Finished(Side::Server), 0, 0, None, closed),
            (End::Finished(Side::Server), 9, 0, closed, closed),
            (End::Finished(Side::Server), 9, 9, None, None),
            (End::Closed(Side::Server), 9, 0, closed, closed),
            (End::Reset(Side::Server), 0, 0, reset, reset),
            (End::Reset(Side::Server), 9, 9, None, None),
            (End::Finished(Side::Client), 0, 0, None, None),
            (End::Finished(Side::Client), 9, 0, Some(Outcome::Ok), None),
            (End::Reset(Side::Client), 9, 0, None, None),
            (End::Idle, 9, 0, None, None),
            (End::Recalled, 9, 0, None, None),
        ] {
            let report = Report { end, up, down };
            assert_eq!(of_relay(&report, false), expected, "{report:?}");
            assert_eq!(of_relay(&report, true), of_one_that_speaks_first, "{report:?}");
        }
    }
}
