//! The request's body on its way to the server.

use std::task::{Context, Poll, ready};

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
            let begins = std::mem::take(&mut self.up_begins);
            let Self { client, server, scratch, bounds, copy, kept, repeats, requests, before, up, fault, .. } = self;
            let sent = scratch.with_buffer(|buffer| {
                let room = buffer.len() - TAILROOM;
                let Some(lent) = buffer.get_mut(HEADROOM..room) else { return Poll::Pending };
                let again = kept.again(requests, lent);
                let is_new = again.is_none();
                let read = again
                    .map_or_else(|| client.poll_body(cx, lent, &bounds.trailer_limits), |piece| Poll::Ready(Ok(piece)));
                let Piece { bytes, end } = ready!(read).map_err(|wrong| {
                    *fault = wrong.words().map(Deed::Wrong);
                    Stop::Client(CLIENT.of_fault(wrong))
                })?;
                if is_new {
                    let read = *up + bytes as u64;
                    if before.saturating_add(read) > bounds.body_bytes {
                        return Poll::Ready(Err(Stop::Client(Reason::BodyTooLarge)));
                    }
                    *up = read;
                    if let Some(copy) = copy {
                        copy.pass(lent.get(..bytes).unwrap_or_default(), end, client.trailers());
                    }
                }
                let place = HEADROOM..HEADROOM + bytes;
                let outgoing = Outgoing { buffer, place: place.clone(), last: end, trailers: client.trailers() };
                let sent = server.send(cx, outgoing);
                // Sent alone behind a head, it may be all that has not left.
                match *repeats || begins && server.is_untouched() {
                    true if is_new => kept.keep(requests, buffer.get(place).unwrap_or_default(), end),
                    true => {}
                    false => kept.stop(requests),
                }
                Poll::Ready(Ok((bytes, end, is_new, sent)))
            });
            let (bytes, end, is_new, sent) = match sent {
                // The head goes alone.
                Poll::Pending if begins => continue,
                Poll::Pending => return Ok(()),
                Poll::Ready(moved) => moved?,
            };
            self.uploaded |= end;
            self.moved = Instant::now();
            match is_new {
                true => meter.moved(Direction::Up, bytes),
                false => meter.repeated(bytes),
            }
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
