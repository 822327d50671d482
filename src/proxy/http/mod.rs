//! HTTP: requests come in on a connection and each is sent to a server on its own.
//!
//! [`serve`] reads one request after the other from a connection; what becomes of a request is decided in `request`, carried
//! out in `exchange`, on connections to servers that `upstream` keeps. Between requests a connection holds no buffer and no
//! snapshot: each request loads the one in effect.

mod answer;
mod attempt;
mod body;
mod buffers;
mod client;
mod compress;
mod copy;
mod exchange;
mod forward;
mod grpc;
mod head;
mod http2;
mod in_flight;
mod kept;
mod link;
mod places;
mod record;
mod request;
mod rounds;
mod server;
mod sides;
mod timer;
mod tunnel;
mod upstream;
mod users;
mod waiters;

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::ends::ClientEnd;
use super::intake::Arrived;
use super::live::Entry;
use super::record::{Record, Spoken};
use crate::ending::Reason;
use crate::http2::PREFACE;
use crate::message::line::Fault;
use crate::message::request::{Parsed, Request};
use crate::net::address::Endpoint;
use crate::net::stream::Read;
use crate::relay::Wire;
use crate::snapshot::{Front, HttpInEffect, Listener, Snapshot};
use client::Http1Client;
use exchange::of_client_broken;
use http2::Served;
use record::{Context, RequestRecord};
use request::{Finish, Job};
use sides::Client;
use timer::Timer;
use tunnel::Tunnel;

pub(super) use buffers::Stash;
pub(super) use http2::Runners;
pub(super) use places::Places;
pub(super) use upstream::Upstreams;
pub(super) use waiters::Waiters;

/// How long a client may take to take our last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For how long what a client still sends is read over before its connection is closed, so that the close does not become a
/// reset that takes our last words with it.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes gain another second, since some read nothing before they have sent all; and for how long at most.
const LINGER_RATE: u64 = 64 * 1024;
const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// What is not done with every request, in a box and in a function of its own: what is done with each is so much smaller, and
/// most of its time goes into having its code at hand.
#[cold]
fn seldom<'f, T>(work: impl Future<Output = T> + 'f) -> Pin<Box<dyn Future<Output = T> + 'f>> {
    Box::pin(work)
}

/// Waits for what mostly is so at once, no longer than for last words: there is a timer only if it is not.
async fn soon<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => timeout(LAST_WORDS, work).await.ok(),
    }
}

/// What becomes of a connection after a request.
enum After {
    /// It may have the next one.
    Keep,
    /// It is closed in good order, for this reason.
    Close(Reason),
    /// It is closed with a reset, so that nobody takes what was sent for the whole.
    Abort(Reason),
    /// It becomes a tunnel, which holds nothing of the snapshot: it may outlive many.
    Upgraded(Box<Tunnel>),
    /// It is one of HTTP/2, which began with these bytes.
    Http2(Vec<u8>),
}

/// How a connection of HTTP/1 ends.
enum Over {
    /// For this reason.
    For(Reason),
    /// It is none: it is one of HTTP/2, which began with these bytes.
    Http2(Vec<u8>),
}

/// A connection of HTTP/1 that is served.
struct Connection {
    context: Rc<Context>,
    client: Http1Client,
    timer: Timer,
    accepted: Instant,
    terms: Terms,
    requests: u32,
    /// When its last response was over.
    rests: Instant,
    live: Entry,
}

/// What a listener's settings say of connections as such, when one begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    request_header: Duration,
    /// When it has to be closed at the next opportunity, if it has to.
    retires: Option<Instant>,
}

impl Terms {
    /// Those of a listener, for a connection accepted at `accepted`.
    pub(super) fn of(listener: &Listener, http: &HttpInEffect, accepted: Instant) -> Self {
        Self { request_header: http.settings.timeouts.request_header, retires: listener.retires(accepted) }
    }
}

