//! HTTP/2 from clients: many requests at once on one connection, each served by a task that has no other meanwhile.
//!
//! The protocol itself is [`crate::http2`]'s, with its budgets against floods; deadlines, limits and what becomes of a request
//! are the same as for HTTP/1.

mod client;
mod driver;
mod heads;
mod runners;
mod server;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use tokio::time::{Duration, Instant, timeout};

use super::exchange::of_client_broken;
use super::record::{Context, RequestRecord};
use super::request::{Finish, Job, PATIENCE};
use super::sides::Client;
use super::timer::Timer;
use super::tunnel::Tunnel;
use super::{Terms, answer, tunnel};
use crate::config::model::http::HttpLimits;
use crate::ending::Reason;
use crate::http2::{self, Broken, Code, Connection, Ended, Side};
use crate::message::grpc;
use crate::proxy::ends::ClientEnd;
use crate::proxy::live::Entry;
use crate::relay;
use crate::snapshot::HttpInEffect;
use client::Http2Client;
use driver::{Driver, Lost, Over};
use heads::Unread;
use runners::Work;
use stream::Core;

pub(super) use client::Http2Client as Client2;
pub(in crate::proxy) use runners::Runners;
pub(super) use server::{Http2Connection, Http2Server};
pub(super) use stream::{Http2Stream, Tunnelled};

/// How much of a body a sender may send ahead on one stream, at most.
const STREAM_WINDOW: u32 = 256 * 1024;
/// And a client on all of its connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many requests a client may give up before they were looked at, beyond those that came to a good end (CVE-2023-44487).
const PENDING_RESETS: u32 = 20;

