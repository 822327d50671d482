//! One request and its response, both ways at once: a response may begin, and be over, while the request is still coming.
//!
//! Bodies pass through the worker's buffer in pieces. What one side has sent is read only when the other side has taken
//! what came before, so that a slow reader slows the sender down and no more than one piece waits here each way.

mod down;
mod ends;
mod up;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::body::Due;
use super::compress::Encoding;
use super::copy::Tee;
use super::kept::Kept;
use super::rounds::after_reads;
use super::server::NoHead;
use super::sides::{Client, Server};
use super::timer::Timer;
use crate::backend::State;
use crate::ending::Reason;
use crate::message::framing::Length;
use crate::message::line::Limits;
use crate::message::response::Response;
use crate::proxy::metronome::BEAT;
use crate::proxy::{Desk, Dismissals, Requests};
use crate::relay::{Conduit, Meter, Recall, Scratch};
use ends::of_no_head;

pub(super) use ends::{Deed, of_client_broken, of_gone};

/// How long a client may send a body slowly before its rate is looked at.
const GRACE: Duration = Duration::from_secs(5);
/// How many informational responses a server may send before the final one. Nothing holds it back while it does, and each
/// gives it more time.
const MOST_INFORMATIONAL: u8 = 100;
/// How much one direction may move before the other connections of the worker have their turn.
const TURN: usize = 1024 * 1024;
/// An exchange that is over before was a short one.
pub(super) const SHORT: Duration = BEAT;

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// When the whole of it has to be over, if it has to.
    pub(super) expires: Option<Instant>,
    /// How long a server has to have kept it waiting by then to be blamed. Who gets it when most of its time is gone is not;
    /// nor is anybody where it is the caller who has no more time.
    pub(super) blamed_after: Duration,
    /// Without a byte of the request's body, before the response has begun.
    pub(super) body_idle: Duration,
    /// Bytes a second of the request's body.
    pub(super) min_rate: u64,
    /// Bytes of the request's body.
    pub(super) body_bytes: u64,
    /// From the end of the request to the head of the response.
    pub(super) response_header: Duration,
    /// Without a byte either way, once the response has begun.
    pub(super) idle: Duration,
    /// What the server's heads may be like, and trailer sections of both sides.
    pub(super) response_limits: Limits,
    pub(super) trailer_limits: Limits,
}

/// Why an exchange stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client is gone, or sent what it may not, or took too long.
    Client(Reason),
    /// The server is.
    Server(Reason),
    /// The time of the whole is over, or it was called back.
    Ours(Reason),
}

impl Stop {
    pub(super) fn reason(self) -> Reason {
        let (Self::Client(reason) | Self::Server(reason) | Self::Ours(reason)) = self;
        reason
    }
}

/// How far an exchange got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// The head of a final response is there.
    Head,
    /// It was stopped before.
    Stopped(Stop),
}

/// What is left of an exchange, each as in [`Exchange`].
pub(super) struct Remains {
    pub(super) server: Server,
    pub(super) response: Box<Response>,
    pub(super) copy: Option<Tee>,
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) unseen: bool,
    pub(super) fault: Option<Deed>,
    pub(super) moved: Instant,
    pub(super) stalled: bool,
    /// Whether more of the request was waited for.
    pub(super) awaits_client: bool,
    pub(super) kept: Kept,
    /// Whether no byte of a response came, be it of an informational one, and whether the connection ended so.
    pub(super) untouched: bool,
    pub(super) lost: bool,
    /// Whether the client was sent nothing of the response.
    pub(super) unsent: bool,
}

