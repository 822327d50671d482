//! What the admin listener answers with: the routes, who may ask, and the words of the API.
//!
//! Every route reads. A web page must not read along through a browser that can reach the port, so requests that name
//! another host than this one (DNS rebinding) or come from another origin are refused before they are routed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::rfc3339::Rfc3339;
use super::{Standing, StandingNow, View, lock};
use crate::backend::{Duty, Ejection, Role, Server};
use crate::config::model;
use crate::metrics::{Catalogue, SourcePorts, Stock};
use crate::net::address::{Endpoint, ServerAddr};
use crate::pool::Rules;
use crate::snapshot::Snapshot;
use crate::units::{Name, format_duration};

/// What `/` answers with: every path there is.
const INDEX: &str = "\
portreeve

/metrics            what is counted, as Prometheus text
/healthz            whether the process answers
/readyz             whether it takes connections
/api/v1/status      version, generation, limits, workers, the last reload
/api/v1/listeners   listeners, with what they are bound to and what they carry
/api/v1/pools       pools, with the state of each server and what it carries
";

/// The text exposition format of Prometheus.
const METRICS_FORMAT: &str = "text/plain; version=0.0.4";

/// All routes, and the gate before them.
pub(super) fn router(view: Arc<View>) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readiness))
        .route("/api/v1/status", get(status))
        .route("/api/v1/listeners", get(listeners))
        .route("/api/v1/pools", get(pools))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing at this path; / lists what there is") })
        .method_not_allowed_fallback(|| async { refuse(StatusCode::METHOD_NOT_ALLOWED, "this path is for reading") })
        .layer(from_fn(gate))
        .with_state(view)
}

// The gate.

async fn gate(request: Request, next: Next) -> Response {
    let mut response = match admit(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, error)) => refuse(status, error),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether a request may be answered; if not, with which status and why.
fn admit(target: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let host = only(headers, &HOST).map_err(|()| (StatusCode::BAD_REQUEST, "there is more than one Host header"))?;
    // A client that names a host in the request line speaks to that one (RFC 9112 §3.2.2).
    let hosts = [host, target.authority().map(|authority| authority.as_str().as_bytes())];
    if !hosts.into_iter().flatten().all(is_no_name) {
        return Err((StatusCode::MISDIRECTED_REQUEST, "the Host header must be an IP address or localhost"));
    }
    match only(headers, &ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if host.is_some_and(|host| is_origin_of(origin, host)) => Ok(()),
        Ok(Some(_)) | Err(()) => Err((StatusCode::FORBIDDEN, "other origins may not read this")),
    }
}

/// The value of a header that may stand there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(()),
    }
}

/// Whether a host, with or without a port, is an IP address or `localhost`: nothing that somebody's DNS server could answer
/// for.
fn is_no_name(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) | None => host,
    };
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// Whether an `Origin` (RFC 6454 §7) is that of the pages this host serves.
fn is_origin_of(origin: &[u8], host: &[u8]) -> bool {
    origin.strip_prefix(b"http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// An answer that is a refusal.
fn refuse(status: StatusCode, error: &str) -> Response {
    #[derive(Serialize)]
    struct Refusal<'a> {
        error: &'a str,
    }
    (status, Json(Refusal { error })).into_response()
}

// The routes. Each loads the snapshot once.

async fn metrics(State(view): State<Arc<View>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_FORMAT)], view.metrics())
}

async fn readiness(State(view): State<Arc<View>>) -> impl IntoResponse {
    if view.is_draining() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ready") }
}

async fn status(State(view): State<Arc<View>>) -> Response {
    Json(Status::of(&view, &view.snapshot())).into_response()
}

async fn listeners(State(view): State<Arc<View>>) -> Response {
    let snapshot = view.snapshot();
    let bound = lock(&view.endpoints).clone();
    let endpoints = |name: &Name| bound.get(name).map_or(&[][..], Vec::as_slice);
    let all: Vec<_> = snapshot
        .model
        .listeners
        .iter()
        .filter_map(|listener| ListenerShown::of(listener, &snapshot, endpoints(&listener.name)))
        .collect();
    Json(all).into_response()
}

