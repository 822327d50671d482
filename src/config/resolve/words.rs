//! The words of HTTP that a file names: tokens, fields, paths, hosts. Each is checked here and never again.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::problem::{Findings, quoted};
use crate::config::read::At;
use crate::message::target::has_dots;
use crate::route::HostPattern;

/// The fields that are about one connection or frame a message on it (RFC 9110 §7.6.1, RFC 9112 §6), which is not for
/// rules to say.
const OF_THE_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether this is a token (RFC 9110 §5.6.2): the name of a method, a field or a cookie.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The name of a field, in lower case.
pub(super) fn field_name(name: &At<&str>, findings: &mut Findings) -> Option<Box<str>> {
    if !is_token(name.value) {
        let why = "expected letters, digits and marks, without spaces, such as \"x-canary\"";
        findings.refused(name.span.clone(), name.value, "the name of a header field", why);
        return None;
    }
    Some(name.value.to_ascii_lowercase().into())
}

/// The name of a field that a rule may change, in lower case.
pub(super) fn changeable_field_name(name: &At<&str>, findings: &mut Findings) -> Option<Box<str>> {
    let lower = field_name(name, findings)?;
    if OF_THE_CONNECTION.contains(&&*lower) {
        let message = format!("{} belongs to each connection and cannot be changed", quoted(name.value));
        findings.error(name.span.clone(), &message).expected("a field that goes from end to end");
        return None;
    }
    Some(lower)
}

/// The value of a field (RFC 9110 §5.5).
pub(super) fn field_value(value: &At<&str>, findings: &mut Findings) -> Option<Box<str>> {
    let wrong = if value.value.chars().any(char::is_control) {
        "it has control characters"
    } else if value.value.trim_matches(' ').len() < value.value.len() {
        "it begins or ends with a space"
    } else {
        return Some(value.value.into());
    };
    findings.refused(value.span.clone(), value.value, "the value of a header field", wrong);
    None
}

/// A path as it stands in a request, with what is wrong if something is.
pub(super) fn check_path(path: &str) -> Result<&str, String> {
    const EXPECTED: &str = "expected a path such as \"/v1/\"";
    let digits = |at: usize| path.get(at + 1..at + 3).is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
    let prefix = path.strip_suffix('*').filter(|rest| rest.starts_with('/') && !rest.contains('*'));
    if let Some(prefix) = prefix {
        return Err(format!("a path is for all below it as well: did you mean \"{prefix}\"?; {EXPECTED}"));
    }
    let wrong = if !path.starts_with('/') {
        "a path begins with \"/\""
    } else if path.contains(['?', '#']) {
        "a path ends before \"?\" or \"#\""
    } else if path.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
        "what is neither a letter, a digit nor a mark is written by its bytes, such as \"%20\" for a space"
    } else if path.match_indices('%').any(|(at, _)| !digits(at)) {
        "two hexadecimal digits follow a \"%\""
    } else if path.contains('*') {
        "a \"*\" stands for nothing else in a path, and is written \"%2A\" where it is meant"
    } else if path.contains("//") {
        "a path has no \"//\""
    } else if has_dots(path.as_bytes()) {
        "a path has no \".\" and no \"..\" between slashes"
    } else {
        return Ok(path);
    };
    Err(format!("{wrong}; {EXPECTED}"))
}

/// A host that a server is asked for: a name or an address, perhaps with a port (RFC 9110 §7.2).
pub(super) fn authority(text: &At<&str>, findings: &mut Findings) -> Option<Box<str>> {
    let (host, port) = match text.value.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text.value, None),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_name = !host.ends_with('.') && matches!(HostPattern::parse(host), Ok(HostPattern::Exact(_)));
            is_name || host.parse::<Ipv4Addr>().is_ok()
        }
    };
    if is_host && port.is_none_or(is_port) {
        return Some(text.value.into());
    }
    let why = "expected a host name or an address, perhaps with a port, such as \"internal\" or \"10.0.0.5:8080\"";
    findings.refused(text.span.clone(), text.value, "a host", why);
    None
}
