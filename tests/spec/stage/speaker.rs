//! A client and a recording server of either version, told what to say in the form of HTTP/1: so that one test says the
//! same over both, and reads what comes back in one form.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::http::{Client as Http1, Message, Reading, Recorder, Seen, Wire, get};
use super::http2::{Answered, Client as Http2, Version, read_body, send_answer, serve_http2};
use super::{Instance, Server, within};

/// A client with one connection.
pub enum Speaker {
    /// Its bytes go out as they are.
    One(Http1),
    /// Its bytes are read, and said by streams.
    Two(Streams),
}

/// A client of HTTP/2: its requests, each on a stream, the oldest answered first.
pub struct Streams {
    client: Http2,
    asked: VecDeque<ResponseFuture>,
    /// What is still to be said of the last request.
    open: Option<(SendStream<Bytes>, Left)>,
}

/// What is to come of a body.
enum Left {
    Bytes(usize),
    Chunks,
}

impl Speaker {
    /// Connects to the listener `web`.
    pub async fn of(version: Version, instance: &Instance) -> Self {
        Self::from(version, [127, 0, 0, 1], instance.address("web")).await
    }

    /// The same from an address of this machine's own.
    pub async fn from(version: Version, ip: [u8; 4], to: SocketAddr) -> Self {
        Self::over(version, Http1::from(ip, to).await.0.stream).await
    }

    /// The same over a connection there is.
    pub async fn over(version: Version, stream: TcpStream) -> Self {
        match version {
            Version::One => Self::One(Http1(Wire::new(stream))),
            Version::Two => {
                let client = Http2::over(stream, &h2::client::Builder::new()).await;
                Self::Two(Streams { client, asked: VecDeque::new(), open: None })
            }
        }
    }

    /// Sends a request, as much of its body as is there, or more of it, written as HTTP/1 has it. What HTTP/1 says of
    /// connections and framing is not said over HTTP/2.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// The same to a side that may have given up by now.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Reading<()> {
        match self {
            Self::One(client) => client.0.stream.write_all(bytes.as_ref()).await,
            Self::Two(streams) => streams.send(bytes.as_ref()).await.map_err(std::io::Error::other),
        }
    }

    /// Sends a GET for a path, with these further lines.
    pub async fn get(&mut self, path: &str, lines: &str) {
        self.send(get(path, lines)).await;
    }

    /// Reads a response, an informational one too.
    pub async fn try_response(&mut self) -> Reading<Message> {
        match self {
            Self::One(client) => client.try_response().await,
            Self::Two(streams) => streams.response().await.map_err(std::io::Error::other),
        }
    }

    pub async fn response(&mut self) -> Message {
        self.try_response().await.unwrap()
    }

    /// Reads the response to a HEAD.
    pub async fn head(&mut self) -> Message {
        match self {
            Self::One(client) => client.head().await,
            Self::Two(_) => self.response().await,
        }
    }

    /// Asks for a path and reads the response.
    pub async fn ask(&mut self, path: &str) -> Message {
        self.ask_with(path, "").await
    }

    pub async fn ask_with(&mut self, path: &str, lines: &str) -> Message {
        self.get(path, lines).await;
        self.response().await
    }

    /// Asserts that what comes cannot be taken for a whole response.
    pub async fn is_cut_off(&mut self) {
        self.try_response().await.unwrap_err();
    }

    /// Asserts that a whole response comes, and that the connection is fit for the next one.
    pub async fn is_served_again(&mut self) {
        assert_eq!(self.ask("/again").await.status(), 200);
    }

    /// Asserts that the connection ends in good order.
    pub async fn ends(&mut self) {
        match self {
            Self::One(client) => client.ends().await,
            Self::Two(streams) => streams.client.ended().await,
        }
    }

    /// Asserts that a request was given up after `response`: with its connection, as that of HTTP/1 cannot have another when
    /// the end of this one is not known; or with its stream alone.
    pub async fn is_refused_with(&mut self, response: &Message) {
        match self {
            Self::One(client) => {
                assert_eq!(response.field("connection"), "close");
                client.ends().await;
            }
            Self::Two(streams) => {
                assert_eq!(response.one("connection"), None);
                streams.open = None;
                assert!((200..500).contains(&self.ask("/next").await.status()));
            }
        }
    }
}

