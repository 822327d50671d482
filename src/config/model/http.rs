//! What was asked for of HTTP: of listeners that speak it, of their routes, and of the pools those lead to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Acl, Users};
pub use crate::health::HttpVersion;
use crate::net::address::Networks;
use crate::route::http::Match;
use crate::units::{Name, Weight};

pub use crate::pool::RetryBudget;
pub use crate::pool::sticky::{SameSite, Sticky};

/// What a listener that speaks HTTP is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Where requests go; what no route takes goes to the listener's pool, if it has one.
    pub routes: Vec<Route>,
    /// Whose word on whom they speak for is taken: what others say in `X-Forwarded-*` and `Forwarded` is replaced.
    pub trusted_proxies: Networks,
    /// What requests may be like.
    pub limits: HttpLimits,
    /// How long requests may take for what.
    pub timeouts: HttpTimeouts,
    /// What our own answers of a status show to those who accept HTML.
    pub error_pages: BTreeMap<u16, Arc<[u8]>>,
    /// Whether responses are compressed for those who accept that; a route may say otherwise.
    pub compress: bool,
}

/// What requests may be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a head, or of a header list in HTTP/2.
    pub header_bytes: usize,
    /// Fields of a head.
    pub header_fields: usize,
    /// Bytes of a request target.
    pub uri_bytes: usize,
    /// Bytes of a request's body; `u64::MAX` sets no limit.
    pub body_bytes: u64,
    /// Bytes a second that a client has to send of a body, on average and after a while; zero asks for none.
    pub min_rate: u64,
    /// Requests on one connection; `u32::MAX` sets no limit.
    pub requests: u32,
    /// Streams at once on one connection of HTTP/2.
    pub streams: u32,
    /// Whether header names may have underscores; fields whose names do are dropped otherwise, since many servers take
    /// `X_Name` and `X-Name` for the same.
    pub underscores: bool,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_bytes: 16 * 1024,
            header_fields: 128,
            uri_bytes: 8 * 1024,
            body_bytes: u64::MAX,
            min_rate: 64,
            requests: u32::MAX,
            streams: 100,
            underscores: false,
        }
    }
}

/// How long requests may take for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// From the first byte of a head to its end.
    pub request_header: Duration,
    /// From the first byte of a head to the last byte of the response; zero sets no limit.
    pub request: Duration,
    /// Between one request and the next.
    pub keep_alive: Duration,
    /// Without a byte of a request's body, before the response has begun.
    pub body_idle: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            request_header: Duration::from_secs(10),
            request: Duration::ZERO,
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
        }
    }
}

/// A route: which requests it is for, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which requests it is for.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
    /// What is changed of the target before it goes to a server.
    pub rewrite: Rewrite,
    /// What is changed of the request's header.
    pub request_headers: HeaderRules,
    /// What is changed of the response's header.
    pub response_headers: HeaderRules,
    /// From the request's head to the end of the response; zero sets no limit but the listener's.
    pub timeout: Duration,
    /// How often a request may be tried again; `None` is as often as its pool says.
    pub retries: Option<u8>,
    /// A pool that gets a copy of each request and whose answers nobody reads.
    pub mirror: Option<Name>,
    /// From where it may be asked.
    pub acl: Acl,
    /// Who may ask, by name and password.
    pub users: Option<Arc<Users>>,
    /// What one who is not known is told that the name and the password are for.
    pub realm: Box<str>,
    /// Requests at once; `u32::MAX` sets no limit.
    pub max_in_flight: u32,
    /// Whether responses are compressed for those who accept that.
    pub compress: bool,
}

/// What becomes of the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// They go to this pool, which stands in [`super::Model::pools`].
    Pool(Name),
    /// They go to one of these pools, drawn in proportion to the weights; never empty, not all weights are zero.
    Split(Vec<(Name, Weight)>),
    /// They are sent elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// Where to.
        location: Template,
    },
    /// They are answered here.
    Respond {
        /// Any final status.
        status: u16,
        /// What is answered.
        body: Arc<str>,
        /// What that is.
        content_type: Box<str>,
    },
}

/// A location that is put together from parts of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These very bytes.
    Text(Box<str>),
    /// `{scheme}`: `http` or `https`.
    Scheme,
    /// `{host}`: the host that was asked for, without its port.
    Host,
    /// `{path}`: the path as it was sent.
    Path,
    /// `{query}`: what follows the path, with its question mark, or nothing.
    Query,
}

/// What is changed of a target before it goes to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The host that the server is asked for in place of the client's.
    pub host: Option<Box<str>>,
    /// What replaces the part of the path that the route matched.
    pub prefix: Option<Box<str>>,
}

/// What is changed of a header: first names are removed, then fields are set in place of all of their name, then added.
/// Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Fields that are removed.
    pub remove: Vec<Box<str>>,
    /// Fields that replace all of their name.
    pub set: Vec<(Box<str>, Box<str>)>,
    /// Fields that are added to what is there.
    pub add: Vec<(Box<str>, Box<str>)>,
}

/// What is asked of a pool for requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPool {
    /// The version that is spoken to its servers.
    pub version: HttpVersion,
    /// How connections are kept for the next request.
    pub keep: Keep,
    /// How long a server may take to begin its response.
    pub timeouts: HttpPoolTimeouts,
    /// After what a request is tried again.
    pub retry_on: RetryOn,
    /// How much of the traffic may be retries.
    pub retry_budget: RetryBudget,
    /// How clients are kept with a server.
    pub sticky: Option<Arc<Sticky>>,
}

/// How connections are kept for the next request, by each worker and for each server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Connections without a request; zero keeps none.
    pub max_idle: usize,
    /// How long one is kept without a request.
    pub idle_timeout: Duration,
    /// Requests on one connection; `u32::MAX` sets no limit.
    pub max_requests: u32,
    /// How old a connection may be to be given another request; zero sets no limit.
    pub max_age: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self { max_idle: 64, idle_timeout: Duration::from_secs(30), max_requests: u32::MAX, max_age: Duration::ZERO }
    }
}

/// How long a server may take for what of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpPoolTimeouts {
    /// From the last byte of the request to the head of the response.
    pub response_header: Duration,
}

impl Default for HttpPoolTimeouts {
    fn default() -> Self {
        Self { response_header: Duration::from_secs(60) }
    }
}

/// After what a request is tried again, if nothing of it is lost by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// A connection could not be made.
    pub connect: bool,
    /// A connection ended before the response began, and the method is idempotent.
    pub reset: bool,
    /// The response did not begin in time, and the method is idempotent.
    pub timeout: bool,
    /// The response has one of these statuses, and the method is idempotent.
    pub statuses: Vec<u16>,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self { connect: true, reset: false, timeout: false, statuses: Vec::new() }
    }
}
