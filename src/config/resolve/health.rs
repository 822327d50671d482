//! Requests that check servers: what is asked, and what the answer has to be like; and when servers are ejected.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use ::http::uri::{Authority, PathAndQuery};
use ::http::{HeaderName, HeaderValue, Method};

use crate::backend::Limits;
use crate::config::problem::{Findings, quoted};
use crate::config::raw_check::RawHttpProbe;
use crate::config::raw_health::RawOutlier;
use crate::config::read::{At, ByName};
use crate::health::{HttpProbe, HttpVersion, Outlier, SuccessRate};
use crate::units::format_duration;

/// The least time between two comparisons of servers.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// The statuses a final response can have (RFC 9110 §15).
const FINAL: RangeInclusive<u16> = 200..=599;

/// What an `http` check asks; nothing if any of it is wrong.
pub(super) fn resolve_http(
    raw: RawHttpProbe<'_>,
    host: Option<&At<&str>>,
    version: HttpVersion,
    reuse: bool,
    findings: &mut Findings,
) -> Option<HttpProbe> {
    let RawHttpProbe { method, path, headers, status, body } = raw;
    let before = findings.errors();
    let method = method.map_or(Some(Method::GET), |method| resolve_method(&method, findings));
    let target = path.map_or_else(|| Some(PathAndQuery::from_static("/")), |path| resolve_path(&path, findings));
    let host = host.and_then(|host| resolve_host(host, findings));
    let headers = headers.map(|headers| resolve_headers(headers, findings)).unwrap_or_default();
    let statuses = status.map_or_else(|| vec![HttpProbe::STATUSES], |status| resolve_statuses(status, findings));
    let body = body.and_then(|body| resolve_body(&body, method.as_ref(), findings));
    if findings.errors() > before {
        return None;
    }
    Some(HttpProbe { method: method?, target: target?, host, headers, statuses, body, version, reuse })
}

fn resolve_method(method: &At<&str>, findings: &mut Findings) -> Option<Method> {
    let named = Method::from_str(method.value)
        .ok()
        .filter(|named| *named != Method::CONNECT && !named.as_str().bytes().any(|byte| byte.is_ascii_lowercase()));
    if named.is_none() {
        let why = "expected a method that asks for something, in capitals: \"GET\", \"HEAD\" or \"OPTIONS\"";
        findings.refused(method.span.clone(), method.value, "the method of a check", why);
    }
    named
}

fn resolve_path(path: &At<&str>, findings: &mut Findings) -> Option<PathAndQuery> {
    let is_plain =
        |text: &str| text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let target = Some(path.value).filter(|text| is_plain(text)).and_then(|text| PathAndQuery::from_str(text).ok());
    if target.is_none() {
        let why = "expected a path from \"/\" on, such as \"/healthz\", with other characters written as \"%20\"";
        findings.refused(path.span.clone(), path.value, "the path of a check", why);
    }
    target
}

pub(super) fn resolve_host(host: &At<&str>, findings: &mut Findings) -> Option<Authority> {
    let authority = Authority::from_str(host.value).ok().filter(|authority| !authority.as_str().contains('@'));
    if authority.is_none() {
        let why = "expected a host name or an IP address, perhaps with a port, such as \"api.internal\"";
        findings.refused(host.span.clone(), host.value, "the host of a check", why);
    }
    authority
}

fn resolve_headers(headers: ByName<'_>, findings: &mut Findings) -> Vec<(HeaderName, HeaderValue)> {
    let others = [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, UPGRADE, TE, EXPECT];
    let names = ["keep-alive", "proxy-connection", "http2-settings"];
    let mut all: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in headers.value {
        let Ok(parsed) = HeaderName::from_str(name.value) else {
            findings.refused(
                name.span,
                name.value,
                "the name of a header field",
                "expected a name such as \"X-Probe\"",
            );
            continue;
        };
        let Ok(content) = HeaderValue::from_str(value.value) else {
            let why = "expected text without line breaks and other control characters";
            findings.refused(value.span, value.value, "the value of a header field", why);
            continue;
        };
        if parsed == HOST {
            findings.error(name.span, "the host that a check asks for has a key of its own").expected("`host`");
        } else if others.contains(&parsed) || names.contains(&parsed.as_str()) {
            let message =
                format!("{} is about the connection or the body, and not for a check to say", quoted(name.value));
            findings.error(name.span, &message);
        } else if all.iter().any(|(known, _)| *known == parsed) {
            findings.error(name.span, &format!("{} stands in `headers` twice", quoted(parsed.as_str())));
        } else {
            all.push((parsed, content));
        }
    }
    all
}