/// Serves the requests of a connection until it is over.
pub(super) fn serve(mut record: Record, live: Entry, arrived: Arrived, terms: Terms) -> impl Future<Output = ()> {
    let Arrived { mut end, early, asked_for: _, protocols, destination, screened: _ } = arrived;
    end.set_abandoned(false);
    let (port, destination) = match destination {
        Some(Endpoint::Tcp(address)) => (Some(address.port()), OnceCell::from(Some(address))),
        Some(Endpoint::Unix(_)) => (None, OnceCell::from(None)),
        None => (record.entrance().port, OnceCell::new()),
    };
    let context = Rc::new(Context {
        desk: Rc::clone(&record.desk),
        entrance: Arc::clone(record.entrance()),
        peer: record.client(),
        scheme: match &end {
            ClientEnd::Plain(_) => "http",
            ClientEnd::Tls(_) => "https",
        },
        port,
        destination,
        more: record.take_more(),
        said_last: RefCell::default(),
    });
    let accepted = record.accepted();
    let is_http2 = protocols.iter().any(|protocol| **protocol == *b"h2");
    let connection = Box::new(Connection {
        context,
        client: Http1Client::new(end, early, terms.retires),
        timer: Timer::new(accepted + terms.request_header),
        accepted,
        terms,
        requests: 0,
        rests: accepted,
        live,
    });
    // Not an `async fn`, which would hold its arguments twice: before it starts and while it runs.
    async move {
        let (connection, over) = match is_http2 {
            true => {
                let mut connection = connection;
                let early = connection.client.inbound.take();
                (connection, Over::Http2(early))
            }
            false => connection.run().await,
        };
        if matches!(over, Over::Http2(_)) {
            record.spoke(Spoken::Http2);
        }
        let context = Rc::clone(&connection.context);
        let Served { reason, had_requests, fault } = match over {
            Over::For(reason) => Served { reason, had_requests: connection.requests > 0, fault: None },
            Over::Http2(early) => {
                let Connection { context, client, live, accepted, terms, .. } = *connection;
                context.find_destination(client.end.socket());
                seldom(http2::serve(context, live, client.end, early, accepted, terms)).await
            }
        };
        // Its requests have lines of their own.
        let is_quiet = had_requests && fault.is_none();
        if !is_quiet {
            record.is_known_by(&context.more);
        }
        if let Some(words) = fault {
            record.failed(words);
        }
        record.set_quiet(is_quiet);
        record.close(reason);
    }
}

/// What came of waiting for a request.
enum Waited {
    Spoken,
    TimedOut,
    CalledBack,
}

impl Connection {
    /// Serves its requests to the end.
    async fn run(self: Box<Self>) -> (Box<Self>, Over) {
        let desk = Rc::clone(&self.context.desk);
        let mut until = self.accepted + self.terms.request_header;
        let mut this = self;
        loop {
            let closes_for = match this.wait(until).await {
                Waited::Spoken => None,
                // Nobody is told who has not said anything: browsers connect in advance.
                Waited::TimedOut if this.requests == 0 => Some(Reason::HeaderTimeout),
                Waited::TimedOut => Some(Reason::IdleTimeout),
                // Nothing is lost with it, so it is none of those that were cut off.
                Waited::CalledBack => Some(Reason::Done),
            };
            let after = match closes_for {
                Some(reason) => After::Close(reason),
                None => {
                    let served = desk.requests.waiters.serve(this).await;
                    this = served.connection;
                    until = this.rests + served.keep_alive;
                    served.after
                }
            };
            let over = match after {
                After::Keep => continue,
                After::Close(reason) => Over::For(seldom(this.close(reason)).await),
                After::Http2(early) => Over::Http2(early),
                After::Abort(reason) => {
                    this.client.end.set_abandoned(true);
                    Over::For(reason)
                }
                After::Upgraded(tunnel) => {
                    let Self { client, live, .. } = &mut *this;
                    let (reason, clean) = seldom(tunnel::of_http1(client, *tunnel, live)).await;
                    this.client.end.set_abandoned(!clean);
                    Over::For(reason)
                }
            };
            return (this, over);
        }
    }

    /// Waits until the client says something. A connection that was called back goes now. One that has reached its age stays
    /// until its next response, which says so: a request may be on the way.
    async fn wait(&mut self, until: Instant) -> Waited {
        let Self { client, timer, live, .. } = self;
        poll_fn(|cx| {
            if client.poll_spoken(cx).is_ready() {
                return Poll::Ready(Waited::Spoken);
            }
            live.recall.listen(cx);
            if live.recall.by().is_some() {
                return Poll::Ready(Waited::CalledBack);
            }
            timer.poll(cx, until).map(|()| Waited::TimedOut)
        })
        .await
    }

