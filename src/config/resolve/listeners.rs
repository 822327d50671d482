//! Listeners: where they listen, and that the pools they send connections to exist.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::overlaps::{Claim, Claims};
use super::{http, tls};
use crate::config::model::http::HttpTimeouts;
use crate::config::model::{Front, Listener, ListenerTimeouts, Model, Protocol, SniRoute};
use crate::config::problem::{Findings, quoted};
use crate::config::raw::{RawListener, RawListenerTimeouts, RawPool, Spoken};
use crate::config::raw_http::RawRoute;
use crate::config::raw_tls::{RawProxyProtocol, RawSniRoute, Texts};
use crate::config::read::{At, Named};
use crate::net::address::{BindAddr, Networks};
use crate::units::{Name, format_duration};

/// Checks that every listener's pool is there, every pool is some listener's, and there are listeners at all.
pub(super) fn check_references(
    listeners: &[Named<'_, RawListener<'_>>],
    pools: &[Named<'_, RawPool<'_>>],
    findings: &mut Findings,
) {
    if !findings.complete() {
        return;
    }
    if listeners.is_empty() {
        findings
            .error(None, "there is no listener, so nothing would be served")
            .expected("a table such as [listeners.web] with `bind` and `pool`");
        return;
    }
    let defined: HashSet<&str> = pools.iter().map(|pool| pool.name.value).collect();
    let wanted = || listeners.iter().flat_map(|listener| references(listener.body.as_ref()));
    for At { value: name, span } in wanted().flatten().filter(|pool| !defined.contains(pool.value)) {
        findings
            .error(span.clone(), &format!("there is no pool {}", quoted(name)))
            .expected(&format!("the name of a pool, each of which is a table such as [pools.{name}]"))
            .did_you_mean(name, pools.iter().map(|pool| pool.name.value));
    }
    // A listener whose pool could not be read may be the one that uses it.
    if wanted().any(|pool| pool.is_none()) {
        return;
    }
    let used: HashSet<&str> = wanted().flatten().map(|pool| pool.value).collect();
    for pool in pools.iter().filter(|pool| !used.contains(pool.name.value)) {
        let message = format!("no listener uses the pool {}", quoted(pool.name.value));
        findings.warning(pool.name.span.clone(), &message);
    }
}

/// The pools a listener sends connections to, with `None` for one that could not be read.
pub(super) fn references<'r, 't>(listener: Option<&'r RawListener<'t>>) -> Vec<Option<&'r At<&'t str>>> {
    let Some(listener) = listener else { return vec![None] };
    let routes = listener.sni.iter().flat_map(|routes| &routes.value);
    let routed = routes.map(|route| route.as_ref()?.pool.as_ref());
    let requests = listener.http.routes.iter().flat_map(|routes| &routes.value);
    let requested = requests.flat_map(|route| route.as_ref().map_or_else(|| vec![None], RawRoute::pools));
    // Without routes there has to be a pool of its own.
    let pool_only = listener.sni.is_none() && listener.http.routes.is_none();
    let own = listener.pool.as_ref().map(Some).or_else(|| pool_only.then_some(None));
    own.into_iter().chain(routed).chain(requested).collect()
}

