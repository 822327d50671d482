//! Copies of requests for another pool, whose answers nobody reads: fire and forget, within bounds.
//!
//! A copy is a request like any other, with nobody at its client's end. The request itself hands over what it reads of its body
//! and waits for nothing: what a copy lags behind is kept for it, as long as there is room.

use std::io::Read as _;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::body::{BodyFault, Piece};
use super::exchange::Bounds;
use super::head::Words;
use super::places::Place;
use super::record::{Context, RequestRecord};
use super::request::Job;
use super::sides::Client;
use super::timer::Timer;
use crate::message::head::Fields;
use crate::message::request::Request;
use crate::metrics::PoolMetrics;
use crate::proxy::Desk;
use crate::relay::{Broken, Recall};
use crate::snapshot::{RouteInEffect, Snapshot};

/// How many copies of a worker are under way at once; further requests have none.
const MOST: usize = 64;
/// How many bytes of bodies may wait for the copies of a worker together; one that would have more is given up.
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// How many pieces of a body may wait for one, however small they are.
const MOST_PIECES: usize = 4096;
/// How much of an answer is read.
const MOST_ANSWERED: usize = 1024 * 1024;
/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A piece of a request's body.
#[derive(Debug, Default)]
struct Part {
    bytes: Box<[u8]>,
    last: bool,
    /// What came behind it, if it is the last.
    trailers: Option<Box<Fields>>,
    _room: Option<Place>,
}

/// Where a request's body goes beside its server.
#[derive(Debug)]
pub(super) struct Tee {
    /// None once the copy was given up.
    copy: Option<Sender<Part>>,
    desk: Rc<Desk>,
    metrics: Arc<PoolMetrics>,
}

impl Tee {
    /// Hands a piece over, the last or not.
    pub(super) fn pass(&mut self, piece: &[u8], last: bool, trailers: Option<&Fields>) {
        let Some(copy) = &self.copy else { return };
        let room = self.desk.requests.copied.take_some(piece.len(), MOST_WAITING);
        let has_room = room.is_some();
        let trailers = trailers.filter(|_| last).cloned().map(Box::new);
        let part = || Part { bytes: piece.into(), last, trailers, _room: room };
        let lags = match has_room {
            false => true,
            // One that is over already, as when its server has refused it, needs no more.
            true => match copy.try_send(part()) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Closed(_)) => false,
            },
        };
        self.copy = None;
        if lags {
            self.metrics.dropped_copy(self.desk.worker);
        }
    }
}

/// The client's end of a copy, where there is nobody.
#[derive(Debug)]
pub(super) struct Nobody {
    pieces: Receiver<Part>,
    piece: Part,
    /// How many bytes of `piece` were read.
    taken: usize,
    answered: usize,
}

impl Nobody {
    /// Whether the body was read to its end.
    pub(super) fn body_is_over(&self) -> bool {
        self.piece.last && self.taken == self.piece.bytes.len()
    }

    /// The trailer section, once the body is over.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.piece.trailers.as_deref()
    }

    /// Reads more of the body.
    pub(super) fn poll_body(&mut self, cx: &mut TaskContext<'_>, buffer: &mut [u8]) -> Poll<Result<Piece, BodyFault>> {
        if self.taken == self.piece.bytes.len() && !self.piece.last {
            let Some(piece) = ready!(self.pieces.poll_recv(cx)) else {
                return Poll::Ready(Err(BodyFault::Cut));
            };
            (self.piece, self.taken) = (piece, 0);
        }
        let mut waiting = self.piece.bytes.get(self.taken..).unwrap_or_default();
        // Reading from memory does not fail.
        let bytes = waiting.read(buffer).unwrap_or_default();
        self.taken += bytes;
        Poll::Ready(Ok(Piece { bytes, end: self.body_is_over() }))
    }

    /// Takes so many bytes of the answer, and too many for a reset.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Broken> {
        self.answered += bytes;
        if self.answered > MOST_ANSWERED { Err(Broken::System(Errno::CONNRESET)) } else { Ok(()) }
    }
}

/// All that a copy needs on its own.
struct Copied {
    context: Rc<Context>,
    snapshot: Arc<Snapshot>,
    request: Request,
    pool: usize,
    client: Nobody,
    trusted: bool,
    _place: Place,
}

impl Job<'_> {
    /// Sends a copy on its way if the route asks for one and there is room for it. Returns where the body goes then.
    pub(super) fn copy(&self, route: &RouteInEffect, words: &Words, trusted: bool) -> Option<Tee> {
        if self.client.is_nobody() || self.request.upgrade().is_some() {
            return None;
        }
        let pool = route.mirror?;
        let desk = &self.context.desk;
        let metrics = &self.snapshot.pool_at(pool)?.pool.state().metrics;
        metrics.copied(desk.worker);
        let Some(place) = desk.requests.copies.take(MOST) else {
            metrics.dropped_copy(desk.worker);
            return None;
        };
        let mut request = self.request.clone();
        // They are known by the same id, and nobody waits for a word to go on.
        request.fields.push(b"x-request-id", words.request_id());
        request.expects_continue = false;
        let (sender, pieces) = channel(MOST_PIECES);
        let piece = Part { last: request.length.is_empty(), ..Part::default() };
        let client = Nobody { pieces, piece, taken: 0, answered: 0 };
        let (context, snapshot) = (Rc::clone(self.context), Arc::clone(self.snapshot));
        let copied = Copied { context, snapshot, request, pool, client, trusted, _place: place };
        desk.tasks.spawn_local("copy", copied.run());
        Some(Tee { copy: Some(sender), desk: Rc::clone(desk), metrics: Arc::clone(metrics) })
    }
}

impl Copied {
    async fn run(self) {
        let Self { context, snapshot, request, pool, mut client, trusted, _place } = self;
        let listener = snapshot.listener(&context.entrance.name);
        let Some((listener, http)) = listener.and_then(|listener| Some((listener, listener.http.as_ref()?))) else {
            return;
        };
        let (Some(route), Some(in_effect)) = (super::request::find(http, &request), snapshot.pool_at(pool)) else {
            return;
        };
        let started = Instant::now();
        let stopping = context.desk.tasks.stopping().clone();
        let mut job = Job {
            record: RequestRecord::of_copy(Rc::clone(&context), &request, started, in_effect.pool.name()),
            context: &context,
            request: &request,
            snapshot: &snapshot,
            listener,
            http,
            client: Client::Nobody(&mut client),
            timer: &mut Timer::new(started + LIMIT),
            recall: &Recall::default(),
            started,
            now: started,
        };
        let bounds = job.bounds(route, &in_effect.http);
        let limit = started + LIMIT;
        let bounds = Bounds { expires: Some(bounds.expires.map_or(limit, |expires| expires.min(limit))), ..bounds };
        let _nobody_asks = stopping.run_until_cancelled(job.forward(route, pool, trusted, &bounds)).await;
    }
}
