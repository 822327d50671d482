//! What was asked for, complete and checked: no `Option` that means "unset", no name that leads nowhere.

pub mod http;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::limits::Descriptors;
use crate::backend::Duty;
use crate::balance::Policy;
use crate::discovery::{Source, Terms};
use crate::disk::Content;
use crate::health::{Check, Failback, Outlier};
pub use crate::logging::{AccessLog, LogFormat, LogLevel};
use crate::net::address::{BindAddr, Networks, ServerAddr};
use crate::net::proxy_protocol::Version;
use crate::pool::Rules;
use crate::route::HostPattern;
use crate::tls::{ServerSettings, Settings};
use crate::units::{Name, Weight};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// How many data threads serve connections.
    pub workers: usize,
    /// How many connections the process serves at once.
    pub max_connections: u32,
    /// What this process may open, and what of it is not for connections.
    pub descriptors: Descriptors,
    /// How long connections may go on once their listener, their server or the process is to end.
    pub drain_timeout: Duration,
    /// Whether a change of the file is a reload.
    pub watch: bool,
    /// The admin listener.
    pub admin: Admin,
    /// What is logged, and where to.
    pub log: Log,
    /// The listeners, in the order of the file.
    pub listeners: Vec<Listener>,
    /// The pools, in the order of the file.
    pub pools: Vec<Pool>,
    /// The other files it was made of: certificates, keys, lists.
    pub files: Files,
}

/// The files a configuration was made of beside its own, and what stood in each; nothing in one that could not be read.
pub type Files = BTreeMap<PathBuf, Option<Content>>;

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where metrics and the API are served.
    pub http: AdminHttp,
}

/// Where metrics and the API are served over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminHttp {
    /// Nowhere.
    Off,
    /// On this loopback address.
    On(SocketAddr),
}

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Where a line per connection goes.
    pub access: AccessLog,
    /// Whether the secrets of TLS connections are written to the file that `SSLKEYLOGFILE` names.
    pub insecure_key_log: bool,
}

/// A listener: where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its identity across reloads.
    pub name: Name,
    /// The addresses it listens on; never empty, none twice.
    pub bind: Vec<BindAddr>,
    /// Who has to begin with a PROXY header, if anybody has; others must not.
    pub proxy_protocol: Option<Networks>,
    /// What its clients speak.
    pub protocol: Protocol,
    /// What is done with the first bytes.
    pub front: Front,
    /// Which pools connections go to by the server name they ask for.
    pub routes: Vec<SniRoute>,
    /// The pool the others go to, and all if there are no routes; without one they are refused. Of HTTP it is the one for
    /// requests that no route takes. It stands in
    /// [`Model::pools`].
    pub pool: Option<Name>,
    /// How many connections it serves at once.
    pub max_connections: u32,
    /// How many connections may wait to be accepted, on each socket (listen(2); the kernel caps it at `somaxconn`).
    pub backlog: u32,
    /// How long its connections may take for what.
    pub timeouts: ListenerTimeouts,
}

/// What the clients of a listener speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Anything: a connection is bytes both ways.
    Tcp,
    /// HTTP: each request is sent on its own.
    Http(Arc<http::Http>),
}

/// What is done with the first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front {
    /// Nothing: they go to the server like all others.
    Plain,
    /// The ClientHello is read for its server name, and goes to the server like all else.
    Sniff,
    /// TLS ends here.
    Tls(Arc<Settings>),
}

/// Where connections go that ask for a server name, offer a protocol, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniRoute {
    /// The name; `None` is any, and none.
    pub host: Option<HostPattern>,
    /// The protocols, one of which is to be offered by ALPN; empty asks for none.
    pub alpn: Vec<Vec<u8>>,
    /// The pool; it stands in [`Model::pools`].
    pub pool: Name,
}

/// How long the connections of a listener may take for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From being accepted to having said where to: PROXY header, ClientHello, TLS handshake.
    pub handshake: Duration,
    /// Without a byte either way.
    pub idle: Duration,
    /// From the end of one direction to the end of the other, without a byte.
    pub half_close: Duration,
    /// In all; zero sets no limit.
    pub max_age: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            half_close: Duration::from_secs(30),
            max_age: Duration::ZERO,
        }
    }
}