fn resolve_statuses(raw: At<Vec<Option<At<String>>>>, findings: &mut Findings) -> Vec<RangeInclusive<u16>> {
    if raw.value.is_empty() {
        findings.error(raw.span, "`status` cannot be empty").expected("at least one status");
        return Vec::new();
    }
    let mut all = Vec::new();
    for At { value: text, span } in raw.value.into_iter().flatten() {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| FINAL.contains(status));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => all.push(first..=last),
            _ => {
                let why = "expected a status from 200 to 599 such as 204, or a range such as \"200-399\"";
                findings.refused(span, &text, "a status", why);
            }
        }
    }
    all
}

fn resolve_body(body: &At<&str>, method: Option<&Method>, findings: &mut Findings) -> Option<Box<str>> {
    let most = HttpProbe::MOST_SOUGHT;
    if body.value.is_empty() || body.value.len() > most {
        let message = format!("`body` of a check cannot be {} bytes long", body.value.len());
        findings.error(body.span.clone(), &message).expected(&format!("1 to {most} bytes to look for"));
        return None;
    }
    if method == Some(&Method::HEAD) {
        findings.error(body.span.clone(), "the answer to HEAD has no body to look into").expected("another `method`");
        return None;
    }
    Some(body.value.into())
}

/// When the servers of a pool are ejected; never, if nothing is counted.
pub(super) fn resolve_outlier(raw: RawOutlier, findings: &mut Findings) -> Option<Outlier> {
    let RawOutlier {
        consecutive_5xx,
        consecutive_gateway,
        consecutive_failures,
        first_byte,
        server_speaks_first,
        success_rate_factor,
        success_rate_margin,
        success_rate_min_servers,
        success_rate_min_requests,
        interval,
        ejection,
        max_ejection,
        max_ejected,
    } = raw;
    let default = Outlier::default();
    let zeros = [&consecutive_5xx, &consecutive_gateway, &consecutive_failures, &success_rate_factor];
    let zero = zeros.into_iter().flatten().last().cloned();
    let number = |count: Option<At<u16>>, default: u16| count.map_or(default, |At { value, .. }| value);
    let limits = Limits {
        server_errors: number(consecutive_5xx, default.limits.server_errors),
        gateway_errors: number(consecutive_gateway, default.limits.gateway_errors),
        failures: number(consecutive_failures, default.limits.failures),
    };
    let rates = SuccessRate::default();
    let success_rate = SuccessRate {
        interval: interval.map_or(rates.interval, |interval| resolve_interval(interval, findings)),
        min_servers: number(success_rate_min_servers, rates.min_servers),
        min_requests: success_rate_min_requests.map_or(rates.min_requests, |At { value, .. }| value),
        factor: number(success_rate_factor, rates.factor),
        margin: success_rate_margin.map_or(rates.margin, |At { value, .. }| value),
    };
    let success_rate = (success_rate.factor > 0).then_some(success_rate);
    let place = max_ejection.as_ref().or(ejection.as_ref()).map(|At { span, .. }| span.clone());
    let ejection = ejection.map_or(default.ejection, |At { value, .. }| value);
    // One that is longer from the start is a wish and no mistake, unless somebody wrote otherwise.
    let max_ejection = max_ejection.map_or(default.max_ejection.max(ejection), |At { value, .. }| value);
    if max_ejection < ejection {
        let [longest, first] = [max_ejection, ejection].map(format_duration);
        let message = format!("the `max_ejection` of a pool ({longest}) is shorter than its `ejection` ({first})");
        findings.error(place, &message).expected("a `max_ejection` no shorter than the `ejection`");
    }
    if limits == (Limits { server_errors: 0, gateway_errors: 0, failures: 0 }) && success_rate.is_none() {
        let message = "`outlier` counts nothing, so no server is ever ejected";
        findings.warning(zero.map(|At { span, .. }| span).unwrap_or_default(), message);
        return None;
    }
    let max_ejected = max_ejected.map_or(default.max_ejected, |At { value, .. }| value);
    Some(Outlier {
        limits,
        success_rate,
        first_byte: first_byte.map_or(default.first_byte, |At { value, .. }| value),
        server_speaks_first: server_speaks_first.map_or(default.server_speaks_first, |At { value, .. }| value),
        ejection,
        max_ejection,
        max_ejected,
    })
}

/// How often servers are compared.
fn resolve_interval(interval: At<Duration>, findings: &mut Findings) -> Duration {
    let At { value, span } = interval;
    if value < SHORTEST_INTERVAL {
        let message =
            format!("the `interval` of `outlier` ({}) is too short to tell servers apart", format_duration(value));
        findings.error(span, &message).expected(&format!("{} or more", format_duration(SHORTEST_INTERVAL)));
    }
    value
}
