//! Where servers are found beside those the file has: what a pool's `discover` says, and the host names in its `servers`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ::http::Uri;
use ::http::uri::PathAndQuery;

use super::files::Files;
use super::tls;
use crate::backend::Duty;
use crate::config::model::{Discover, Server};
use crate::config::problem::{Findings, Span, choice};
use crate::config::raw_discover::{RawDiscover, RecordKind, SourceKind};
use crate::config::read::At;
use crate::discovery::{Endpoint, Host, Lookup, Record, Resolvers, Source, Terms};
use crate::net::address;
use crate::net::address::ServerAddr;
use crate::net::host::{HostAddr, HostName};
use crate::units::{Name, Weight, format_duration};

/// The port of DNS.
const DNS: u16 = 53;

/// An entry of `servers` with a host name: each of its addresses is a server.
#[derive(Debug)]
pub(super) struct ByName {
    pub(super) host: HostAddr,
    /// What those servers are like.
    pub(super) like: Server,
    /// What their names begin with, if the entry has a name.
    pub(super) prefix: Option<Name>,
}

/// Every source of a pool, those of its `servers` first.
pub(super) fn resolve(
    raw: Option<RawDiscover<'_>>,
    hosts: Vec<ByName>,
    base: &Path,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Vec<Discover> {
    let terms = raw.as_ref().map(|raw| terms(raw, findings)).unwrap_or_default();
    let mut resolvers = Resolvers::default();
    let mut own = None;
    if let Some(raw) = raw {
        refuse_others(&raw, findings);
        resolvers = resolve_resolvers(raw.resolvers.as_ref(), findings);
        let is_for_hosts = !hosts.is_empty();
        own = match raw.kind.as_ref().map(|At { value, .. }| *value) {
            None => None,
            Some(SourceKind::Dns) => lookup(&raw, &resolvers, is_for_hosts, findings).map(Source::Dns),
            Some(SourceKind::File) => required(raw.path.as_ref(), "path", "file", &raw.span, findings)
                .map(|path| Source::File(base.join(path.value))),
            Some(SourceKind::Http) => required(raw.url.as_ref(), "url", "http", &raw.span, findings)
                .and_then(|url| endpoint(url, &raw, &resolvers, files, findings))
                .map(Source::Http),
        };
    }
    let by_name = hosts.into_iter().map(|ByName { host: HostAddr { host, port }, like, prefix }| {
        let terms = Terms { allow_loopback: terms.allow_loopback || host.is_localhost(), ..terms };
        let source = Source::Dns(Lookup { name: host, record: Record::Address { port }, resolvers: resolvers.clone() });
        Discover { source, terms, like, prefix }
    });
    let mut all: Vec<Discover> = by_name.collect();
    if let Some(source) = own {
        let terms = Terms { allow_loopback: terms.allow_loopback || is_of_this_machine(&source), ..terms };
        all.push(Discover { source, terms, like: like(Weight::ONE), prefix: None });
    }
    all
}

/// A server of which only what it is like is known.
pub(super) fn like(weight: Weight) -> Server {
    let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    Server {
        name: Name::new("found"),
        address: ServerAddr(address::Endpoint::Tcp(nowhere)),
        weight,
        priority: 0,
        backup: false,
        zone: None,
        max_connections: Server::UNLIMITED,
        duty: Duty::Ready,
        check_address: None,
    }
}

/// Whether what a source says is said by this machine, which may know of servers on itself.
fn is_of_this_machine(source: &Source) -> bool {
    match source {
        Source::File(_) => true,
        Source::Http(Endpoint { host: Host::Address(ip), .. }) => ip.is_loopback(),
        Source::Http(Endpoint { host: Host::Name(name), .. }) => name.is_localhost(),
        Source::Dns(lookup) => lookup.name.is_localhost(),
    }
}

fn terms(raw: &RawDiscover<'_>, findings: &mut Findings) -> Terms {
    let default = Terms::default();
    let time = |written: &Option<At<_>>, default| written.as_ref().map_or(default, |At { value, .. }| *value);
    let mut terms = Terms {
        interval: raw.interval.as_ref().map(|At { value, .. }| *value),
        min_ttl: time(&raw.min_ttl, default.min_ttl),
        max_ttl: time(&raw.max_ttl, default.max_ttl),
        timeout: time(&raw.timeout, default.timeout),
        allow_empty: raw.allow_empty.as_ref().is_some_and(|At { value, .. }| *value),
        allow_loopback: raw.allow_loopback.as_ref().is_some_and(|At { value, .. }| *value),
        max_servers: raw.max_servers.as_ref().map_or(default.max_servers, |At { value, .. }| *value),
    };
    if terms.min_ttl > terms.max_ttl {
        match (&raw.min_ttl, &raw.max_ttl) {
            (Some(At { span, .. }), Some(_)) => {
                let [min, max] = [terms.min_ttl, terms.max_ttl].map(format_duration);
                let message = format!("the `min_ttl` of a pool ({min}) is longer than its `max_ttl` ({max})");
                findings.error(span.clone(), &message).expected("a `min_ttl` no longer than the `max_ttl`");
            }
            // Whoever moves one bound past the default of the other means to move both.
            (Some(_), None) => terms.max_ttl = terms.min_ttl,
            (None, _) => terms.min_ttl = terms.max_ttl,
        }
    }
    terms
}

/// Reports keys that mean nothing for this type of source.
fn refuse_others(raw: &RawDiscover<'_>, findings: &mut Findings) {
    let Some(At { value: kind, .. }) = raw.kind else { return };
    let span = |text: &Option<At<&str>>| text.as_ref().map(|At { span, .. }| span.clone());
    let time = |time: &Option<At<_>>| time.as_ref().map(|At { span, .. }| span.clone());
    use SourceKind::{Dns, File, Http};
    let keys: [(&str, Option<Span>, &[SourceKind]); 9] = [
        ("name", span(&raw.name), &[Dns]),
        ("record", raw.record.as_ref().map(|At { span, .. }| span.clone()), &[Dns]),
        ("resolvers", raw.resolvers.as_ref().map(|At { span, .. }| span.clone()), &[Dns, Http]),
        ("path", span(&raw.path), &[File]),
        ("url", span(&raw.url), &[Http]),
        ("ca", span(&raw.ca), &[Http]),
        ("min_ttl", time(&raw.min_ttl), &[Dns]),
        ("max_ttl", time(&raw.max_ttl), &[Dns]),
        ("timeout", time(&raw.timeout), &[Dns, Http]),
    ];
    for (key, span, kinds) in keys {
        if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
            let types = choice(kinds.iter().map(|kind| match kind {
                Dns => "dns",
                File => "file",
                Http => "http",
            }));
            findings.error(span, &format!("`{key}` of `discover` means nothing unless its type is {types}"));
        }
    }
}

