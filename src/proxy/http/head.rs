//! The head of a request as a server gets it.

use std::rc::Rc;

use tokio::time::Instant;

use super::attempt::Errand;
use super::buffers::Stash;
use super::forward::{self, Ours, Pen};
use super::record::Context;
use super::request::Job;
use crate::backend::Server;
use crate::http2::hpack::encoder::{Packer, Pseudo};
use crate::message::forwarded::{Forwarding, Hop, Said};
use crate::message::framing::Length;
use crate::message::grpc::format_timeout;
use crate::message::head::Known;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::target::below;
use crate::message::trace;
use crate::message::version::Version;
use crate::message::websocket;
use crate::route::http::PathMatch;
use crate::snapshot::{PoolInEffect, RouteInEffect, StickyInEffect};

/// What a request says of itself on its way, the same at each attempt.
pub(super) struct Words {
    forwarding: Rc<Forwarding>,
    request_id: Id<32>,
    traceparent: Id<55>,
    /// Whether the trace is the client's, and its state with it.
    keeps_trace: bool,
    /// When the caller takes the call for failed, or we do, if the caller has said when.
    pub(super) deadline: Option<Instant>,
    /// What a server is sent by which it proves that it speaks WebSocket, if the request came without: HTTP/2 has no such
    /// thing (RFC 8441 §5).
    websocket_key: Option<[u8; 24]>,
}

/// An id that came with the request, or one that was made here.
enum Id<const LENGTH: usize> {
    Came(Box<[u8]>),
    Made([u8; LENGTH]),
}

impl<const LENGTH: usize> Id<LENGTH> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Came(id) => id,
            Self::Made(id) => id,
        }
    }
}

impl Words {
    /// Those of a request; what a peer that is not `trusted` says of others is not believed.
    pub(super) fn of(request: &Request, context: &Context, trusted: bool) -> Self {
        let fields = &request.fields;
        let mut rng = fastrand::Rng::new();
        let id = fields.first(Known::XRequestId).filter(|id| trace::is_valid_request_id(id));
        let lacks_key = request.version == Version::Http2
            && request.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
            && fields.first(Known::SecWebSocketKey).is_none();
        let trace = trace::kept(fields.values(Known::Traceparent));
        Self {
            forwarding: forwarding(request, context, trusted),
            request_id: id.map_or_else(|| Id::Made(trace::make_request_id(&mut rng)), |id| Id::Came(id.into())),
            keeps_trace: trace.is_some(),
            deadline: None,
            websocket_key: lacks_key.then(|| websocket::make_key(&mut rng)),
            traceparent: trace.map_or_else(|| Id::Made(trace::make(&mut rng)), |trace| Id::Came(trace.into())),
        }
    }

    /// What of it is ours, on this route to this pool.
    fn ours<'a>(&'a self, route: &RouteInEffect, pool: &'a PoolInEffect) -> Ours<'a> {
        Ours {
            forwarding: &self.forwarding,
            request_id: self.request_id(),
            traceparent: self.traceparent.as_bytes(),
            keeps_tracestate: self.keeps_trace,
            // A password that was for us is nothing for servers.
            keeps_authorization: route.route.users.is_none(),
            sticky: pool.sticky.as_ref().map(StickyInEffect::name),
            grpc_timeout: self.deadline.map(|at| format_timeout(at.saturating_duration_since(Instant::now()))),
        }
    }

    /// They are of no more use, but what they are written in is.
    pub(super) fn hand_back(self, stash: &Stash) {
        stash.return_forwarding(self.forwarding);
    }

    /// What it is known by.
    pub(super) fn request_id(&self) -> &[u8] {
        self.request_id.as_bytes()
    }

    /// Whether a server has answered the key that it was sent in the client's place, if it was.
    pub(super) fn are_accepted(&self, response: &Response) -> bool {
        let accept = || response.fields.first(Known::SecWebSocketAccept).unwrap_or_default();
        self.websocket_key.is_none_or(|key| websocket::accepts(&key, accept()))
    }
}

/// What is said of whom a request is for. Of strangers it is the same for all requests of a connection to one host, and what
/// was said last is kept.
fn forwarding(request: &Request, context: &Context, trusted: bool) -> Rc<Forwarding> {
    let host = request.authority();
    let mut said_last = context.said_last.borrow_mut();
    if let Some(again) = said_last.as_ref().filter(|last| !trusted && last.is_for(host)) {
        return Rc::clone(again);
    }
    let hop = Hop { peer: context.peer, trusted, scheme: context.scheme, port: context.port, host };
    let fields = &request.fields;
    let said = Said {
        forwarded: fields.values(Known::Forwarded),
        for_: fields.values(Known::XForwardedFor),
        proto: fields.values(Known::XForwardedProto),
        host: fields.values(Known::XForwardedHost),
        port: fields.values(Known::XForwardedPort),
    };
    let mut forwarding = context.desk.requests.stash.forwarding();
    // Nobody else holds one from the stash.
    Rc::make_mut(&mut forwarding).write(&hop, said);
    if !trusted
        && forwarding.may_be_kept()
        && let Some(before) = said_last.replace(Rc::clone(&forwarding))
    {
        context.desk.requests.stash.return_forwarding(before);
    }
    forwarding
}