/// One request and its response, under way.
pub(super) struct Exchange<'a, 'c> {
    pub(super) client: &'a mut Client<'c>,
    pub(super) server: Server,
    pub(super) response: Box<Response>,
    pub(super) bounds: &'a Bounds,
    pub(super) scratch: &'a Scratch,
    pub(super) recall: &'a Recall,
    /// Whether the server is to be rid of it.
    dismissals: &'a Dismissals,
    state: &'a Arc<State>,
    /// Whether the response is to a HEAD.
    pub(super) to_head: bool,
    /// Where the request's body goes as well.
    pub(super) copy: Option<Tee>,
    /// What was read of it and may have to be sent again, and whether it may although it was sent.
    pub(super) kept: Kept,
    repeats: bool,
    /// What is kept is kept in.
    requests: &'a Requests,
    /// How long the server may take to the head of its response before the meter hears that it is late; zero is for ever.
    pub(super) first_byte: Duration,
    /// Bytes of the request's body that had been read before.
    before: u64,
    /// Bytes of the request's body that were read, and of the response's that were passed on.
    pub(super) up: u64,
    pub(super) down: u64,
    /// How much of the response's body has still to go out.
    due: Due,
    /// How many informational responses there were.
    informed: u8,
    /// Whether the server said that it has not looked at the request.
    unseen: bool,
    /// Whether the connection ended where a head was to come.
    lost: bool,
    /// What one side did, where that is why it stopped.
    fault: Option<Deed>,
    /// Whether the head of the response could be taken back for as long as it goes alone, and whether it was.
    may_unsend: bool,
    unsent: bool,
    /// Whether it came to nothing more since the server kept all others waiting.
    stalled: bool,
    /// Whether the server takes no more of the request.
    refused: bool,
    /// Whether the request was read to its end.
    uploaded: bool,
    /// Whether the response was read to its end.
    answered: bool,
    /// Whether what is left of the response's body is spliced, as long as there is a pipe for it.
    splices: bool,
    /// Whether the heads are still here, so that they can go with the first bytes of the bodies.
    up_begins: bool,
    down_begins: bool,
    /// When bytes last moved, or one side began to wait for the other.
    pub(super) moved: Instant,
    began: Instant,
}

impl<'a, 'c> Exchange<'a, 'c> {
    #[expect(clippy::too_many_arguments, reason = "one call site; they are the fields")]
    pub(super) fn new(
        client: &'a mut Client<'c>,
        server: Server,
        response: Box<Response>,
        state: &'a Arc<State>,
        bounds: &'a Bounds,
        desk: &'a Desk,
        recall: &'a Recall,
        to_head: bool,
        now: Instant,
    ) -> Self {
        let uploaded = client.body_is_over();
        Self {
            client,
            server,
            response,
            bounds,
            scratch: &desk.scratch,
            recall,
            dismissals: &desk.dismissals,
            state,
            to_head,
            copy: None,
            kept: Kept::default(),
            repeats: false,
            requests: &desk.requests,
            before: 0,
            first_byte: Duration::ZERO,
            up: 0,
            down: 0,
            due: Due::of(Length::None),
            unseen: false,
            lost: false,
            fault: None,
            may_unsend: false,
            unsent: false,
            stalled: false,
            refused: false,
            uploaded,
            informed: 0,
            answered: false,
            splices: false,
            up_begins: true,
            down_begins: true,
            moved: now,
            began: now,
        }
    }

    /// It is over, whichever way: what is left of it.
    pub(super) fn into_remains(self) -> Remains {
        let untouched = self.informed == 0 && self.response.is_blank();
        let awaits_client = !(self.uploaded || self.refused || self.server.is_blocked());
        let Self { server, response, copy, kept, up, down, unseen, lost, fault, moved, stalled, unsent, .. } = self;
        Remains {
            server,
            response,
            copy,
            kept,
            up,
            down,
            unseen,
            lost,
            fault,
            moved,
            stalled,
            awaits_client,
            unsent,
            untouched,
        }
    }

    /// What was read of the request's body for a server before goes first. With `repeats`, the body may be sent again after this
    /// server was sent it.
    pub(super) fn begin_with(&mut self, mut kept: Kept, repeats: bool) {
        kept.rewind();
        self.uploaded &= !kept.is_under_way();
        self.before = kept.len() as u64;
        (self.kept, self.repeats) = (kept, repeats);
    }

