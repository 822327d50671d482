//! What it is called when one side's bytes come to an end, and what is said of it.

use std::fmt::{Display, Formatter};

use crate::ending::Reason;
use crate::http2::Code;
use crate::message::line::Fault;
use crate::net::errno::is_disconnect;
use crate::proxy::http::body::BodyFault;
use crate::proxy::http::client::Gone;
use crate::proxy::http::server::NoHead;
use crate::relay::Broken;

/// What one side did, where a reason does not say it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Deed {
    /// What it sent is wrong, in these words.
    Wrong(&'static str),
    /// It gave the stream up.
    Reset(Code),
    /// It went away from the connection.
    Left(Code),
}

impl Display for Deed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wrong(words) => f.write_str(words),
            Self::Reset(code) => write!(f, "it reset the stream: {code:?}"),
            Self::Left(code) => write!(f, "it went away: {code:?}"),
        }
    }
}

/// What it is called when one side's bytes come to an end.
pub(super) struct Ends {
    reset: Reason,
    closed: Reason,
    truncated: Reason,
    garbled: Reason,
    malformed: Reason,
    /// Its trailers are more than they may be.
    too_large: Reason,
    /// HTTP/2: it broke the protocol, for which its stream was given up here.
    wrong: Reason,
}

pub(super) const CLIENT: Ends = Ends {
    reset: Reason::ClientReset,
    closed: Reason::ClientClosed,
    truncated: Reason::ClientTruncated,
    garbled: Reason::TlsError,
    malformed: Reason::BadRequest,
    too_large: Reason::HeaderTooLarge,
    // Who has the stream says what was wrong.
    wrong: Reason::ClientReset,
};
pub(super) const SERVER: Ends = Ends {
    reset: Reason::ServerReset,
    closed: Reason::ServerClosed,
    truncated: Reason::ServerTruncated,
    garbled: Reason::ServerTlsError,
    malformed: Reason::BadResponse,
    too_large: Reason::BadResponse,
    wrong: Reason::BadResponse,
};

impl Ends {
    pub(super) fn of_broken(&self, broken: Broken) -> Reason {
        match broken {
            Broken::System(errno) if is_disconnect(errno) => self.reset,
            Broken::System(_) => Reason::Internal,
            Broken::Truncated => self.truncated,
            Broken::Garbled => self.garbled,
        }
    }

    pub(super) fn of_fault(&self, fault: BodyFault) -> Reason {
        match fault {
            BodyFault::Broken(broken) => self.of_broken(broken),
            BodyFault::Cut => self.closed,
            BodyFault::Malformed(Fault::TooLarge | Fault::TooMany) => self.too_large,
            BodyFault::Malformed(Fault::Malformed(_) | Fault::FirstLineTooLong) => self.malformed,
            BodyFault::GivenUp(Deed::Wrong(_)) => self.wrong,
            BodyFault::GivenUp(Deed::Reset(_) | Deed::Left(_)) => self.reset,
        }
    }
}

pub(super) fn of_no_head(no_head: NoHead) -> Reason {
    match no_head {
        NoHead::Broken(broken) => SERVER.of_broken(broken),
        NoHead::Closed => Reason::ServerClosed,
        NoHead::Unseen(_) | NoHead::GivenUp(Deed::Reset(_) | Deed::Left(_)) => Reason::ServerReset,
        NoHead::GivenUp(Deed::Wrong(_)) | NoHead::Malformed(_) => Reason::BadResponse,
    }
}

pub(in crate::proxy::http) fn of_gone(gone: Gone) -> Reason {
    match gone {
        Gone::Reset => Reason::ClientReset,
        Gone::Closed => Reason::ClientClosed,
    }
}

pub(in crate::proxy::http) fn of_client_broken(broken: Broken) -> Reason {
    CLIENT.of_broken(broken)
}
