//! Whether a server is fit to be given connections: the settings of a check, here, and what carries them out; and when one
//! is ejected for what it does to traffic.

mod checker;
mod http;
mod outlier;
mod streak;
mod success_rate;
mod tcp;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use crate::tls::ServerSettings;

pub use checker::{Checker, Found};
pub use http::{HttpProbe, HttpVersion};
pub use outlier::{Crowd, Outlier, Record, Verdict};
pub use streak::{Change, Streak};
pub use success_rate::SuccessRate;

/// How the servers of a pool are checked. The enum is the registration: one file per kind that probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Servers are never checked and always count as healthy.
    None,
    /// A TCP connection is opened and closed again.
    Tcp(Timing),
    /// A TLS handshake is completed and the connection closed again.
    Tls(Timing, Arc<ServerSettings>),
    /// A request is sent, and the response has to be as expected.
    Http(Timing, Arc<HttpProbe>),
}

/// When a check probes and how it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the end of one probe to the start of the next, give or take a tenth.
    pub interval: Duration,
    /// The same while a server is changing state: some results against the present state have been seen, but not enough.
    pub fast_interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How many probes in a row must pass before a server that is down counts as up.
    pub rise: u32,
    /// How many probes in a row must fail before a server that is up counts as down.
    pub fall: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}

impl Default for Check {
    fn default() -> Self {
        Self::Tcp(Timing::default())
    }
}

impl Check {
    /// When it probes, unless it never does.
    #[must_use]
    pub fn timing(&self) -> Option<&Timing> {
        match self {
            Self::None => None,
            Self::Tcp(timing) | Self::Tls(timing, _) | Self::Http(timing, _) => Some(timing),
        }
    }

    /// Its word in the configuration and the API.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp(_) => "tcp",
            Self::Tls(..) => "tls",
            Self::Http(..) => "http",
        }
    }
}
