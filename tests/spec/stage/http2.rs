//! HTTP of both versions, by the libraries everybody uses: one client and one server for either, so that a test can have
//! the same said on each side; and a server of HTTP/1 that writes down all it is asked for.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Server, list, within};

/// A configuration with a listener `web` for HTTP and an unchecked pool `web` of these servers, on one worker, so that
/// connections to servers are all in one place.
pub fn fronting(servers: &[SocketAddr], listener: &str, pool: &str) -> String {
    format!(
        "workers = 1\n[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"web\"\n{listener}\n\
         [pools.web]\nservers = {}\ncheck = \"none\"\n{pool}\n",
        list(servers)
    )
}

/// The part of a pool's table that has HTTP/2 spoken to its servers.
pub const BY_HTTP2: &str = "http = { version = \"2\" }";

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

impl Version {
    pub const BOTH: [Self; 2] = [Self::One, Self::Two];

    /// One after the other. Each is told as its turn comes: the last that a failed test has told is the one it failed with.
    #[expect(clippy::print_stdout, reason = "the output of a test that passes is not shown")]
    pub fn each() -> impl Iterator<Item = Self> {
        Self::BOTH.into_iter().inspect(|version| println!("over HTTP version {version:?}"))
    }

    /// Each with each: the client's and the server's.
    pub fn pairs() -> impl Iterator<Item = (Self, Self)> {
        Self::each().flat_map(|client| Self::each().map(move |server| (client, server)))
    }

    /// The part of a pool's table that has it spoken to servers.
    pub fn of_pool(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Two => BY_HTTP2,
        }
    }
}

/// A message without its first line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub fields: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Message {
    /// One with this body.
    pub fn of(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// With a field more.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// With a field more behind its body.
    pub fn trailed(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// The value of the one field of a name; empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        let mut values = self.fields.get_all(name).iter();
        let value = values.next().map_or("", |value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} stands more than once: {self:?}");
        value
    }

    /// Has the other side expect the trailers, as the library for HTTP/1 asks for before it sends any.
    fn announced(&mut self) {
        if !self.trailers.is_empty() {
            let names: Vec<&str> = self.trailers.keys().map(HeaderName::as_str).collect();
            self.fields.insert("trailer", HeaderValue::from_str(&names.join(", ")).unwrap());
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// The host with its port, from wherever this version has it.
    pub host: String,
    pub path: String,
    pub message: Message,
}

impl Asked {
    /// A request to `example.com`.
    pub fn of(method: Method, path: &str, message: Message) -> Self {
        Self { method, host: "example.com".to_owned(), path: path.to_owned(), message }
    }

    pub fn get(path: &str) -> Self {
        Self::of(Method::GET, path, Message::default())
    }

    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        Self::of(Method::POST, path, Message::of(body))
    }

    /// Its head in the form of HTTP/2.
    pub fn head(&self) -> Request<()> {
        let mut head = Request::new(());
        *head.method_mut() = self.method.clone();
        *head.uri_mut() = format!("http://{}{}", self.host, self.path).parse().unwrap();
        *head.headers_mut() = self.message.fields.clone();
        head
    }
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    pub status: u16,
    pub message: Message,
}

impl Answered {
    pub fn ok(message: Message) -> Self {
        Self { status: 200, message }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.message.body).unwrap()
    }

    /// Its head in the form of HTTP/2.
    pub fn head(&self) -> Response<()> {
        let mut head = Response::new(());
        *head.status_mut() = self.status.try_into().unwrap();
        *head.headers_mut() = self.message.fields.clone();
        head
    }
}

