//! A connection with TLS on it, as a relay sees it.
//!
//! rustls keeps no buffer here: ciphertext is decrypted in the buffer the relay lends, what is encrypted goes to the
//! kernel from a buffer that all connections of a thread share, and a connection keeps only what is left of a record that
//! has not arrived whole, or that the kernel did not take. So one that idles costs what its session costs and no more.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::Read as _;
use std::mem;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::failure::Failed;
use crate::ending::TlsVersion;
use crate::net::stream::Stream;
use crate::relay::{Broken, LEAST, Read, Then, Wire};

/// The most plaintext that is encrypted in one go: three records of the largest size.
const PORTION: usize = 48 * 1024;
/// How much ciphertext that comes to at most: a header, a nonce and a tag are less than this for each record.
const SEALED: usize = PORTION + 4 * 64;
/// How much is read at once during a handshake: the largest record (RFC 8446 §5.2).
const RECORD: usize = 5 + 16 * 1024 + 256;
/// The most bytes of an unfinished handshake that are kept: what rustls allows one message to have, and a record.
const MOST_KEPT: usize = 0xffff + RECORD;

thread_local! {
    /// Where the streams of this thread encrypt to, and read handshakes from.
    static WORKSPACE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The protocol's side of a stream: towards a client or towards a server.
pub trait Engine {
    /// What rustls tells the sides apart by.
    type Data;
    /// Whether the other side may leave without a word once we have said that nothing more will come: most clients do
    /// when they have their answer. A server that does so may have lost its answer on the way.
    const MAY_LEAVE: bool;
    /// Takes in ciphertext.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// What was agreed upon.
    fn state(&self) -> &CommonState;
}

/// Towards a client.
pub type ToClient = UnbufferedServerConnection;
/// Towards a server.
pub type ToServer = UnbufferedClientConnection;

impl Engine for ToClient {
    type Data = ServerConnectionData;
    const MAY_LEAVE: bool = true;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Engine for ToServer {
    type Data = ClientConnectionData;
    const MAY_LEAVE: bool = false;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// A connection with TLS on it.
pub struct TlsStream<E> {
    socket: Stream,
    engine: E,
    /// Ciphertext that is no whole record yet.
    incoming: Vec<u8>,
    /// Plaintext that nobody has asked for yet.
    plain: Vec<u8>,
    /// Ciphertext that the kernel has not taken.
    outgoing: Vec<u8>,
    /// Whether that may wait for the first bytes of ours: session tickets, which nobody is in a hurry for.
    may_wait: bool,
    /// The other side has said that nothing more will come.
    ended: bool,
    /// We have.
    closed: bool,
    /// The other side has said something since.
    spoke_on: bool,
    /// Why the connection is of no use any more.
    broken: Option<Box<Error>>,
}

impl<E: Engine> TlsStream<E> {
    /// Begins on a socket: `received` was read from it, and `prefix` goes out before anything of TLS.
    pub(super) fn new(socket: Stream, engine: E, received: Vec<u8>, prefix: Vec<u8>) -> Self {
        Self {
            socket,
            engine,
            incoming: received,
            plain: Vec::new(),
            outgoing: prefix,
            may_wait: false,
            ended: false,
            closed: false,
            spoke_on: false,
            broken: None,
        }
    }

    /// What was agreed upon.
    pub(super) fn state(&self) -> &CommonState {
        self.engine.state()
    }

    /// The version that was agreed upon.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        match self.state().protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            Some(rustls::ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::None,
        }
    }

    /// The protocol that was agreed upon by ALPN.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// What has arrived and was decrypted along with the handshake.
    #[must_use]
    pub fn take_early(&mut self) -> Vec<u8> {
        mem::take(&mut self.plain)
    }

    /// Says that nothing more will come, and closes.
    pub async fn close(mut self: Box<Self>) {
        poll_fn(|cx| self.poll_close(cx)).await;
    }

    /// The socket and what was still to be sent through it: the alert, if the handshake failed.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.socket, self.outgoing)
    }

    /// Takes a step of the handshake with what has arrived. Afterwards something may have to be sent.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        let mut incoming = mem::take(&mut self.incoming);
        let used = self.digest(&mut incoming, &mut [], &mut 0)?;
        incoming.drain(..used);
        self.incoming = incoming;
        Ok(())
    }

    /// Whether the handshake is still under way.
    pub(super) fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// The socket it is on.
    #[must_use]
    pub fn socket(&self) -> &Stream {
        &self.socket
    }

    /// Whether to close with a reset when it is dropped.
    pub fn set_abandoned(&mut self, abandoned: bool) {
        self.socket.set_abandoned(abandoned);
    }

    /// Lets what is to be sent wait for the first bytes that are sent anyway.
    pub(super) fn let_it_wait(&mut self) {
        self.may_wait = true;
    }

    /// Reads more of the handshake.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if self.incoming.len() >= MOST_KEPT {
            return Poll::Ready(Err(Failed::new(crate::ending::Handshake::ProtocolError, "a message is too long")));
        }
        let Self { socket, incoming, .. } = self;
        with_workspace(RECORD, |buffer| {
            let read = ready!(socket.poll_recv(cx, buffer))?;
            if read.bytes == 0 {
                return Poll::Ready(Err(Failed::closed()));
            }
            incoming.extend_from_slice(buffer.get(..read.bytes).unwrap_or_default());
            Poll::Ready(Ok(()))
        })
    }

    /// Waits until the other side has said something after the handshake, be it the end, and keeps it for
    /// [`Wire::poll_read`]. Messages of the protocol's own are nothing said.
    ///
    /// # Errors
    /// When reading failed, which the system tells once only.
    pub fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        if self.plain.is_empty() {
            with_workspace(LEAST, |buffer| match ready!(self.poll_read(cx, buffer)) {
                Ok(Read { bytes, .. }) => {
                    self.plain.splice(..0, buffer.iter().take(bytes).copied());
                    Poll::Ready(Ok(()))
                }
                Err(Broken::System(errno)) => Poll::Ready(Err(errno)),
                // It stays so, and is met again by who reads.
                Err(Broken::Truncated | Broken::Garbled) => Poll::Ready(Ok(())),
            })
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Sends what is to be sent, all of it.
    pub(super) fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(self.socket.poll_send(cx, &self.outgoing, false))?;
            self.outgoing.drain(..sent);
        }
        // Nothing is kept by a connection that has nothing to send.
        self.outgoing = Vec::new();
        self.may_wait = false;
        Poll::Ready(Ok(()))
    }

    /// Decrypts what is in `cipher` to the start of `plain`, and keeps what has no room there. Returns how much of the
    /// first was used, the rest being no whole record; `filled` says how much of the second was, be it before a failure.
    fn digest(&mut self, cipher: &mut [u8], plain: &mut [u8], filled: &mut usize) -> Result<usize, Error> {
        if let Some(error) = &self.broken {
            return Err((**error).clone());
        }
        let mut used = 0;
        loop {
            let rest = cipher.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.engine.process(rest);
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.spoke_on |= self.closed;
                        match plain.get_mut(*filled..*filled + record.payload.len()) {
                            // Only in its place: what is kept comes after all that was handed out.
                            Some(room) if self.plain.is_empty() => {
                                room.copy_from_slice(record.payload);
                                *filled += record.payload.len();
                            }
                            _ => self.plain.extend_from_slice(record.payload),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => append(data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(_) => done = true,
                Err(error) => {
                    let rest = cipher.get_mut(used + discard..).unwrap_or_default();
                    self.break_with(error.clone(), rest);
                    return Err(error);
                }
            }
            used += discard;
            if done {
                return Ok(used);
            }
        }
    }

    /// Takes the connection out of use and fetches what was still to be said: the alert that tells the other side why, and
    /// what comes before it, such as a ServerHello. rustls expects the same bytes before it as ever: it remembers places in
    /// them.
    fn break_with(&mut self, error: Error, rest: &mut [u8]) {
        self.broken = Some(Box::new(error));
        let Self { engine, outgoing, .. } = self;
        // No further than to that: it would find the error again.
        while engine.state().wants_write() {
            match engine.process(rest).state {
                Ok(ConnectionState::EncodeTlsData(data)) => append(data, outgoing),
                _ => return,
            }
        }
    }

    /// Encrypts with `work` to the end of what is to be sent; not if the connection is of no use any more.
    fn encrypt(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        work: impl FnOnce(&mut WriteTraffic<'_, E::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Broken> {
        if self.broken.is_some() {
            return Err(Broken::Garbled);
        }
        // All that rustls had to say was taken in by the last reading, and what has arrived of the next record lies before
        // it each time, as it expects.
        let mut incoming = mem::take(&mut self.incoming);
        let status = self.engine.process(&mut incoming);
        let written = match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                out.append(&mut self.outgoing);
                let start = out.len();
                out.resize(start + room, 0);
                let written = work(&mut traffic, out.get_mut(start..).unwrap_or_default());
                out.truncate(start + written.as_ref().map_or(0, |written| *written));
                written.map_err(|_spent| Broken::Garbled)
            }
            _ => Err(Broken::Garbled),
        };
        self.incoming = incoming;
        written.map(|_| ())
    }

    /// Says that nothing more will come, and sends all there is to send.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed {
            self.closed = true;
            let mut out = Vec::new();
            // A connection that is broken has said so by its alert.
            let _broken = self.encrypt(&mut out, 64, |traffic, room| traffic.queue_close_notify(room));
            self.outgoing.append(&mut out);
        }
        let _gone = ready!(self.poll_send_all(cx));
        Poll::Ready(())
    }
}