fn required<'r, 't>(
    value: Option<&'r At<&'t str>>,
    key: &str,
    kind: &str,
    span: &Span,
    findings: &mut Findings,
) -> Option<&'r At<&'t str>> {
    if value.is_none() && findings.complete() {
        let message = format!("`discover` with the type `{kind}` needs the key `{key}`");
        findings.error(span.clone(), &message);
    }
    value
}

fn resolve_resolvers(raw: Option<&At<Vec<Option<At<&str>>>>>, findings: &mut Findings) -> Resolvers {
    let mut all = Vec::new();
    for At { value: text, span } in raw.iter().flat_map(|list| &list.value).flatten() {
        let with_port = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        match with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS))) {
            Some(address) => all.push(address),
            None => {
                let why = "expected an IP address such as \"10.0.0.2\" or \"10.0.0.2:53\"";
                findings.refused(span.clone(), text, "a resolver", why);
            }
        }
    }
    Resolvers(all)
}

/// What is asked of DNS; nothing where `discover` says only how the names in `servers` are resolved.
fn lookup(raw: &RawDiscover<'_>, resolvers: &Resolvers, is_for_hosts: bool, findings: &mut Findings) -> Option<Lookup> {
    let Some(At { value: text, span }) = &raw.name else {
        if let Some(At { span, .. }) = &raw.record {
            findings.error(span.clone(), "`record` means nothing without `name`");
        } else if !is_for_hosts {
            required(None, "name", "dns", &raw.span, findings);
        }
        return None;
    };
    let record = raw.record.as_ref().map(|At { value, .. }| *value);
    let implied = if text.starts_with('_') && !text.contains(':') { RecordKind::Srv } else { RecordKind::Address };
    let parsed = match record.unwrap_or(implied) {
        RecordKind::Srv => HostName::parse(text)
            .map(|name| (name, Record::Srv))
            .map_err(|_| "expected a name without a port such as \"_http._tcp.api.internal\"".to_owned()),
        RecordKind::Address => HostAddr::parse(text)
            .map(|HostAddr { host, port }| (host, Record::Address { port }))
            .map_err(|why| format!("{why}; SRV records, which have ports, are asked for with `record = \"srv\"`")),
    };
    match parsed {
        Ok((name, record)) => Some(Lookup { name, record, resolvers: resolvers.clone() }),
        Err(why) => {
            findings.refused(span.clone(), text, "a name to ask for", &why);
            None
        }
    }
}

fn endpoint(
    url: &At<&str>,
    raw: &RawDiscover<'_>,
    resolvers: &Resolvers,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Endpoint> {
    let Some((is_tls, host, uri)) = parse_url(url.value) else {
        let why = "expected a URL such as \"http://registry.internal:8000/servers.json\"";
        findings.refused(url.span.clone(), url.value, "an endpoint", why);
        return None;
    };
    let tls = if is_tls {
        let name = match &host {
            Host::Address(ip) => ip.to_string(),
            Host::Name(name) => name.bare().to_owned(),
        };
        Some(tls::resolve_endpoint(&At { value: &name, span: url.span.clone() }, raw.ca.as_ref(), files, findings)?)
    } else {
        if let Some(At { span, .. }) = &raw.ca {
            findings.error(span.clone(), "`ca` means nothing without a `url` that begins with \"https://\"");
        }
        None
    };
    Some(Endpoint {
        host,
        port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
        target: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        authority: uri.authority()?.clone(),
        tls,
        resolvers: resolvers.clone(),
    })
}

/// Whether a URL is one of HTTPS, whom it leads to, and itself.
fn parse_url(url: &str) -> Option<(bool, Host, Uri)> {
    let uri: Uri = url.parse().ok()?;
    let is_tls = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || uri.port_u16() == Some(0) {
        return None;
    }
    let bare = authority.host().trim_matches(['[', ']']);
    let host = match bare.parse::<IpAddr>() {
        Ok(ip) => Host::Address(ip),
        Err(_) => Host::Name(HostName::parse(bare).ok()?),
    };
    Some((is_tls, host, uri))
}