/// A body that is there as a whole, for the library of HTTP/1.
struct Whole {
    body: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Whole {
    fn of(message: Message) -> Self {
        let Message { fields: _, body, trailers } = message;
        Self {
            body: Some(body).filter(|body| !body.is_empty()),
            trailers: Some(trailers).filter(|map| !map.is_empty()),
        }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, trailers } = self.get_mut();
        let data = body.take().map(Frame::data);
        Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match &self.trailers {
            // Only chunks have trailers.
            Some(_) => hyper::body::SizeHint::default(),
            None => hyper::body::SizeHint::with_exact(self.body.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// Asks whoever listens there on a connection of its own.
pub async fn ask(version: Version, address: SocketAddr, asked: Asked) -> Answered {
    match version {
        Version::One => ask_http1(address, asked).await,
        Version::Two => Client::connect(address).await.ask(asked).await.unwrap(),
    }
}

async fn ask_http1(address: SocketAddr, asked: Asked) -> Answered {
    let stream = within("connect", TcpStream::connect(address)).await.unwrap();
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let Asked { method, host, path, mut message } = asked;
    message.announced();
    let mut head =
        Request::builder().method(method).uri(path).header("host", host).body(Whole::of(message.clone())).unwrap();
    head.headers_mut().extend(message.fields);
    let response = within("a response", requests.send_request(head)).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = within("the body", body.collect()).await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let message = Message { fields: parts.headers, body: collected.to_bytes(), trailers };
    Answered { status: parts.status.as_u16(), message }
}

/// A client with one connection of HTTP/2.
#[derive(Clone)]
pub struct Client {
    /// What requests are made with.
    pub requests: SendRequest<Bytes>,
    over: tokio::sync::watch::Receiver<bool>,
}

impl Client {
    /// Connects by prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(within("connect", TcpStream::connect(address)).await.unwrap(), &h2::client::Builder::new()).await
    }

    /// Speaks HTTP/2 as built on a connection that there is.
    pub async fn over(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        builder: &h2::client::Builder,
    ) -> Self {
        let (requests, connection) = within("a handshake", builder.handshake(stream)).await.unwrap();
        let (ended, over) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            let _failed = connection.await;
            let _nobody_asks = ended.send(true);
        });
        Self { requests, over }
    }

    /// Waits for the end of the connection.
    pub async fn ended(&mut self) {
        within("the end of the connection", self.over.wait_for(|over| *over)).await.unwrap();
    }

    /// Sends the head of a request; its body, if it is to have one, is sent by what is returned.
    pub async fn begin(&self, head: Request<()>, ended: bool) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut ready = within("room for a request", self.requests.clone().ready()).await.unwrap();
        ready.send_request(head, ended).unwrap()
    }

    /// Asks, and reads the response to its end.
    pub async fn ask(&self, asked: Asked) -> Result<Answered, h2::Error> {
        let Message { fields: _, body, trailers } = &asked.message;
        let ended = body.is_empty() && trailers.is_empty();
        let mut ready = within("room for a request", self.requests.clone().ready()).await?;
        let (response, mut stream) = ready.send_request(asked.head(), ended)?;
        if !body.is_empty() {
            stream.send_data(body.clone(), trailers.is_empty())?;
        }
        if !trailers.is_empty() {
            stream.send_trailers(trailers.clone())?;
        }
        read_response(response).await
    }
}

/// Reads a response to its end.
pub async fn read_response(response: h2::client::ResponseFuture) -> Result<Answered, h2::Error> {
    let (parts, mut stream) = within("a response", response).await?.into_parts();
    let (body, trailers) = read_body(&mut stream).await?;
    Ok(Answered { status: parts.status.as_u16(), message: Message { fields: parts.headers, body, trailers } })
}

/// Reads a body to its end.
pub async fn read_body(stream: &mut RecvStream) -> Result<(Bytes, HeaderMap), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = within("more of a body", stream.data()).await {
        let data = data?;
        let _over = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = within("trailers", stream.trailers()).await?;
    Ok((body.into(), trailers.unwrap_or_default()))
}

impl Server {
    /// A server that speaks a version and answers each request whole.
    pub async fn of_http<A>(version: Version, answer: A) -> Self
    where
        A: Fn(Asked) -> Answered + Clone + Send + Sync + 'static,
    {
        Self::of_http_on("127.0.0.1:0".parse().unwrap(), version, answer).await
    }

    /// The same at an address of the test's choice.
    pub async fn of_http_on<A>(address: SocketAddr, version: Version, answer: A) -> Self
    where
        A: Fn(Asked) -> Answered + Clone + Send + Sync + 'static,
    {
        match version {
            Version::One => Self::start_on(address, move |stream| serve_http1(stream, answer.clone())).await,
            Version::Two => {
                let script = move |request: Request<RecvStream>, mut respond| {
                    let answer = answer.clone();
                    async move {
                        let (parts, mut stream) = request.into_parts();
                        let Ok((body, trailers)) = read_body(&mut stream).await else { return };
                        let message = Message { fields: parts.headers, body, trailers };
                        let host = parts.uri.authority().unwrap().to_string();
                        let path = parts.uri.path_and_query().unwrap().to_string();
                        let is_head = parts.method == Method::HEAD;
                        let mut answered = answer(Asked { method: parts.method, host, path, message });
                        if is_head {
                            let length = std::mem::take(&mut answered.message.body).len();
                            answered.message = answered.message.with("content-length", &length.to_string());
                        }
                        send_answer(&mut respond, answered);
                    }
                };
                Self::start_on(address, move |stream| serve_http2(stream, h2::server::Builder::new(), script.clone()))
                    .await
            }
        }
    }

