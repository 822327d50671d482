//! What a head becomes on its way through: what concerns one hop is taken out first, then what routes ask for is changed,
//! then what is ours is added, so that nobody can have it taken out again.

use super::sides::ResponseHead;
use crate::config::model::http::HeaderRules;
use crate::http2::hpack::encoder::Packer;
use crate::message::compress::Change;
use crate::message::decimal::Decimal;
use crate::message::forwarded::Forwarding;
use crate::message::framing::Length;
use crate::message::head::{Entry, Fields, Known, Role};
use crate::message::options::Options;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::version::Version;
use crate::pool::sticky::without_cookie;

/// What a head is written with.
pub(super) trait Pen {
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// Writes a field as it came.
    fn pass(&mut self, entry: Entry<'_>) {
        self.field(entry.name(), entry.value());
    }

    /// Writes all that is said of whom a request is for.
    fn forwarding(&mut self, forwarding: &Forwarding) {
        forwarding.fields().for_each(|(name, value)| self.field(name.as_bytes(), value));
    }
}

/// In the form of HTTP/1.
impl Pen for Vec<u8> {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.reserve(name.len() + value.len() + 4);
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }

    fn pass(&mut self, entry: Entry<'_>) {
        match entry.line() {
            Some(line) => self.extend_from_slice(line),
            None => self.field(entry.name(), entry.value()),
        }
    }

    fn forwarding(&mut self, forwarding: &Forwarding) {
        self.extend_from_slice(forwarding.lines());
    }
}

/// In the form of HTTP/2.
impl Pen for Packer<'_> {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        Packer::field(self, name, value);
    }
}

/// Which fields of a head go on to the next hop.
struct Sieve<'a> {
    fields: &'a Fields,
    rules: &'a HeaderRules,
    /// Whether `Connection` names fields at all.
    nominates: bool,
    /// Whether rules take the place of fields at all.
    replaces: bool,
}

impl<'a> Sieve<'a> {
    fn new(fields: &'a Fields, options: Options, rules: &'a HeaderRules) -> Self {
        let replaces = !rules.remove.is_empty() || !rules.set.is_empty();
        Self { fields, rules, nominates: options.nominates, replaces }
    }

    /// Whether a field that concerns more than one hop goes on.
    fn passes(&self, name: &[u8]) -> bool {
        if self.nominates && self.fields.lists(Known::Connection, name) {
            return false;
        }
        self.is_left_alone(name)
    }

    /// Whether no rule takes its place.
    fn is_left_alone(&self, name: &[u8]) -> bool {
        !self.replaces || is_left_alone(self.rules, name)
    }
}

/// Whether no rule takes the place of a field.
pub(super) fn is_left_alone(rules: &HeaderRules, name: &[u8]) -> bool {
    let HeaderRules { remove, set, add: _ } = rules;
    let is_name = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    !remove.iter().any(|other| is_name(other)) && !set.iter().any(|(other, _)| is_name(other))
}

/// What is ours in a request.
pub(super) struct Ours<'a> {
    /// For whom the request is.
    pub(super) forwarding: &'a Forwarding,
    pub(super) request_id: &'a [u8],
    pub(super) traceparent: &'a [u8],
    pub(super) keeps_tracestate: bool,
    /// Whether what the client says of itself is for the server.
    pub(super) keeps_authorization: bool,
    /// The name of a cookie that is between the client and us.
    pub(super) sticky: Option<&'a str>,
    /// What is left of the caller's timeout, where it is known.
    pub(super) grpc_timeout: Option<String>,
}

/// Writes the fields of a request, but for its host, how its body is framed, and one that has no place in the next version.
pub(super) fn request_fields(
    request: &Request,
    rules: &HeaderRules,
    ours: Ours<'_>,
    left_out: Option<Known>,
    pen: &mut impl Pen,
) {
    let fields = &request.fields;
    let sieve = Sieve::new(fields, request.options, rules);
    for entry in fields.entries() {
        let (known, name) = (entry.known(), entry.name());
        let passes = match known.role() {
            Role::Hop => false,
            _ if Some(known) == left_out => false,
            Role::Ours => known == Known::Tracestate && ours.keeps_tracestate && sieve.passes(name),
            Role::End if known == Known::Authorization => ours.keeps_authorization && sieve.passes(name),
            Role::End if known == Known::GrpcTimeout => ours.grpc_timeout.is_none() && sieve.passes(name),
            Role::End => sieve.passes(name),
        };
        match ours.sticky.filter(|_| known == Known::Cookie) {
            _ if !passes => {}
            None => pen.pass(entry),
            Some(sticky) => match without_cookie(entry.value(), sticky) {
                rest if rest.is_empty() => {}
                rest => pen.field(name, &rest),
            },
        }
    }
    // Of the transfer codings a client takes, only trailers concern more than its own connection (RFC 9110 §10.1.4).
    if request.takes_trailers() {
        pen.field(b"TE", b"trailers");
    }
    let HeaderRules { remove: _, set, add } = rules;
    let Ours { forwarding, request_id, traceparent, grpc_timeout, .. } = ours;
    match sieve.replaces {
        false => pen.forwarding(forwarding),
        true => forwarding
            .fields()
            .filter(|(name, _)| sieve.is_left_alone(name.as_bytes()))
            .for_each(|(name, value)| pen.field(name.as_bytes(), value)),
    }
    let mut write = |name: &[u8], value: &[u8]| {
        if sieve.is_left_alone(name) {
            pen.field(name, value);
        }
    };
    via(request, &mut write);
    write(b"X-Request-Id", request_id);
    write(b"Traceparent", traceparent);
    if let Some(timeout) = grpc_timeout {
        write(b"Grpc-Timeout", timeout.as_bytes());
    }
    for (name, value) in set.iter().chain(add) {
        pen.field(name.as_bytes(), value.as_bytes());
    }
}

