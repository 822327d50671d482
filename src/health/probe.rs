//! The kinds of probes. The enum is the registration: one file per kind, a variant, and an arm where it is carried out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::line::{self, Line};
use super::reach::Reach;
use super::{
    Active, AgentProbe, GrpcProbe, Handshake, HttpProbe, Script, agent, grpc, mysql, postgres, script, tcp, tls,
};
use crate::backend::Role;
use crate::net::address::ServerAddr;
use crate::net::proxy_protocol::Version;
use crate::units::{Percent, Secret};

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection is opened and closed again.
    Tcp,
    /// A TLS handshake is completed and the connection closed again.
    Tls,
    /// A request is sent, and the response has to be as expected.
    Http(Arc<HttpProbe>),
    /// The server is asked for its health as gRPC has it.
    Grpc(Arc<GrpcProbe>),
    /// Things are said, and the answers have to be as expected.
    SendExpect(Arc<Script>),
    /// PostgreSQL is asked whether it takes clients, and whether it is primary or replica.
    Postgres(Option<Arc<Account>>),
    /// MySQL or MariaDB is asked the same.
    MySql(Option<Arc<Account>>),
    /// Another program tells how the server does.
    Agent(Arc<AgentProbe>),
}

/// Who asks a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: Box<str>,
    /// The password, if there is one.
    pub password: Option<Secret>,
    /// The database that is asked for, if it matters.
    pub database: Option<Box<str>>,
}

impl Probe {
    /// Its word in the configuration and the API.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http(_) => "http",
            Self::Grpc(_) => "grpc",
            Self::SendExpect(_) => "send_expect",
            Self::Postgres(_) => "postgres",
            Self::MySql(_) => "mysql",
            Self::Agent(_) => "agent",
        }
    }

    /// What it offers by ALPN where it speaks TLS, unless that is for the pool to say.
    pub(super) fn offers(&self) -> Option<&'static [&'static [u8]]> {
        match self {
            Self::Http(probe) => Some(probe.version.offers()),
            Self::Grpc(_) => Some(grpc::OFFERS),
            Self::Postgres(_) => Some(postgres::OFFERS),
            Self::Tcp | Self::Tls | Self::SendExpect(_) | Self::MySql(_) | Self::Agent(_) => None,
        }
    }

    /// Whether those who pass say what they are.
    pub(super) const fn tells_role(&self) -> bool {
        matches!(self, Self::Postgres(Some(_)) | Self::MySql(Some(_)))
    }

    /// Whether those who pass say how much they want to be given.
    pub(super) const fn tells_share(&self) -> bool {
        matches!(self, Self::Agent(_))
    }

    /// Whether it keeps a connection to each server from one time to the next.
    #[must_use]
    pub fn keeps_connections(&self) -> bool {
        match self {
            Self::Http(probe) => probe.reuse,
            Self::Grpc(probe) => probe.reuse,
            Self::Tcp | Self::Tls | Self::SendExpect(_) | Self::Postgres(_) | Self::MySql(_) | Self::Agent(_) => false,
        }
    }
}

/// What was seen of a server that passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What it said, where that is worth telling.
    pub(super) words: String,
    /// What it says it is.
    pub(super) role: Option<Role>,
    /// How much of its weight it wants to be given.
    pub(super) share: Option<Percent>,
}

/// Why a probe did not pass, in the words of the log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The server did not do as it is to.
    Server(String),
    /// It was not asked: this machine lacks what that takes.
    Ours(String),
}

impl From<String> for Problem {
    fn from(words: String) -> Self {
        Self::Server(words)
    }
}

impl From<&str> for Problem {
    fn from(words: &str) -> Self {
        Self::Server(words.to_owned())
    }
}

/// A probe made ready for one server.
pub(super) struct Prober<'c> {
    probe: &'c Probe,
    reach: Reach,
    /// The connection that was left by the last probe and may serve the next.
    kept: Option<Line>,
}

impl<'c> Prober<'c> {
    pub(super) fn new(check: &'c Active, to: &ServerAddr, source: Option<IpAddr>, announce: Option<Version>) -> Self {
        let offering = |Handshake { settings, upgrades }: Handshake| match check.probe.offers() {
            Some(protocols) => Handshake { settings: Arc::new(settings.offering(protocols)), upgrades },
            None => Handshake { settings, upgrades },
        };
        let tls = check.tls.clone().map(offering);
        Self { probe: &check.probe, reach: Reach::new(to, source, announce, tls.as_ref()), kept: None }
    }

    /// Probes once.
    ///
    /// # Errors
    /// What went wrong.
    pub(super) async fn probe(&mut self, timeout: Duration) -> Result<Seen, Problem> {
        let (reach, until) = (&self.reach, Instant::now() + timeout);
        match self.probe {
            Probe::Tcp => tcp::probe(reach, until).await,
            Probe::Tls => tls::probe(reach, until).await,
            Probe::Http(asked) => Box::pin(line::probe(&**asked, reach, &mut self.kept, until)).await,
            Probe::Grpc(asked) => Box::pin(line::probe(&**asked, reach, &mut self.kept, until)).await,
            Probe::SendExpect(script) => Box::pin(script::probe(script, reach, until)).await,
            Probe::Postgres(account) => Box::pin(postgres::probe(account.as_deref(), reach, until)).await,
            Probe::MySql(account) => Box::pin(mysql::probe(account.as_deref(), reach, until)).await,
            Probe::Agent(agent) => Box::pin(agent::probe(agent, reach, until)).await,
        }
    }
}
