//! The `http` check: a request is sent, the status and perhaps the body of the response are looked at, and the connection
//! is closed again.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONNECTION, HOST, USER_AGENT};
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::net::address::{Endpoint, ServerAddr};
use crate::net::dial::{First, dial};
use crate::net::stream::Stream;
use crate::relay::{Wire, WireIo};
use crate::tls::{ServerSettings, ServerTls, TlsStream, ToServer, connect};

/// The most bytes of a response's head, and of what is read of it at once.
const MOST_OF_HEAD: usize = 16 * 1024;
/// The most fields of a response's head.
const MOST_FIELDS: usize = 128;
/// The most bytes of a body that are looked at.
const MOST_OF_BODY: usize = 64 * 1024;
/// The most characters of what went wrong that are told.
const MOST_WORDS: usize = 200;
/// What is said of a server that takes too long.
const LATE: &str = "no answer in time";
/// What HTTP/2 is called in ALPN (RFC 9113 §3.1).
const H2: &[u8] = b"h2";
/// What HTTP/1.1 is called there (RFC 7301 §6).
const HTTP_1_1: &[u8] = b"http/1.1";

/// The version of HTTP that is spoken to servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge otherwise.
    Http2,
    /// HTTP/2 if the server chooses it by ALPN, else HTTP/1.1.
    Auto,
}

impl HttpVersion {
    /// What is offered by ALPN where it is spoken over TLS.
    #[must_use]
    pub const fn offers(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[HTTP_1_1],
            Self::Http2 => &[H2],
            Self::Auto => &[H2, HTTP_1_1],
        }
    }
}

/// What a server is asked, and what its answer has to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// The method; not CONNECT.
    pub method: Method,
    /// The path, and perhaps a query.
    pub target: PathAndQuery,
    /// The host that is asked for; without one, the name in `tls`, or the server's address.
    pub host: Option<Authority>,
    /// Further fields, none of which is about the connection or the body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The statuses that pass; never empty.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What has to stand within the first 64 KiB of the body.
    pub body: Option<Box<str>>,
    /// How to shake hands, where TLS is spoken. What is offered by ALPN does not matter here.
    pub tls: Option<Arc<ServerSettings>>,
    /// The version that is spoken.
    pub version: HttpVersion,
}

impl HttpProbe {
    /// The statuses that pass unless others are named.
    pub const STATUSES: RangeInclusive<u16> = 200..=399;
    /// The most characters that can be looked for in a body.
    pub const MOST_SOUGHT: usize = 1024;

    fn host(&self, address: &ServerAddr) -> Option<Authority> {
        if let Some(host) = &self.host {
            return Some(host.clone());
        }
        let name = match self.tls.as_ref().and_then(|tls| tls.name()) {
            Some(name) if name.contains(':') => format!("[{name}]"),
            Some(name) => name.into_owned(),
            None => match &address.0 {
                Endpoint::Tcp(address) => address.to_string(),
                Endpoint::Unix(_) => "localhost".to_owned(),
            },
        };
        name.parse().ok()
    }
}

/// A probe made ready for one server.
pub(super) struct Asked {
    probe: Arc<HttpProbe>,
    tls: Option<Arc<ServerTls>>,
    host: Option<Authority>,
}

/// A connection that a request can be sent on.
enum Opened {
    Plain(WireIo<Stream>),
    Tls(Box<WireIo<TlsStream<ToServer>>>),
}

impl Asked {
    pub(super) fn of(probe: &Arc<HttpProbe>, address: &ServerAddr) -> Self {
        let offering = |tls: &Arc<ServerSettings>| tls.offering(probe.version.offers());
        Self {
            tls: probe.tls.as_ref().map(|tls| offering(tls).for_server(address, None, false)),
            host: probe.host(address),
            probe: Arc::clone(probe),
        }
    }

    /// Connects and shakes hands, and says whether HTTP/2 is to be spoken.
    async fn open(
        &self,
        to: &ServerAddr,
        source: Option<IpAddr>,
        until: Instant,
        header: Vec<u8>,
    ) -> Result<(Opened, bool), String> {
        let timeout = until.saturating_duration_since(Instant::now());
        let socket = dial(to, source, timeout, First::Us).await.map_err(|error| format!("connect: {error}"))?;
        Wire::set_nodelay(&socket);
        let asks_for_h2 = self.probe.version == HttpVersion::Http2;
        let Some(tls) = &self.tls else {
            let mut io = WireIo::new(socket);
            // The buffer of a new socket has room for it.
            io.write_all(&header).await.map_err(|error| format!("send: {error}"))?;
            return Ok((Opened::Plain(io), asks_for_h2));
        };
        let shaken = timeout_at(until, connect(socket, header, tls, First::Us)).await;
        let shaken = shaken.map_err(|_elapsed| format!("handshake: {LATE}"))?;
        let (stream, _) = shaken.map_err(|failed| format!("handshake: {failed}"))?;
        let agreed = stream.alpn() == Some(H2);
        if asks_for_h2 && !agreed {
            let _however_it_ends = timeout_at(until, stream.close()).await;
            return Err("handshake: the server does not offer HTTP/2".to_owned());
        }
        Ok((Opened::Tls(Box::new(WireIo::new(*stream))), agreed))
    }

