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
use crate::relay::{Wire, WireIo};
use crate::tls::{ServerSettings, ServerTls, connect};

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
    /// What its certificate has to be for, unless that is its address.
    name: Option<String>,
}

/// Anything to talk through.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

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
        tls: Option<&ServerSettings>,
    ) -> Self {
        let own = Announcement { origin: Origin::Local, authority: None, alpn: None, unique_id: None, tls: None };
        let header = announce.map(|version| encode(version, &own)).unwrap_or_default();
        Self {
            to: to.clone(),
            source,
            header,
            tls: tls.map(|tls| tls.for_server(to, None, false)),
            name: tls.and_then(|tls| tls.name()).map(Cow::into_owned),
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

    /// Whether nobody on the way reads along.
    pub(super) fn is_private(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects.
    pub(super) async fn dial(&self, first: First, until: Instant) -> Result<Stream, String> {
        dial(&self.to, self.source, left(until), first).await.map_err(|error| format!("connect: {error}"))
    }

    /// Connects and comes to where the conversation begins.
    pub(super) async fn open(&self, first: First, until: Instant) -> Result<Opened, String> {
        // With TLS it is us in any case.
        let socket = self.dial(if self.tls.is_some() { First::Us } else { first }, until).await?;
        Wire::set_nodelay(&socket);
        let Some(tls) = &self.tls else {
            let mut io = WireIo::new(socket);
            // The buffer of a new socket has room for it.
            io.write_all(&self.header).await.map_err(|error| format!("send: {error}"))?;
            return Ok(Opened { io: Box::new(io), alpn: None });
        };
        let shaken = timeout_at(until, connect(socket, self.header.clone(), tls, first)).await;
        let shaken = shaken.map_err(|_elapsed| format!("handshake: {LATE}"))?;
        let (stream, _) = shaken.map_err(|failed| format!("handshake: {failed}"))?;
        let alpn = stream.alpn().map(Vec::from);
        Ok(Opened { io: Box::new(WireIo::new(*stream)), alpn })
    }
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