async fn pools(State(view): State<Arc<View>>) -> Response {
    let snapshot = view.snapshot();
    let sources = lock(&view.sources).clone();
    let of = |pool: &Name| sources.get(pool).map_or(&[][..], Vec::as_slice);
    let all: Vec<_> =
        snapshot.pools().map(|pool| PoolShown::of(&pool.pool, of(pool.pool.name()), &view.catalogue)).collect();
    Json(all).into_response()
}

// The words of the API.

#[derive(Serialize)]
struct Status {
    version: &'static str,
    generation: u64,
    started: Rfc3339,
    uptime_seconds: u64,
    draining: bool,
    connections_active: u32,
    limits: LimitsShown,
    workers: Vec<WorkerShown>,
    last_reload: Option<ReloadShown>,
}

#[derive(Serialize)]
struct LimitsShown {
    max_connections: u32,
    descriptors: u64,
    descriptors_reserved: u64,
    /// `null` before that was looked at.
    descriptors_free: Option<u32>,
    drain_timeout: String,
}

#[derive(Serialize)]
struct WorkerShown {
    worker: usize,
    connections_active: u32,
    handed_over: u64,
}

#[derive(Serialize)]
struct ReloadShown {
    at: Rfc3339,
    applied: bool,
    message: String,
}

impl Status {
    fn of(view: &View, snapshot: &Snapshot) -> Self {
        let workers = view.catalogue.workers().iter().enumerate();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            generation: snapshot.generation,
            started: Rfc3339(view.started.1),
            uptime_seconds: view.uptime().as_secs(),
            draining: view.is_draining(),
            connections_active: view.catalogue.active.get(),
            limits: LimitsShown {
                max_connections: snapshot.model.max_connections,
                descriptors: snapshot.model.descriptors.limit,
                descriptors_reserved: snapshot.model.descriptors.reserve,
                descriptors_free: view.catalogue.descriptors().map(|stock| stock.free),
                drain_timeout: format_duration(snapshot.drain_timeout()),
            },
            workers: workers
                .map(|(worker, metrics)| WorkerShown {
                    worker,
                    connections_active: metrics.active.get(),
                    handed_over: metrics.handed_over.load(Ordering::Relaxed),
                })
                .collect(),
            last_reload: lock(&view.last_reload).clone().map(|note| ReloadShown {
                at: Rfc3339(note.at),
                applied: note.applied,
                message: note.message,
            }),
        }
    }
}

#[derive(Serialize)]
struct ListenerShown<'a> {
    name: &'a Name,
    /// As it stands in the configuration.
    bind: Vec<String>,
    /// As it is bound.
    endpoints: &'a [Endpoint],
    /// `null` where what no route takes is refused.
    pool: Option<&'a Name>,
    protocol: &'static str,
    /// What is done with TLS: `terminate`, `sni` to route by the name without terminating, or `null`.
    tls: Option<&'static str>,
    max_connections: u32,
    timeouts: TimeoutsShown,
    connections_active: u32,
    connections_total: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct TimeoutsShown {
    handshake: String,
    idle: String,
    half_close: String,
    max_age: String,
}

impl<'a> ListenerShown<'a> {
    fn of(listener: &'a model::Listener, snapshot: &Snapshot, endpoints: &'a [Endpoint]) -> Option<Self> {
        let model::Listener {
            name,
            bind,
            protocol,
            proxy_protocol: _,
            front,
            routes: _,
            pool,
            max_connections,
            backlog: _,
            timeouts,
        } = listener;
        let model::ListenerTimeouts { handshake, idle, half_close, max_age } = timeouts;
        let metrics = &snapshot.listener(name)?.metrics;
        let (bytes_in, bytes_out) = metrics.bytes();
        Some(Self {
            name,
            bind: bind.iter().map(ToString::to_string).collect(),
            endpoints,
            pool: pool.as_ref(),
            protocol: match protocol {
                model::Protocol::Tcp => "tcp",
                model::Protocol::Http(_) => "http",
            },
            tls: match front {
                model::Front::Plain => None,
                model::Front::Sniff => Some("sni"),
                model::Front::Tls(_) => Some("terminate"),
            },
            max_connections: *max_connections,
            timeouts: TimeoutsShown {
                handshake: format_duration(*handshake),
                idle: format_duration(*idle),
                half_close: format_duration(*half_close),
                max_age: format_duration(*max_age),
            },
            connections_active: metrics.active.get(),
            connections_total: metrics.connections(),
            bytes_in,
            bytes_out,
        })
    }
}

