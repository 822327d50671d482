//! The request's body on its way to the server.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::ends::CLIENT;
use super::{Deed, Exchange, Stop, TURN};
use crate::ending::Reason;
use crate::message::chunked::{HEADROOM, TAILROOM};
use crate::net::errno::is_disconnect;
use crate::proxy::http::body::{Outgoing, Piece};
use crate::relay::{Broken, Direction, Meter};

impl Exchange<'_, '_> {
    /// Moves what can be moved of the request's body.
    pub(super) fn poll_up(&mut self, cx: &mut Context<'_>, meter: &impl Meter) -> Result<(), Stop> {
        let mut turn = 0;
        loop {
            if self.refused {
                return Ok(());
            }
            if !self.up_begins || self.uploaded {
                match self.server.poll_ready(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(broken)) => return self.refuse(broken),
                }
                if self.uploaded {
                    return Ok(());
                }
            }
            let Self { client, server, scratch, bounds, copy, up, fault: words, .. } = self;
            let sent = scratch.with_buffer(|buffer| {
                let room = buffer.len() - TAILROOM;
                let Some(lent) = buffer.get_mut(HEADROOM..room) else { return Poll::Pending };
                let Piece { bytes, end } = match client.poll_body(cx, lent, &bounds.trailer_limits) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(piece)) => piece,
                    Poll::Ready(Err(fault)) => {
                        *words = fault.words().map(Deed::Wrong);
                        return Poll::Ready(Err(Stop::Client(CLIENT.of_fault(fault))));
                    }
                };
                if up.saturating_add(bytes as u64) > bounds.body_bytes {
                    return Poll::Ready(Err(Stop::Client(Reason::BodyTooLarge)));
                }
                if let Some(copy) = copy {
                    copy.pass(lent.get(..bytes).unwrap_or_default(), end, client.trailers());
                }
                let place = HEADROOM..HEADROOM + bytes;
                let sent = server.send(cx, Outgoing { buffer, place, last: end, trailers: client.trailers() });
                Poll::Ready(Ok((bytes, end, sent)))
            });
            let began = std::mem::take(&mut self.up_begins);
            let (bytes, end, sent) = match sent {
                // The head goes alone.
                Poll::Pending if began => continue,
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(stop)) => return Err(stop),
                Poll::Ready(Ok(piece)) => piece,
            };
            self.up += bytes as u64;
            self.uploaded |= end;
            self.moved = Instant::now();
            meter.moved(Direction::Up, bytes);
            if let Err(broken) = sent {
                return self.refuse(broken);
            }
            turn += bytes;
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    /// The server takes no more. It may have said why before it stopped: only when nothing can be read of it either, that
    /// is the end.
    fn refuse(&mut self, broken: Broken) -> Result<(), Stop> {
        self.refused = true;
        match broken {
            Broken::System(errno) if is_disconnect(errno) => Ok(()),
            Broken::System(_) => Err(Stop::Server(Reason::Internal)),
            Broken::Truncated | Broken::Garbled => Err(Stop::Server(Reason::ServerTlsError)),
        }
    }
}