    /// Reads a request and serves it. Says as well for how long the next one is waited for.
    async fn next(&mut self) -> (After, Duration) {
        let snapshot = self.context.desk.current.with_listener(&self.context.entrance.name);
        let in_effect = snapshot.listener(&self.context.entrance.name);
        let Some((listener, http)) = in_effect.and_then(|listener| Some((listener, listener.http.as_ref()?))) else {
            // It is another listener's now, or nobody's.
            return (After::Close(Reason::Drained), Duration::ZERO);
        };
        let keep_alive = http.settings.timeouts.keep_alive;
        let started = Instant::now();
        let since = if self.requests == 0 { self.accepted } else { started };
        let mut request = self.context.desk.requests.stash.request();
        let mut now = started;
        let read = self.read(&mut request, http, since + http.settings.timeouts.request_header, &mut now).await;
        let after = match read {
            Ok(()) => {
                self.requests = self.requests.saturating_add(1);
                self.client.body = body::Body::new(request.length);
                self.context.entrance.metrics.bytes_in(self.context.desk.worker, request.fields.bytes().len() as u64);
                self.handle(&request, &snapshot, listener, http, started, now).await
            }
            Err(Unread::Nothing(reason)) => After::Close(reason),
            Err(Unread::Broken(reason)) => After::Abort(reason),
            Err(Unread::Http2) => After::Http2(request.fields.bytes().to_vec()),
            Err(Unread::Refused(reason, why)) => {
                self.requests = self.requests.saturating_add(1);
                request.glean(&http.limits);
                self.refuse(&request, http, reason, why, started).await
            }
        };
        self.context.desk.requests.stash.return_request(request);
        (after, keep_alive)
    }