/// The listener, unless what cannot be done without is missing.
pub(super) fn resolve(
    raw: Named<'_, RawListener<'_>>,
    base: &Path,
    claims: &mut Claims,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Listener> {
    let Named { name, body } = raw;
    let RawListener { bind, protocol, pool, max_connections, backlog, timeouts, proxy_protocol, sni, tls, http } =
        body?;
    let owner: Arc<str> = Arc::from(format!("listener {}", quoted(name.value)));
    let bind = bind.map(|bind| addresses(bind, base, &owner, claims, findings));
    let (timeouts, request_timeouts) =
        timeouts.map(|raw| resolve_timeouts(raw, protocol, findings)).unwrap_or_default();
    let proxy_protocol = proxy_protocol.and_then(|RawProxyProtocol { from }| Some(resolve_networks(from?, findings)));
    let routes = sni.map(|routes| resolve_routes(routes, findings)).unwrap_or_default();
    let front = match tls {
        Some(tls) => tls::resolve(tls, protocol, files, findings).map(Front::Tls),
        None => Some(if routes.is_empty() { Front::Plain } else { Front::Sniff }),
    };
    let protocol = match protocol {
        Some(Spoken::Tcp) => Protocol::Tcp,
        // Of one that could not be read, what is wrong with the rest is told as well.
        Some(Spoken::Http) | None => Protocol::Http(http::resolve(http, request_timeouts, files, findings)),
    };
    let name = super::name(&name, "a name for a listener", findings);
    Some(Listener {
        name: name?,
        bind: bind?,
        protocol,
        proxy_protocol,
        front: front?,
        routes,
        pool: pool.map(|pool| Name::new(pool.value)),
        // The process's own limit is applied to every listener once it is known.
        max_connections: max_connections.map_or(u32::MAX, |At { value, .. }| value),
        backlog: backlog.map_or(Model::BACKLOG, |At { value, .. }| value),
        timeouts,
    })
}

fn resolve_networks(from: Texts<'_>, findings: &mut Findings) -> Networks {
    if from.value.is_empty() {
        findings.error(from.span.clone(), "`from` cannot be empty").expected("the networks of the proxies in front");
    }
    super::networks(from, findings)
}

fn resolve_routes(raw: At<Vec<Option<RawSniRoute<'_>>>>, findings: &mut Findings) -> Vec<SniRoute> {
    if raw.value.is_empty() {
        findings.error(raw.span, "`sni` cannot be empty").expected("at least one table with `host` and `pool`");
    }
    let mut known = HashSet::new();
    let mut routes = Vec::new();
    for RawSniRoute { host: name, alpn, pool } in raw.value.into_iter().flatten() {
        let host = match &name {
            None => None,
            Some(name) => match tls::host(name, findings) {
                Some(host) => Some(host),
                None => continue,
            },
        };
        let span = name.as_ref().map(|name| name.span.clone()).or_else(|| alpn.as_ref().map(|alpn| alpn.span.clone()));
        let alpn = alpn.map(|alpn| tls::protocols(alpn, findings)).unwrap_or_default();
        if !known.insert((host.clone(), alpn.clone())) {
            findings.error(span, "an earlier route of this listener is for the same").expected("each route once");
        }
        routes.extend(pool.map(|pool| SniRoute { host, alpn, pool: Name::new(pool.value) }));
    }
    routes
}

fn addresses(
    bind: At<Vec<Option<At<String>>>>,
    base: &Path,
    owner: &Arc<str>,
    claims: &mut Claims,
    findings: &mut Findings,
) -> Vec<BindAddr> {
    if bind.value.is_empty() {
        findings.error(bind.span, "`bind` cannot be empty").expected("at least one address to listen on");
    }
    let mut all = Vec::new();
    for At { value: text, span } in bind.value.into_iter().flatten() {
        match BindAddr::parse(&text, base) {
            Err(why) => {
                findings.refused(span, &text, "an address to listen on", &why);
            }
            Ok(addresses) => {
                // Of a range that overlaps, one address says it all.
                let overlap = addresses.iter().find_map(|address| {
                    let claim = Claim { owner: Arc::clone(owner), address: address.clone() };
                    claims.add(claim).err().map(|earlier| (address, earlier))
                });
                if let Some((address, Claim { owner, address: taken })) = overlap {
                    findings.error(span, &format!("{address} is taken: {owner} listens on {taken}"));
                }
                all.extend(addresses);
            }
        }
    }
    all
}

fn resolve_timeouts(
    raw: RawListenerTimeouts,
    protocol: Option<Spoken>,
    findings: &mut Findings,
) -> (ListenerTimeouts, HttpTimeouts) {
    let RawListenerTimeouts { handshake, idle, half_close, max_age, http } = raw;
    if protocol == Some(Spoken::Tcp) {
        http::refuse_timeouts(&http, findings);
    }
    let default = ListenerTimeouts::default();
    let idle = idle.map_or(default.idle, |At { value, .. }| value);
    // Only what somebody wrote is worth a warning, not a default that is longer than a short `idle`.
    if let Some(At { value, span }) = half_close.as_ref().filter(|half_close| half_close.value > idle) {
        let [value, idle] = [*value, idle].map(format_duration);
        let message = format!("`half_close` ({value}) is longer than `idle` ({idle}), which ends the connection first");
        findings.warning(span.clone(), &message);
    }
    let timeouts = ListenerTimeouts {
        handshake: handshake.map_or(default.handshake, |At { value, .. }| value),
        idle,
        half_close: half_close.map_or(default.half_close, |At { value, .. }| value),
        max_age: max_age.map_or(default.max_age, |At { value, .. }: At<Duration>| value),
    };
    (timeouts, http::resolve_timeouts(http))
}