    /// A server of HTTP/2 that runs `script` for every request.
    pub async fn of_http2<F, S>(builder: h2::server::Builder, script: S) -> Self
    where
        S: Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start(move |stream| serve_http2(stream, builder.clone(), script.clone())).await
    }

    /// A server of HTTP/1 that answers each request with its target, and what it was asked for.
    pub async fn recorder() -> (Self, Record) {
        let record = Record::default();
        let server = Self::start({
            let record = record.clone();
            move |stream| {
                let record = record.clone();
                async move { while_it_lasts(stream, record).await }
            }
        });
        (server.await, record)
    }
}

/// Serves HTTP/2 on a connection.
pub async fn serve_http2<F, S, I>(stream: I, builder: h2::server::Builder, script: S)
where
    S: Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> F,
    F: Future<Output = ()> + Send + 'static,
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    let mut requests = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        requests.spawn(script(request, respond));
    }
}

/// Sends a response as a whole.
pub fn send_answer(respond: &mut h2::server::SendResponse<Bytes>, answered: Answered) {
    let head = answered.head();
    let Message { fields: _, body, trailers } = answered.message;
    let ended = body.is_empty() && trailers.is_empty();
    let Ok(mut stream) = respond.send_response(head, ended) else { return };
    if !body.is_empty() {
        let _gone = stream.send_data(body, trailers.is_empty());
    }
    if !trailers.is_empty() {
        let _gone = stream.send_trailers(trailers);
    }
}

async fn serve_http1<A>(stream: TcpStream, answer: A)
where
    A: Fn(Asked) -> Answered + Clone + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let collected = body.collect().await?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let host = parts.headers["host"].to_str().unwrap().to_owned();
            let message = Message { fields: parts.headers, body: collected.to_bytes(), trailers };
            let mut answered = answer(Asked { method: parts.method, host, path: parts.uri.to_string(), message });
            answered.message.announced();
            let head = answered.head();
            Ok::<_, hyper::Error>(head.map(|()| Whole::of(answered.message)))
        }
    });
    let _gone = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// What a recording server was asked for: first lines, each with its body behind it.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Vec<String>>>);

impl Record {
    /// What it was asked for so far, in its order.
    pub fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, request: String) {
        self.0.lock().unwrap().push(request);
    }
}

/// Reads requests one after the other, strictly, and answers each.
async fn while_it_lasts(stream: TcpStream, record: Record) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            match stream.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) if lines.is_empty() => return,
                Ok(0) | Err(_) => return record.note(format!("cut after {lines:?}")),
                Ok(_) => {}
            }
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return record.note(format!("a bare newline: {line:?}"));
            };
            if line.iter().any(|byte| matches!(byte, 0 | b'\r')) {
                return record.note(format!("{line:?} is no line"));
            }
            match line.is_empty() {
                true => break,
                false => lines.push(String::from_utf8_lossy(line).into_owned()),
            }
        }
        let value = |name: &str| {
            let of_name = |line: &&String| line.to_ascii_lowercase().starts_with(name);
            let found: Vec<&String> = lines.iter().skip(1).filter(of_name).collect();
            assert!(found.len() <= 1, "{name} stands more than once: {lines:?}");
            found.first().map(|line| line[name.len()..].trim().to_owned())
        };
        let body = match (value("content-length:"), value("transfer-encoding:")) {
            (None, None) => Ok(Vec::new()),
            (Some(length), None) => {
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).await.map(|_| body)
            }
            (None, Some(_)) => chunks(&mut stream).await,
            (Some(_), Some(_)) => return record.note(format!("two lengths: {lines:?}")),
        };
        let Ok(body) = body else { return };
        record.note(format!("{} {}", lines[0], String::from_utf8_lossy(&body)).trim_end().to_owned());
        let target = lines[0].split(' ').nth(1).unwrap_or_default();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn chunks(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Ok(size) = usize::from_str_radix(line.trim_end(), 16) else { return Err(std::io::ErrorKind::Other.into()) };
        let mut chunk = vec![0; size + 2];
        if size == 0 {
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).await?;
            }
            return Ok(body);
        }
        stream.read_exact(&mut chunk).await?;
        body.extend_from_slice(&chunk[..size]);
    }
}
