//! The response's body on its way to the client.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::ends::SERVER;
use super::{Deed, Exchange, Stop, TURN, of_client_broken};
use crate::ending::Reason;
use crate::message::chunked::{HEADROOM, TAILROOM};
use crate::message::compress::Failed;
use crate::proxy::http::body::{BodyFault, Outgoing, Piece};
use crate::proxy::http::compress::Encoding;
use crate::proxy::http::sides::{Client, Server};
use crate::relay::{Broken, Conduit, Direction, Meter, Wire as _};

/// A read of so much says that there is more.
const FULL: usize = 60 * 1024;
/// What is still to come of a body is spliced if it is no less than this: under it, a copy is cheaper.
const LARGE: u64 = 128 * 1024;
/// A splice that brings less than this would have been cheaper as a copy.
const SMALL: usize = 16 * 1024;

impl<'a> Exchange<'a, '_> {
    /// Moves what can be moved of the response's body. Ready once it is over.
    pub(super) fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        meter: &impl Meter,
        encoding: &mut Option<Encoding>,
        conduit: &mut Option<Conduit<'a>>,
    ) -> Poll<Result<(), Stop>> {
        let mut turn = 0;
        // Whether the client took its time with the last of it.
        let is_late = self.answered;
        loop {
            if !self.down_begins {
                ready!(self.client.poll_ready(cx)).map_err(|broken| Stop::Client(of_client_broken(broken)))?;
                if self.answered {
                    if is_late {
                        self.moved = Instant::now();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
            if self.splices && conduit.is_none() {
                *conduit = Conduit::lend(self.scratch);
            }
            if conduit.is_some() {
                let bytes = ready!(self.poll_splice(cx, conduit))?;
                meter.moved(Direction::Down, bytes);
                turn += bytes;
                if turn >= TURN {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            let Self { client, server, scratch, bounds, fault: deed, due, .. } = self;
            let moved = scratch.with_buffer(|buffer| {
                let room = buffer.len() - TAILROOM;
                let Some(lent) = buffer.get_mut(HEADROOM..room) else { return Poll::Pending };
                let Piece { bytes, end } =
                    ready!(server.poll_body(cx, lent, &bounds.trailer_limits)).map_err(|fault| {
                        *deed = fault.deed();
                        Stop::Server(SERVER.of_fault(fault))
                    })?;
                let place = HEADROOM..HEADROOM + bytes;
                let piece = Outgoing { buffer, place, last: end, trailers: server.trailers() };
                let piece = match encoding {
                    None => piece,
                    Some(encoding) => encoding.encode(piece).map_err(|Failed| Stop::Ours(Reason::Internal))?,
                };
                let passed = piece.len();
                due.pay(passed, piece.last).map_err(|words| {
                    *deed = Some(Deed::Wrong(words));
                    Stop::Server(Reason::BadResponse)
                })?;
                client.send(cx, piece).map_err(|broken| Stop::Client(of_client_broken(broken)))?;
                Poll::Ready(Ok((bytes, passed, end)))
            });
            let began = std::mem::take(&mut self.down_begins);
            let (bytes, passed, end) = match moved {
                // The head goes alone.
                Poll::Pending if began => continue,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(stop)) => {
                    self.unsent = began && self.may_unsend && self.client.unsend();
                    return Poll::Ready(Err(stop));
                }
                Poll::Ready(Ok(moved)) => moved,
            };
            self.down += passed as u64;
            // What came with the head did so when that did.
            if !began {
                self.moved = Instant::now();
            }
            meter.moved(Direction::Down, bytes);
            if end {
                self.answered = true;
            } else if (bytes >= FULL || began && self.server.flows())
                && encoding.is_none()
                && self.server.splices(LARGE)
                && self.client.splices()
            {
                self.splices = true;
            }
            turn += bytes;
            if turn >= TURN && !end {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Moves more of a large body inside the kernel. Returns how much, and puts the pipe away until there is more to move.
    fn poll_splice(&mut self, cx: &mut Context<'_>, conduit: &mut Option<Conduit<'a>>) -> Poll<Result<usize, Stop>> {
        let Self { client, server, .. } = self;
        let (Some(pipe), Client::Http1(client), Server::Http1(server)) = (conduit.as_mut(), &mut **client, server)
        else {
            *conduit = None;
            return Poll::Ready(Ok(0));
        };
        let (Some(from), Some(to)) = (server.end.plain(), client.end.plain()) else {
            *conduit = None;
            return Poll::Ready(Ok(0));
        };
        let broken = |errno| Stop::Client(of_client_broken(Broken::System(errno)));
        ready!(pipe.poll_drain(cx, to)).map_err(broken)?;
        let left = server.body.left();
        self.answered = left == 0;
        if self.answered || !self.splices {
            *conduit = None;
            self.splices = false;
            return Poll::Ready(Ok(0));
        }
        let taken = match pipe.poll_fill(cx, from, usize::try_from(left).unwrap_or(usize::MAX)) {
            Poll::Pending => {
                // It is of use to others meanwhile.
                *conduit = None;
                return Poll::Pending;
            }
            Poll::Ready(Err(errno)) => return Poll::Ready(Err(Stop::Server(SERVER.of_broken(Broken::System(errno))))),
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(Stop::Server(SERVER.of_fault(BodyFault::Cut)))),
            Poll::Ready(Ok(taken)) => taken,
        };
        self.splices = taken >= SMALL;
        server.body.passed(taken as u64);
        // It is no more than its head said: so much and no more was asked for.
        let _all = self.due.pay(taken, false);
        self.down += taken as u64;
        self.moved = Instant::now();
        Poll::Ready(Ok(taken))
    }
}
