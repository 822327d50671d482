//! Pools: their servers, how those are checked, and where they are connected to from.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::discover::{self, ByName};
use super::files::Files;
use super::{balance, checks, health, http, rules, tls};
use crate::backend::Duty;
use crate::config::model::{Discover, Model, OnDown, Pool, PoolTimeouts, Server};
use crate::config::problem::{Findings, Span, quoted};
use crate::config::raw::{RawPool, RawPoolTimeouts, RawServer};
use crate::config::raw_discover::RawList;
use crate::config::raw_tls::RawPoolTls;
use crate::config::read::{At, Named};
use crate::net::address::{Endpoint, ServerAddr};
use crate::net::host::{HostAddr, HostName};
use crate::units::{Name, Weight};

/// The longest name of an entry with a host name; an address and a mark between the two follow it.
const LONGEST_PREFIX: usize = Name::LONGEST - "@[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295]:65535".len();

/// The pool, unless what cannot be done without is missing.
pub(super) fn resolve(
    raw: Named<'_, RawPool<'_>>,
    zone: Option<&Name>,
    base: &Path,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Pool> {
    let Named { name, body } = raw;
    let RawPool {
        balance: chosen_by,
        servers,
        discover,
        check,
        outlier,
        timeouts,
        source,
        retries,
        on_down,
        primary,
        rules,
        proxy_protocol,
        tls,
        http,
    } = body?;
    let (rules, max_requests) = rules::resolve(rules, zone);
    let has_more = discover.is_some();
    let span = servers.as_ref().map(|servers| servers.span.clone()).unwrap_or_default();
    let entries = servers.map(|servers| resolve_servers(servers, has_more, base, findings));
    let (servers, hosts) =
        entries.map_or((has_more.then(Vec::new), Vec::new()), |(servers, hosts)| (Some(servers), hosts));
    let count = servers.as_ref().map_or(0, Vec::len);
    let balance = chosen_by.map(|raw| balance::resolve(raw, count, findings)).unwrap_or_default();
    let discover = discover::resolve(discover, hosts, base, files, findings);
    let (timeouts, response_header) = timeouts.map(resolve_timeouts).unwrap_or_default();
    let http = http::resolve_pool(http, response_header, tls.is_some(), findings);
    let tls = match tls {
        None => None,
        Some(mut tls) => {
            name_servers(&mut tls, servers.as_deref().unwrap_or_default(), &discover, &span, findings);
            let servers = servers.iter().flatten().map(|server| (server.address.clone(), span.clone()));
            Some(tls::resolve_pool(tls, &servers.collect::<Vec<_>>(), http.version, files, findings)?)
        }
    };
    let context =
        checks::Context { tls: tls.as_ref(), version: http.version, servers: servers.as_deref().unwrap_or_default() };
    let check = checks::resolve(check.unwrap_or_default(), &context, files, findings);
    // Of servers that are yet to be found nobody knows the family.
    let known = servers.as_deref().filter(|_| discover.is_empty()).unwrap_or_default();
    let source = source.map(|source| resolve_source(source, known, findings));
    let primary = rules::resolve_primary(primary, check.tells_roles(), findings);
    // Whoever was the primary takes writes for as long as anybody is connected to it.
    let default_on_down = if primary.is_some() { OnDown::Reset } else { OnDown::default() };
    let name = super::name(&name, "a name for a pool", findings);
    Some(Pool {
        name: name?,
        balance,
        servers: servers?,
        discover,
        check,
        outlier: outlier.and_then(|outlier| health::resolve_outlier(outlier, findings)),
        timeouts,
        source: source.unwrap_or_default(),
        retries: retries.map_or(Model::RETRIES, |At { value, .. }| value),
        on_down: on_down.map_or(default_on_down, |At { value, .. }| value),
        primary,
        rules,
        max_requests,
        announce: proxy_protocol.map(|At { value, .. }| value),
        tls,
        http,
    })
}

/// The servers of a list that is no part of the file.
pub(in crate::config) fn resolve_list(raw: RawList<'_>, base: &Path, findings: &mut Findings) -> Vec<Server> {
    let mut known = Known::default();
    let entries = raw.servers.map(|servers| servers.value).unwrap_or_default().into_iter().flatten();
    let servers = entries.filter_map(|server| {
        let span = server.address.as_ref().map(|address| address.span.clone());
        match resolve_server(server, base, &mut known, findings)? {
            Entry::Fixed(server) => Some(server),
            Entry::ByName(_) => {
                findings.error(span, "host names are resolved in a pool's own `servers` only");
                None
            }
        }
    });
    servers.collect()
}

/// The servers of a pool, and those whose addresses are to be found; the pool may have more.
fn resolve_servers(
    raw: At<Vec<Option<RawServer<'_>>>>,
    has_more: bool,
    base: &Path,
    findings: &mut Findings,
) -> (Vec<Server>, Vec<ByName>) {
    let At { value: entries, span } = raw;
    if entries.is_empty() && !has_more {
        findings.error(span, "`servers` cannot be empty").expected("at least one server");
        return (Vec::new(), Vec::new());
    }
    let written = entries.len();
    let mut known = Known::default();
    let (mut servers, mut hosts) = (Vec::new(), Vec::new());
    for server in entries.into_iter().flatten() {
        match resolve_server(server, base, &mut known, findings) {
            Some(Entry::Fixed(server)) => servers.push(server),
            Some(Entry::ByName(host)) => hosts.push(host),
            None => {}
        }
    }
    // One that could not be read, or is yet to be found, may be the one that makes the difference.
    if servers.len() + hosts.len() == written && !has_more {
        let all: Vec<&Server> = servers.iter().chain(hosts.iter().map(|host| &host.like)).collect();
        check_that_some_serve(&all, span, findings);
    }
    (servers, hosts)
}

/// An entry of `servers`.
enum Entry {
    Fixed(Server),
    ByName(ByName),
}

/// What the servers of a pool are called and where they are, so far.
#[derive(Default)]
struct Known {
    names: HashSet<Name>,
    addresses: HashMap<ServerAddr, Name>,
    hosts: HashMap<HostAddr, Name>,
}

fn resolve_server(raw: RawServer<'_>, base: &Path, known: &mut Known, findings: &mut Findings) -> Option<Entry> {
    let RawServer { name, address, weight, priority, backup, zone, max_connections, duty, check_address } = raw;
    let backup = backup.is_some_and(|At { value, .. }| value);
    if let (true, Some(At { span, .. })) = (backup, &priority) {
        let message = "`priority` cannot stand beside `backup = true`, which is a level of its own behind all others";
        findings.error(span.clone(), message).expected("one of both");
    }
    let written = address?;
    // What is no address may be a name, and if it is neither, it is a server with an address that is meant.
    let address = match (ServerAddr::parse(written.value, base), HostAddr::parse(written.value)) {
        (Ok(address), _) => Ok(address),
        (Err(_), Ok(host)) => Err(host),
        (Err(why), Err(_)) => {
            findings.refused(written.span, written.value, "the address of a server", &why);
            return None;
        }
    };
    let named = name.as_ref().unwrap_or(&written);
    let is_named = name.is_some();
    let name = super::name(named, "a name for a server", findings)?;
    if !known.names.insert(name.clone()) {
        findings
            .error(named.span.clone(), &format!("another server of this pool is named {}", quoted(named.value)))
            .expected("a name for each server; without one it is the address");
    } else if let Some(other) = known.add_place(&address, &name) {
        let message = format!("the server {} of this pool has this address too", quoted(other.as_str()));
        findings
            .warning(written.span.clone(), &message)
            .help("give one server more `weight` to send it more connections");
    }
    let weight = weight.and_then(|At { value, .. }| Weight::new(value)).unwrap_or_default();
    let server = Server {
        priority: priority.map_or(0, |At { value, .. }| value),
        backup,
        zone: zone.and_then(|zone| super::name(&zone, "a name for a zone", findings)),
        max_connections: rules::limit(max_connections),
        duty: duty.map(|At { value, .. }| value).unwrap_or_default(),
        check_address: check_address.and_then(|place| resolve_check_address(&place, address.is_ok(), base, findings)),
        ..discover::like(weight)
    };
    match address {
        Ok(address) => Some(Entry::Fixed(Server { name, address, ..server })),
        Err(_) if is_named && name.as_str().len() > LONGEST_PREFIX => {
            let message = format!("{} is too long for what has a host name", quoted(named.value));
            let expected = format!("at most {LONGEST_PREFIX} bytes: the name of a server is this with its address");
            findings.error(named.span.clone(), &message).expected(&expected);
            None
        }
        Err(host) => Some(Entry::ByName(ByName { host, like: server, prefix: is_named.then_some(name) })),
    }
}

/// Where a server is checked, which is for one server to say.
fn resolve_check_address(place: &At<&str>, is_one: bool, base: &Path, findings: &mut Findings) -> Option<ServerAddr> {
    if !is_one {
        findings
            .error(
                place.span.clone(),
                "each address of a host name is a server, and they cannot be checked at one place",
            )
            .expected("`port` in `check` of the pool");
        return None;
    }
    ServerAddr::parse(place.value, base)
        .map_err(|why| {
            _ = findings.refused(place.span.clone(), place.value, "the address where a server is checked", &why)
        })
        .ok()
}

impl Known {
    /// The server that was there before, if there was one.
    fn add_place(&mut self, place: &Result<ServerAddr, HostAddr>, name: &Name) -> Option<Name> {
        match place {
            Ok(address) => self.addresses.insert(address.clone(), name.clone()),
            Err(host) => self.hosts.insert(host.clone(), name.clone()),
        }
    }
}

/// Servers that are found by a name have certificates for that name, unless the pool says otherwise.
fn name_servers<'t>(
    tls: &mut RawPoolTls<'t>,
    servers: &[Server],
    discover: &'t [Discover],
    span: &Span,
    findings: &mut Findings,
) {
    if tls.server_name.is_some() {
        return;
    }
    let names: BTreeSet<&HostName> = discover.iter().filter_map(|discover| discover.source.host()).collect();
    let have_one =
        names.len() == 1 && servers.is_empty() && discover.iter().all(|discover| discover.source.host().is_some());
    match names.first() {
        Some(name) if have_one => tls.server_name = Some(At { value: name.bare(), span: span.clone() }),
        Some(_) => {
            let message = "the servers of this pool are found by several names, so it has to say which one they have a certificate for";
            findings.error(span.clone(), message).expected("`server_name` in `tls` of the pool");
        }
        None => {}
    }
}

fn check_that_some_serve(servers: &[&Server], span: Span, findings: &mut Findings) {
    if servers.iter().all(|server| server.weight.get() == 0) {
        findings
            .error(span, "every server of this pool has weight 0, so none would be given a connection")
            .expected(&format!("at least one server with a weight from 1 to {}", Weight::HEAVIEST));
    } else if servers.iter().all(|server| server.weight.get() == 0 || server.duty != Duty::Ready) {
        findings.warning(span, "every server of this pool is out of service, so none is given a connection");
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
