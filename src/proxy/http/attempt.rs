//! A request and the servers it is tried at.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::ready;
use std::time::Duration;

use tokio::time::Instant;

use super::compress::Compression;
use super::copy::Tee;
use super::exchange::{Arrived, Bounds, Exchange, Remains, SHORT, Stop, of_gone};
use super::grpc;
use super::head::Words;
use super::kept::Kept;
use super::link::Link;
use super::request::{Finish, Job, Upgraded};
use super::seldom;
use super::sides::{Client, ResponseHead, Server};
use crate::backend::{Lapse, Lease, Outcome, Server as Backend};
use crate::balance::Key;
use crate::ending::Reason;
use crate::message::head::Known;
use crate::message::response::Response;
use crate::message::token;
use crate::message::version::Version;
use crate::message::websocket;
use crate::pool::{Picked, Retrying, Tried};
use crate::proxy::key;
use crate::proxy::turn::Turn;
use crate::proxy::witness::Witness;
use crate::snapshot::{PoolInEffect, RouteInEffect};

/// How long a request whose server is gone waits until it may be tried again within the budget: all that one server had in
/// hand fail at once, and each after the other has its turn at those that are left.
const BUDGET_PATIENCE: Duration = Duration::from_secs(1);

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
struct Failure {
    reason: Reason,
    again: Again,
}

/// Whether a request may be tried again, count and budget aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// No: a server may have acted on it, or it cannot be sent again.
    Never,
    /// At another server.
    Elsewhere,
    /// At another server, whatever the budget says: this one was sent nothing, so that no server gets more for it.
    Unsent,
    /// Anywhere, rather elsewhere, and without counting: the connection had waited, and its server closed it before it saw the
    /// request.
    AtOnce,
}

/// What an attempt came to.
enum Attempted {
    Finished(Finish),
    /// The server asks to change the protocol.
    Upgraded(Server, Box<Response>),
    Failed(Failure),
}

/// A request on its way to one pool.
pub(super) struct Errand<'r> {
    pub(super) route: &'r RouteInEffect,
    pub(super) pool: &'r PoolInEffect,
    pub(super) bounds: &'r Bounds,
    pub(super) words: Words,
    /// The PROXY header that the servers are sent.
    pub(super) header: Vec<u8>,
    /// How many more servers may be tried.
    left: u8,
    /// The place of the server that the client was with before, if it is kept with one.
    before: Option<usize>,
    /// What the pool chooses by, if it goes by a key.
    key: Option<Key>,
    /// The next retry, where the budget was asked for it already.
    granted: Option<Retrying>,
    /// Where the body goes as well.
    copy: Option<Tee>,
    /// What was read of it for servers before.
    kept: Kept,
}

impl<'r> Errand<'r> {
    /// The PROXY header that goes with the first bytes of a request, where it has not gone before a handshake.
    pub(super) fn header_in_clear(&self, server: &Backend) -> &[u8] {
        if server.tls.is_none() { &self.header } else { &[] }
    }

    /// The next server to try: the one the client was with before, if it can be.
    fn pick(&self, tried: &Tried) -> Option<Picked<'r>> {
        pick(self.pool, self.before, self.key, tried)
    }

    /// Somebody else to ask, if there is one and the request may be tried again; that is granted then.
    fn another(&mut self, tried: &Tried) -> Option<Picked<'r>> {
        let other = (self.left > 0).then(|| self.pick(tried)).flatten()?;
        self.granted = self.pool.pool.may_retry();
        self.granted.is_some().then_some(other)
    }

    /// The cookie that keeps the client with a server, unless it is with that one already.
    fn cookie(&self, server: &Backend) -> Option<&'r str> {
        self.pool.sticky.as_ref()?.cookie(server, self.before)
    }
}

