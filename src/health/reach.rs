//! How a probe gets at a server: it connects, says whose connection it is, and shakes hands where TLS is spoken.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::net::address::ServerAddr;
use crate::net::dial::{First, dial};
use crate::net::proxy_protocol::{Announcement, Origin, Version, encode};
use crate::net::stream::Stream;
use crate::relay::{Wire, WireIo, WireParts};
use crate::tls::{ServerTls, TlsStream, ToServer, connect};

use super::Handshake;
use super::probe::Problem;

/// What is said of a server that takes too long.
pub(super) const LATE: &str = "no answer in time";
/// What is read at once.
const AT_ONCE: usize = 4096;

/// Where a server is, and how to begin with it.
pub(super) struct Reach {
    to: ServerAddr,
    source: Option<IpAddr>,
    /// Says that the connection is the checker's own.
    header: Vec<u8>,
    tls: Option<Arc<ServerTls>>,
    /// Whether TLS is asked for first, in the words of the protocol.
    upgrades: bool,
    is_private: bool,
    /// What its certificate has to be for, unless that is its address.
    name: Option<String>,
}

/// Anything to talk through.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket itself, if that is all there is and nothing that it has said was left unheard.
    fn into_socket(self: Box<Self>) -> Option<Stream>;
}

impl Io for WireIo<Stream> {
    fn into_socket(self: Box<Self>) -> Option<Stream> {
        let WireParts { wire, kept, broken } = self.into_inner();
        (kept.is_empty() && broken.is_none()).then_some(wire)
    }
}

impl Io for WireIo<TlsStream<ToServer>> {
    fn into_socket(self: Box<Self>) -> Option<Stream> {
        None
    }
}

/// A connection that something can be said on.
pub(super) struct Opened {
    pub(super) io: Box<dyn Io>,
    /// What was agreed on by ALPN.
    pub(super) alpn: Option<Vec<u8>>,
}

impl Reach {
    pub(super) fn new(
        to: &ServerAddr,
        source: Option<IpAddr>,
        announce: Option<Version>,
        tls: Option<&Handshake>,
    ) -> Self {
        let own = Announcement { origin: Origin::Local, authority: None, alpn: None, unique_id: None, tls: None };
        let header = announce.map(|version| encode(version, &own)).unwrap_or_default();
        Self {
            to: to.clone(),
            source,
            header,
            tls: tls.map(|tls| tls.settings.for_server(to, None, false)),
            upgrades: tls.is_some_and(|tls| tls.upgrades),
            is_private: tls.is_some_and(|tls| tls.settings.verifies()),
            name: tls.and_then(|tls| tls.settings.name()).map(Cow::into_owned),
        }
    }

    pub(super) fn to(&self) -> &ServerAddr {
        &self.to
    }

    /// What comes before all else, if anything does.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the conversation begins in the clear and goes on by [`Reach::upgrade`].
    pub(super) fn upgrades(&self) -> bool {
        self.upgrades
    }

    /// Whether TLS is spoken, with whomever it may be.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether nobody but the server itself reads along, once a connection is open, and upgraded where that is called for.
    pub(super) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Connects.
    pub(super) async fn dial(&self, first: First, until: Instant) -> Result<Stream, Problem> {
        dial(&self.to, self.source, left(until), first).await.map_err(|error| {
            let words = format!("connect: {error}");
            if error.failure.is_our_own() { Problem::Ours(words) } else { Problem::Server(words) }
        })
    }

    /// Connects and comes to where the conversation begins.
    pub(super) async fn open(&self, first: First, until: Instant) -> Result<Opened, Problem> {
        let tls = self.tls.as_ref().filter(|_| !self.upgrades);
        // With TLS it is us in any case.
        let socket = self.dial(if tls.is_some() { First::Us } else { first }, until).await?;
        Wire::set_nodelay(&socket);
        let Some(tls) = tls else {
            let mut io = WireIo::new(socket);
            // The buffer of a new socket has room for it.
            io.write_all(&self.header).await.map_err(|error| format!("send: {error}"))?;
            return Ok(Opened { io: Box::new(io), alpn: None });
        };
        Ok(shake(socket, self.header.clone(), tls, first, until).await?)
    }

    /// Goes on by TLS, as the server has just agreed to. What it said in the clear beyond that nobody vouches for: it may be
    /// somebody else's, and is not to be taken for what comes by TLS (CVE-2021-23222).
    pub(super) async fn upgrade(&self, opened: Opened, until: Instant) -> Result<Opened, String> {
        let Some(tls) = &self.tls else { return Ok(opened) };
        let socket = opened.io.into_socket().ok_or("it goes on in the clear where TLS is to begin")?;
        shake(socket, Vec::new(), tls, First::Us, until).await
    }
}

/// Shakes hands; `prefix` goes out before.
async fn shake(
    socket: Stream,
    prefix: Vec<u8>,
    tls: &ServerTls,
    first: First,
    until: Instant,
) -> Result<Opened, String> {
    let shaken = timeout_at(until, connect(socket, prefix, tls, first)).await;
    let shaken = shaken.map_err(|_elapsed| format!("handshake: {LATE}"))?;
    let (stream, _) = shaken.map_err(|failed| format!("handshake: {failed}"))?;
    let alpn = stream.alpn().map(Vec::from);
    Ok(Opened { io: Box::new(WireIo::new(*stream)), alpn })
}

impl Opened {
    /// Says something.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        let said = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        said.await.map_err(|error| format!("send: {error}"))
    }

    /// Reads more into `heard`, up to `most` bytes in all; says whether anything came before the end.
    pub(super) async fn hear(&mut self, heard: &mut Vec<u8>, most: usize) -> Result<bool, String> {
        let room = most.saturating_sub(heard.len()).min(AT_ONCE);
        let mut buffer = [0; AT_ONCE];
        let room = buffer.get_mut(..room).unwrap_or_default();
        let bytes = self.io.read(room).await.map_err(|error| format!("receive: {error}"))?;
        heard.extend_from_slice(room.get(..bytes).unwrap_or_default());
        Ok(bytes > 0)
    }

    /// Reads on until so many bytes have been heard.
    pub(super) async fn hear_up_to(&mut self, heard: &mut Vec<u8>, bytes: usize) -> Result<(), String> {
        while heard.len() < bytes {
            if !self.hear(heard, bytes).await? {
                return Err("the server closed the connection".to_owned());
            }
        }
        Ok(())
    }

    /// Says that nothing more will come, and closes.
    pub(super) async fn close(mut self, until: Instant) {
        let _however_it_ends = timeout_at(until, self.io.shutdown()).await;
    }
}

/// What a conversation comes to within its time.
pub(super) async fn within<T>(until: Instant, talk: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout_at(until, talk).await.unwrap_or_else(|_elapsed| Err(LATE.to_owned()))
}

/// The time that is left.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