    /// A body follows that is so long.
    pub(super) fn owes(&mut self, length: Length) {
        self.due = Due::of(length);
        self.may_unsend = self.client.may_unsend();
    }

    /// Whether the request was read to its end.
    pub(super) fn is_uploaded(&self) -> bool {
        self.uploaded
    }

    /// Sends the request until the head of the final response is there. Informational ones are passed on.
    pub(super) async fn until_head(&mut self, timer: &mut Timer, meter: &impl Meter) -> Arrived {
        // One of HTTP/2 gathers by itself what goes to it.
        if matches!(self.server, Server::Http1(_)) {
            after_reads().await;
        }
        poll_fn(|cx| self.poll_until_head(cx, timer, meter)).await
    }

    /// Passes the response's body on until it is over, and the request's for as long as that is not.
    pub(super) async fn until_end(
        &mut self,
        timer: &mut Timer,
        meter: &impl Meter,
        encoding: &mut Option<Encoding>,
    ) -> Result<(), Stop> {
        // The pipe, while the body goes through one.
        let mut conduit = None;
        poll_fn(|cx| self.poll_until_end(cx, timer, meter, encoding, &mut conduit)).await
    }

    fn poll_until_head(&mut self, cx: &mut Context<'_>, timer: &mut Timer, meter: &impl Meter) -> Poll<Arrived> {
        loop {
            if let Err(stop) = self.poll_up(cx, meter) {
                // A server that has stopped reading may have said why.
                return Poll::Ready(Arrived::Stopped(stop));
            }
            let head =
                self.server.poll_head(cx, &mut self.response, self.scratch, &self.bounds.response_limits, self.to_head);
            match head {
                Poll::Pending => {}
                Poll::Ready(Ok(())) if self.response.is_informational() && self.response.status != 101 => {
                    if self.informed >= MOST_INFORMATIONAL {
                        self.fault = Some(Deed::Wrong("it sends informational responses without end"));
                        return Poll::Ready(Arrived::Stopped(Stop::Server(Reason::BadResponse)));
                    }
                    self.informed += 1;
                    self.moved = Instant::now();
                    self.client.inform(cx, &self.response);
                    self.response.clear();
                    continue;
                }
                Poll::Ready(Ok(())) => {
                    self.client.retire(self.recall.by().is_some());
                    return Poll::Ready(Arrived::Head);
                }
                Poll::Ready(Err(no_head)) => {
                    self.unseen = matches!(no_head, NoHead::Unseen(_));
                    self.lost = matches!(no_head, NoHead::Broken(_) | NoHead::Closed);
                    self.fault = no_head.deed();
                    return Poll::Ready(Arrived::Stopped(Stop::Server(of_no_head(no_head))));
                }
            }
            if let Poll::Ready(gone) = self.poll_gone(cx, timer) {
                return Poll::Ready(Arrived::Stopped(Stop::Client(gone)));
            }
            let (deadline, stop) = self.deadline_of_head();
            if matches!(stop, Stop::Server(_)) {
                self.poll_late(cx, timer, meter);
            }
            let is_servers_turn = matches!(stop, Stop::Server(_));
            let stop = ready!(self.poll_deadlines(cx, timer, deadline, stop));
            if stop == Stop::Client(Reason::BodyTimeout) {
                self.fault = Some(Deed::Wrong(self.deadline_of_body().1));
            }
            self.stalled = is_servers_turn && self.is_blamed(stop);
            return Poll::Ready(Arrived::Stopped(stop));
        }
    }