    /// Reads the head of a request. If that has to be waited for, the time is `now` another.
    async fn read(
        &mut self,
        request: &mut Request,
        http: &HttpInEffect,
        until: Instant,
        now: &mut Instant,
    ) -> Result<(), Unread> {
        loop {
            let Self { client, timer, context, live, .. } = self;
            let mut waits = false;
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = client.poll_read(cx, &context.desk.scratch, |bytes| request.arrived(bytes)) {
                    return Poll::Ready(Some(read));
                }
                waits = true;
                let due = live.recall.by().map_or(until, |by| by.min(until));
                timer.poll(cx, due).map(|()| None)
            });
            let read = read.await;
            if waits {
                *now = Instant::now();
            }
            match read {
                Some(Ok(0)) if request.is_blank() => {
                    let reason = if self.requests == 0 { Reason::ClientClosed } else { Reason::Done };
                    return Err(Unread::Nothing(reason));
                }
                Some(Ok(0)) => return Err(Unread::Refused(Reason::ClientClosed, "it ended in the middle of a head")),
                Some(Ok(_)) => {}
                Some(Err(broken)) => return Err(Unread::Broken(of_client_broken(broken))),
                None => {
                    let is_recalled = self.live.recall.by().is_some_and(|by| by <= Instant::now());
                    let reason = self.live.recalled_for().filter(|_| is_recalled).unwrap_or(Reason::HeaderTimeout);
                    return Err(Unread::Refused(reason, "its head did not come in time"));
                }
            }
            // Of a client that knows that HTTP/2 is spoken here (RFC 9113 §3.3).
            if self.requests == 0 {
                let begun = request.fields.bytes();
                if begun.starts_with(PREFACE) {
                    return Err(Unread::Http2);
                }
                if PREFACE.starts_with(begun) {
                    continue;
                }
            }
            match request.parse(&http.limits, self.client.inbound.rest()) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Whole(_)) => return Ok(()),
                Err(fault) => return Err(Unread::Refused(of_fault(fault), words_of(fault))),
            }
        }
    }

    /// Whether the connection is to have no further request.
    fn is_retiring(&self, http: &HttpInEffect) -> bool {
        self.live.recall.by().is_some() || self.requests >= http.settings.limits.requests || self.client.is_aged()
    }

    /// Closes in good order: what is still on its way to us is read over, or the client would get a reset in place of what was
    /// sent last.
    async fn close(&mut self, reason: Reason) -> Reason {
        let client = &mut self.client;
        let flushed = poll_fn(|cx| client.outbound.poll_flush(cx, &mut client.end, true));
        if !matches!(soon(flushed).await, Some(Ok(()))) {
            client.end.set_abandoned(true);
            return reason;
        }
        client.outbound.return_buffer(&self.context.desk.requests.stash);
        if client.body.is_over() && client.inbound.is_empty() {
            let farewell = poll_fn(|cx| client.end.poll_farewell(cx));
            let _in_vain = soon(farewell).await;
            return reason;
        }
        let scratch = &self.context.desk.scratch;
        let lingering = async {
            let finished = poll_fn(|cx| client.end.poll_finish(cx));
            let _in_vain = soon(finished).await;
            let (began, mut seen) = (Instant::now(), 0);
            loop {
                let until = began + (LINGER + Duration::from_secs(seen / LINGER_RATE)).min(LONGEST_LINGER);
                let read = poll_fn(|cx| scratch.with_buffer(|buffer| client.end.socket().poll_recv(cx, buffer)));
                match timeout_at(until, read).await {
                    Ok(Ok(Read { bytes, .. })) if bytes > 0 => seen += bytes as u64,
                    Ok(Ok(_) | Err(_)) | Err(_) => return,
                }
            }
        };
        tokio::select! {
            () = lingering => {}
            () = self.live.recall.due() => {}
        }
        reason
    }

    /// Serves a request whose head was read.
    async fn handle(
        &mut self,
        request: &Request,
        snapshot: &Arc<Snapshot>,
        listener: &Listener,
        http: &HttpInEffect,
        started: Instant,
        now: Instant,
    ) -> After {
        self.client.version = request.version;
        self.client.persists = request.keeps_alive && !self.is_retiring(http);
        let finish = {
            let Self { context, client, timer, live, rests, .. } = self;
            let mut job = Job {
                record: RequestRecord::open(Rc::clone(context), request, started),
                context,
                request,
                snapshot,
                listener,
                http,
                client: Client::Http1(client),
                timer,
                recall: &live.recall,
                started,
                now,
            };
            let finish = job.run().await;
            *rests = job.now;
            match finish {
                Finish::Upgraded(upgraded) => {
                    let Job { record, .. } = job;
                    let limits = tunnel::limits(listener, client.retires);
                    return After::Upgraded(Box::new(Tunnel { upgraded, record, limits }));
                }
                // Whoever has its answer finds it counted: the record ends here.
                Finish::Delivered(reason) => Ok(reason),
                // It was called back, which is not said by whom.
                Finish::Aborted(Reason::Shutdown) => {
                    let reason = live.recalled_for().unwrap_or(Reason::Shutdown);
                    job.record.close(reason);
                    Err(reason)
                }
                Finish::Aborted(reason) => Err(reason),
            }
        };
        match finish {
            Ok(_) if !self.client.persists && self.client.is_aged() => After::Close(Reason::MaxAge),
            Ok(reason) if !self.client.persists => After::Close(reason),
            Ok(_) => match self.flush().await {
                Ok(()) => self.after_response(),
                Err(reason) => After::Abort(reason),
            },
            Err(reason) => After::Abort(reason),
        }
    }

    /// Waits until the client has taken the response.
    async fn flush(&mut self) -> Result<(), Reason> {
        if self.client.outbound.is_empty() {
            return Ok(());
        }
        let Http1Client { end, outbound, .. } = &mut self.client;
        let flushed = poll_fn(|cx| outbound.poll_flush(cx, end, false));
        let flushed = timeout(request::PATIENCE, flushed).await;
        self.rests = Instant::now();
        match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(broken)) => Err(of_client_broken(broken)),
            Err(_elapsed) => Err(Reason::IdleTimeout),
        }
    }

    fn after_response(&mut self) -> After {
        self.client.outbound.return_buffer(&self.context.desk.requests.stash);
        After::Keep
    }

    /// Answers what is not served, as far as somebody is there to read it.
    async fn refuse(
        &mut self,
        request: &Request,
        http: &HttpInEffect,
        reason: Reason,
        why: &'static str,
        started: Instant,
    ) -> After {
        let mut record = RequestRecord::refused(Rc::clone(&self.context), request, started);
        record.failed(why);
        record.close(reason);
        if reason == Reason::ClientClosed {
            return After::Close(reason);
        }
        self.client.persists = false;
        self.client.version = request.version;
        // Nobody knows where the next request would begin.
        self.client.body = body::Body::UntilClose;
        let client = &mut self.client;
        answer::with_ending(request, http, reason, &[], |own| {
            record.answered(own.status, reason);
            client.answer(own, request.is_head());
        });
        After::Close(reason)
    }
}

/// The reason for a head that is not served.
fn of_fault(fault: Fault) -> Reason {
    match fault {
        Fault::Malformed(_) => Reason::BadRequest,
        Fault::FirstLineTooLong => Reason::UriTooLong,
        Fault::TooLarge | Fault::TooMany => Reason::HeaderTooLarge,
    }
}

/// And the words for it, which name the setting where the fault alone does not tell which it is.
fn words_of(fault: Fault) -> &'static str {
    match fault {
        Fault::TooMany => "it has more fields than `max_header_fields`",
        Fault::Malformed(_) | Fault::FirstLineTooLong | Fault::TooLarge => fault.words(),
    }
}

/// Why there is no request.
enum Unread {
    /// The client has said nothing and leaves.
    Nothing(Reason),
    /// The connection broke.
    Broken(Reason),
    /// It is the beginning of a connection of HTTP/2.
    Http2,
    /// What came is not served.
    Refused(Reason, &'static str),
}

/// What is done with the first bytes decides whether a host may need a handshake of its own.
fn terminator(listener: &Listener) -> Option<&crate::tls::Terminator> {
    match &listener.front {
        Front::Tls(terminator) => Some(terminator),
        Front::Plain | Front::Sniff => None,
    }
}
