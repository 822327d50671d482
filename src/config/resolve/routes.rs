//! Routes of HTTP: what becomes of the requests they are for, and what is changed of those on the way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::files::{Files, refuse};
use super::words::{authority, changeable_field_name, check_path, field_value};
use super::{http, matches, networks};
use crate::admission::{Acl, Users};
use crate::config::model::http::{Action, HeaderRules, Part, Rewrite, Route, Template};
use crate::config::problem::{Findings, quoted};
use crate::config::raw_http::{RawAction, RawHeaderRules, RawRedirect, RawRespond, RawRewrite, RawRoute, RawSplit};
use crate::config::raw_tls::Texts;
use crate::config::read::{At, ByName};
use crate::net::address::Networks;
use crate::route::http::{Match, PathMatch};
use crate::units::{Name, Weight};

/// What a redirect says that does not say: for good, and with the same method.
const REDIRECT: u16 = 308;
/// The statuses whose responses have no body (RFC 9110 §15).
const WITHOUT_BODY: &[u16] = &[204, 205, 304];
/// What a body is that does not say.
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// What a client is asked to be known for that does not say.
const REALM: &str = "restricted";
/// The most letters it is asked with.
const LONGEST_REALM: usize = 128;

/// The routes of a listener, whose own `compress` is for those that have none.
pub(super) fn resolve(
    raw: At<Vec<Option<RawRoute<'_>>>>,
    compress: bool,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Vec<Route> {
    if raw.value.is_empty() {
        findings
            .error(raw.span, "`routes` cannot be empty")
            .expected("at least one table such as { path = \"/\", pool = … }");
    }
    let mut known = HashSet::new();
    let routes = raw.value.into_iter().flatten();
    routes.filter_map(|route| resolve_route(route, compress, &mut known, files, findings)).collect()
}

fn resolve_route(
    raw: RawRoute<'_>,
    compress_others: bool,
    known: &mut HashSet<Match>,
    files: &mut Files<'_>,
    findings: &mut Findings,
) -> Option<Route> {
    let RawRoute {
        matches,
        action,
        rewrite,
        request_headers,
        response_headers,
        timeout,
        retries,
        mirror,
        allow,
        deny,
        basic_auth,
        realm,
        max_in_flight,
        compress,
        span,
        refused,
    } = raw;
    let matches = matches::resolve(matches, findings);
    // A route of which something could not be read may be for something else.
    if let Some(matches) = matches.as_ref().filter(|_| !refused)
        && !known.insert(matches.clone())
    {
        findings.error(span, "an earlier route of this listener is for the same").expected("each route once");
    }
    let is_prefix = matches.as_ref().is_none_or(|matches| matches!(matches.path, PathMatch::Prefix(_)));
    let action = action.and_then(|action| resolve_action(action, findings));
    let rewrite = rewrite.map(|rewrite| resolve_rewrite(rewrite, is_prefix, findings)).unwrap_or_default();
    let request_headers =
        request_headers.map(|rules| resolve_rules(rules, Side::Request, findings)).unwrap_or_default();
    let response_headers =
        response_headers.map(|rules| resolve_rules(rules, Side::Response, findings)).unwrap_or_default();
    let acl = Acl { allow: resolve_networks("allow", allow, findings), deny: resolve_networks("deny", deny, findings) };
    if let (Some(realm), None) = (&realm, &basic_auth) {
        findings.error(realm.span.clone(), "`realm` means nothing without `basic_auth`").expected("`basic_auth`");
    }
    let users = basic_auth.and_then(|file| resolve_users(&file, files, findings));
    let realm = realm.and_then(|realm| resolve_realm(&realm, findings));
    Some(Route {
        matches: matches?,
        action: action?,
        rewrite,
        request_headers,
        response_headers,
        timeout: timeout.map_or(Duration::ZERO, |At { value, .. }| value),
        retries: retries.map(|At { value, .. }| value),
        mirror: mirror.map(|At { value, .. }| Name::new(value)),
        acl,
        users,
        realm: realm.unwrap_or_else(|| REALM.into()),
        max_in_flight: http::limit(max_in_flight, u32::MAX),
        compress: compress.map_or(compress_others, |At { value, .. }| value),
    })
}

fn resolve_action(raw: RawAction<'_>, findings: &mut Findings) -> Option<Action> {
    match raw {
        RawAction::Pool(pool) => Some(Action::Pool(Name::new(pool.value))),
        RawAction::Split(entries) => Some(Action::Split(resolve_split(entries, findings))),
        RawAction::Redirect(redirect) => resolve_redirect(redirect, findings),
        RawAction::Respond(respond) => Some(resolve_respond(respond, findings)),
    }
}

fn resolve_split(raw: At<Vec<Option<RawSplit<'_>>>>, findings: &mut Findings) -> Vec<(Name, Weight)> {
    let At { value: entries, span } = raw;
    let written = entries.len();
    let mut known = HashSet::new();
    let mut split = Vec::new();
    for RawSplit { pool, weight } in entries.into_iter().flatten() {
        let Some(pool) = pool else { continue };
        if !known.insert(pool.value) {
            findings.error(pool.span, &format!("the pool {} stands in `split` twice", quoted(pool.value)));
        }
        let weight = weight.and_then(|At { value, .. }| Weight::new(value)).unwrap_or_default();
        split.push((Name::new(pool.value), weight));
    }
    if written == 0 {
        findings.error(span, "`split` cannot be empty").expected("at least one table with `pool`");
    } else if split.len() == written && split.iter().all(|(_, weight)| weight.get() == 0) {
        findings
            .error(span, "every pool of this split has weight 0, so none would be given a request")
            .expected(&format!("at least one pool with a weight from 1 to {}", Weight::HEAVIEST));
    }
    split
}

fn resolve_redirect(raw: RawRedirect<'_>, findings: &mut Findings) -> Option<Action> {
    let RawRedirect { to, status } = raw;
    let status = status.map_or(REDIRECT, |At { value, .. }| value);
    let to = to?;
    match template(to.value) {
        Ok(location) => Some(Action::Redirect { status, location }),
        Err(why) => {
            findings.refused(to.span, to.value, "where a client can be sent to", &why);
            None
        }
    }
}

/// Reads a location with placeholders.
fn template(text: &str) -> Result<Template, String> {
    const EXPECTED: &str = "expected a location such as \"https://{host}{path}{query}\" or \"/new{path}\"";
    const PLACEHOLDERS: &[(&str, Part)] =
        &[("scheme", Part::Scheme), ("host", Part::Host), ("path", Part::Path), ("query", Part::Query)];
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`|".contains(c);
    if !text.chars().all(is_plain) {
        return Err(format!(
            "what is neither a letter, a digit nor a mark of a URI is written by its bytes; {EXPECTED}"
        ));
    }
    // What follows these would be a host of the client's choice, since a path begins with a slash.
    let leads_astray = |rest: &str| ["/", "{path}", "{query}"].iter().any(|start| rest.starts_with(start));
    let elsewhere = ["http://", "https://", "{scheme}://"].iter().find_map(|start| text.strip_prefix(start));
    let names_a_host = |rest: &str| !rest.is_empty() && !rest.starts_with(['?', '#']) && !leads_astray(rest);
    let fits = match elsewhere {
        Some(rest) => names_a_host(rest),
        None => text.strip_prefix('/').is_some_and(|rest| !leads_astray(rest)),
    };
    if !fits {
        return Err(EXPECTED.to_owned());
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (before, braced) = rest.split_once('{').unwrap_or((rest, ""));
        if before.contains('}') {
            return Err(format!("a \"}}\" closes nothing; {EXPECTED}"));
        }
        if !before.is_empty() {
            parts.push(Part::Text(before.into()));
        }
        if before.len() == rest.len() {
            break;
        }
        let Some((name, after)) = braced.split_once('}') else {
            return Err(format!("a \"{{\" is never closed; {EXPECTED}"));
        };
        let Some((_, part)) = PLACEHOLDERS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("there is no {{{name}}}; expected {{scheme}}, {{host}}, {{path}} or {{query}}"));
        };
        parts.push(part.clone());
        rest = after;
    }
    Ok(Template(parts))
}

fn resolve_respond(raw: RawRespond<'_>, findings: &mut Findings) -> Action {
    let RawRespond { status, body, content_type } = raw;
    let status = status.map_or(200, |At { value, .. }| value);
    if let Some(At { span, .. }) = body.as_ref().filter(|body| !body.value.is_empty() && WITHOUT_BODY.contains(&status))
    {
        findings.error(span.clone(), &format!("a response of status {status} has no body"));
    }
    let content_type = content_type.and_then(|value| {
        if value.value.is_empty() {
            findings
                .error(value.span.clone(), "`content_type` cannot be empty")
                .expected("a type such as \"text/html\"");
        }
        field_value(&value, findings)
    });
    Action::Respond {
        status,
        body: body.map_or("", |At { value, .. }| value).into(),
        content_type: content_type.unwrap_or_else(|| CONTENT_TYPE.into()),
    }
}

fn resolve_rewrite(raw: RawRewrite<'_>, is_prefix: bool, findings: &mut Findings) -> Rewrite {
    let RawRewrite { prefix, host } = raw;
    let prefix = prefix.and_then(|prefix| match check_path(prefix.value) {
        // What follows a prefix begins with a slash; what replaces a whole path is one.
        Ok(path) if is_prefix => Some(path.trim_end_matches('/').into()),
        Ok(path) => Some(path.into()),
        Err(why) => {
            findings.refused(prefix.span, prefix.value, "a path", &why);
            None
        }
    });
    Rewrite { host: host.and_then(|host| authority(&host, findings)), prefix }
}

/// Whose header is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

fn resolve_rules(raw: RawHeaderRules<'_>, side: Side, findings: &mut Findings) -> HeaderRules {
    let RawHeaderRules { remove, set, add } = raw;
    let mut removed: Vec<Box<str>> = Vec::new();
    for name in remove.into_iter().flat_map(|remove| remove.value).flatten() {
        let Some(lower) = changed_name(&name, side, findings) else { continue };
        if removed.contains(&lower) {
            findings.warning(name.span, &format!("{} stands in `remove` twice", quoted(name.value)));
        } else {
            removed.push(lower);
        }
    }
    HeaderRules {
        remove: removed,
        set: set.map(|set| resolve_fields("set", set, side, findings)).unwrap_or_default(),
        add: add.map(|add| resolve_fields("add", add, side, findings)).unwrap_or_default(),
    }
}

fn resolve_fields(key: &str, raw: ByName<'_>, side: Side, findings: &mut Findings) -> Vec<(Box<str>, Box<str>)> {
    let mut known = HashSet::new();
    let mut fields = Vec::new();
    for (name, value) in raw.value {
        let value = field_value(&value, findings);
        let Some(lower) = changed_name(&name, side, findings) else { continue };
        if !known.insert(lower.clone()) {
            findings.error(name.span, &format!("{} stands in `{key}` twice", quoted(name.value)));
        }
        fields.extend(value.map(|value| (lower, value)));
    }
    fields
}

fn changed_name(name: &At<&str>, side: Side, findings: &mut Findings) -> Option<Box<str>> {
    let lower = changeable_field_name(name, findings)?;
    if side == Side::Request && &*lower == "host" {
        let message = "the host of a request is said in more ways than by a field";
        findings.error(name.span.clone(), message).expected("`host` in `rewrite` of the route");
        return None;
    }
    Some(lower)
}

fn resolve_networks(key: &str, raw: Option<Texts<'_>>, findings: &mut Findings) -> Networks {
    let Some(list) = raw else { return Networks::default() };
    if list.value.is_empty() {
        findings
            .error(list.span.clone(), &format!("`{key}` cannot be empty"))
            .expected("at least one network such as \"10.0.0.0/8\"");
    }
    networks(list, findings)
}

fn resolve_users(file: &At<&str>, files: &mut Files<'_>, findings: &mut Findings) -> Option<Arc<Users>> {
    let bytes = files.read_secret(file, findings)?;
    let users = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()).and_then(|text| Users::parse(&text));
    users.map(Arc::new).map_err(|why| refuse(file, &why, findings)).ok()
}

/// Reads what stands in quotes in `WWW-Authenticate` (RFC 9110 §11.5).
fn resolve_realm(realm: &At<&str>, findings: &mut Findings) -> Option<Box<str>> {
    let is_plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && c != '"' && c != '\\';
    if realm.value.is_empty() || realm.value.len() > LONGEST_REALM || !realm.value.chars().all(is_plain) {
        let why = format!("expected 1 to {LONGEST_REALM} letters of ASCII without quotes and backslashes");
        findings.refused(realm.span.clone(), realm.value, "a realm", &why);
        return None;
    }
    Some(realm.value.into())
}
