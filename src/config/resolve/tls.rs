//! TLS: files are read, certificates are put with their keys, and what is odd about them is said where they are named.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::files::{Files, refuse};
use crate::config::model::Model;
use crate::config::model::http::HttpVersion;
use crate::config::problem::{Findings, quoted};
use crate::config::raw::Spoken;
use crate::config::raw_tls::{RawCertificate, RawClients, RawPoolTls, RawTls, RawTlsHost, Texts};
use crate::config::read::At;
use crate::net::address::{Endpoint, ServerAddr};
use crate::route::HostPattern;
use crate::tls::{
    self, Certificate, ClientAuth, ClientPolicy, Facts, MinVersion, ServerSettings, ServerVerification, Settings,
    TicketSource, Unusable,
};

/// Seconds in a day.
const DAY: i64 = 24 * 3600;
/// HTTP/2 and HTTP/1.1 in ALPN (RFC 9113 §3.1, RFC 7301 §6).
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";
/// What a listener for HTTP can agree on.
const SPOKEN: &[&[u8]] = &[H2, HTTP_1_1, b"http/1.0"];
/// The longest name of a protocol (RFC 7301 §3.1).
const LONGEST_PROTOCOL: usize = 255;

/// What a listener shows its clients, unless something that cannot be done without is missing.
pub(super) fn resolve(
    raw: RawTls<'_>,
    protocol: Option<Spoken>,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Arc<Settings>> {
    let RawTls { certificates, min_version, alpn, strict_sni, clients, hosts, ticket_keys } = raw;
    let before = findings.errors();
    let At { value: entries, span } = certificates?;
    if entries.is_empty() {
        findings.error(span, "`certificates` cannot be empty").expected("at least one table with `cert` and `key`");
    }
    let certificates: Vec<Certificate> =
        entries.into_iter().flatten().filter_map(|entry| resolve_certificate(entry, files, findings)).collect();
    let policy = resolve_clients(clients, files, findings);
    let hosts = resolve_hosts(hosts, &certificates, files, findings);
    let tickets = ticket_keys.map_or(Some(TicketSource::Own), |name| {
        let bytes = files.read_secret(&name, findings)?;
        tls::ticket_keys(&bytes).map(TicketSource::File).map_err(|why| refuse(&name, &why, findings)).ok()
    });
    let alpn = match protocol {
        Some(Spoken::Http) => protocols_of_http(alpn, findings),
        Some(Spoken::Tcp) | None => alpn.map(|alpn| protocols(alpn, findings)).unwrap_or_default(),
    };
    let strict = strict_sni.is_some_and(|At { value, .. }| value);
    let version = min_version.map(|At { value, .. }| value).unwrap_or_default();
    if findings.errors() > before {
        return None;
    }
    Some(Arc::new(Settings::new(certificates, strict, policy?, hosts, tickets?, version, alpn)))
}

fn resolve_certificate(raw: RawCertificate<'_>, files: &mut Files<'_>, findings: &mut Findings) -> Option<Certificate> {
    let RawCertificate { cert, key, names, ocsp } = raw;
    let ocsp = match &ocsp {
        None => None,
        Some(name) => Some(files.read(name, findings)?),
    };
    let (cert, key) = (cert?, key?);
    let mut certificate = read_pair(&cert, &key, ocsp, files, findings)?;
    check_validity(&cert, &certificate.facts, findings);
    if let Some(At { value, span }) = names {
        if value.is_empty() {
            findings.error(span, "`names` cannot be empty").expected("the names this certificate is chosen for");
        }
        let listed = value.into_iter().flatten().filter_map(|name| Some((host(&name, findings)?, name)));
        let listed: Vec<(HostPattern, At<&str>)> = listed.collect();
        for (_, name) in listed.iter().filter(|(host, _)| !certificate.facts.covers(host)) {
            let message = format!("the certificate {} is not one for {}", quoted(cert.value), quoted(name.value));
            findings.warning(name.span.clone(), &message).expected(&covered(&certificate.facts));
        }
        certificate.names = listed.into_iter().map(|(host, _)| host).collect();
    }
    Some(certificate)
}

fn read_pair(
    cert: &At<&str>,
    key: &At<&str>,
    ocsp: Option<Vec<u8>>,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Certificate> {
    let (chain, secret) = (files.read(cert, findings), files.read_secret(key, findings));
    match Certificate::read(&chain?, &secret?, ocsp) {
        Ok(certificate) => return Some(certificate),
        Err(Unusable::Chain(why)) => refuse(cert, &why, findings),
        Err(Unusable::Key(why)) => refuse(key, &why, findings),
        Err(Unusable::Pair) => {
            let message = format!("{} is not the key to the certificate {}", quoted(key.value), quoted(cert.value));
            findings.error(key.span.clone(), &message);
        }
    }
    None
}

/// What a certificate is for, as a list.
fn covered(facts: &Facts) -> String {
    const MOST: usize = 10;
    let names: Vec<String> = facts.hosts.iter().take(MOST).map(|host| format!("`{host}`")).collect();
    match (names.len(), facts.hosts.len()) {
        (0, _) => "a certificate that names hosts".to_owned(),
        (shown, all) if shown < all => format!("one of its own names: {} and {} more", names.join(", "), all - shown),
        _ => format!("one of its own names: {}", names.join(", ")),
    }
}

/// Warns of a certificate that is not valid now, or not for much longer.
fn check_validity(name: &At<&str>, facts: &Facts, findings: &mut Findings) {
    let (subject, now) = (quoted(name.value), now());
    let left = facts.not_after - now;
    let message = if facts.not_before > now {
        format!("the certificate {subject} is not valid yet: {} from now", days(facts.not_before - now))
    } else if left < 0 {
        format!("the certificate {subject} ran out {} ago", days(-left))
    } else if left < Model::CERTIFICATE_WARNING.as_secs().cast_signed() {
        format!("the certificate {subject} runs out in {}", days(left))
    } else {
        return;
    };
    findings.warning(name.span.clone(), &message);
}

/// Seconds in days, or in hours when they are few.
fn days(seconds: i64) -> String {
    match seconds / DAY {
        0 => format!("{} hours", seconds / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// The present in seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

fn resolve_hosts(
    raw: Option<At<Vec<Option<RawTlsHost<'_>>>>>,
    certificates: &[Certificate],
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Vec<(HostPattern, ClientPolicy)> {
    let mut known = HashSet::new();
    let mut hosts = Vec::new();
    for RawTlsHost { host: name, clients } in raw.into_iter().flat_map(|raw| raw.value).flatten() {
        let policy = resolve_clients(clients, files, findings);
        let Some((name, host)) = name.and_then(|name| host(&name, findings).map(|host| (name, host))) else { continue };
        if !known.insert(host.clone()) {
            findings.error(name.span, &format!("the host {} stands in `hosts` twice", quoted(name.value)));
        } else if !certificates.iter().any(|certificate| certificate.names.iter().any(|own| own.covers(&host))) {
            let message = format!("no certificate of this listener is one for the host {}", quoted(name.value));
            findings.warning(name.span, &message);
        }
        hosts.extend(policy.map(|policy| (host, policy)));
    }
    hosts
}

fn resolve_clients(raw: RawClients<'_>, files: &mut Files<'_>, findings: &mut Findings) -> Option<ClientPolicy> {
    let RawClients { ca, auth, crl } = raw;
    let Some(ca) = ca else {
        for (key, span) in [("client_auth", auth.map(|auth| auth.span)), ("client_crl", crl.map(|crl| crl.span))] {
            if let Some(span) = span {
                let message = format!("`{key}` means nothing without `client_ca`");
                findings.error(span, &message).expected("`client_ca`, the roots that clients' certificates lead to");
            }
        }
        return Some(ClientPolicy::open());
    };
    let roots = roots(&ca, files, findings);
    let lists = match &crl {
        None => Some(Vec::new()),
        Some(crl) => revocation_lists(crl, files, findings),
    };
    let auth = auth.map_or(ClientAuth::Required, |At { value, .. }| value);
    ClientPolicy::certificates(auth, &roots?, &lists?).map_err(|why| refuse(&ca, &why, findings)).ok()
}

fn roots(name: &At<&str>, files: &mut Files<'_>, findings: &mut Findings) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = files.read(name, findings)?;
    tls::certificates(&bytes).map_err(|why| refuse(name, &why, findings)).ok()
}

fn revocation_lists(
    name: &At<&str>,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let bytes = files.read(name, findings)?;
    let lists = tls::revocation_lists(&bytes).map_err(|why| refuse(name, &why, findings)).ok()?;
    if lists.iter().any(|(_, until)| until.is_some_and(|until| until < now())) {
        let message =
            format!("a list in {} should have been replaced by now: every client is refused", quoted(name.value));
        findings.warning(name.span.clone(), &message);
    }
    Some(lists.into_iter().map(|(list, _)| list).collect())
}

/// What a pool asks of its servers.
pub(super) fn resolve_pool(
    raw: RawPoolTls<'_>,
    servers: &[(ServerAddr, std::ops::Range<usize>)],
    version: HttpVersion,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Arc<ServerSettings>> {
    let RawPoolTls { ca, server_name, verify, cert, key, alpn, min_version } = raw;
    let before = findings.errors();
    let verification = match (&verify, &ca) {
        (Some(At { value: false, span }), ca) => {
            let message = "the servers of this pool are not verified: whoever answers at their addresses is believed";
            findings.warning(span.clone(), message).help("name their roots with `ca`, or leave `verify` out");
            if let Some(ca) = ca {
                findings.error(ca.span.clone(), "`ca` means nothing with `verify = false`");
            }
            Some(ServerVerification::None)
        }
        (_, Some(ca)) => roots(ca, files, findings).map(ServerVerification::Roots),
        (_, None) => system_roots(findings).map(ServerVerification::Roots),
    };
    let name = match &server_name {
        None => {
            let unix = servers.iter().find(|(address, _)| matches!(address.0, Endpoint::Unix(_)));
            if let Some((_, span)) = unix {
                let message = "a server on a unix socket has no address that a certificate could be for";
                findings.error(span.clone(), message).expected("`server_name` in `tls` of the pool");
            }
            None
        }
        Some(name) => server_name_of(name, findings),
    };
    let own = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => {
            let own = read_pair(&cert, &key, None, files, findings)?;
            check_validity(&cert, &own.facts, findings);
            Some(own)
        }
        (Some(one), None) | (None, Some(one)) => {
            findings.error(one.span, "`cert` and `key` stand together or not at all");
            None
        }
    };
    let alpn = offered(alpn, version, findings);
    let version = min_version.map(|At { value, .. }| value).unwrap_or_default();
    if findings.errors() > before {
        return None;
    }
    match ServerSettings::new(&verification?, name, own.as_ref(), version, alpn) {
        Ok(settings) => Some(Arc::new(settings)),
        Err(why) => {
            findings.error(ca.map(|ca| ca.span), &why);
            None
        }
    }
}

/// What is asked of an endpoint that a pool has its servers from.
pub(super) fn resolve_endpoint(
    name: &At<&str>,
    ca: Option<&At<&str>>,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Arc<ServerSettings>> {
    let roots = match ca {
        Some(ca) => roots(ca, files, findings),
        None => system_roots(findings),
    }?;
    let name = server_name_of(name, findings)?;
    let verification = ServerVerification::Roots(roots);
    let settings = ServerSettings::new(&verification, Some(name), None, MinVersion::default(), Vec::new());
    settings.map(Arc::new).map_err(|why| _ = findings.error(ca.map(|ca| ca.span.clone()), &why)).ok()
}

/// What a check that shakes hands asks of the servers: what the pool asks, perhaps by another name. Of a pool that speaks no
/// TLS itself it asks that they speak it, and nothing of who they are unless it is said whom to trust.
pub(super) fn resolve_check(
    name: Option<&At<&str>>,
    ca: Option<&At<&str>>,
    pool: Option<&Arc<ServerSettings>>,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Arc<ServerSettings>> {
    let name = match name {
        None => None,
        Some(name) => Some(server_name_of(name, findings)?),
    };
    let settings = match (pool, name) {
        (Some(pool), None) => return Some(Arc::clone(pool)),
        (Some(pool), Some(name)) => Ok(pool.named(name)),
        (None, name) => {
            let verification = match ca {
                Some(ca) => ServerVerification::Roots(roots(ca, files, findings)?),
                None => ServerVerification::None,
            };
            ServerSettings::new(&verification, name, None, MinVersion::default(), Vec::new())
        }
    };
    settings.map(Arc::new).map_err(|why| _ = findings.error(ca.map(|ca| ca.span.clone()), &why)).ok()
}

fn server_name_of(name: &At<&str>, findings: &mut Findings) -> Option<rustls::pki_types::ServerName<'static>> {
    tls::server_name(name.value)
        .map_err(|_| {
            let why = "expected a host name such as \"api.internal\", or an IP address";
            findings.refused(name.span.clone(), name.value, "the name of a server", why);
        })
        .ok()
}

fn system_roots(findings: &mut Findings) -> Option<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        // One that this machine has and nobody can use is no reason to do without the others.
        return Some(found.certs.into_iter().filter(tls::is_usable_root).collect());
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    findings
        .error(None, &format!("this machine has no roots that servers' certificates could lead to{why}"))
        .expected("`ca` in `tls` of the pool, or the package ca-certificates");
    None
}

/// The protocols that a listener for HTTP agrees on, the best first.
fn protocols_of_http(alpn: Option<Texts<'_>>, findings: &mut Findings) -> Vec<Vec<u8>> {
    let Some(alpn) = alpn else { return [H2, HTTP_1_1].map(Vec::from).to_vec() };
    for At { value, span } in alpn.value.iter().flatten().filter(|name| !SPOKEN.contains(&name.value.as_bytes())) {
        findings
            .error(span.clone(), &format!("a listener for HTTP does not speak {}", quoted(value)))
            .expected("`h2`, `http/1.1` or `http/1.0`");
    }
    protocols(alpn, findings)
}

/// The protocols that servers are offered: those that are written, or the ones of the version that is spoken to them.
fn offered(alpn: Option<Texts<'_>>, version: HttpVersion, findings: &mut Findings) -> Vec<Vec<u8>> {
    let Some(alpn) = alpn else {
        return match version {
            HttpVersion::Http1 => Vec::new(),
            HttpVersion::Http2 => vec![H2.to_vec()],
            HttpVersion::Auto => vec![H2.to_vec(), HTTP_1_1.to_vec()],
        };
    };
    let span = alpn.span.clone();
    let protocols = protocols(alpn, findings);
    match version {
        HttpVersion::Http1 => {}
        HttpVersion::Http2 | HttpVersion::Auto => {
            if !protocols.iter().any(|protocol| protocol == H2) {
                findings.error(span, "`alpn` does not offer h2, which `version` in `http` asks for").expected("`h2`");
            }
        }
    }
    protocols
}

/// The names of protocols for ALPN.
pub(super) fn protocols(raw: Texts<'_>, findings: &mut Findings) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for At { value, span } in raw.value.into_iter().flatten() {
        if value.is_empty() || value.len() > LONGEST_PROTOCOL {
            let why = format!("expected 1 to {LONGEST_PROTOCOL} bytes such as \"h2\" or \"http/1.1\"");
            findings.refused(span, value, "the name of a protocol", &why);
        } else if all.iter().any(|known| known == value.as_bytes()) {
            findings.warning(span, &format!("{} stands in `alpn` twice", quoted(value)));
        } else {
            all.push(value.as_bytes().to_vec());
        }
    }
    all
}

/// A host name or a wildcard.
pub(super) fn host(name: &At<&str>, findings: &mut Findings) -> Option<HostPattern> {
    HostPattern::parse(name.value)
        .map_err(|why| _ = findings.refused(name.span.clone(), name.value, "a host name", &why))
        .ok()
}