/// `Via` with this hop behind those before (RFC 9110 §7.6.3).
fn via(request: &Request, write: &mut dyn FnMut(&[u8], &[u8])) {
    let own: &[u8] = match request.version {
        Version::Http10 => b"1.0 portreeve",
        Version::Http11 => b"1.1 portreeve",
        Version::Http2 => b"2.0 portreeve",
    };
    let before: Vec<&[u8]> = request.fields.values(Known::Via).collect();
    if before.is_empty() {
        return write(b"Via", own);
    }
    let all: Vec<&[u8]> = before.into_iter().chain([own]).collect();
    write(b"Via", &all.join(&b", "[..]));
}

/// Writes the fields of a response as a client gets it, but for how its body is framed.
pub(super) fn response_head(head: &ResponseHead<'_>, pen: &mut impl Pen) {
    let ResponseHead { response, rules, changes, set_cookie, .. } = head;
    let is_changed = |name: &[u8]| {
        changes.iter().any(|change| match change {
            Change::Remove(own) | Change::Set(own, _) => name.eq_ignore_ascii_case(own.as_bytes()),
            Change::Append(..) => false,
        })
    };
    let sieve = Sieve::new(&response.fields, response.options, rules);
    for entry in response.fields.entries() {
        let passes = entry.known().role() != Role::Hop && sieve.passes(entry.name()) && !is_changed(entry.name());
        if passes {
            pen.pass(entry);
        }
    }
    let HeaderRules { remove: _, set, add } = rules;
    for (name, value) in set.iter().chain(add) {
        pen.field(name.as_bytes(), value.as_bytes());
    }
    for change in *changes {
        match change {
            Change::Remove(_) => {}
            // What the route has replaced or taken out is not brought back.
            Change::Set(name, value) if sieve.is_left_alone(name.as_bytes()) => pen.field(name.as_bytes(), value),
            Change::Set(..) => {}
            Change::Append(name, value) => pen.field(name.as_bytes(), value),
        }
    }
    if let Some(cookie) = set_cookie {
        pen.field(b"Set-Cookie", cookie.as_bytes());
    }
}

/// Writes the fields of a response that is no final one, but for what concerns one hop and what is to be removed.
pub(super) fn response_fields(response: &Response, rules: &HeaderRules, pen: &mut impl Pen) {
    let sieve = Sieve::new(&response.fields, response.options, rules);
    for entry in response.fields.entries() {
        if entry.known().role() != Role::Hop && sieve.passes(entry.name()) {
            pen.pass(entry);
        }
    }
}

/// Writes a trailer section: what frames a message, and what concerns one hop, has no place there (RFC 9110 §6.5.1).
pub(super) fn trailer_fields(trailers: &Fields, pen: &mut impl Pen) {
    trailers.iter().filter(|(known, ..)| is_trailer(*known)).for_each(|(_, name, value)| pen.field(name, value));
}

/// Whether a trailer section has anything that is passed on.
pub(super) fn has_trailers(trailers: &Fields) -> bool {
    trailers.iter().any(|(known, ..)| is_trailer(known))
}

fn is_trailer(known: Known) -> bool {
    matches!(known, Known::Other | Known::GrpcStatus)
}

/// Writes how a body of HTTP/1 is framed.
pub(super) fn framing(length: Length, pen: &mut impl Pen) {
    match length {
        Length::None | Length::UntilClose => {}
        Length::Exactly(bytes) => pen.field(b"Content-Length", Decimal::new(bytes).as_bytes()),
        Length::Unknown => pen.field(b"Transfer-Encoding", b"chunked"),
    }
}
