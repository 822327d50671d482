//! Whether a server is fit to be given connections: the settings of a check, here, and what carries them out; and when one
//! is ejected for what it does to traffic.

mod agent;
mod checker;
mod grpc;
mod http;
mod http2;
mod line;
mod mysql;
mod outlier;
mod postgres;
mod primary;
mod probe;
mod reach;
mod script;
mod streak;
mod success_rate;
mod tcp;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::address::{Endpoint, ServerAddr};
use crate::tls::ServerSettings;

pub use agent::AgentProbe;
pub use checker::{Checker, Found};
pub use grpc::GrpcProbe;
pub use http::{HttpProbe, HttpVersion};
pub use outlier::{Crowd, Outlier, Record, Verdict};
pub use primary::{Candidate, Election, Failback, elect};
pub use probe::{Account, Probe};
pub use script::{Script, Step};
pub use streak::{Change, Streak};
pub use success_rate::SuccessRate;

/// How the servers of a pool are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Not at all: they always count as healthy.
    None,
    /// By probes.
    Active(Active),
}

/// How servers are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// What a probe does.
    pub probe: Probe,
    /// When it does so and how that counts.
    pub timing: Timing,
    /// How to shake hands, where TLS is spoken.
    pub tls: Option<Handshake>,
    /// The port that is probed in place of the one that has the traffic.
    pub port: Option<u16>,
}

/// How a check comes to speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What is asked of servers. What is offered by ALPN is the probe's to say if it has anything to say.
    pub settings: Arc<ServerSettings>,
    /// Whether the connection begins in the clear, and TLS is asked for in the words of the protocol that is spoken.
    pub upgrades: bool,
}

/// When a check probes and how it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the end of one probe to the start of the next, give or take a tenth.
    pub interval: Duration,
    /// The same while a server is changing state: some results against the present state have been seen, but not enough.
    pub fast_interval: Duration,
    /// The same while a server is down and nothing speaks against that.
    pub down_interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How many probes in a row must pass before a server that is down counts as up.
    pub rise: u32,
    /// How many probes in a row must fail before a server that is up counts as down.
    pub fall: u32,
    /// What a server counts as that was never probed.
    pub initial: Initial,
}

/// What a server counts as before its first probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initial {
    /// Up, and it takes [`Timing::fall`] probes to change that, as ever.
    Up,
    /// Down, until its first probe, which decides alone.
    Down,
    /// Up, until its first probe, which decides alone.
    #[default]
    Check,
}

impl Initial {
    /// Whether a server that was never probed counts as up.
    #[must_use]
    pub const fn is_up(self) -> bool {
        match self {
            Self::Up | Self::Check => true,
            Self::Down => false,
        }
    }

    /// Whether the next probe of a server decides alone, so that neither a server that is dead when we start is given
    /// connections until the fall count is full, nor one that nobody has asked yet waits for its rise.
    #[must_use]
    pub const fn next_decides(self, up: bool, tested: bool) -> bool {
        match self {
            Self::Up => false,
            // Traffic may have taken it down before, and then it is no newcomer.
            Self::Check => up && !tested,
            Self::Down => !tested,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            down_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            initial: Initial::Check,
        }
    }
}

impl Default for Check {
    fn default() -> Self {
        Self::tcp(Timing::default())
    }
}

impl Check {
    /// A connection is opened and closed again.
    #[must_use]
    pub const fn tcp(timing: Timing) -> Self {
        Self::Active(Active { probe: Probe::Tcp, timing, tls: None, port: None })
    }

    /// How it probes, unless it never does.
    #[must_use]
    pub const fn active(&self) -> Option<&Active> {
        match self {
            Self::None => None,
            Self::Active(active) => Some(active),
        }
    }

    /// When it probes, unless it never does.
    #[must_use]
    pub fn timing(&self) -> Option<&Timing> {
        self.active().map(|active| &active.timing)
    }

    /// Whether a server that was never probed counts as up.
    #[must_use]
    pub fn starts_up(&self) -> bool {
        self.timing().is_none_or(|timing| timing.initial.is_up())
    }

    /// Whether it asks servers which of them is the primary.
    #[must_use]
    pub fn tells_roles(&self) -> bool {
        self.active().is_some_and(|active| active.probe.tells_role())
    }

    /// Its word in the configuration and the API.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.active().map_or("none", |active| active.probe.label())
    }
}

impl Active {
    /// Where a server with this address is probed, if it names no place of its own.
    #[must_use]
    pub fn place(&self, server: &ServerAddr) -> ServerAddr {
        match (&server.0, self.port) {
            (Endpoint::Tcp(address), Some(port)) => ServerAddr(Endpoint::Tcp(SocketAddr::new(address.ip(), port))),
            (Endpoint::Tcp(_) | Endpoint::Unix(_), _) => server.clone(),
        }
    }
}
