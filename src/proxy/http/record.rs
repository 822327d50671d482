//! What will be said of a request when it is over, gathered while it lasts.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::grpc;
use super::in_flight::InFlight;
use crate::backend::{Lease, State};
use crate::ending::{Class, Reason, TlsVersion};
use crate::logging::{Line, RequestLine};
use crate::message::forwarded::Forwarding;
use crate::message::grpc::Code;
use crate::message::request::{MOST_TOLD, Request};
use crate::net::address::ClientAddr;
use crate::net::proxy_protocol::Version;
use crate::net::stream::Stream;
use crate::proxy::connect::{announce, local_address};
use crate::proxy::record::{More, millis, readable};
use crate::proxy::{Desk, Entrance};
use crate::units::Name;

/// What all requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) desk: Rc<Desk>,
    /// What the connection came through.
    pub(super) entrance: Arc<Entrance>,
    /// Who connected, or whom its PROXY header names.
    pub(super) peer: ClientAddr,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The port it connected to, where there are ports.
    pub(super) port: Option<u16>,
    /// What it connected to, where that has an address, once somebody has to know: to ask is a system call.
    pub(super) destination: OnceCell<Option<SocketAddr>>,
    /// What else is known of the connection.
    pub(super) more: More,
    /// What was said last of whom a request is for, without what the client says itself.
    pub(super) said_last: RefCell<Option<Rc<Forwarding>>>,
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(forwarding) = self.said_last.take() {
            self.desk.requests.stash.return_forwarding(forwarding);
        }
    }
}

impl Context {
    /// Finds out what the client connected to, for [`Context::announcement`].
    pub(super) fn find_destination(&self, client: &Stream) {
        self.destination.get_or_init(|| local_address(client));
    }

    /// The PROXY header that tells a server whom we speak for.
    pub(super) fn announcement(&self, version: Version) -> Vec<u8> {
        announce(version, self.peer, self.destination.get().copied().flatten(), &self.more, None)
    }
}

/// The record of one request, which also keeps what it holds for as long as it lasts. One that is dropped without having been
/// closed, as when its task panics, says so as `internal`.
#[derive(Debug)]
pub(super) struct RequestRecord {
    pub(super) context: Rc<Context>,
    started: Instant,
    /// Text of the request, if somebody will read it.
    text: Option<Box<Text>>,
    protocol: &'static str,
    pub(super) client: ClientAddr,
    pool: Option<Name>,
    lease: Option<Lease>,
    /// Its place among the requests of its route, if those are counted.
    pub(super) in_flight: Option<InFlight>,
    connecting: Option<Duration>,
    /// When the request began to be sent, and how long the first byte of the response took then.
    sent: Option<Instant>,
    first_byte: Option<Duration>,
    status: u16,
    /// The status that the client was told in place of it, if that is another.
    told: Option<u16>,
    bytes: (u64, u64),
    retries: u8,
    reason: Reason,
    /// Whether it was answered here.
    answered: bool,
    /// Whether it is a call of gRPC, and how that ended, if a server has said so.
    is_call: bool,
    code: Option<Code>,
    /// Whether it is a copy, of which only its servers hear.
    is_copy: bool,
}

#[derive(Debug, Default)]
struct Text {
    method: String,
    host: String,
    path: String,
    request_id: String,
    user: Option<String>,
    /// The server it was tried at last.
    server: Option<Name>,
    error: Option<String>,
}

impl RequestRecord {
    pub(super) fn open(context: Rc<Context>, request: &Request, started: Instant) -> Self {
        let text = context.desk.access.is_on().then(|| {
            let method = String::from_utf8_lossy(request.method_sent()).into_owned();
            let host = request.host().to_owned();
            Box::new(Text { method, host, path: request.target_told(), ..Text::default() })
        });
        Self {
            client: context.peer,
            context,
            started,
            text,
            protocol: request.version.label(),
            pool: None,
            lease: None,
            in_flight: None,
            connecting: None,
            sent: None,
            first_byte: None,
            status: 0,
            told: None,
            bytes: (0, 0),
            retries: 0,
            reason: Reason::Internal,
            answered: false,
            is_call: grpc::is_call(request),
            code: None,
            is_copy: false,
        }
    }

    /// That of what is no request, or none that is served: of its target, the beginning is told.
    pub(super) fn refused(context: Rc<Context>, request: &Request, started: Instant) -> Self {
        let mut record = Self::open(context, request, started);
        if let Some(text) = &mut record.text {
            text.path.truncate(text.path.floor_char_boundary(MOST_TOLD));
        }
        record
    }

    /// That of a copy for a pool.
    pub(super) fn of_copy(context: Rc<Context>, request: &Request, started: Instant, pool: &Name) -> Self {
        let mut record = Self::open(context, request, started);
        record.text = None;
        record.is_copy = true;
        record.routed(pool);
        record
    }

    fn worker(&self) -> usize {
        self.context.desk.worker
    }

    /// What it is known by on its way.
    pub(super) fn identified(&mut self, request_id: &[u8]) {
        if let Some(text) = &mut self.text {
            text.request_id = String::from_utf8_lossy(request_id).into_owned();
        }
    }

    /// The user it is made by.
    pub(super) fn made_by(&mut self, user: &str) {
        if let Some(text) = &mut self.text {
            text.user = Some(user.to_owned());
        }
    }