    /// Sends the request, and holds the response to what is expected.
    async fn ask(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        speaks_h2: bool,
        until: Instant,
    ) -> Result<(), String> {
        if speaks_h2 {
            let mut builder = h2::client::Builder::new();
            builder.enable_push(false).max_header_list_size(MOST_OF_HEAD as u32);
            let (sender, connection) = builder.handshake::<_, Bytes>(io).await.map_err(|error| words(&error))?;
            let request = self.request_h2()?;
            let answer = async move {
                let mut sender = sender.ready().await.map_err(|error| words(&error))?;
                let (response, _) = sender.send_request(request, true).map_err(|error| words(&error))?;
                let response = response.await.map_err(|error| words(&error))?;
                self.judge(response.map(Content::H2)).await
            };
            drive(connection, answer, until).await
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MOST_OF_HEAD).max_headers(MOST_FIELDS);
            let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|error| words(&error))?;
            let request = self.request_h1()?;
            let answer = async move {
                let response = sender.send_request(request).await.map_err(|error| words(&error))?;
                self.judge(response.map(Content::H1)).await
            };
            drive(connection, answer, until).await
        }
    }

    fn request_h1(&self) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(self.probe.target.clone());
        // A server that could not be named at all is asked for nobody (RFC 9112 §3.2).
        let host = self.host.as_ref().map_or("", Authority::as_str);
        let host = HeaderValue::from_str(host).map_err(|error| words(&error))?;
        request.headers_mut().insert(HOST, host);
        self.fill(&mut request);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    fn request_h2(&self) -> Result<Request<()>, String> {
        let mut request = Request::new(());
        let scheme = if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder().scheme(scheme).path_and_query(self.probe.target.clone());
        let uri = match &self.host {
            Some(host) => uri.authority(host.clone()),
            None => uri.authority("localhost"),
        };
        *request.uri_mut() = uri.build().map_err(|error| words(&error))?;
        *request.version_mut() = ::http::Version::HTTP_2;
        self.fill(&mut request);
        Ok(request)
    }

    fn fill<B>(&self, request: &mut Request<B>) {
        *request.method_mut() = self.probe.method.clone();
        let agent = HeaderValue::from_static(concat!("portreeve/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        for (name, value) in &self.probe.headers {
            request.headers_mut().insert(name, value.clone());
        }
    }

    /// Whether a response is as expected.
    async fn judge(&self, response: Response<Content>) -> Result<(), String> {
        let status = response.status().as_u16();
        if !self.probe.statuses.iter().any(|range| range.contains(&status)) {
            return Err(format!("status {status}, expected {}", list(&self.probe.statuses)));
        }
        let Some(sought) = self.probe.body.as_deref().filter(|sought| !sought.is_empty()) else {
            return Ok(());
        };
        let (mut content, mut seen) = (response.into_body(), Vec::new());
        while let Some(bytes) = content.next().await {
            let bytes = bytes?;
            // What came before is looked at again only as far as it may be the beginning of what is sought.
            let from = seen.len().saturating_sub(sought.len() - 1);
            let room = MOST_OF_BODY - seen.len();
            seen.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            let fresh = seen.get(from..).unwrap_or_default();
            if fresh.windows(sought.len()).any(|window| window == sought.as_bytes()) {
                return Ok(());
            }
            if seen.len() >= MOST_OF_BODY {
                return Err(format!("the first {} KiB of the body do not contain {sought:?}", MOST_OF_BODY / 1024));
            }
        }
        Err(format!("the body does not contain {sought:?}"))
    }
}

/// The body of a response.
enum Content {
    H1(Incoming),
    H2(h2::RecvStream),
}

impl Content {
    /// What comes next of it; trailers are passed over.
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        match self {
            Self::H1(body) => loop {
                match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => return Some(Ok(data)),
                        Err(_trailers) => {}
                    },
                    Err(error) => return Some(Err(words(&error))),
                }
            },
            Self::H2(body) => {
                let data = body.data().await?.map_err(|error| words(&error));
                if let Ok(data) = &data {
                    let _gone = body.flow_control().release_capacity(data.len());
                }
                Some(data)
            }
        }
    }
}

/// Probes once; `header` goes out before all else.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(
    to: &ServerAddr,
    source: Option<IpAddr>,
    timeout: Duration,
    header: Vec<u8>,
    asked: &Asked,
) -> Result<(), String> {
    let until = Instant::now() + timeout;
    match Box::pin(asked.open(to, source, until, header)).await? {
        (Opened::Plain(io), speaks_h2) => Box::pin(asked.ask(io, speaks_h2, until)).await,
        (Opened::Tls(io), speaks_h2) => Box::pin(asked.ask(io, speaks_h2, until)).await,
    }
}

/// Waits for the answer while the connection goes on, and lets the connection come to an orderly end after a good one.
async fn drive(
    connection: impl Future,
    answer: impl Future<Output = Result<(), String>>,
    until: Instant,
) -> Result<(), String> {
    let mut connection = pin!(connection);
    let mut goes_on = true;
    let answered = async {
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            _ = &mut connection => {
                goes_on = false;
                answer.await
            }
        }
    };
    let outcome = timeout_at(until, answered).await.unwrap_or_else(|_elapsed| Err(LATE.to_owned()));
    if goes_on && outcome.is_ok() {
        let _however_it_ends = timeout_at(until, connection).await;
    }
    outcome
}

/// An error and what led to it, within bounds: a server may have had a say in it.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

/// Statuses as they are written: `200-399, 404`.
fn list(statuses: &[RangeInclusive<u16>]) -> String {
    let shown = statuses.iter().map(|range| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
