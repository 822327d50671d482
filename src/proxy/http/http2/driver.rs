//! Moves the bytes of a connection of HTTP/2 between its end and its streams.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::stream::Core;
use crate::http2::{Connection, Ended};
use crate::relay::{Broken, Read, Scratch, Then, Wire};

/// How much of a connection is read before others get their turn, those among them that take what came: it is better held
/// by the kernel, which tells the other side of it, than here.
const TURN: usize = 64 * 1024;

/// Drives a connection. When it is dropped, its streams are over.
pub(super) struct Driver<W> {
    core: Core,
    wire: W,
    lost: Option<Lost>,
}

/// Why nothing more can be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The other side has closed it.
    Closed,
    /// It broke.
    Broken(Broken),
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// By the protocol.
    Ended(Ended),
    /// Without it.
    Lost(Lost),
}

impl<W> Drop for Driver<W> {
    fn drop(&mut self) {
        self.core.borrow_mut().lost();
    }
}

impl<W: Wire> Driver<W> {
    pub(super) fn new(core: &Core, wire: W) -> Self {
        Self { core: Rc::clone(core), wire, lost: None }
    }

    /// Reads what came and writes what is to be sent, until there is nothing of either. It is over when all was said.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<Over> {
        let Self { core, wire, lost } = self;
        let mut core = core.borrow_mut();
        core.begin_turn();
        let mut came = 0;
        loop {
            while lost.is_none() && core.may_receive() {
                if came >= TURN {
                    cx.waker().wake_by_ref();
                    break;
                }
                match receive(cx, wire, &mut core, scratch) {
                    Poll::Ready(Ok(bytes)) => came += bytes,
                    Poll::Ready(Err(why)) => {
                        *lost = Some(why);
                        core.lost();
                    }
                    Poll::Pending => break,
                }
            }
            let is_withheld = !core.may_receive();
            match transmit(cx, wire, &mut core) {
                Poll::Ready(Ok(())) if is_withheld && core.may_receive() => {}
                Poll::Ready(Ok(())) | Poll::Pending => break,
                Poll::Ready(Err(broken)) => {
                    lost.get_or_insert(Lost::Broken(broken));
                    core.lost();
                    break;
                }
            }
        }
        core.end_turn(cx.waker());
        match (*lost, core.ended()) {
            (Some(lost), _) => Poll::Ready(Over::Lost(lost)),
            (None, Some(ended)) if core.output().is_empty() => Poll::Ready(Over::Ended(ended)),
            (None, _) => Poll::Pending,
        }
    }

    /// Closes in good order a connection that is over by the protocol.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.lost {
            None => self.wire.poll_farewell(cx),
            Some(_) => Poll::Ready(()),
        }
    }
}

fn receive<W: Wire>(
    cx: &mut Context<'_>,
    wire: &mut W,
    core: &mut Connection,
    scratch: &Scratch,
) -> Poll<Result<usize, Lost>> {
    scratch.with_buffer(|buffer| {
        let Read { bytes, then } = ready!(wire.poll_read(cx, buffer)).map_err(Lost::Broken)?;
        core.receive(buffer.get(..bytes).unwrap_or_default());
        Poll::Ready(match then {
            Then::Unknown => Ok(bytes),
            Then::End => Err(Lost::Closed),
            Then::Broken(broken) => Err(Lost::Broken(broken)),
        })
    })
}

fn transmit<W: Wire>(cx: &mut Context<'_>, wire: &mut W, core: &mut Connection) -> Poll<Result<(), Broken>> {
    if core.output().is_empty() {
        return Poll::Ready(Ok(()));
    }
    while !core.output().is_empty() {
        let bytes = ready!(wire.poll_write(cx, core.output(), false))?;
        core.sent(bytes);
    }
    wire.poll_flush(cx)
}