#[derive(Serialize)]
struct PoolShown<'a> {
    name: &'a Name,
    balance: &'static str,
    servers_open: usize,
    /// Whether so few of them are fit that nobody asks whether they are.
    fail_open: bool,
    connections_active: u64,
    /// `null` where no limit is set.
    max_connections: Option<u32>,
    /// How many wait for a server with room, and how many may.
    queue: usize,
    queue_max: usize,
    servers: Vec<ServerShown<'a>>,
    /// What servers are found by.
    discovery: Vec<SourceShown<'a>>,
}

#[derive(Serialize)]
struct SourceShown<'a> {
    source: &'a str,
    /// Servers in the last answer that could be used.
    servers: usize,
    /// `null` before there was one.
    answered: Option<Rfc3339>,
    /// What is wrong since then, or `null`.
    error: Option<String>,
}

#[derive(Serialize)]
struct ServerShown<'a> {
    name: &'a Name,
    address: &'a Endpoint,
    weight: u16,
    priority: u8,
    backup: bool,
    zone: Option<&'a Name>,
    /// `null` where no limit is set.
    max_connections: Option<u32>,
    /// `up`, `down`, or `ejected` while it is up; above all of these `drain` or `maintenance`, which the operator says.
    state: &'static str,
    since: Rfc3339,
    /// `null` unless it is ejected.
    until: Option<Rfc3339>,
    reason: String,
    /// Whether it has only just come up and gets less than its share for that.
    warming: bool,
    /// `primary` or `replica`; `null` unless its check tells.
    role: Option<&'static str>,
    /// Whether another server of the pool is the primary, which alone is given connections.
    standby: bool,
    /// The percentage of its weight that it wants to be given.
    share: u8,
    connections_active: u32,
    connections_total: u64,
    connect_failures: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// What is left to connect to it from; nothing before that was looked at.
    source_ports: Vec<SourcePortsShown>,
}

#[derive(Serialize)]
struct SourcePortsShown {
    /// `null` where the kernel chooses it.
    source: Option<IpAddr>,
    free: u32,
    total: u32,
    /// At the present rate; `null` where they do not grow fewer.
    exhausted_in_seconds: Option<f64>,
}

impl<'a> PoolShown<'a> {
    fn of(pool: &'a crate::pool::Pool, sources: &'a [Arc<Standing>], catalogue: &Catalogue) -> Self {
        Self {
            name: pool.name(),
            balance: pool.policy().label(),
            servers_open: pool.open_servers(),
            fail_open: pool.fails_open(),
            connections_active: pool.servers().map(|server| u64::from(server.state.active())).sum(),
            max_connections: shown_limit(pool.rules().max_connections),
            queue: pool.state().waiting(),
            queue_max: pool.rules().queue.max,
            servers: pool.servers().map(|server| ServerShown::of(server, pool.rules(), catalogue)).collect(),
            discovery: sources.iter().map(|standing| SourceShown::of(standing)).collect(),
        }
    }
}

impl<'a> SourceShown<'a> {
    fn of(standing: &'a Standing) -> Self {
        let StandingNow { servers, answered, trouble } = lock(&standing.state).clone();
        Self { source: &standing.source, servers, answered: answered.map(Rfc3339), error: trouble }
    }
}