    fn poll_until_end(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Timer,
        meter: &impl Meter,
        encoding: &mut Option<Encoding>,
        conduit: &mut Option<Conduit<'a>>,
    ) -> Poll<Result<(), Stop>> {
        if let Poll::Ready(result) = self.poll_down(cx, meter, encoding, conduit) {
            return Poll::Ready(result);
        }
        match self.poll_up(cx, meter) {
            Ok(()) => {}
            // The response goes on without it.
            Err(Stop::Server(_)) => self.refused = true,
            Err(stop) => return Poll::Ready(Err(stop)),
        }
        // Whoever takes nothing and says nothing may have left.
        if let Poll::Ready(gone) = self.poll_gone(cx, timer) {
            return Poll::Ready(Err(Stop::Client(gone)));
        }
        let deadline = self.moved + self.bounds.idle;
        let stop = ready!(self.poll_deadlines(cx, timer, deadline, Stop::Ours(Reason::IdleTimeout)));
        // A body whose length nobody knows may have nothing to say for long; and what is in the pipe is for the client to take.
        let is_servers_turn = self.due.is_owed() && conduit.is_none() && !self.client.is_blocked();
        self.stalled = is_servers_turn && (self.uploaded || self.refused) && self.is_blamed(stop);
        Poll::Ready(Err(stop))
    }

    /// Whether a server whose turn it is is to blame for this end.
    fn is_blamed(&self, stop: Stop) -> bool {
        match stop {
            Stop::Ours(Reason::RequestTimeout) => self.moved.elapsed() >= self.bounds.blamed_after,
            Stop::Ours(reason) => reason == Reason::IdleTimeout,
            Stop::Client(_) | Stop::Server(_) => false,
        }
    }

    /// Notices that the client has left. To have the system watch a connection costs more than a short exchange with a client
    /// that stays: one that nobody has waited for yet is watched only when the exchange lasts.
    fn poll_gone(&mut self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<Reason> {
        if !self.client.is_watched() {
            ready!(timer.poll(cx, self.began + SHORT));
        }
        self.client.poll_gone(cx).map(of_gone)
    }

    /// Until when the head of the response has to be there, and whose fault it is if not.
    fn deadline_of_head(&self) -> (Instant, Stop) {
        if self.uploaded || self.refused {
            return (self.moved + self.bounds.response_header, Stop::Server(Reason::ResponseTimeout));
        }
        // A server that does not take what the client sends is not the client's fault.
        if self.server.is_blocked() {
            return (self.moved + self.bounds.response_header, Stop::Server(Reason::ResponseTimeout));
        }
        (self.deadline_of_body().0, Stop::Client(Reason::BodyTimeout))
    }

    /// Until when more of the request's body has to be there, and what is wrong if it is not.
    fn deadline_of_body(&self) -> (Instant, &'static str) {
        let idle = (self.moved + self.bounds.body_idle, "its body stood still for body_idle");
        match self.up.checked_div(self.bounds.min_rate) {
            None => idle,
            Some(seconds) => {
                let slow = self.began + GRACE + Duration::from_secs(seconds);
                if slow < idle.0 { (slow, "its body comes more slowly than min_rate") } else { idle }
            }
        }
    }

    /// Tells the meter once when the server, whose turn it is, is later than it may be.
    fn poll_late(&mut self, cx: &mut Context<'_>, timer: &mut Timer, meter: &impl Meter) {
        if !self.first_byte.is_zero() && timer.poll(cx, self.moved + self.first_byte).is_ready() {
            self.first_byte = Duration::ZERO;
            meter.late();
        }
    }

    fn poll_deadlines(&self, cx: &mut Context<'_>, timer: &mut Timer, deadline: Instant, stop: Stop) -> Poll<Stop> {
        let mut next = (deadline, stop);
        let expires = self.bounds.expires.map(|at| (at, Stop::Ours(Reason::RequestTimeout)));
        self.recall.listen_around(cx);
        let recalled = self.recall.by().map(|at| (at, Stop::Ours(Reason::Shutdown)));
        let dismissed = self.dismissals.due(self.state, self.began).map(|(at, reason)| (at, Stop::Server(reason)));
        for earlier in expires.into_iter().chain(recalled).chain(dismissed) {
            if earlier.0 < next.0 {
                next = earlier;
            }
        }
        timer.poll(cx, next.0).map(|()| next.1)
    }
}
