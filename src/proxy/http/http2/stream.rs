//! One stream of HTTP/2, towards whichever side: heads and bodies in pieces, with the flow control of the protocol as
//! back-pressure.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::heads;
use crate::http2::hpack::encoder::Packer;
use crate::http2::{self, Code, Connection, Head, Taken};
use crate::message::head::Fields;
use crate::message::line::Limits;
use crate::proxy::http::body::{BodyFault, Piece};
use crate::proxy::http::exchange::Deed;
use crate::proxy::http::forward;
use crate::relay::Broken;

/// A connection as its streams have it, and whoever drives it.
pub(super) type Core = Rc<RefCell<Connection>>;

/// One stream. It is given up when it is dropped before it is over.
#[derive(Debug)]
pub(in crate::proxy::http) struct Http2Stream {
    connection: Core,
    id: u32,
    /// Whether all of what comes was read.
    over: bool,
    /// Whether what comes is of another protocol, which nobody has agreed to speak yet.
    held: bool,
    trailers: Option<Box<Fields>>,
    /// What there is no room for yet, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
    /// What is sent behind it, if it is the last.
    last: Option<Last>,
    ended: bool,
}

#[derive(Debug)]
enum Last {
    End,
    Trailers(Box<Fields>),
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.connection.borrow_mut().release(self.id);
    }
}

impl Http2Stream {
    /// A stream that was accepted or made; with `ended`, nothing goes out on it behind its head.
    pub(super) fn new(connection: &Core, id: u32, ended: bool) -> Self {
        Self {
            connection: Rc::clone(connection),
            id,
            over: false,
            held: false,
            trailers: None,
            pending: Vec::new(),
            sent: 0,
            last: None,
            ended,
        }
    }

    /// Reads the head of what comes; there may be informational responses before that of a response. Whether a body follows
    /// is known to the stream from then on.
    pub(super) fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Head, bool) -> T,
    ) -> Poll<Result<T, http2::Broken>> {
        let mut connection = self.connection.borrow_mut();
        let (mut head, ended) = ready!(connection.poll_head(cx, self.id))?;
        self.over = ended;
        let read = read(&mut head, ended);
        head.put_back();
        Poll::Ready(Ok(read))
    }

    /// Whether all has come that may be read now.
    pub(in crate::proxy::http) fn is_over(&self) -> bool {
        self.over || self.held
    }

    /// Holds back what comes, or no longer: it is no body, and a server that does not change the protocol would take it for
    /// the next request.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The trailer section, once all has come.
    pub(in crate::proxy::http) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// Reads more of the body.
    pub(in crate::proxy::http) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        limits: &Limits,
    ) -> Poll<Result<Piece, BodyFault>> {
        if self.over {
            return Poll::Ready(Ok(Piece { bytes: 0, end: true }));
        }
        let mut connection = self.connection.borrow_mut();
        match ready!(connection.poll_take(cx, self.id, buffer)) {
            Ok(Taken { bytes, end }) => {
                if end {
                    self.over = true;
                    self.trailers = connection.take_trailers(self.id);
                    if let Some(trailers) = &mut self.trailers {
                        heads::take_trailers(trailers, limits).map_err(BodyFault::Malformed)?;
                    }
                }
                Poll::Ready(Ok(Piece { bytes, end }))
            }
            Err(broken) => {
                drop(connection);
                Poll::Ready(Err(self.deed(broken).map_or(BodyFault::Broken(RESET), BodyFault::GivenUp)))
            }
        }
    }

    /// Sends a head. With `end`, nothing follows it.
    pub(super) fn head(&mut self, end: bool, pack: impl FnOnce(&mut Packer<'_>)) -> Result<(), Broken> {
        self.ended |= end;
        self.connection.borrow_mut().respond(self.id, end, pack).map_err(|_gone| RESET)
    }

    /// Whether all was handed over.
    pub(in crate::proxy::http) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.last.is_none()
    }

    /// Sends a piece; what has no room waits for [`Self::poll_ready`], which has to have said yes before.
    pub(in crate::proxy::http) fn send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
        trailers: Option<&Fields>,
    ) -> Result<(), Broken> {
        if last && !self.ended {
            let trailers = trailers.filter(|trailers| forward::has_trailers(trailers));
            self.last = Some(trailers.map_or(Last::End, |trailers| Last::Trailers(Box::new(trailers.clone()))));
        }
        let mut sent = 0;
        while let Poll::Ready(more) = self.poll_portion(cx, bytes.get(sent..).unwrap_or_default()) {
            sent += more?;
            if sent >= bytes.len() {
                return Ok(());
            }
        }
        self.pending = bytes.get(sent..).unwrap_or_default().to_vec();
        self.sent = 0;
        Ok(())
    }

    /// Waits until all was handed over that was sent before.
    pub(in crate::proxy::http) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let pending = std::mem::take(&mut self.pending);
        loop {
            let rest = pending.get(self.sent..).unwrap_or_default();
            match self.poll_portion(cx, rest) {
                Poll::Ready(Ok(bytes)) => self.sent += bytes,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Pending => {
                    self.pending = pending;
                    return Poll::Pending;
                }
            }
            if self.sent >= pending.len() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Hands over as much as there is room for, and what is last behind the last of it.
    fn poll_portion(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Broken>> {
        let ends = matches!(self.last, Some(Last::End));
        let mut connection = self.connection.borrow_mut();
        let sent = match bytes.is_empty() && !ends {
            true => 0,
            false => ready!(connection.poll_send(cx, self.id, bytes, ends)).map_err(|_gone| RESET)?,
        };
        if sent == bytes.len() {
            match self.last.take() {
                None => return Poll::Ready(Ok(sent)),
                Some(Last::End) => {}
                Some(Last::Trailers(trailers)) => {
                    let packed = connection.respond(self.id, true, |packer| forward::trailer_fields(&trailers, packer));
                    packed.map_err(|_gone| RESET)?;
                }
            }
            self.ended = true;
        }
        Poll::Ready(Ok(sent))
    }

    /// What the other side did that it is broken; nothing where the connection just ended.
    pub(super) fn deed(&self, broken: http2::Broken) -> Option<Deed> {
        let connection = self.connection.borrow();
        match broken {
            http2::Broken::Reset(code) => Some(Deed::Reset(code)),
            http2::Broken::Wrong(_) | http2::Broken::Over { .. } => {
                let wrong = connection.fault_of(self.id).map(Deed::Wrong);
                wrong.or_else(|| connection.farewell().map(Deed::Left))
            }
        }
    }

    /// Waits until the other side gives the stream up, or the connection is gone.
    pub(in crate::proxy::http) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.borrow_mut().poll_broken(cx, self.id).map(|_| ())
    }

    /// Why nothing more comes or goes on it, if so.
    pub(super) fn broken(&self) -> Option<http2::Broken> {
        self.connection.borrow().broken(self.id)
    }

    /// What the other side did wrong on it or on its connection, if that is why.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.connection.borrow().fault_of(self.id)
    }

    /// Gives the stream up, so that what was sent is not taken for the whole.
    pub(in crate::proxy::http) fn reset(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            self.connection.borrow_mut().give_up(self.id, code);
        }
    }
}

/// What carries another protocol on a stream.
pub(in crate::proxy::http) trait Tunnelled {
    fn stream(&mut self) -> &mut Http2Stream;
}

impl<T: Tunnelled> Tunnelled for &mut T {
    fn stream(&mut self) -> &mut Http2Stream {
        (**self).stream()
    }
}

/// The other side gave the stream up, or is gone.
pub(in crate::proxy::http) const RESET: Broken = Broken::System(rustix::io::Errno::CONNRESET);