/// A pool: servers that do the same work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its identity across reloads.
    pub name: Name,
    /// How a server is chosen.
    pub balance: Policy,
    /// The servers, no name twice: those of the file, and in a snapshot those found as well. Empty only if some are to be
    /// found.
    pub servers: Vec<Server>,
    /// Where further servers are found.
    pub discover: Vec<Discover>,
    /// How they are checked.
    pub check: Check,
    /// When one is ejected for what it does to traffic, if that happens at all.
    pub outlier: Option<Outlier>,
    /// How long its servers may take for what.
    pub timeouts: PoolTimeouts,
    /// Local addresses to connect from, used in turn; empty leaves the choice to the kernel.
    pub source: Vec<IpAddr>,
    /// How many further servers are tried when connecting to the first fails.
    pub retries: u8,
    /// What happens to established connections of a server that goes down.
    pub on_down: OnDown,
    /// How it has a primary that alone is given connections, if it has one.
    pub primary: Option<PrimaryPool>,
    /// Which servers are asked first, when they are full, and who waits then.
    pub rules: Rules,
    /// How many requests each server may have at once.
    pub max_requests: u32,
    /// The version of the PROXY header that its servers are sent, if they are.
    pub announce: Option<Version>,
    /// What is asked of its servers if TLS is spoken to them.
    pub tls: Option<Arc<ServerSettings>>,
    /// What is asked of it for requests.
    pub http: http::HttpPool,
}

/// How one of the servers of a pool is its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryPool {
    /// Whether the check asks the servers which it is; else it is the first that is up.
    pub by_roles: bool,
    /// When one that only stands in hands back; where the check asks, the servers decide.
    pub failback: Failback,
}

/// How long the servers of a pool may take for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolTimeouts {
    /// To accept a connection, and to shake hands on it where TLS is spoken.
    pub connect: Duration,
}

impl Default for PoolTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5) }
    }
}

/// What happens to established connections of a server that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They stay for as long as they last.
    #[default]
    Keep,
    /// They may finish within the drain timeout and are reset then.
    Drain,
    /// They are reset at once.
    Reset,
}

/// A server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its identity across reloads, within its pool: its address as written when it names none.
    pub name: Name,
    /// Where it listens.
    pub address: ServerAddr,
    /// Its share of the traffic.
    pub weight: Weight,
    /// Its level: the servers of the first are asked first.
    pub priority: u8,
    /// Whether it is in a level of its own, behind all others.
    pub backup: bool,
    /// Where it stands.
    pub zone: Option<Name>,
    /// How many connections it is given at once, at most.
    pub max_connections: u32,
    /// Whether the operator lets it serve.
    pub duty: Duty,
    /// Where it is checked, if not where its pool's check says.
    pub check_address: Option<ServerAddr>,
}

/// Where further servers of a pool are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    /// What is asked.
    pub source: Source,
    /// When, and what of the answers is taken.
    pub terms: Terms,
    /// What a server found there is like where the source does not say: all but its name and its address.
    pub like: Server,
    /// What its name begins with; what follows is its address. Without one the name is its address.
    pub prefix: Option<Name>,
}

impl Server {
    /// The value of [`Server::max_connections`] that sets no limit.
    pub const UNLIMITED: u32 = Rules::UNLIMITED;
    /// The last level that it can be put in, before that of backup servers.
    pub const LAST_PRIORITY: u8 = 9;
}

impl Model {
    /// The default of `drain_timeout`.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
    /// How long before a certificate runs out everybody is warned of it.
    pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
    /// The default of a listener's `backlog`.
    pub const BACKLOG: u32 = 4096;
    /// The default of a pool's `retries`.
    pub const RETRIES: u8 = 2;
    /// The most `retries` a pool may have.
    pub const MOST_RETRIES: u8 = 15;
}
