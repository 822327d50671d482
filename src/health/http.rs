//! The `http` check: a request is sent, and the status and perhaps the body of the response are looked at.

use std::ops::RangeInclusive;
use std::pin::Pin;

use ::http::header::{CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT};
use ::http::uri::{Authority, PathAndQuery};
use ::http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::Instant;

use super::http2::{Answer, Http2Line};
use super::line::{Ask, Fault, H2, Line, Question};
use super::probe::{Problem, Seen};
use super::reach::Reach;
use crate::http2::hpack::encoder::{Packer, Pseudo};
use crate::logging::words;
use crate::net::address::Endpoint;
use crate::net::dial::First;

/// The most bytes of a body that are looked at.
const MOST_OF_BODY: usize = 64 * 1024;
/// What HTTP/1.1 is called in ALPN (RFC 7301 §6).
const HTTP_1_1: &[u8] = b"http/1.1";
/// Who asks.
pub(super) const AGENT: &str = concat!("portreeve/", env!("CARGO_PKG_VERSION"));

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
    /// The version that is spoken.
    pub version: HttpVersion,
    /// Whether the connection is kept for the next probe. A server that takes no new connections passes then for as long as
    /// it answers on the old one.
    pub reuse: bool,
}

impl HttpProbe {
    /// The statuses that pass unless others are named.
    pub const STATUSES: RangeInclusive<u16> = 200..=399;
    /// The most characters that can be looked for in a body.
    pub const MOST_SOUGHT: usize = 1024;

    fn request_h1(&self, host: Option<&Authority>) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(self.target.clone());
        // A server that could not be named at all is asked for nobody (RFC 9112 §3.2).
        let host = host.map_or("", Authority::as_str);
        let host = HeaderValue::from_str(host).map_err(|error| words(&error))?;
        request.headers_mut().insert(HOST, host);
        self.fill(&mut request);
        if !self.reuse {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(request)
    }

    fn pack(&self, host: Option<&Authority>, speaks_tls: bool, packer: &mut Packer<'_>) {
        packer.pseudo(Pseudo::Method, self.method.as_str().as_bytes());
        packer.pseudo(Pseudo::Scheme, if speaks_tls { b"https" } else { b"http" });
        packer.pseudo(Pseudo::Authority, host.map_or("localhost", Authority::as_str).as_bytes());
        packer.pseudo(Pseudo::Path, self.target.as_str().as_bytes());
        // One of its own takes the place of ours.
        let is_ours = !self.headers.iter().any(|(name, _)| name == USER_AGENT);
        let agent = is_ours.then_some((USER_AGENT.as_str(), AGENT.as_bytes()));
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        agent.into_iter().chain(own).for_each(|(name, value)| packer.field(name.as_bytes(), value));
        if self.says_that_it_is_empty() {
            packer.field(CONTENT_LENGTH.as_str().as_bytes(), b"0");
        }
    }

    /// Whether a server would look for a body (RFC 9110 §8.6).
    fn says_that_it_is_empty(&self) -> bool {
        let is_expected = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        is_expected && !self.headers.iter().any(|(name, _)| name == CONTENT_LENGTH)
    }

    fn fill<B>(&self, request: &mut Request<B>) {
        *request.method_mut() = self.method.clone();
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        if self.says_that_it_is_empty() {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }

    /// Whether a response is as expected. What is kept for another question is read to its end.
    async fn judge(&self, status: u16, content: &mut Content<'_>) -> Result<(), Fault> {
        if !self.statuses.iter().any(|range| range.contains(&status)) {
            return Err(Fault::Answer(format!("status {status}, expected {}", list(&self.statuses))));
        }
        let sought = self.body.as_deref().unwrap_or_default();
        let (mut seen, mut found) = (Vec::new(), sought.is_empty());
        while !found || self.reuse {
            let Some(bytes) = content.next().await else { break };
            let bytes = bytes.map_err(Fault::Line)?;
            // What came before is looked at again only as far as it may be the beginning of what is sought.
            let from = seen.len().saturating_sub(sought.len().saturating_sub(1));
            let room = MOST_OF_BODY - seen.len();
            seen.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            let fresh = seen.get(from..).unwrap_or_default();
            found = found || fresh.windows(sought.len()).any(|window| window == sought.as_bytes());
            if seen.len() >= MOST_OF_BODY && !found {
                let most = MOST_OF_BODY / 1024;
                return Err(Fault::Answer(format!("the first {most} KiB of the body do not contain {sought:?}")));
            }
            if seen.len() >= MOST_OF_BODY {
                break;
            }
        }
        if found { Ok(()) } else { Err(Fault::Answer(format!("the body does not contain {sought:?}"))) }
    }
}

impl Question for HttpProbe {
    async fn open(&self, reach: &Reach, until: Instant) -> Result<Line, Problem> {
        let opened = reach.open(First::Us, until).await?;
        let asks_for_h2 = self.version == HttpVersion::Http2;
        let agreed = opened.alpn.as_deref() == Some(H2);
        if reach.speaks_tls() && asks_for_h2 && !agreed {
            opened.close(until).await;
            return Err("handshake: the server does not offer HTTP/2".into());
        }
        Ok(if agreed || asks_for_h2 { Line::h2(opened.io) } else { Line::h1(opened.io).await? })
    }

    async fn ask(&self, ask: &mut Ask, reach: &Reach) -> Result<Seen, Fault> {
        let host = self.host.clone().or_else(|| host(reach));
        match ask {
            Ask::H1(sender) => {
                let request = self.request_h1(host.as_ref()).map_err(Fault::Line)?;
                sender.ready().await.map_err(|error| Fault::line(&error))?;
                let response = sender.send_request(request).await.map_err(|error| Fault::line(&error))?;
                self.judge(response.status().as_u16(), &mut Content::H1(response.into_body())).await?;
            }
            Ask::H2(line) => {
                let to_head = self.method == Method::HEAD;
                let asked = line.ask(to_head, &[], |packer| self.pack(host.as_ref(), reach.speaks_tls(), packer));
                let answer = asked.await.map_err(Fault::Line)?;
                let judged = self.judge(answer.status, &mut Content::H2(line, &answer)).await;
                line.leave(&answer);
                judged?;
            }
        }
        Ok(Seen::default())
    }

    fn is_kept(&self) -> bool {
        self.reuse
    }
}

/// The body of a response.
enum Content<'l> {
    H1(Incoming),
    H2(&'l mut Http2Line, &'l Answer),
}

impl Content<'_> {
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
            Self::H2(line, answer) => Some(line.next(answer).await.transpose()?.map(Bytes::from)),
        }
    }
}

/// The host a server is asked for when no other is named: the name it is to prove by TLS, or its address.
pub(super) fn host(reach: &Reach) -> Option<Authority> {
    let name = match (reach.name(), &reach.to().0) {
        (Some(name), _) if name.contains(':') => format!("[{name}]"),
        (Some(name), _) => name.to_owned(),
        (None, Endpoint::Tcp(address)) => address.to_string(),
        (None, Endpoint::Unix(_)) => "localhost".to_owned(),
    };
    name.parse().ok()
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