impl<'a> ServerShown<'a> {
    fn of(server: &'a Server, rules: &Rules, catalogue: &Catalogue) -> Self {
        let Server {
            state,
            address: ServerAddr(address),
            weight: _,
            full_weight,
            duty,
            duty_since,
            priority,
            backup,
            zone,
            max_connections,
            tls: _,
        } = server;
        let (health, metrics) = (state.health(), state.metrics());
        let (shown, since, until, reason) = match (duty, state.ejection().filter(|_| health.up)) {
            (Duty::Drain | Duty::Maintenance, _) => {
                (duty.label(), *duty_since, None, "the configuration says so".to_owned())
            }
            (Duty::Ready, Some(Ejection { since, until, reason })) => ("ejected", since, Some(until), reason),
            (Duty::Ready, None) => (if health.up { "up" } else { "down" }, health.since, None, health.reason),
        };
        let (bytes_in, bytes_out) = metrics.bytes();
        Self {
            name: &state.name,
            address,
            weight: full_weight.get(),
            priority: *priority,
            backup: *backup,
            zone: zone.as_ref(),
            max_connections: shown_limit(*max_connections),
            state: shown,
            since: Rfc3339(since),
            until: until.map(Rfc3339),
            reason,
            warming: state.is_warming(rules.slow_start),
            role: state.role().map(Role::label),
            standby: state.is_standby(),
            share: state.share().get(),
            connections_active: state.active(),
            connections_total: metrics.connections(),
            connect_failures: metrics.connect_failures(),
            bytes_in,
            bytes_out,
            source_ports: catalogue
                .source_ports(&state.pool, &state.name)
                .into_iter()
                .map(SourcePortsShown::of)
                .collect(),
        }
    }
}

impl SourcePortsShown {
    fn of(left: SourcePorts) -> Self {
        let SourcePorts { source, ports: Stock { free, total, lasts } } = left;
        Self { source, free, total, exhausted_in_seconds: lasts.map(|lasts| lasts.as_secs_f64()) }
    }
}

/// A limit, unless it is none.
fn shown_limit(limit: u32) -> Option<u32> {
    (limit != Rules::UNLIMITED).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for host in ["127.0.0.1", "127.0.0.1:9180", "[::1]", "[::1]:9180", "10.0.0.1:1", "localhost", "LocalHost:9180"]
        {
            assert!(is_no_name(host.as_bytes()), "{host} was refused");
        }
        let names = ["", ":", "evil.example", "evil.example:9180", "127.0.0.1.evil.example", "localhost.evil.example"];
        let tricks =
            ["127.0.0.1@evil.example", "evil@127.0.0.1", "::1", "[::1", "[127.0.0.1]", "1.2.3.4:x", "[]", "2130706433"];
        for host in names.into_iter().chain(tricks) {
            assert!(!is_no_name(host.as_bytes()), "{host} was let through");
        }
    }

    #[test]
    fn only_a_page_of_this_listener_may_read_from_a_browser() {
        let from = |origin, host| admit(&Uri::from_static("/"), &headers(&[(HOST, host), (ORIGIN, origin)]));
        assert_eq!(from("http://127.0.0.1:9180", "127.0.0.1:9180"), Ok(()));
        for origin in ["http://evil.example", "null", "https://127.0.0.1:9180", "http://127.0.0.1:9181", ""] {
            assert!(
                from(origin, "127.0.0.1:9180").is_err_and(|(status, _)| status == StatusCode::FORBIDDEN),
                "{origin}"
            );
        }
        assert!(admit(&Uri::from_static("/"), &headers(&[(ORIGIN, "http://127.0.0.1")])).is_err());
    }

    #[test]
    fn a_name_is_refused_wherever_it_stands() {
        let refused = |target, pairs: &[_]| admit(&Uri::from_static(target), &headers(pairs)).unwrap_err().0;
        assert_eq!(refused("/", &[(HOST, "evil.example")]), StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(refused("http://evil.example/", &[(HOST, "127.0.0.1")]), StatusCode::MISDIRECTED_REQUEST);
        let mut twice = headers(&[(HOST, "127.0.0.1")]);
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(admit(&Uri::from_static("/"), &twice).unwrap_err().0, StatusCode::BAD_REQUEST);
        assert_eq!(admit(&Uri::from_static("/"), &HeaderMap::new()), Ok(()));
    }
}
