//! HTTP: what requests of a listener may be like and how long they may take, what our own answers show, and what is asked
//! of a pool. Where requests go, `routes` resolves.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::words::is_token;
use super::{networks, routes};
use crate::config::model::http::{
    Http, HttpLimits, HttpPool, HttpPoolTimeouts, HttpTimeouts, HttpVersion, Keep, RetryBudget, RetryOn, SameSite,
    Sticky,
};
use crate::config::problem::{Findings, quoted};
use crate::config::raw_http::{
    RawHttp, RawHttpLimits, RawHttpPool, RawHttpTimeouts, RawPoolHttp, RawRetryBudget, RawSticky, RawUpstream,
};
use crate::config::read::{At, ByName};
use crate::units::format_size;

/// What the size of a head can be limited to, in bytes.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1024..=64 * 1024 - 1;
/// The largest error page, in bytes: each is in memory.
const LARGEST_PAGE: u64 = 64 * 1024;
/// The statuses that answers of our own have.
const OUR_STATUSES: &[u16] = &[400, 401, 403, 404, 408, 413, 414, 421, 429, 431, 502, 503, 504];
/// The statuses, except for all of 5xx, that say that the same request may be answered otherwise later.
const PASSING_STATUSES: &[u16] = &[408, 425, 429];

/// What a listener is asked to do.
pub(super) fn resolve(
    raw: RawHttp<'_>,
    timeouts: HttpTimeouts,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Arc<Http> {
    let RawHttp { routes, trusted_proxies, compress, error_pages, limits } = raw;
    let compress = compress.is_some_and(|At { value, .. }| value);
    Arc::new(Http {
        routes: routes.map(|routes| routes::resolve(routes, compress, files, findings)).unwrap_or_default(),
        trusted_proxies: trusted_proxies.map(|list| networks(list, findings)).unwrap_or_default(),
        limits: resolve_limits(limits.unwrap_or_default(), findings),
        timeouts,
        error_pages: error_pages.map(|pages| resolve_error_pages(pages, files, findings)).unwrap_or_default(),
        compress,
    })
}

fn resolve_limits(raw: RawHttpLimits, findings: &mut Findings) -> HttpLimits {
    let RawHttpLimits {
        max_header,
        max_header_fields,
        max_uri,
        max_body,
        min_rate,
        max_requests,
        max_streams,
        underscores_in_headers,
    } = raw;
    let default = HttpLimits::default();
    let mut header_bytes = default.header_bytes;
    if let Some(At { value, span }) = max_header {
        header_bytes = bytes(value);
        if !HEADER_BYTES.contains(&value) {
            let [least, most] = [*HEADER_BYTES.start(), *HEADER_BYTES.end()].map(format_size);
            findings
                .error(span, &format!("`max_header` cannot be {}", format_size(value)))
                .expected(&format!("a size from {least} to {most}"));
        }
    }
    // A target is a part of a head, so that a smaller head alone is a wish for smaller targets too.
    let mut uri_bytes = default.uri_bytes.min(header_bytes / 2);
    if let Some(At { value, span }) = max_uri {
        uri_bytes = bytes(value);
        if uri_bytes == 0 || uri_bytes >= header_bytes {
            let most = format_size(header_bytes as u64);
            findings
                .error(span, &format!("`max_uri` cannot be {}", format_size(value)))
                .expected(&format!("a size above zero and below that of the whole head, which is {most}"));
        }
    }
    HttpLimits {
        header_bytes,
        header_fields: max_header_fields.map_or(default.header_fields, |At { value, .. }| value),
        uri_bytes,
        body_bytes: max_body.map_or(default.body_bytes, |At { value, .. }| if value == 0 { u64::MAX } else { value }),
        min_rate: min_rate.map_or(default.min_rate, |At { value, .. }| value),
        requests: limit(max_requests, default.requests),
        streams: max_streams.map_or(default.streams, |At { value, .. }| value),
        underscores: underscores_in_headers.map_or(default.underscores, |At { value, .. }| value),
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// How many there may be; zero in the file sets no limit.
pub(super) fn limit(raw: Option<At<u32>>, default: u32) -> u32 {
    match raw {
        None => default,
        Some(At { value: 0, .. }) => u32::MAX,
        Some(At { value, .. }) => value,
    }
}

/// How long requests may take for what.
pub(super) fn resolve_timeouts(raw: RawHttpTimeouts) -> HttpTimeouts {
    let RawHttpTimeouts { request_header, request, keep_alive, body_idle } = raw;
    let default = HttpTimeouts::default();
    HttpTimeouts {
        request_header: request_header.map_or(default.request_header, |At { value, .. }| value),
        request: request.map_or(default.request, |At { value, .. }| value),
        keep_alive: keep_alive.map_or(default.keep_alive, |At { value, .. }| value),
        body_idle: body_idle.map_or(default.body_idle, |At { value, .. }| value),
    }
}

/// Says of timeouts for HTTP that the listener does not speak it.
pub(super) fn refuse_timeouts(raw: &RawHttpTimeouts, findings: &mut Findings) {
    let RawHttpTimeouts { request_header, request, keep_alive, body_idle } = raw;
    for (key, value) in
        [("request_header", request_header), ("request", request), ("keep_alive", keep_alive), ("body_idle", body_idle)]
    {
        if let Some(At { span, .. }) = value {
            findings.error(span.clone(), &format!("`{key}` needs `protocol = \"http\"`"));
        }
    }
}

fn resolve_error_pages(raw: ByName<'_>, files: &mut Files<'_>, findings: &mut Findings) -> BTreeMap<u16, Arc<[u8]>> {
    let mut pages = BTreeMap::new();
    for (status, file) in raw.value {
        let ours = OUR_STATUSES.iter().find(|ours| ours.to_string() == status.value);
        let page = files.read_up_to(LARGEST_PAGE, &file, findings);
        match ours {
            Some(ours) => pages.extend(page.map(|page| (*ours, Arc::from(page)))),
            None => {
                let known: Vec<String> = OUR_STATUSES.iter().map(ToString::to_string).collect();
                findings
                    .error(status.span, &format!("no answer of our own has the status {}", quoted(status.value)))
                    .expected(&format!("one of {}", known.join(", ")));
            }
        }
    }
    pages
}

/// What is asked of a pool for requests; `tls` is whether TLS is spoken to its servers.
pub(super) fn resolve_pool(
    raw: RawHttpPool<'_>,
    response_header: Option<At<Duration>>,
    tls: bool,
    findings: &mut Findings,
) -> HttpPool {
    let RawHttpPool { http, upstream, retry_on, retry_budget, sticky } = raw;
    let version = http.and_then(|RawPoolHttp { version }| version);
    if let Some(At { span, .. }) = version.as_ref().filter(|version| version.value == HttpVersion::Auto && !tls) {
        findings
            .error(span.clone(), "a server chooses the version while it shakes hands, and this pool speaks no TLS")
            .expected("`1.1` or `2`, or the table `tls` in the pool");
    }
    let default = HttpPoolTimeouts::default();
    HttpPool {
        version: version.map(|At { value, .. }| value).unwrap_or_default(),
        keep: upstream.map(resolve_keep).unwrap_or_default(),
        timeouts: HttpPoolTimeouts {
            response_header: response_header.map_or(default.response_header, |At { value, .. }| value),
        },
        retry_on: retry_on.map(|list| resolve_retry_on(list, findings)).unwrap_or_default(),
        retry_budget: retry_budget.map(resolve_budget).unwrap_or_default(),
        sticky: sticky.and_then(|sticky| resolve_sticky(sticky, findings)).map(Arc::new),
    }
}

fn resolve_keep(raw: RawUpstream) -> Keep {
    let RawUpstream { max_idle, idle_timeout, max_requests, max_age } = raw;
    let default = Keep::default();
    Keep {
        max_idle: max_idle.map_or(default.max_idle, |At { value, .. }| value),
        idle_timeout: idle_timeout.map_or(default.idle_timeout, |At { value, .. }| value),
        max_requests: limit(max_requests, default.max_requests),
        max_age: max_age.map_or(default.max_age, |At { value, .. }| value),
    }
}

fn resolve_retry_on(raw: At<Vec<Option<At<String>>>>, findings: &mut Findings) -> RetryOn {
    let mut on = RetryOn { connect: false, reset: false, timeout: false, statuses: Vec::new() };
    let mut known = HashSet::new();
    for At { value, span } in raw.value.into_iter().flatten() {
        if !known.insert(value.clone()) {
            findings.warning(span.clone(), &format!("{} stands in `retry_on` twice", quoted(&value)));
            continue;
        }
        match value.as_str() {
            "connect" => on.connect = true,
            "reset" => on.reset = true,
            "timeout" => on.timeout = true,
            other => match other.parse::<u16>().ok().filter(|status| is_passing(*status)) {
                Some(status) => on.statuses.push(status),
                None => {
                    findings
                        .error(span, &format!("no request is tried again after {}", quoted(other)))
                        .expected("`connect`, `reset`, `timeout`, or a status: 408, 425, 429 or 500 to 599")
                        .did_you_mean(other, ["connect", "reset", "timeout"]);
                }
            },
        }
    }
    on
}

fn is_passing(status: u16) -> bool {
    PASSING_STATUSES.contains(&status) || (500..=599).contains(&status)
}

fn resolve_budget(raw: RawRetryBudget) -> RetryBudget {
    let RawRetryBudget { percent, min } = raw;
    let default = RetryBudget::default();
    RetryBudget {
        percent: percent.map_or(default.percent, |At { value, .. }| value),
        min: min.map_or(default.min, |At { value, .. }| value),
    }
}

fn resolve_sticky(raw: RawSticky<'_>, findings: &mut Findings) -> Option<Sticky> {
    let RawSticky { cookie, secure, http_only, same_site, ttl } = raw;
    let secure = secure.is_some_and(|At { value, .. }| value);
    if let Some(At { span, .. }) = same_site.as_ref().filter(|same_site| same_site.value == SameSite::None && !secure) {
        findings
            .error(span.clone(), "browsers take a cookie for all sites only if it is for HTTPS alone")
            .expected("`secure = true` beside it, `lax` or `strict`");
    }
    let cookie = cookie?;
    if !is_token(cookie.value) {
        let why = "expected letters, digits and marks, without spaces, such as \"srv\"";
        findings.refused(cookie.span, cookie.value, "the name of a cookie", why);
        return None;
    }
    // RFC 6265bis §4.1.3: such a name promises what the cookie has to keep, or it is not taken.
    let promises = ["__Secure-", "__Host-"]
        .iter()
        .any(|prefix| cookie.value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)));
    if promises && !secure {
        let message = format!("browsers take the cookie {} only if it is for HTTPS alone", quoted(cookie.value));
        findings.error(cookie.span, &message).expected("`secure = true` beside it, or another name");
        return None;
    }
    Some(Sticky {
        cookie: cookie.value.into(),
        secure,
        http_only: http_only.is_none_or(|At { value, .. }| value),
        same_site: same_site.map(|At { value, .. }| value).unwrap_or_default(),
        ttl: ttl.map_or(Duration::ZERO, |At { value, .. }| value),
    })
}