/// How large a header list is that is kept, as the RFC counts (RFC 9113 §6.5.2: 32 more for each field). It is about twice
/// what is served, so that what is somewhat too large is still known for what it asks.
fn header_list(limits: &HttpLimits) -> u32 {
    let ours = limits.header_bytes.saturating_add(limits.header_fields.saturating_mul(32));
    u32::try_from(ours.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// What the streams of a connection share with it.
struct Shared {
    context: Rc<Context>,
    live: Entry,
    /// Requests under way, and all there ever were.
    active: Cell<usize>,
    total: Cell<u32>,
    /// What was in effect for the last request.
    lasting: Cell<Lasting>,
    /// Why what is under way comes to nothing, once the connection is over.
    over: Cell<Option<Reason>>,
    /// Wakes the connection when the last request is over.
    waker: RefCell<Option<Waker>>,
}

/// How long a connection goes on.
#[derive(Clone, Copy)]
struct Lasting {
    /// Without a request under way.
    keep_alive: Duration,
    /// How many requests it has in all, at most.
    requests: u32,
}

impl Lasting {
    fn of(http: &HttpInEffect) -> Self {
        Self { keep_alive: http.settings.timeouts.keep_alive, requests: http.settings.limits.requests }
    }
}

/// One request counted as the connection's, until it is dropped.
struct Active(Rc<Shared>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        if self.0.active.get() == 0
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// What came of a connection.
pub(super) struct Served {
    pub(super) reason: Reason,
    /// Whether it had a request at all.
    pub(super) had_requests: bool,
    /// What the client did wrong, if that is why it was ended.
    pub(super) fault: Option<&'static str>,
}

/// Serves a connection until it is over.
pub(super) async fn serve(
    context: Rc<Context>,
    live: Entry,
    end: ClientEnd,
    early: Vec<u8>,
    accepted: Instant,
    terms: Terms,
) -> Served {
    // Frames are small and many, and none may wait for the acknowledgement of the one before.
    end.socket().set_nodelay();
    let desk = Rc::clone(&context.desk);
    let settings = desk.current.with_listener(&context.entrance.name);
    let Some(http) = settings.listener(&context.entrance.name).and_then(|listener| listener.http.as_ref()) else {
        return Served { reason: Reason::Drained, had_requests: false, fault: None };
    };
    let limits = http.settings.limits;
    let lasting = Cell::new(Lasting::of(http));
    let ours = http2::Terms {
        streams: limits.streams,
        header_list: header_list(&limits),
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        given_up: PENDING_RESETS,
    };
    drop(settings);
    let core: Core = Rc::new(RefCell::new(Connection::new(Side::Server, ours)));
    core.borrow_mut().receive(&early);
    drop(early);
    let shared = Rc::new(Shared {
        context,
        live,
        active: Cell::new(0),
        total: Cell::new(0),
        lasting,
        over: Cell::new(None),
        waker: RefCell::new(None),
    });
    let driver = Driver::new(&core, end);
    let until = accepted + terms.request_header;
    let serving = Serving {
        shared: Rc::clone(&shared),
        core: Rc::clone(&core),
        until,
        retires: terms.retires,
        leaving: false,
        dismissals: 0,
    };
    let reason = serving.run(driver).await;
    let fault = core.borrow().fault();
    Served { reason, had_requests: shared.total.get() > 0, fault }
}

/// A connection that is served.
struct Serving {
    shared: Rc<Shared>,
    core: Core,
    /// Until when there has to be a request under way.
    until: Instant,
    retires: Option<Instant>,
    /// Whether the client was told that there will be no further requests (GOAWAY).
    leaving: bool,
    /// How many dismissals of servers its streams have heard of.
    dismissals: u64,
}

/// What happens next on a connection.
enum Event {
    /// It is over.
    Over(Reason),
    /// It has had no request for too long, is old, or was called back: it takes no more.
    Leave,
    /// The time it was given for that is over as well.
    Abort(Reason),
}

impl Serving {
    async fn run(mut self, mut driver: Driver<ClientEnd>) -> Reason {
        let mut timer = Timer::new(self.until);
        let reason = loop {
            match poll_fn(|cx| self.poll(cx, &mut driver, &mut timer)).await {
                Event::Over(reason) => break reason,
                Event::Leave => {
                    self.leaving = true;
                    self.core.borrow_mut().retire();
                }
                Event::Abort(reason) => {
                    self.shared.over.set(Some(reason));
                    self.core.borrow_mut().end();
                    // The frame that says so, if the client takes it.
                    let scratch = &self.shared.context.desk.scratch;
                    let _in_vain = timeout(PATIENCE, poll_fn(|cx| driver.poll(cx, scratch))).await;
                    break reason;
                }
            }
        };
        let _in_vain = timeout(PATIENCE, poll_fn(|cx| driver.poll_farewell(cx))).await;
        reason
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>, driver: &mut Driver<ClientEnd>, timer: &mut Timer) -> Poll<Event> {
        let over = driver.poll(cx, &self.shared.context.desk.scratch);
        loop {
            let accepted = self.core.borrow_mut().accept();
            let Some(id) = accepted else { break };
            self.begin(id);
        }
        let had_requests = self.shared.total.get() > 0;
        if let Poll::Ready(over) = over {
            if let Over::Lost(lost) = over {
                self.shared.over.set(Some(of_lost(lost)));
            }
            return Poll::Ready(Event::Over(of_over(over, had_requests, self.leaving)));
        }
        match &mut *self.shared.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let recall = &self.shared.live.recall;
        match self.shared.active.get() {
            0 => recall.listen(cx),
            _ => recall.listen_around(cx),
        }
        let dismissals = self.shared.context.desk.dismissals.count();
        if std::mem::replace(&mut self.dismissals, dismissals) != dismissals {
            self.core.borrow_mut().wake_streams();
        }
        let now = Instant::now();
        let recalled = recall.by().map(|by| (by, self.shared.live.recalled_for().unwrap_or(Reason::Shutdown)));
        // One that was called back is over once its client has heard that it takes no more, which no client keeps to itself.
        let patience = if recalled.is_some() { PATIENCE } else { self.shared.lasting.get().keep_alive };
        if self.shared.active.get() > 0 {
            self.until = now + patience;
        } else if recalled.is_some() && !self.leaving {
            self.until = self.until.min(now + patience);
        }
        if !self.leaving {
            let retires = self.retires.filter(|retires| *retires <= now);
            let had_all = self.shared.total.get() >= self.shared.lasting.get().requests;
            if recalled.is_some() || retires.is_some() || had_all {
                return Poll::Ready(Event::Leave);
            }
        }
        // Whoever was told to leave and has nothing under way has had its time when the next request would have come.
        let idle = match (recalled, had_requests) {
            // Nothing is lost with it.
            (Some(_), _) => Reason::Done,
            (None, true) => Reason::IdleTimeout,
            (None, false) => Reason::HeaderTimeout,
        };
        let mut deadline = (self.until, idle);
        if let Some(recalled) = recalled.filter(|(by, _)| *by < deadline.0) {
            deadline = recalled;
        }
        let next = self.retires.filter(|_| !self.leaving).map_or(deadline.0, |retires| retires.min(deadline.0));
        match timer.poll(cx, next) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if next < deadline.0 => Poll::Ready(Event::Leave),
            Poll::Ready(()) if self.leaving || !had_requests => Poll::Ready(Event::Abort(deadline.1)),
            Poll::Ready(()) => {
                // The client is told, and has a moment to say so if a request of its is on the way.
                self.until = Instant::now() + PATIENCE;
                Poll::Ready(Event::Leave)
            }
        }
    }

    /// Has a request served.
    fn begin(&self, id: u32) {
        let shared = Rc::clone(&self.shared);
        shared.active.set(shared.active.get() + 1);
        shared.total.set(shared.total.get().saturating_add(1));
        let active = Active(Rc::clone(&shared));
        let client = Http2Client::new(Http2Stream::new(&self.core, id, false));
        Runners::serve(&self.shared.context.desk, Work { shared, client, active });
    }
}

/// Serves one request. The timer is that of a request before, if there was one.
async fn handle(shared: &Rc<Shared>, mut client: Http2Client, timer: &mut Option<Timer>) {
    let context = &shared.context;
    let desk = &context.desk;
    let started = Instant::now();
    let snapshot = desk.current.with_listener(&context.entrance.name);
    let in_effect = snapshot.listener(&context.entrance.name);
    let Some((listener, http)) = in_effect.and_then(|listener| Some((listener, listener.http.as_ref()?))) else {
        client.reset(Code::REFUSED_STREAM);
        return;
    };
    shared.lasting.set(Lasting::of(http));
    let mut request = desk.requests.stash.request();
    let mut at_once = TaskContext::from_waker(Waker::noop());
    let read = client
        .stream
        .poll_head(&mut at_once, |head, ended| heads::read_request(head, ended, &http.limits, &mut request));
    match read {
        Poll::Ready(Ok(Ok(()))) => {}
        Poll::Ready(Ok(Err(unread))) => {
            refuse(context, &mut client, &request, http, &unread, started);
            finish(&mut client).await;
            if unread.is_malformed {
                client.reset(Code::PROTOCOL_ERROR);
            }
            desk.requests.stash.return_request(request);
            return;
        }
        // It was given up before it was looked at.
        Poll::Ready(Err(_)) | Poll::Pending => return desk.requests.stash.return_request(request),
    }
    if client.stream.broken().is_some() {
        // Nobody is there any more to be answered.
        lost(shared, &client, &mut RequestRecord::open(Rc::clone(context), &request, started));
        return desk.requests.stash.return_request(request);
    }
    client.stream.hold(request.upgrade().is_some());
    context.entrance.metrics.bytes_in(desk.worker, request.fields.bytes().len() as u64);
    let timer = timer.get_or_insert_with(|| Timer::new(started + http.settings.timeouts.body_idle));
    let unheard = crate::relay::Recall::default();
    let mut job = Job {
        record: RequestRecord::open(Rc::clone(context), &request, started),
        context,
        request: &request,
        snapshot: &snapshot,
        listener,
        http,
        client: Client::Http2(&mut client),
        timer,
        // The connection hears of it, and ends its streams when the time has come.
        recall: &unheard,
        started,
        now: started,
    };
    let ended = job.run().await;
    let Job { mut record, .. } = job;
    match ended {
        Finish::Delivered(_) => finish(&mut client).await,
        Finish::Aborted(Reason::ClientReset) => lost(shared, &client, &mut record),
        Finish::Aborted(reason) => match record.code() {
            Some(code) if client.end_call(code, reason) => {}
            // To callers, any other code would be another status.
            Some(grpc::Code::DeadlineExceeded) => client.reset(Code::CANCEL),
            Some(_) | None => client.reset(code_of(reason)),
        },
        Finish::Upgraded(upgraded) => {
            let tunnel = Tunnel { upgraded, record, limits: tunnel::limits(listener, None) };
            desk.requests.stash.return_request(request);
            // It may last for long.
            drop(snapshot);
            let (reason, mut record) = Box::pin(tunnel::of_http2(&mut client, tunnel)).await;
            if reason == Reason::ClientReset {
                lost(shared, &client, &mut record);
            }
            return;
        }
    }
    desk.requests.stash.return_request(request);
}

/// Answers what is not served. A stream on which something malformed came is not over then, and to be given up.
fn refuse(
    context: &Rc<Context>,
    client: &mut Http2Client,
    request: &crate::message::request::Request,
    http: &HttpInEffect,
    unread: &Unread,
    started: Instant,
) {
    let mut record = RequestRecord::refused(Rc::clone(context), request, started);
    record.failed(unread.why);
    answer::with_ending(request, http, unread.reason, &[], |own| {
        record.answered(own.status, unread.reason);
        if unread.is_malformed {
            client.answer_malformed(own, request.is_head());
        } else {
            client.answer(own, request.is_head());
        }
    });
}

/// Says of a request why its client is lost to it.
fn lost(shared: &Shared, client: &Http2Client, record: &mut RequestRecord) {
    let reason = match (client.stream.broken(), client.stream.fault()) {
        (Some(Broken::Wrong(_) | Broken::Over { .. }), Some(words)) => {
            record.failed(words);
            Reason::BadRequest
        }
        (Some(Broken::Over { .. }), None) => shared.over.get().unwrap_or(Reason::ClientReset),
        (Some(Broken::Reset(_) | Broken::Wrong(_)) | None, _) => Reason::ClientReset,
    };
    record.close(reason);
}

/// Waits until all of the response was handed over.
async fn finish(client: &mut Http2Client) {
    let handed = timeout(PATIENCE, poll_fn(|cx| client.stream.poll_ready(cx))).await;
    if !matches!(handed, Ok(Ok(()))) {
        client.reset(Code::CANCEL);
    }
}

/// What a stream is given up with.
fn code_of(reason: Reason) -> Code {
    if matches!(reason, Reason::ClientReset | Reason::ClientClosed | Reason::Shutdown | Reason::Drained) {
        Code::CANCEL
    } else if reason == Reason::BadRequest {
        Code::PROTOCOL_ERROR
    } else if matches!(reason, Reason::BodyTooLarge | Reason::BodyTimeout) {
        Code::ENHANCE_YOUR_CALM
    } else {
        Code::INTERNAL_ERROR
    }
}

/// Why requests come to nothing whose connection cannot be read or written any more.
fn of_lost(lost: Lost) -> Reason {
    match lost {
        Lost::Closed => Reason::ClientClosed,
        Lost::Broken(broken) => of_client_broken(broken),
    }
}

fn of_over(over: Over, had_requests: bool, leaving: bool) -> Reason {
    match over {
        Over::Ended(Ended::Fault(..)) => Reason::BadRequest,
        Over::Ended(Ended::Gone(_)) => Reason::Done,
        Over::Lost(Lost::Broken(relay::Broken::System(_))) => Reason::ClientReset,
        Over::Lost(Lost::Broken(relay::Broken::Garbled)) => Reason::TlsError,
        Over::Ended(Ended::Done) | Over::Lost(Lost::Closed | Lost::Broken(relay::Broken::Truncated)) => {
            if had_requests || leaving { Reason::Done } else { Reason::ClientClosed }
        }
    }
}