impl<E: Engine> Wire for TlsStream<E> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read, Broken>> {
        if !self.plain.is_empty() {
            // Reading from memory does not fail.
            let bytes = self.plain.as_slice().read(buffer).unwrap_or_default();
            self.plain.drain(..bytes);
            return Poll::Ready(Ok(Read { bytes, then: Then::Unknown }));
        }
        debug_assert!(buffer.len() >= LEAST, "{} bytes have no room for a record and what is in it", buffer.len());
        // What is decrypted is never longer than what it was, so one half has room for the other.
        let (plain, cipher) = buffer.split_at_mut(buffer.len() / 2);
        while !self.ended {
            if self.broken.is_some() {
                return Poll::Ready(Err(Broken::Garbled));
            }
            let kept = self.incoming.len();
            let Some((front, room)) = cipher.split_at_mut_checked(kept).filter(|(_, room)| !room.is_empty()) else {
                return Poll::Ready(Err(Broken::Garbled));
            };
            let fresh = ready!(self.socket.poll_recv(cx, room)).map_err(Broken::System)?.bytes;
            if fresh == 0 && E::MAY_LEAVE && self.closed && !self.spoke_on && kept == 0 {
                self.ended = true;
                break;
            }
            if fresh == 0 {
                return Poll::Ready(Err(Broken::Truncated));
            }
            front.copy_from_slice(&self.incoming);
            let arrived = cipher.get_mut(..kept + fresh).unwrap_or_default();
            let mut bytes = 0;
            let used = match self.digest(arrived, plain, &mut bytes) {
                Ok(used) => used,
                Err(_kept) => {
                    let _the_alert_is_a_courtesy = self.poll_send_all(cx);
                    return Poll::Ready(match bytes {
                        0 if self.plain.is_empty() => Err(Broken::Garbled),
                        // What came before is as good as ever, and the failure is met again behind it.
                        _ => Ok(Read { bytes, then: Then::Unknown }),
                    });
                }
            };
            match arrived.get(used..).unwrap_or_default() {
                [] => self.incoming = Vec::new(),
                rest => {
                    self.incoming.clear();
                    self.incoming.extend_from_slice(rest);
                }
            }
            if !self.outgoing.is_empty() && !self.may_wait {
                // An answer of the protocol's own, such as to a key update.
                let _later = self.poll_send_all(cx).map_err(Broken::System)?;
            }
            if bytes > 0 {
                let then = if self.ended && self.plain.is_empty() { Then::End } else { Then::Unknown };
                return Poll::Ready(Ok(Read { bytes, then }));
            }
        }
        Poll::Ready(Ok(Read { bytes: 0, then: Then::End }))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<Result<usize, Broken>> {
        if !self.may_wait {
            ready!(self.poll_send_all(cx)).map_err(Broken::System)?;
        }
        self.may_wait = false;
        let portion = bytes.get(..bytes.len().min(PORTION)).unwrap_or_default();
        WORKSPACE.with_borrow_mut(|out| {
            out.clear();
            let room = portion.len() + SEALED - PORTION;
            // What says that the end follows leaves with what it follows.
            let farewell = last && portion.len() == bytes.len() && !self.closed;
            self.encrypt(out, room, |traffic, room| {
                let written = traffic.encrypt(portion, room)?;
                let closing = match room.get_mut(written..).filter(|_| farewell) {
                    Some(room) => traffic.queue_close_notify(room)?,
                    None => 0,
                };
                Ok(written + closing)
            })?;
            self.closed |= farewell;
            let sent = match self.socket.poll_send(cx, out, farewell) {
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(errno)) => return Poll::Ready(Err(Broken::System(errno))),
                Poll::Pending => 0,
            };
            // Encrypted is taken: what the kernel does not take now goes before all else later.
            if let Some(rest) = out.get(sent..).filter(|rest| !rest.is_empty()) {
                self.outgoing = rest.to_vec();
            }
            Poll::Ready(Ok(portion.len()))
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.outgoing.is_empty() || self.may_wait {
            return Poll::Ready(Ok(()));
        }
        self.poll_send_all(cx).map_err(Broken::System)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_close(cx));
        self.socket.finish();
        Poll::Ready(())
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_close(cx)
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Errno> {
        self.socket.poll_reset(cx)
    }

    fn set_nodelay(&self) {
        self.socket.set_nodelay();
    }

    fn abandon(&mut self) {
        self.socket.set_abandoned(true);
    }

    fn words(&self) -> Option<String> {
        self.broken.as_ref().map(ToString::to_string)
    }

    fn plain(&self) -> Option<&Stream> {
        None
    }
}

impl<E> std::fmt::Debug for TlsStream<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Encodes a message to the end of what is to be sent.
fn append<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) {
    let end = outgoing.len();
    // An encoder that has no room says how much it takes.
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        outgoing.resize(end + required_size, 0);
        let written = data.encode(outgoing.get_mut(end..).unwrap_or_default());
        outgoing.truncate(end + written.unwrap_or(0));
    }
}

/// Lends this thread's workspace for the time of one call.
fn with_workspace<T>(size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    WORKSPACE.with_borrow_mut(|buffer| {
        buffer.resize(size.max(buffer.len()), 0);
        work(buffer.get_mut(..size).unwrap_or_default())
    })
}
