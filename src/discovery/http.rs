//! Servers from an endpoint that answers with a list as JSON, asked with what it said the last one is known by (`ETag`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;

use ::http::header::{ACCEPT, CONNECTION, ETAG, HOST, IF_NONE_MATCH, USER_AGENT};
use ::http::uri::{Authority, PathAndQuery};
use ::http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::dns::{Names, Resolvers};
use super::{Answer, Content, Format, LATE, Terms};
use crate::logging::words;
use crate::net::address::{Endpoint as Place, ServerAddr};
use crate::net::dial::{First, dial};
use crate::net::host::HostName;
use crate::relay::WireIo;
use crate::tls::{ServerSettings, connect};

/// The most bytes of an answer's head.
const MOST_OF_HEAD: usize = 16 * 1024;
/// The most fields of an answer's head.
const MOST_FIELDS: usize = 128;
/// The most bytes of a list.
const LARGEST: usize = 4 * 1024 * 1024;

/// Where the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who has it.
    pub host: Host,
    /// On which port.
    pub port: u16,
    /// What is asked for.
    pub target: PathAndQuery,
    /// The host as it was written, for `Host`.
    pub authority: Authority,
    /// How to shake hands, where TLS is spoken.
    pub tls: Option<Arc<ServerSettings>>,
    /// Who is asked for the host's addresses.
    pub resolvers: Resolvers,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By its address.
    Address(IpAddr),
    /// By its name.
    Name(HostName),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // A query may hold a secret.
        write!(f, "{scheme}://{}{}", self.authority, self.target.path())
    }
}

/// Asks an endpoint.
#[derive(Debug)]
pub struct Asker {
    endpoint: Endpoint,
    terms: Terms,
    /// What the last list is known by.
    known: Option<HeaderValue>,
}

impl Asker {
    pub(super) const fn new(endpoint: Endpoint, terms: Terms) -> Self {
        Self { endpoint, terms, known: None }
    }

    pub(super) async fn ask(&mut self) -> Result<Answer, String> {
        let until = Instant::now() + self.terms.timeout;
        let asked = timeout_at(until, Box::pin(self.fetch(until))).await;
        // What was said before an answer that is none is not asked about again.
        asked.unwrap_or_else(|_elapsed| Err(LATE.to_owned())).inspect_err(|_| self.known = None)
    }

    async fn fetch(&mut self, until: Instant) -> Result<Answer, String> {
        let mut failure = "the host has no address".to_owned();
        for ip in self.addresses().await? {
            match self.fetch_from(ip, until).await {
                Ok(answer) => return Ok(answer),
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        match &self.endpoint.host {
            Host::Address(ip) => Ok(vec![*ip]),
            Host::Name(name) => {
                let names = Names::open(self.endpoint.resolvers.clone(), self.terms.timeout).await?;
                names.all_addresses(name).await.map_err(|why| format!("{name}: {why}"))
            }
        }
    }

    async fn fetch_from(&mut self, ip: IpAddr, until: Instant) -> Result<Answer, String> {
        let to = ServerAddr(Place::Tcp(SocketAddr::new(ip, self.endpoint.port)));
        let timeout = until.saturating_duration_since(Instant::now());
        let socket = dial(&to, None, timeout, First::Us).await.map_err(|error| format!("connect: {error}"))?;
        let Some(tls) = &self.endpoint.tls else { return self.request(WireIo::new(socket)).await };
        let tls = tls.for_server(&to, None, false);
        let shaken = connect(socket, Vec::new(), &tls, First::Us).await;
        let (stream, _) = shaken.map_err(|failed| format!("handshake: {failed}"))?;
        self.request(WireIo::new(*stream)).await
    }

    async fn request(&mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Answer, String> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::from(self.endpoint.target.clone());
        let host = HeaderValue::from_str(self.endpoint.authority.as_str()).map_err(|error| words(&error))?;
        let agent = HeaderValue::from_static(concat!("portreeve/", env!("CARGO_PKG_VERSION")));
        let json = HeaderValue::from_static("application/json");
        let close = HeaderValue::from_static("close");
        for (name, value) in [(HOST, host), (USER_AGENT, agent), (ACCEPT, json), (CONNECTION, close)] {
            request.headers_mut().insert(name, value);
        }
        if let Some(known) = &self.known {
            request.headers_mut().insert(IF_NONE_MATCH, known.clone());
        }
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MOST_OF_HEAD).max_headers(MOST_FIELDS);
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|error| words(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| words(&error))?;
            self.read(response).await
        };
        let (mut connection, mut answer) = (pin!(connection), pin!(answer));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ended = &mut connection => answer.await,
        }
    }

    async fn read(&mut self, response: Response<Incoming>) -> Result<Answer, String> {
        match response.status() {
            StatusCode::NOT_MODIFIED if self.known.is_some() => {
                return Ok(Answer { content: Content::Same, ttl: None });
            }
            StatusCode::OK => {}
            status => return Err(format!("status {}, expected 200", status.as_u16())),
        }
        let known = response.headers().get(ETAG).cloned();
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(data) = frame.map_err(|error| words(&error))?.into_data() else { continue };
            if bytes.len() + data.len() > LARGEST {
                return Err(format!("the list is larger than {} MiB", LARGEST / 1024 / 1024));
            }
            bytes.extend_from_slice(&data);
        }
        self.known = known;
        Ok(Answer { content: Content::List(bytes, Format::Json), ttl: None })
    }
}