impl Job<'_> {
    /// Packs the head in the form of HTTP/2.
    pub(super) fn pack_head(&self, errand: &Errand<'_>, server: &Server, packer: &mut Packer<'_>) {
        let Errand { route, pool, words, .. } = errand;
        let request = self.request;
        let upgrade = request.upgrade();
        packer.pseudo(Pseudo::Method, if upgrade.is_some() { b"CONNECT" } else { request.method() });
        packer.pseudo(Pseudo::Scheme, if server.tls.is_some() { b"https" } else { b"http" });
        match (&route.route.rewrite.host, request.authority()) {
            (Some(host), _) => packer.pseudo(Pseudo::Authority, host.as_bytes()),
            // Of HTTP/1.0, which may name none.
            (None, b"") => packer.pseudo(Pseudo::Authority, server.address.to_string().as_bytes()),
            (None, host) => packer.pseudo(Pseudo::Authority, host),
        }
        match (&route.route.rewrite.prefix, request.query()) {
            (None, None) => packer.pseudo(Pseudo::Path, request.path()),
            (Some(_), _) | (None, Some(_)) => {
                let mut path = Vec::new();
                write_path(request, route, &mut path);
                if let Some(query) = request.query() {
                    path.push(b'?');
                    path.extend_from_slice(query);
                }
                packer.pseudo(Pseudo::Path, &path);
            }
        }
        if let Some(protocol) = upgrade {
            packer.protocol(protocol);
        }
        let ours = words.ours(route, pool);
        let is_left_out = upgrade.is_some().then_some(Known::SecWebSocketKey);
        forward::request_fields(request, &route.route.request_headers, ours, is_left_out, packer);
        if let Length::Exactly(_) = request.length {
            forward::framing(request.length, packer);
        }
        if request.expects_continue {
            packer.field(b"expect", b"100-continue");
        }
    }

    /// Writes the head in the form of HTTP/1.
    pub(super) fn write_head(&self, errand: &Errand<'_>, server: &Server, out: &mut Vec<u8>) {
        let Errand { route, pool, words, .. } = errand;
        let request = self.request;
        out.extend_from_slice(request.method());
        out.push(b' ');
        write_path(request, route, out);
        if let Some(query) = request.query() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        match (&route.route.rewrite.host, request.authority()) {
            (Some(host), _) => out.field(b"Host", host.as_bytes()),
            // Of HTTP/1.0, which may name none.
            (None, b"") => out.field(b"Host", server.address.to_string().as_bytes()),
            (None, host) => out.field(b"Host", host),
        }
        let ours = words.ours(route, pool);
        forward::request_fields(request, &route.route.request_headers, ours, None, out);
        match request.length {
            // That a body is empty is said where one would be expected (RFC 9110 §8.6).
            Length::Exactly(_) | Length::Unknown => forward::framing(request.length, out),
            Length::None | Length::UntilClose => {}
        }
        if request.expects_continue {
            out.field(b"Expect", b"100-continue");
        }
        if let Some(upgrade) = request.upgrade() {
            out.field(b"Upgrade", upgrade);
        }
        // Whoever sends one of these says that it is for this connection (RFC 9110 §7.8 and §10.1.4).
        match (request.upgrade(), request.takes_trailers()) {
            (None, false) => {}
            (None, true) => out.field(b"Connection", b"TE"),
            (Some(_), false) => out.field(b"Connection", b"Upgrade"),
            (Some(_), true) => out.field(b"Connection", b"Upgrade, TE"),
        }
        if let Some(key) = &words.websocket_key {
            out.field(b"Sec-WebSocket-Key", key);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the path, with the part that the route matched replaced if it is to be; the rest stays as it was sent.
fn write_path(request: &Request, route: &RouteInEffect, out: &mut Vec<u8>) {
    let path = request.path();
    // What asks for the server itself has no path.
    let prefix = route.route.rewrite.prefix.as_ref().filter(|_| path != b"*");
    let Some(prefix) = prefix else { return out.extend_from_slice(path) };
    out.extend_from_slice(prefix.as_bytes());
    let below = match &route.route.matches.path {
        PathMatch::Exact(_) => None,
        PathMatch::Prefix(matched) => below(path, matched.len()),
    };
    if below.is_some() || prefix.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(below.unwrap_or_default());
}
