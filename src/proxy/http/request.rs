//! What becomes of one request: where it leads, whether it may go there, and the answer where it goes no further.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, Own};
use super::exchange::Bounds;
use super::grpc;
use super::in_flight::{Full, InFlight};
use super::record::{Context, RequestRecord};
use super::seldom;
use super::sides::{Client, Server};
use super::timer::Timer;
use super::users::{Denied, challenge};
use crate::config::model::http::{Action, HttpPool, Part, Template};
use crate::ending::Reason;
use crate::message::forwarded;
use crate::message::head::{Fields, Known};
use crate::message::line::{LONGEST_HEAD, Limits};
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::target::normal_path;
use crate::relay::Recall;
use crate::route::http::Asked;
use crate::snapshot::{HttpInEffect, Listener, RouteInEffect, Snapshot};

/// The most bytes and fields a head of a server may have: more than ours to clients, since servers are configured by people
/// who know them.
pub(super) const RESPONSE_LIMITS: Limits =
    Limits { target: 0, first_line: 8 * 1024, bytes: LONGEST_HEAD - 8 * 1024, fields: 512, underscores: true };

/// One request on its way through.
pub(super) struct Job<'a> {
    pub(super) context: &'a Rc<Context>,
    pub(super) request: &'a Request,
    pub(super) snapshot: &'a Arc<Snapshot>,
    pub(super) listener: &'a Listener,
    pub(super) http: &'a HttpInEffect,
    pub(super) client: Client<'a>,
    pub(super) timer: &'a mut Timer,
    pub(super) recall: &'a Recall,
    pub(super) record: RequestRecord,
    pub(super) started: Instant,
    /// The present, as of when it was last waited for anything: to ask the system costs as much as a good deal of the rest.
    pub(super) now: Instant,
}

/// How a request ended.
pub(super) enum Finish {
    /// The response was handed over to its end.
    Delivered(Reason),
    /// Nothing more is to be sent, and nothing that was may be taken for the whole.
    Aborted(Reason),
    /// The server changes the protocol, as it was asked to.
    Upgraded(Box<Upgraded>),
}

/// A request that became a tunnel.
pub(super) struct Upgraded {
    pub(super) server: Server,
    pub(super) response: Box<Response>,
    /// What a client of HTTP/1 that asked for WebSocket takes for an agreement.
    pub(super) accept: Option<String>,
    /// A cookie of ours.
    pub(super) set_cookie: Option<Box<str>>,
}

impl crate::route::http::Fields for Fields {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.named(name.as_bytes()).any(test)
    }
}