    /// If it is a call, this is how it ended.
    pub(super) fn called(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// How it ended, if it is a call.
    pub(super) fn code(&self) -> Option<Code> {
        let known =
            || if self.reason == Reason::Done { Code::of_http(self.status) } else { grpc::code_of(self.reason) };
        self.is_call.then(|| self.code.unwrap_or_else(known))
    }

    /// Something failed; these words say more of it than a reason can.
    pub(super) fn failed(&mut self, words: impl std::fmt::Display) {
        if let Some(text) = &mut self.text {
            text.error = Some(words.to_string());
        }
    }

    /// It goes to this pool.
    pub(super) fn routed(&mut self, pool: &Name) {
        // The name is shared by all workers, and to hold it means to write to it.
        self.pool = self.text.as_ref().map(|_| pool.clone());
    }

    /// It is sent to a server now, on a connection that took so long to make or was there already.
    pub(super) fn sent_to(&mut self, lease: Lease, connecting: Option<Duration>, now: Instant) {
        let metrics = lease.server().metrics();
        metrics.got_connection(self.worker(), connecting.is_none());
        if let Some(connecting) = connecting {
            metrics.connected(self.worker(), connecting);
        }
        if self.retries > 0 {
            metrics.retried(self.worker());
        }
        self.connecting = connecting;
        self.lease = Some(lease);
        self.sent = Some(now);
    }

    /// It was tried at this server last.
    pub(super) fn tried_at(&mut self, server: &State) {
        if let Some(text) = &mut self.text {
            text.server = Some(server.name.clone());
        }
    }

    /// The server it was sent to, if it was to any, has no part in it any more.
    pub(super) fn give_up_server(&mut self) {
        self.conclude_server(self.status);
        (self.status, self.first_byte, self.connecting) = (0, None, None);
    }

    /// It is tried once more.
    pub(super) fn retried(&mut self) {
        self.retries = self.retries.saturating_add(1);
    }

    /// The server it was sent to.
    pub(super) fn server(&self) -> Option<&Arc<State>> {
        self.lease.as_ref().map(Lease::server)
    }

    /// When it was sent to that; if it was not, that is now.
    pub(super) fn sent(&self) -> Instant {
        self.sent.unwrap_or_else(Instant::now)
    }

    /// The server's response has begun; returns the present.
    pub(super) fn responded(&mut self, status: u16) -> Instant {
        let now = Instant::now();
        self.status = status;
        self.first_byte = self.sent.map(|sent| now.duration_since(sent));
        if let (Some(server), Some(first_byte)) = (self.server(), self.first_byte) {
            server.answered(first_byte);
        }
        now
    }

    /// The client was told this status, in the terms of its version, of a server that changes the protocol.
    pub(super) fn told(&mut self, status: u16) {
        self.told = Some(status);
    }

    /// The server has left it unanswered, and will not answer any more.
    pub(super) fn left_unanswered(&self) {
        if let (Some(server), Some(sent)) = (self.server(), self.sent) {
            server.left_unanswered(sent.elapsed());
        }
    }

    /// It was answered here, with this status.
    pub(super) fn answered(&mut self, status: u16, reason: Reason) {
        self.status = status;
        self.reason = reason;
        self.answered = true;
    }

    /// So many bytes of its body were read, and of the response's sent.
    pub(super) fn moved(&mut self, up: u64, down: u64) {
        self.bytes.0 += up;
        self.bytes.1 += down;
    }

    /// It ended for this reason.
    pub(super) fn close(&mut self, reason: Reason) {
        self.reason = reason;
    }

    /// The server is done with it, having responded with this status or, at 0, not at all.
    fn conclude_server(&mut self, status: u16) {
        if let Some(lease) = self.lease.take() {
            self.tried_at(lease.server());
            let first_byte = self.first_byte.unwrap_or_default();
            lease.server().metrics().responded(self.worker(), Class::of(status), first_byte);
        }
    }

    /// Whether it is a copy, which counts for its server alone.
    pub(super) fn is_copy(&self) -> bool {
        self.is_copy
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let worker = self.worker();
        self.conclude_server(if self.answered { 0 } else { self.status });
        if self.is_copy {
            return;
        }
        let status = self.told.unwrap_or(self.status);
        self.context.entrance.metrics.request(worker, Class::of(status), self.reason);
        let code = self.code();
        if let Some(code) = code {
            self.context.entrance.metrics.called(worker, code);
        }
        if self.answered {
            self.context.entrance.metrics.answered(worker, self.reason);
        }
        let Some(text) = self.text.as_deref() else { return };
        let Context { desk, entrance, more, .. } = &*self.context;
        desk.access.write(&Line {
            listener: entrance.metrics.name().as_str(),
            protocol: self.protocol,
            client: shown(self.client),
            server_name: more.server_name.as_deref(),
            tls: more.tls.map(TlsVersion::label),
            client_subject: more.identity.as_ref().map(|identity| identity.subject.as_str()),
            client_names: more.identity.as_ref().map(|identity| &*identity.alternative_names).unwrap_or_default(),
            unique_id: more.unique_id.as_deref().map(readable).as_deref(),
            request: Some(RequestLine {
                method: &text.method,
                host: &text.host,
                path: &text.path,
                status: (status != 0).then_some(status),
                first_byte_ms: self.first_byte.map(millis),
                request_id: &text.request_id,
                user: text.user.as_deref(),
                grpc_status: code.map(Code::label),
            }),
            pool: self.pool.as_ref().map(Name::as_str),
            server: text.server.as_ref().map(Name::as_str),
            bytes_in: self.bytes.0,
            bytes_out: self.bytes.1,
            connect_ms: self.connecting.map(millis),
            duration_ms: millis(self.started.elapsed()),
            retries: self.retries,
            reason: self.reason,
            error: text.error.as_deref(),
        });
    }
}

/// A client as the log has it: of one that a proxy in front has named there is an address alone.
fn shown(client: ClientAddr) -> String {
    match client {
        ClientAddr::Tcp(address) if address.port() == 0 => address.ip().to_string(),
        ClientAddr::Tcp(_) | ClientAddr::Unix => client.to_string(),
    }
}
