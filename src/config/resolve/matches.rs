//! Which requests a route is for: host, path, methods, fields and query.

use std::collections::HashSet;

use super::words::{check_path, field_name, is_token};
use crate::config::problem::{Findings, quoted};
use crate::config::raw_http::RawMatch;
use crate::config::raw_tls::Texts;
use crate::config::read::{At, ByName};
use crate::message::target::normal_path;
use crate::route::HostPattern;
use crate::route::http::{Match, PathMatch, ValueMatch};

/// What to write for `host = "*"`.
const ANY_HOST: &str = "leave `host` out: without it, any host is meant";

/// Which requests a route is for, unless something is wrong with it. What stands in no order of its own is put in one, so
/// that two routes for the same are equal.
pub(super) fn resolve(raw: RawMatch<'_>, findings: &mut Findings) -> Option<Match> {
    let RawMatch { host, path, method, headers, query } = raw;
    let before = findings.errors();
    let matches = Match {
        host: host.and_then(|host| resolve_host(&host, findings)),
        path: path.and_then(|path| resolve_path(&path, findings)).unwrap_or_default(),
        methods: method.map(|methods| resolve_methods(methods, findings)).unwrap_or_default(),
        headers: headers.map(|headers| resolve_headers(headers, findings)).unwrap_or_default(),
        query: query.map(|query| resolve_query(query, findings)).unwrap_or_default(),
    };
    (findings.errors() == before).then_some(matches)
}

fn resolve_host(host: &At<&str>, findings: &mut Findings) -> Option<HostPattern> {
    let refuse = |why: String| {
        let problem = findings.refused(host.span.clone(), host.value, "a host name", &why);
        if host.value == "*" {
            problem.help(ANY_HOST);
        }
    };
    HostPattern::parse_host(host.value).map_err(refuse).ok()
}

fn resolve_path(path: &At<&str>, findings: &mut Findings) -> Option<PathMatch> {
    let checked = match path.value.strip_prefix('=') {
        Some(exact) => check_compared(exact.trim_start_matches(' ')).map(|path| PathMatch::Exact(normal(path).into())),
        None => check_compared(path.value).map(|path| PathMatch::Prefix(normal(path).trim_end_matches('/').into())),
    };
    checked.map_err(|why| _ = findings.refused(path.span.clone(), path.value, "a path", &why)).ok()
}

/// A path without anything that is left aside when paths are compared.
fn check_compared(path: &str) -> Result<&str, String> {
    match check_path(path) {
        Ok(path) if path.contains(';') || path.to_ascii_lowercase().contains("%3b") => {
            Err("what follows a \";\" in a segment is not compared, as \"/a;b\" takes the route of \"/a\"".to_owned())
        }
        checked => checked,
    }
}

/// The path in the form in which those of requests are compared with it.
fn normal(path: &str) -> String {
    String::from_utf8_lossy(&normal_path(path.as_bytes())).into_owned()
}

fn resolve_methods(raw: Texts<'_>, findings: &mut Findings) -> Vec<Box<str>> {
    if raw.value.is_empty() {
        findings
            .error(raw.span, "`method` cannot be empty")
            .expected("at least one method; without `method`, it is any");
    }
    let mut methods: Vec<Box<str>> = Vec::new();
    for At { value, span } in raw.value.into_iter().flatten() {
        let upper = value.to_ascii_uppercase();
        if !is_token(value) {
            findings.refused(span, value, "a method", "expected a word such as \"GET\"");
        } else if value != upper {
            let why = format!("methods are in upper case: did you mean \"{upper}\"?");
            findings.refused(span, value, "a method", &why);
        } else if methods.iter().any(|known| **known == *value) {
            findings.warning(span, &format!("{} stands in `method` twice", quoted(value)));
        } else {
            methods.push(value.into());
        }
    }
    methods.sort();
    methods
}

fn resolve_headers(raw: ByName<'_>, findings: &mut Findings) -> Vec<(Box<str>, ValueMatch)> {
    let mut known = HashSet::new();
    let mut headers = Vec::new();
    for (name, value) in raw.value {
        let Some(lower) = field_name(&name, findings) else { continue };
        if &*lower == "host" {
            findings
                .error(name.span, "a request says for which host it is in more ways than by a field")
                .expected("`host`");
        } else if !known.insert(lower.clone()) {
            findings.error(name.span, &format!("{} stands in `headers` twice", quoted(name.value)));
        } else {
            headers.extend(resolve_value(&value, findings).map(|value| (lower, value)));
        }
    }
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    headers
}

fn resolve_query(raw: ByName<'_>, findings: &mut Findings) -> Vec<(Box<str>, ValueMatch)> {
    let mut query = Vec::new();
    for (name, value) in raw.value {
        if name.value.is_empty() || name.value.chars().any(char::is_control) {
            findings.refused(name.span, name.value, "the name of a parameter", "expected a name such as \"version\"");
            continue;
        }
        query.extend(resolve_value(&value, findings).map(|value| (Box::from(name.value), value)));
    }
    query.sort_by(|one: &(Box<str>, _), other| one.0.cmp(&other.0));
    query
}

/// `*`, `abc*`, `*abc` or a value.
fn resolve_value(text: &At<&str>, findings: &mut Findings) -> Option<ValueMatch> {
    let value = text.value;
    let (parsed, rest) = match (value.strip_suffix('*'), value.strip_prefix('*')) {
        (Some(""), _) => (ValueMatch::Any, ""),
        (Some(begins), _) => (ValueMatch::Begins(begins.into()), begins),
        (None, Some(ends)) => (ValueMatch::Ends(ends.into()), ends),
        (None, None) => (ValueMatch::Exact(value.into()), value),
    };
    let why = if rest.contains('*') {
        "there is one \"*\" at most, and it stands first or last"
    } else if rest.chars().any(char::is_control) {
        "it has control characters"
    } else {
        return Some(parsed);
    };
    findings.refused(
        text.span.clone(),
        value,
        "a value to look for",
        &format!("{why}; expected \"*\", \"abc*\", \"*abc\" or \"abc\""),
    );
    None
}
