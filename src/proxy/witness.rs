//! What traffic sees of its server, reported once: that it answered, that it did not, or that it did so too late.

use std::cell::Cell;
use std::sync::Arc;

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
    has_reported: Cell<bool>,
}

impl<'a> Witness<'a> {
    pub(super) fn new(worker: usize, listener: Option<&'a ListenerMetrics>, server: Option<&'a Arc<State>>) -> Self {
        Self { both: Both::new(worker, listener, server), worker, server, has_reported: Cell::new(false) }
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
            self.report(outcome);
        }
    }
}

impl Meter for Witness<'_> {
    fn moved(&self, direction: Direction, bytes: usize) {
        if direction == Direction::Down && !self.has_reported.get() {
            self.report(Outcome::Ok);
        }
        self.both.moved(direction, bytes);
    }

    fn late(&self) {
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
