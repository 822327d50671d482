//! Pools: their servers, how those are checked, and where they are connected to from.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::files::Files;
use super::{checks, health, http, tls};
use crate::config::model::{Model, Pool, PoolTimeouts, Server};
use crate::config::problem::{Findings, Span, quoted};
use crate::config::raw::{RawPool, RawPoolTimeouts, RawServer};
use crate::config::read::{At, Named};
use crate::net::address::{Endpoint, ServerAddr};
use crate::units::{Name, Weight};

/// The pool, unless what cannot be done without is missing.
pub(super) fn resolve(
    raw: Named<'_, RawPool<'_>>,
    base: &Path,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Pool> {
    let Named { name, body } = raw;
    let RawPool { balance, servers, check, outlier, timeouts, source, retries, on_down, proxy_protocol, tls, http } =
        body?;
    let span = servers.as_ref().map(|servers| servers.span.clone()).unwrap_or_default();
    let servers = servers.map(|servers| resolve_servers(servers, base, findings));
    let (timeouts, response_header) = timeouts.map(resolve_timeouts).unwrap_or_default();
    let http = http::resolve_pool(http, response_header, tls.is_some(), findings);
    let tls = match tls {
        None => None,
        Some(tls) => {
            let servers = servers.iter().flatten().map(|server| (server.address.clone(), span.clone()));
            Some(tls::resolve_pool(tls, &servers.collect::<Vec<_>>(), http.version, files, findings)?)
        }
    };
    let context =
        checks::Context { tls: tls.as_ref(), version: http.version, servers: servers.as_deref().unwrap_or_default() };
    let check = checks::resolve(check.unwrap_or_default(), &context, files, findings);
    let source = source.map(|source| resolve_source(source, servers.as_deref().unwrap_or_default(), findings));
    let name = super::name(&name, "a name for a pool", findings);
    Some(Pool {
        name: name?,
        balance: balance.map(|At { value, .. }| value).unwrap_or_default(),
        servers: servers?,
        check,
        outlier: outlier.and_then(|outlier| health::resolve_outlier(outlier, findings)),
        timeouts,
        source: source.unwrap_or_default(),
        retries: retries.map_or(Model::RETRIES, |At { value, .. }| value),
        on_down: on_down.map(|At { value, .. }| value).unwrap_or_default(),
        announce: proxy_protocol.map(|At { value, .. }| value),
        tls,
        http,
    })
}

fn resolve_servers(raw: At<Vec<Option<RawServer<'_>>>>, base: &Path, findings: &mut Findings) -> Vec<Server> {
    let At { value: entries, span } = raw;
    if entries.is_empty() {
        findings.error(span, "`servers` cannot be empty").expected("at least one server");
        return Vec::new();
    }
    let written = entries.len();
    let mut known = Known::default();
    let servers: Vec<Server> =
        entries.into_iter().flatten().filter_map(|server| resolve_server(server, base, &mut known, findings)).collect();
    // One that could not be read may be the one that makes the difference.
    if servers.len() == written {
        check_that_some_serve(&servers, span, findings);
    }
    servers
}

/// What the servers of a pool are called and where they are, so far.
#[derive(Default)]
struct Known {
    names: HashSet<Name>,
    addresses: HashMap<ServerAddr, Name>,
}

fn resolve_server(raw: RawServer<'_>, base: &Path, known: &mut Known, findings: &mut Findings) -> Option<Server> {
    let RawServer { name, address, weight, backup, max_connections, check_address } = raw;
    let written = address?;
    let address = match ServerAddr::parse(written.value, base) {
        Ok(address) => address,
        Err(why) => {
            findings.refused(written.span, written.value, "the address of a server", &why);
            return None;
        }
    };
    let named = name.as_ref().unwrap_or(&written);
    let name = super::name(named, "a name for a server", findings)?;
    if !known.names.insert(name.clone()) {
        findings
            .error(named.span.clone(), &format!("another server of this pool is named {}", quoted(named.value)))
            .expected("a name for each server; without one it is the address");
    } else if let Some(other) = known.addresses.insert(address.clone(), name.clone()) {
        let message = format!("the server {} of this pool has this address too", quoted(other.as_str()));
        findings.warning(written.span, &message).help("give one server more `weight` to send it more connections");
    }
    Some(Server {
        name,
        address,
        weight: weight.and_then(|At { value, .. }| Weight::new(value)).unwrap_or_default(),
        backup: backup.is_some_and(|At { value, .. }| value),
        max_connections: match max_connections {
            None | Some(At { value: 0, .. }) => Server::UNLIMITED,
            Some(At { value, .. }) => value,
        },
        check_address: check_address.and_then(|At { value, span }| {
            ServerAddr::parse(value, base)
                .map_err(|why| _ = findings.refused(span, value, "the address where a server is checked", &why))
                .ok()
        }),
    })
}

fn check_that_some_serve(servers: &[Server], span: Span, findings: &mut Findings) {
    if servers.iter().all(|server| server.weight.get() == 0) {
        findings
            .error(span, "every server of this pool has weight 0, so none would be given a connection")
            .expected(&format!("at least one server with a weight from 1 to {}", Weight::HEAVIEST));
    } else if servers.iter().all(|server| server.backup) {
        findings.warning(span, "every server of this pool is a backup, so there is nothing they back up");
    }
}

/// What connections may take, and what responses may, which is for HTTP alone.
fn resolve_timeouts(raw: RawPoolTimeouts) -> (PoolTimeouts, Option<At<Duration>>) {
    let RawPoolTimeouts { connect, response_header } = raw;
    let connect = connect.map_or(PoolTimeouts::default().connect, |At { value, .. }| value);
    (PoolTimeouts { connect }, response_header)
}

fn resolve_source(raw: At<Vec<Option<At<&str>>>>, servers: &[Server], findings: &mut Findings) -> Vec<IpAddr> {
    let reachable: Vec<bool> = servers
        .iter()
        .filter_map(|server| match &server.address.0 {
            Endpoint::Tcp(address) => Some(address.is_ipv4()),
            Endpoint::Unix(_) => None,
        })
        .collect();
    let mut known = HashSet::new();
    let mut all = Vec::new();
    for At { value: text, span } in raw.value.into_iter().flatten() {
        let ip = match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => ip,
            Ok(_) | Err(_) => {
                let why = "expected an IP address of this machine such as \"10.0.0.5\" or \"2001:db8::5\"";
                findings.refused(span, text, "an address to connect from", why);
                continue;
            }
        };
        if !known.insert(ip) {
            findings.warning(span, &format!("{ip} stands in `source` twice"));
            continue;
        }
        if !servers.is_empty() && !reachable.contains(&ip.is_ipv4()) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            findings.error(span, &format!("no server of this pool has an {family} address, so {ip} reaches none"));
        }
        all.push(ip);
    }
    all
}