impl Streams {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), h2::Error> {
        let body = if self.open.is_some() { bytes } else { self.begin(bytes).await };
        let Some((mut stream, left)) = self.open.take() else {
            assert!(body.is_empty(), "it has no body");
            return Ok(());
        };
        self.open = match left {
            Left::Bytes(left) => {
                let left = left.checked_sub(body.len()).unwrap();
                stream.send_data(Bytes::copy_from_slice(body), left == 0)?;
                (left > 0).then_some((stream, Left::Bytes(left)))
            }
            Left::Chunks => send_chunks(&mut stream, body)?.then_some((stream, Left::Chunks)),
        };
        Ok(())
    }

    /// Sends a head, and returns what comes behind it.
    async fn begin<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let mut lines = std::str::from_utf8(&bytes[..end]).unwrap().split("\r\n");
        let [method, target, _] = lines.next().unwrap().split(' ').collect::<Vec<_>>().try_into().unwrap();
        let mut fields = fields(lines);
        let host = fields.remove("host");
        let left = match (fields.remove("transfer-encoding"), fields.get("content-length")) {
            (Some(_), None) => Some(Left::Chunks),
            (None, Some(length)) => Some(Left::Bytes(length.to_str().unwrap().parse().unwrap())),
            (None, None) => None,
            (Some(_), Some(_)) => panic!("two lengths"),
        };
        let ended = matches!(left, None | Some(Left::Bytes(0)));
        let mut head = Request::new(());
        *head.method_mut() = method.parse().unwrap();
        *head.uri_mut() = match host {
            Some(host) if !target.contains("://") => {
                Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(target).build().unwrap()
            }
            _ => target.parse().unwrap(),
        };
        *head.headers_mut() = fields;
        let (response, stream) = self.client.begin(head, ended).await;
        self.asked.push_back(response);
        self.open = left.filter(|_| !ended).map(|left| (stream, left));
        &bytes[end + 4..]
    }

    async fn response(&mut self) -> Result<Message, h2::Error> {
        let asked = self.asked.front_mut().expect("a request");
        let informational = within("a response", poll_fn(|cx| asked.poll_informational(cx))).await;
        if let Some(head) = informational.transpose()? {
            return Ok(written(status_line(head.status()), head.headers()));
        }
        let answered = within("a response", asked).await;
        self.asked.pop_front();
        let (head, mut stream) = answered?.into_parts();
        let (body, trailers) = read_body(&mut stream).await?;
        let written = written(status_line(head.status), &head.headers);
        Ok(Message { body: body.into(), trailers: texts(&trailers), ..written })
    }
}

fn status_line(status: StatusCode) -> String {
    format!("HTTP/1.1 {}", status.as_str())
}

/// A head of HTTP/2 in the form that those of HTTP/1 have here.
fn written(line: String, fields: &HeaderMap) -> Message {
    let fields = texts(fields);
    Message { head: format!("{line} {fields:?}"), line, fields, ..Message::default() }
}

fn texts(fields: &HeaderMap) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> HeaderMap {
    let pairs = lines.filter(|line| !line.is_empty()).map(|line| line.split_once(':').unwrap());
    let field = |(name, value): (&str, &str)| -> (HeaderName, HeaderValue) {
        (name.parse().unwrap(), value.trim().parse().unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in pairs.map(field) {
        map.append(name, value);
    }
    map
}

/// Sends what stands in whole chunks; whether more follows.
fn send_chunks(stream: &mut SendStream<Bytes>, mut bytes: &[u8]) -> Result<bool, h2::Error> {
    while !bytes.is_empty() {
        let line = bytes.windows(2).position(|two| two == b"\r\n").expect("a size");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        bytes = &bytes[line + 2..];
        if size == 0 {
            let trailers = fields(std::str::from_utf8(bytes).unwrap().split("\r\n"));
            match trailers.is_empty() {
                true => stream.send_data(Bytes::new(), true)?,
                false => stream.send_trailers(trailers)?,
            }
            return Ok(false);
        }
        stream.send_data(Bytes::copy_from_slice(&bytes[..size]), false)?;
        bytes = bytes[size..].strip_prefix(b"\r\n").expect("the end of a chunk");
    }
    Ok(true)
}

impl Recorder {
    /// One that speaks this version and answers so, with a whole response as HTTP/1 has it, framed by a length.
    pub async fn speaking(version: Version, answer: impl Into<Vec<u8>>) -> Self {
        match version {
            Version::One => Self::answering(answer).await,
            Version::Two => Self::by_streams(answered(&answer.into())).await,
        }
    }

    async fn by_streams(answered: Answered) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = Arc::clone(&seen);
        let connections = AtomicUsize::new(0);
        let server = Server::start(move |stream| {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            let (answered, seen) = (answered.clone(), Arc::clone(&all));
            let script = move |request: Request<RecvStream>, mut respond| {
                let (answered, seen) = (answered.clone(), Arc::clone(&seen));
                async move {
                    // One that breaks off is none that it saw.
                    let Some(request) = seen_by_http2(request).await else { return };
                    seen.lock().unwrap().push((number, request));
                    send_answer(&mut respond, answered);
                }
            };
            serve_http2(stream, h2::server::Builder::new(), script)
        });
        Self { server: server.await, seen, broken: Arc::default() }
    }
}

/// A request as a server of HTTP/1 would have seen it.
async fn seen_by_http2(request: Request<RecvStream>) -> Option<Message> {
    let (head, mut stream) = request.into_parts();
    let (body, trailers) = read_body(&mut stream).await.ok()?;
    let path = head.uri.path_and_query().map_or("*", |path| path.as_str());
    let line = format!("{} {path} HTTP/1.1", head.method);
    let mut message = Message { body: body.into(), trailers: texts(&trailers), ..written(line, &head.headers) };
    message.fields.insert(0, ("host".to_owned(), head.uri.authority()?.to_string()));
    Some(message)
}

/// A response that is written as HTTP/1 has it.
fn answered(bytes: &[u8]) -> Answered {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let mut lines = std::str::from_utf8(&bytes[..end]).unwrap().split("\r\n");
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let body = Bytes::copy_from_slice(&bytes[end + 4..]);
    Answered { status, message: super::http2::Message { fields: fields(lines), body, ..Default::default() } }
}
