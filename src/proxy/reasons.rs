//! From what the parts report to the reason a connection ended for: one table, in one place.

use crate::ending::{Handshake, Reason};
use rustix::io::Errno;

use crate::net::dial::DialFailure;
use crate::net::errno::is_disconnect;
use crate::relay::{End, Report, Side};

/// The reason for a failed attempt to connect to a server.
pub(super) fn of_dial(failure: DialFailure) -> Reason {
    match failure {
        DialFailure::Refused => Reason::ConnectRefused,
        DialFailure::Timeout => Reason::ConnectTimeout,
        DialFailure::Unreachable => Reason::ConnectUnreachable,
        DialFailure::PortsExhausted => Reason::PortsExhausted,
        DialFailure::DescriptorsExhausted => Reason::DescriptorsExhausted,
        DialFailure::Other => Reason::Internal,
    }
}

/// The reason for a handshake with a client that failed.
pub(super) fn of_handshake(outcome: Handshake) -> Reason {
    match outcome {
        Handshake::Closed => Reason::ClientClosed,
        Handshake::Reset => Reason::ClientReset,
        Handshake::Timeout => Reason::HandshakeTimeout,
        Handshake::Internal => Reason::Internal,
        Handshake::Full
        | Handshake::Resumed
        | Handshake::NotTls
        | Handshake::UnknownName
        | Handshake::Incompatible
        | Handshake::NoCertificate
        | Handshake::BadCertificate
        | Handshake::RefusedByClient
        | Handshake::ProtocolError => Reason::TlsError,
    }
}

/// The reason for a read from a client that failed.
pub(super) fn of_read(errno: Errno) -> Reason {
    if is_disconnect(errno) { Reason::ClientReset } else { Reason::Internal }
}

/// The reason for a read from a server that failed.
pub(super) fn of_read_from_server(errno: Errno) -> Reason {
    if is_disconnect(errno) { Reason::ServerReset } else { Reason::Internal }
}

/// Whether the failure says something about the server, and not about this machine.
pub(super) fn is_servers_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectRefused | Reason::ConnectTimeout | Reason::ConnectUnreachable | Reason::ServerTlsError
    )
}

/// The reason for the end of a relay; `recalled` is why it was called back, if it was.
pub(super) fn of_relay(report: &Report, recalled: Option<Reason>) -> Reason {
    match report.end {
        // Whoever ends first with nothing said in its direction, or at all, has closed the connection on the other.
        End::Finished(Side::Client) if report.up == 0 && report.down == 0 => Reason::ClientClosed,
        End::Finished(Side::Server) if report.down == 0 => Reason::ServerClosed,
        End::Finished(_) => Reason::Done,
        End::Reset(Side::Client) => Reason::ClientReset,
        End::Reset(Side::Server) => Reason::ServerReset,
        End::Truncated(Side::Client) => Reason::ClientTruncated,
        End::Truncated(Side::Server) => Reason::ServerTruncated,
        End::Garbled(Side::Client) => Reason::TlsError,
        End::Garbled(Side::Server) => Reason::ServerTlsError,
        End::Closed(Side::Client) => Reason::ClientClosed,
        End::Closed(Side::Server) => Reason::ServerClosed,
        End::Idle => Reason::IdleTimeout,
        End::HalfClose => Reason::HalfCloseTimeout,
        End::MaxAge => Reason::MaxAge,
        End::Recalled => recalled.unwrap_or(Reason::Internal),
        End::Failed(..) => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(end: End, up: u64, down: u64) -> Reason {
        of_relay(&Report { end, up, down }, Some(Reason::ServerDown))
    }

    #[test]
    fn whoever_closes_without_a_word_is_named() {
        assert_eq!(reason(End::Finished(Side::Client), 0, 0), Reason::ClientClosed);
        assert_eq!(reason(End::Finished(Side::Server), 10, 0), Reason::ServerClosed);
        assert_eq!(reason(End::Finished(Side::Server), 0, 10), Reason::Done);
        assert_eq!(reason(End::Finished(Side::Client), 10, 0), Reason::Done);
    }

    #[test]
    fn a_recalled_connection_ends_for_the_reason_it_was_recalled_for() {
        assert_eq!(reason(End::Recalled, 1, 1), Reason::ServerDown);
    }

    #[test]
    fn only_what_a_server_can_help_is_held_against_it() {
        for failure in [DialFailure::PortsExhausted, DialFailure::DescriptorsExhausted, DialFailure::Other] {
            assert!(!is_servers_fault(of_dial(failure)), "{failure:?}");
        }
        for failure in [DialFailure::Refused, DialFailure::Timeout, DialFailure::Unreachable] {
            assert!(is_servers_fault(of_dial(failure)), "{failure:?}");
        }
    }
}