impl Job<'_> {
    /// Serves it to its end.
    pub(super) async fn run(&mut self) -> Finish {
        let request = self.request;
        let trusted = self.http.trusts(&self.context.peer);
        if trusted {
            let said = [Known::XForwardedFor, Known::Forwarded].map(|known| request.fields.values(known));
            let [old, new] = said;
            let trusted = &self.http.settings.trusted_proxies;
            self.record.client = forwarded::real_client(trusted, self.context.peer, old, new);
        }
        if self.is_misdirected() {
            return self.answer_ending(Reason::Misdirected, &[]);
        }
        let Some(route) = find(self.http, request) else { return self.answer_ending(Reason::NoRoute, &[]) };
        if !route.route.acl.lets_in(&self.record.client) {
            return self.answer_ending(Reason::RefusedAcl, &[]);
        }
        if let Some(users) = &route.route.users {
            let verdict = seldom(self.authenticate(users)).await;
            self.now = Instant::now();
            match verdict {
                Ok(()) => {}
                Err(Denied::Refused(reason @ Reason::Unauthorized)) => {
                    let challenge = challenge(&route.route.realm);
                    return self.answer_ending(reason, &[("WWW-Authenticate", challenge.as_bytes())]);
                }
                Err(Denied::Refused(reason)) => return self.answer_ending(reason, &[("Retry-After", b"1")]),
                Err(Denied::Gone(reason)) => {
                    self.record.close(reason);
                    return Finish::Aborted(reason);
                }
            }
        }
        if let Some(length) = request.length.known()
            && length > self.http.settings.limits.body_bytes
        {
            return self.answer_ending(Reason::BodyTooLarge, &[]);
        }
        match InFlight::enter(route) {
            // It is in flight for as long as its record lasts, be it as a tunnel.
            Ok(in_flight) => self.record.in_flight = in_flight,
            Err(Full) => return self.answer_ending(Reason::RefusedLimit, &[("Retry-After", b"1")]),
        }
        match &route.route.action {
            Action::Redirect { status, location } => self.redirect(route, *status, location, trusted),
            Action::Respond { status, body, content_type } => {
                let own = Own {
                    status: *status,
                    reason: None,
                    fields: &[],
                    content_type: content_type.as_bytes(),
                    body: body.as_bytes(),
                    rules: Some(&route.route.response_headers),
                };
                self.answer(&own, Reason::Done)
            }
            Action::Pool(_) | Action::Split(_) => {
                let drawn = route.draw().and_then(|place| Some((place, self.snapshot.pool_at(place)?)));
                let Some((place, pool)) = drawn else { return self.answer_ending(Reason::NoRoute, &[]) };
                self.record.routed(pool.pool.name());
                let bounds = self.bounds(route, &pool.http);
                self.forward(route, place, trusted, &bounds).await
            }
        }
    }

    /// Whether the host asks more of its clients than the handshake was held to.
    fn is_misdirected(&self) -> bool {
        let Some(terminator) = super::terminator(self.listener) else { return false };
        let shaken_for = self.context.more.asked_for.as_deref();
        !self.request.host().is_empty() && !terminator.same_policy(shaken_for, Some(self.request.host()))
    }

    pub(super) fn bounds(&self, route: &RouteInEffect, pool: &HttpPool) -> Bounds {
        let timeouts = &self.http.settings.timeouts;
        let limits = &self.http.settings.limits;
        let whole = [timeouts.request, route.route.timeout].into_iter().filter(|limit| !limit.is_zero()).min();
        let callers = grpc::deadline(self.request, self.started);
        let (expires, blamed_after) = match whole {
            Some(limit) if callers.is_none_or(|deadline| self.started + limit <= deadline) => {
                (Some(self.started + limit), limit / 2)
            }
            Some(_) | None => (callers, Duration::MAX),
        };
        Bounds {
            expires,
            blamed_after,
            body_idle: timeouts.body_idle,
            min_rate: limits.min_rate,
            body_bytes: limits.body_bytes,
            response_header: pool.timeouts.response_header,
            idle: self.listener.timeouts.idle,
            response_limits: RESPONSE_LIMITS,
            trailer_limits: self.http.limits,
        }
    }

    /// Answers for an ending.
    #[cold]
    pub(super) fn answer_ending(&mut self, reason: Reason, fields: &[(&'static str, &[u8])]) -> Finish {
        // It may have been waited for long.
        self.now = Instant::now();
        let Self { request, http, client, record, recall, .. } = self;
        client.retire(recall.by().is_some());
        answer::with_ending(request, http, reason, fields, |own| {
            record.answered(own.status, reason);
            client.answer(own, request.is_head());
        });
        Finish::Delivered(reason)
    }

    #[cold]
    fn answer(&mut self, own: &Own<'_>, reason: Reason) -> Finish {
        self.record.answered(own.status, reason);
        self.client.retire(self.recall.by().is_some());
        self.client.answer(own, self.request.is_head());
        Finish::Delivered(reason)
    }

    #[cold]
    fn redirect(&mut self, route: &RouteInEffect, status: u16, location: &Template, trusted: bool) -> Finish {
        let request = self.request;
        // The scheme that the client used is known to the first proxy alone.
        let [old, new] = [Known::XForwardedProto, Known::Forwarded].map(|known| request.fields.values(known));
        let told = trusted.then(|| forwarded::told_scheme(old, new)).flatten();
        let Some(location) = write_location(location, request, told.unwrap_or(self.context.scheme)) else {
            return self.answer_ending(Reason::BadRequest, &[]);
        };
        let fields: &[(&'static str, &[u8])] = &[("Location", &location)];
        let rules = Some(&route.route.response_headers);
        let own = Own { status, reason: None, fields, content_type: b"", body: b"", rules };
        self.answer(&own, Reason::Done)
    }
}

/// The route of a request.
pub(super) fn find<'h>(http: &'h HttpInEffect, request: &Request) -> Option<&'h RouteInEffect> {
    let path = normal_path(request.path());
    http.find(&Asked {
        host: request.host(),
        method: request.method(),
        path: &path,
        query: request.query().unwrap_or_default(),
        fields: &request.fields,
    })
}

/// The path with one slash at its beginning: two would make a host of what follows.
fn with_one_slash(mut path: &[u8]) -> &[u8] {
    while let Some(behind) = path.strip_prefix(b"/")
        && behind.starts_with(b"/")
    {
        path = behind;
    }
    path
}

/// Where a request is sent; nowhere if that takes a host, and it names none.
fn write_location(template: &Template, request: &Request, scheme: &str) -> Option<Vec<u8>> {
    let mut location = Vec::new();
    for part in &template.0 {
        match part {
            Part::Text(text) => location.extend_from_slice(text.as_bytes()),
            Part::Scheme => location.extend_from_slice(scheme.as_bytes()),
            Part::Host if request.host().is_empty() => return None,
            Part::Host => location.extend_from_slice(request.host().as_bytes()),
            // What asks for the server itself has no path.
            Part::Path if request.path() == b"*" => {}
            Part::Path if location.is_empty() => location.extend_from_slice(with_one_slash(request.path())),
            Part::Path => location.extend_from_slice(request.path()),
            Part::Query => {
                if let Some(query) = request.query() {
                    location.push(b'?');
                    location.extend_from_slice(query);
                }
            }
        }
    }
    Some(location)
}

/// How long a word of ours to a client may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