impl Job<'_> {
    /// Sends the request to a server of the pool at this place, and to another if that fails, as often as it may be.
    pub(super) async fn forward(
        &mut self,
        route: &RouteInEffect,
        place: usize,
        trusted: bool,
        bounds: &Bounds,
    ) -> Finish {
        let stash = &self.context.desk.requests.stash;
        let mut words = Words::of(self.request, self.context, trusted);
        words.deadline = grpc::deadline(self.request, self.started).and(bounds.expires);
        self.record.identified(words.request_id());
        let desk = Rc::clone(&self.context.desk);
        let mut turn = Turn::new(&desk, self.snapshot, place);
        let first = loop {
            let none = Tried::NONE;
            if let Some(picked) = turn.pick(none, |pool| pick(pool, self.before(pool), self.key(pool), none)) {
                break Ok(picked);
            }
            // Seldom, and nothing that every request should have room for.
            let waited = seldom(self.wait(&mut turn, bounds)).await;
            self.now = Instant::now();
            match waited {
                Ok(()) => {}
                Err(Stop::Server(reason)) => break Err(reason),
                Err(Stop::Client(reason) | Stop::Ours(reason)) => {
                    words.hand_back(stash);
                    self.record.close(reason);
                    return Finish::Aborted(reason);
                }
            }
        };
        // As it is by now: a reload may have changed it meanwhile.
        let Some(pool) = turn.pool() else { return self.answer_ending(Reason::NoRoute, &[]) };
        let (before, key) = (self.before(pool), self.key(pool));
        let left = route.route.retries.unwrap_or(pool.pool.retries());
        // Of a stream of HTTP/2 that is known already, and of a copy by the request it is of.
        if let Client::Http1(client) = &self.client
            && (pool.announce.is_some() || route.mirror.is_some())
        {
            self.context.find_destination(client.end.socket());
        }
        let header = pool.announce.map(|version| self.context.announcement(version)).unwrap_or_default();
        let copy = self.copy(route, &words, trusted);
        let mut errand = Errand {
            route,
            pool,
            bounds,
            words,
            header,
            left,
            before,
            key,
            granted: None,
            copy,
            kept: Kept::default(),
        };
        let finish = self.try_servers(&mut errand, first).await;
        errand.words.hand_back(stash);
        errand.kept.stop(&desk.requests);
        finish
    }

    /// The place of the server that the client was with before, if the pool keeps clients with one.
    fn before(&self, pool: &PoolInEffect) -> Option<usize> {
        pool.sticky.as_ref()?.find(self.request.fields.values(Known::Cookie))
    }

    /// What the pool chooses by, if it goes by a key.
    fn key(&self, pool: &PoolInEffect) -> Option<Key> {
        let server_name = self.context.more.server_name.as_deref();
        key::of_request(&pool.pool, self.record.client, server_name, self.request)
    }

    /// Waits for a server with room. Copies do not: nobody waits for them.
    async fn wait(&mut self, turn: &mut Turn<'_>, bounds: &Bounds) -> Result<(), Stop> {
        if self.client.is_nobody() {
            return Err(Stop::Server(Reason::NoServer));
        }
        self.while_wanted(turn.wait(Tried::NONE, bounds.expires)).await?.map_err(Stop::Server)
    }

    /// Waits for something for as long as the client does, and the connection is not called back. To have the system watch the
    /// client is worth it only when that lasts.
    pub(super) async fn while_wanted<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Stop> {
        let Self { client, recall, timer, .. } = self;
        let soon = Instant::now() + SHORT;
        let gone = poll_fn(|cx| {
            if !client.is_watched() {
                ready!(timer.poll(cx, soon));
            }
            client.poll_gone(cx).map(of_gone)
        });
        tokio::select! {
            done = something => Ok(done),
            gone = gone => Err(Stop::Client(gone)),
            () = recall.due() => Err(Stop::Ours(Reason::Shutdown)),
        }
    }

    /// Tries one server after the other, this one first, if there is one.
    async fn try_servers<'r>(&mut self, errand: &mut Errand<'r>, first: Result<Picked<'r>, Reason>) -> Finish {
        let pool = errand.pool;
        let _traffic = pool.pool.enter(self.context.desk.worker);
        let mut retrying = None;
        let mut may_be_at_once = true;
        let mut tried = Tried::new();
        let (mut next, mut failure) = match first {
            Ok(picked) => (Some(picked), Reason::NoServer),
            Err(reason) => (None, reason),
        };
        while let Some(Picked { server, lease }) = next.take() {
            let failed = match self.attempt(errand, server, lease, &tried, &mut next).await {
                Attempted::Finished(finish) => return finish,
                Attempted::Upgraded(connection, response) => {
                    let set_cookie = errand.cookie(server).map(Box::from);
                    let accept = self.request.fields.first(Known::SecWebSocketKey).map(websocket::accept);
                    return Finish::Upgraded(Box::new(Upgraded { server: connection, response, accept, set_cookie }));
                }
                Attempted::Failed(failed) => failed,
            };
            self.now = Instant::now();
            let tried_now = tried.and(&server.state);
            failure = failed.reason;
            match failed.again {
                Again::Never => break,
                Again::AtOnce if may_be_at_once => {
                    may_be_at_once = false;
                    // Its server may be about to go for good. Others are as welcome, unless the client belongs with this one.
                    if errand.key.is_none() && errand.before.is_none() {
                        next = next.or_else(|| errand.pick(&tried_now));
                    }
                }
                Again::Unsent | Again::AtOnce | Again::Elsewhere => {
                    if errand.left == 0 {
                        break;
                    }
                    if failed.again != Again::Unsent {
                        // The guard of a retry before is kept until it is over, so that it counts for itself.
                        drop(retrying.take());
                        retrying = match errand.granted.take().or_else(|| pool.pool.may_retry()) {
                            Some(granted) => Some(granted),
                            None => {
                                let soon = Instant::now() + BUDGET_PATIENCE;
                                let until = errand.bounds.expires.map_or(soon, |expires| expires.min(soon));
                                let granted = seldom(self.while_wanted(pool.pool.may_retry_by(until))).await;
                                self.now = Instant::now();
                                match granted {
                                    Ok(granted) => granted,
                                    Err(stop) => {
                                        self.record.close(stop.reason());
                                        return Finish::Aborted(stop.reason());
                                    }
                                }
                            }
                        };
                        if retrying.is_none() {
                            break;
                        }
                    }
                    errand.left -= 1;
                    tried = tried_now;
                }
            }
            self.record.give_up_server();
            next = next.or_else(|| errand.pick(&tried));
            if next.is_some() {
                self.record.retried();
            }
        }
        drop(retrying);
        self.answer_ending(failure, &[])
    }

    /// Sends the request to one server, having `tried` others. `next` is the server for the next attempt, where that was
    /// decided already.
    async fn attempt<'p>(
        &mut self,
        errand: &mut Errand<'p>,
        server: &Backend,
        lease: Lease,
        tried: &Tried,
        next: &mut Option<Picked<'p>>,
    ) -> Attempted {
        let desk = Rc::clone(&self.context.desk);
        let retry_on = &errand.pool.http.retry_on;
        let now = self.now;
        let (connection, connecting) = match self.waiting(errand, server, now) {
            Some(connection) => (connection, None),
            None => match seldom(self.connect(errand, server)).await {
                Ok(Link { connection, connecting }) => (connection, connecting),
                Err(Stop::Client(reason) | Stop::Ours(reason)) => {
                    self.record.tried_at(&server.state);
                    self.record.close(reason);
                    return Attempted::Finished(Finish::Aborted(reason));
                }
                Err(Stop::Server(reason)) => {
                    self.record.tried_at(&server.state);
                    let unsent = retry_on.connect && reason.is_connect_failure();
                    let again = if unsent { Again::Unsent } else { Again::Never };
                    return Attempted::Failed(Failure { reason, again });
                }
            },
        };
        let reused = connecting.is_none();
        let sent = connecting.map_or(now, |_| Instant::now());
        self.record.sent_to(lease, connecting, sent);
        // A copy counts for its server alone.
        let listener = (!self.record.is_copy()).then_some(&*self.context.entrance.metrics);
        let witness = Witness::new(desk.worker, listener, Some(&server.state)).of_request();
        let response = desk.requests.stash.response();
        let Self { client, request, recall, timer, .. } = self;
        let (state, to_head) = (&server.state, request.is_head());
        let mut exchange =
            Exchange::new(client, connection, response, state, errand.bounds, &desk, recall, to_head, sent);
        exchange.copy = errand.copy.take();
        // A server of HTTP/2 may say that it has not looked at it.
        let repeats = request.is_idempotent() || matches!(exchange.server, Server::Http2(_));
        exchange.begin_with(std::mem::take(&mut errand.kept), repeats);
        exchange.first_byte = errand.pool.outlier.map_or(Duration::ZERO, |outlier| outlier.first_byte);
        if let Arrived::Stopped(stop) = exchange.until_head(timer, &witness).await {
            let remains = exchange.into_remains();
            return self.stopped(errand, &witness, stop, reused, remains);
        }
        let status = exchange.response.status;
        // In HTTP/2 a success says that there is a tunnel, be it from the server or to the client (RFC 8441 §4).
        let by_http2 = request.version == Version::Http2 || matches!(exchange.server, Server::Http2(_));
        let says_tunnel = by_http2 && request.upgrade().is_some() && matches!(status, 200..=299);
        if status == 101 || says_tunnel {
            let remains = exchange.into_remains();
            return self.switched(errand, &witness, remains);
        }
        let outcome = Outcome::of_status(status);
        if outcome != Outcome::Ok {
            witness.report(outcome);
        }
        let is_refusal = retry_on.statuses.contains(&status) && request.is_idempotent() && exchange.kept.is_all();
        // This answer is better than none.
        if is_refusal && let Some(other) = errand.another(&tried.and(&server.state)) {
            witness.report(outcome);
            *next = Some(other);
            errand.copy = exchange.copy.take();
            errand.kept = std::mem::take(&mut exchange.kept);
            self.record.responded(status);
            return Attempted::Failed(Failure { reason: Reason::BadResponse, again: Again::Elsewhere });
        }
        exchange.kept.stop(&desk.requests);
        exchange.moved = self.record.responded(status);
        let mut compression = match exchange.client.is_nobody() {
            true => Compression::default(),
            false => Compression::of(&errand.route.route, request, &exchange.response, &desk.requests.encoders),
        };
        let uploaded = exchange.is_uploaded();
        exchange.client.lend(&desk.requests.stash);
        let length = compression.length(&exchange.response);
        exchange.owes(length);
        exchange.client.respond(&ResponseHead {
            response: &exchange.response,
            rules: &errand.route.route.response_headers,
            changes: &compression.changes,
            set_cookie: errand.cookie(server),
            length,
            to_head: request.is_head(),
            uploaded,
        });
        let result = exchange.until_end(timer, &witness, &mut compression.encoding).await;
        let remains = exchange.into_remains();
        // A client that leaves, or does not take what it asked for, is not the server's fault.
        witness.report(match result {
            Err(Stop::Server(reason)) if !was_dismissed(reason) => Outcome::Failure(Lapse::Ended(reason)),
            Err(Stop::Ours(reason)) if remains.stalled => Outcome::Failure(Lapse::Ended(reason)),
            Ok(()) | Err(Stop::Client(_) | Stop::Ours(_) | Stop::Server(_)) => outcome,
        });
        self.ended(errand, server, result, remains)
    }

    /// No head of a response came: the request is tried again, or answered here, or given up.
    #[cold]
    fn stopped(
        &mut self,
        errand: &mut Errand<'_>,
        witness: &Witness<'_>,
        stop: Stop,
        reused: bool,
        remains: Remains,
    ) -> Attempted {
        let Remains { server: connection, response, up, unseen, fault, copy, kept, .. } = remains;
        let Remains { untouched, lost, stalled, awaits_client, .. } = remains;
        let is_body_whole = kept.is_all();
        (errand.copy, errand.kept) = (copy, kept);
        if let Some(fault) = fault {
            self.record.failed(fault);
        }
        self.record.moved(up, 0);
        self.context.desk.requests.stash.return_response(response);
        if stalled {
            witness.report(Outcome::Failure(Lapse::Ended(stop.reason())));
            self.record.left_unanswered();
        }
        match stop {
            Stop::Server(reason) => {
                // It had waited, and its server closed it before it saw the request.
                let is_stale = reused && lost && untouched && broke(reason);
                if !(is_stale || reused && unseen || was_dismissed(reason)) {
                    witness.report(Outcome::Failure(Lapse::Ended(reason)));
                    self.record.left_unanswered();
                }
                let retry_on = &errand.pool.http.retry_on;
                let may_be_sent_twice =
                    is_body_whole && untouched && (self.request.is_idempotent() || connection.is_untouched());
                let again = match () {
                    () if unseen && is_body_whole && untouched => Again::AtOnce,
                    () if !may_be_sent_twice => Again::Never,
                    () if is_stale => Again::AtOnce,
                    () if (broke(reason) || was_dismissed(reason)) && retry_on.reset => Again::Elsewhere,
                    () if reason == Reason::ResponseTimeout && retry_on.timeout => Again::Elsewhere,
                    () => Again::Never,
                };
                Attempted::Failed(Failure { reason, again })
            }
            // Callers know one word for that.
            Stop::Ours(Reason::RequestTimeout) if awaits_client && !grpc::is_call(self.request) => {
                self.record.failed("its body was not there when its time was over");
                Attempted::Finished(self.answer_ending(Reason::BodyTimeout, &[]))
            }
            Stop::Client(
                reason @ (Reason::BodyTimeout | Reason::BodyTooLarge | Reason::BadRequest | Reason::HeaderTooLarge),
            )
            | Stop::Ours(reason @ Reason::RequestTimeout) => Attempted::Finished(self.answer_ending(reason, &[])),
            Stop::Client(reason) | Stop::Ours(reason) => {
                self.record.close(reason);
                Attempted::Finished(Finish::Aborted(reason))
            }
        }
    }

    /// The server changes the protocol, or gives an answer that would be taken for that; whether it was asked to.
    #[cold]
    fn switched(&mut self, errand: &Errand<'_>, witness: &Witness<'_>, remains: Remains) -> Attempted {
        let Remains { server, response, .. } = remains;
        self.record.responded(response.status);
        let wrong = match &server {
            Server::Http1(_) if response.status != 101 => Some("a success answers what only 101 grants"),
            Server::Http1(_) if self.request.upgrade().is_none() => Some("it changes the protocol unasked"),
            Server::Http1(_) if !self.asked_for(&response) => Some("it changes to a protocol that was not asked for"),
            Server::Http1(_) => {
                (!errand.words.are_accepted(&response)).then_some("its Sec-WebSocket-Accept is not that of the key")
            }
            Server::Http2(_) => (response.status == 101).then_some("it answers 101, which HTTP/2 has not"),
        };
        let Some(words) = wrong else {
            witness.report(Outcome::of_status(response.status));
            return Attempted::Upgraded(server, response);
        };
        self.record.failed(words);
        witness.report(Outcome::Failure(Lapse::Ended(Reason::BadResponse)));
        self.context.desk.requests.stash.return_response(response);
        Attempted::Failed(Failure { reason: Reason::BadResponse, again: Again::Never })
    }

    /// The response was passed on, to its end or not.
    fn ended(
        &mut self,
        errand: &Errand<'_>,
        server: &Backend,
        result: Result<(), Stop>,
        remains: Remains,
    ) -> Attempted {
        let Remains { server: connection, response, up, down, moved, fault, unsent, .. } = remains;
        if let Some(fault) = fault {
            self.record.failed(fault);
        }
        self.record.moved(up, down);
        self.now = moved;
        let keeps_alive = response.keeps_alive;
        let code = grpc::code(&response, connection.trailers());
        self.context.desk.requests.stash.return_response(response);
        match result {
            Ok(()) => {
                self.record.called(code);
                self.recycle(errand, server, connection, keeps_alive);
                self.record.close(Reason::Done);
                Attempted::Finished(Finish::Delivered(Reason::Done))
            }
            // Nothing of it has reached the client.
            Err(Stop::Server(reason)) if unsent => Attempted::Finished(self.answer_ending(reason, &[])),
            Err(stop) => {
                self.record.close(stop.reason());
                Attempted::Finished(Finish::Aborted(stop.reason()))
            }
        }
    }

    /// Whether a change of protocol is one that the request asked for.
    fn asked_for(&self, response: &Response) -> bool {
        let wanted = self.request.upgrade();
        let granted = response.fields.first(Known::Upgrade);
        wanted.zip(granted).is_some_and(|(wanted, granted)| {
            token::list(wanted).any(|wanted| wanted.eq_ignore_ascii_case(granted.trim_ascii()))
        })
    }
}

/// The next server to try: the one the client was with before, if it can be.
fn pick<'p>(pool: &'p PoolInEffect, before: Option<usize>, key: Option<Key>, tried: &Tried) -> Option<Picked<'p>> {
    before.and_then(|place| pool.pool.pick_this(place, tried)).or_else(|| pool.pool.pick(tried, key))
}

/// Whether a server that is not to have requests any more was rid of one.
const fn was_dismissed(reason: Reason) -> bool {
    matches!(reason, Reason::ServerDown | Reason::Drained)
}

/// Whether a server ended the connection, in whatever way: one whose process dies has no time for TLS to say so.
const fn broke(reason: Reason) -> bool {
    matches!(reason, Reason::ServerClosed | Reason::ServerReset | Reason::ServerTruncated)
}
