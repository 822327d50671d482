//! HTTP/1 in the hand: a server that the test plays itself, one that answers by itself and records, and a client. All of
//! them read strictly, with a reader of their own, and keep the very bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Instance, Server, list, within};

/// A configuration with a listener `web` for HTTP and an unchecked pool `web` of these servers, on one worker, so that
/// connections to servers are all in one place.
pub fn serving(servers: &[SocketAddr], listener: &str, pool: &str) -> String {
    format!(
        "workers = 1\n[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"web\"\n{listener}\n\
         [pools.web]\nservers = {}\ncheck = \"none\"\n{pool}\n",
        list(servers)
    )
}

/// A message as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// The fields, in their order.
    pub fields: Vec<(String, String)>,
    /// The bytes of the head, the empty line included.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// What followed the last chunk.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// Reads a head, every line of which has to be as RFC 9112 has it.
    fn read(head: &[u8]) -> Self {
        let head = std::str::from_utf8(head).unwrap().to_owned();
        let mut lines = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let fields = lines.map(field_of).collect();
        assert!(!line.contains(['\r', '\n']), "{head:?}");
        Self { line, fields, head, ..Self::default() }
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.line.strip_prefix("HTTP/1.1 ").unwrap().get(..3).unwrap().parse().unwrap()
    }

    /// The method and the target of a request.
    pub fn asked(&self) -> &str {
        self.line.strip_suffix(" HTTP/1.1").unwrap()
    }

    /// The values of the fields of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the one field of a name, if there is one.
    pub fn one(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} stands more than once: {self:?}");
        values.first().copied()
    }

    /// The value of a field that has to be there once.
    pub fn field(&self, name: &str) -> &str {
        self.one(name).unwrap_or_else(|| panic!("there is no {name}: {}", self.head))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// How its body is framed: by a length, by chunks, or not at all.
    fn framing(&self) -> Framing {
        match (self.one("transfer-encoding"), self.one("content-length")) {
            (Some("chunked"), None) => Framing::Chunks,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => Framing::None,
            both => panic!("{both:?} in {}", self.head),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunks,
}

fn field_of(line: &str) -> (String, String) {
    let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no field"));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    assert!(!name.is_empty() && name.bytes().all(is_name), "{line:?}");
    assert!(!value.bytes().any(|byte| byte < b' ' && byte != b'\t') && value.trim() == value, "{line:?}");
    (name.to_owned(), value.to_owned())
}

/// One side of a connection, and what has arrived on it.
#[derive(Debug)]
pub struct Wire {
    /// The connection itself.
    pub stream: TcpStream,
    arrived: Vec<u8>,
}

/// What a connection came to, if that is no message.
pub type Reading<T> = std::io::Result<T>;

fn cut(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("the end came in {what}"))
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, arrived: Vec::new() }
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("a write", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads more; whether there was any.
    async fn more(&mut self) -> Reading<bool> {
        Ok(within("bytes or the end", self.stream.read_buf(&mut self.arrived)).await? > 0)
    }

    /// Reads so many bytes.
    pub async fn exactly(&mut self, bytes: usize) -> Reading<Vec<u8>> {
        while self.arrived.len() < bytes {
            if !self.more().await? {
                return Err(cut("the middle of a body"));
            }
        }
        Ok(self.arrived.drain(..bytes).collect())
    }

    async fn up_to(&mut self, end: &[u8]) -> Reading<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.arrived[searched..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Ok(self.arrived.drain(..searched + at + end.len()).collect());
            }
            searched = self.arrived.len().saturating_sub(end.len());
            if !self.more().await? {
                return Err(cut(&format!("a head or line: {:?}", String::from_utf8_lossy(&self.arrived))));
            }
        }
    }

    /// Reads the head of a message; its body is left where it is. `None` is the end of the connection instead.
    pub async fn head(&mut self) -> Reading<Option<Message>> {
        if self.arrived.is_empty() && !self.more().await? {
            return Ok(None);
        }
        Ok(Some(Message::read(&self.up_to(b"\r\n\r\n").await?)))
    }

    /// Reads a chunk; an empty one is the last, behind which trailers follow.
    pub async fn chunk(&mut self) -> Reading<Vec<u8>> {
        let line = self.up_to(b"\r\n").await?;
        let size = std::str::from_utf8(&line).unwrap().trim_end();
        assert!(size.bytes().all(|byte| byte.is_ascii_hexdigit()), "{size:?} is no size as we write it");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut chunk = self.exactly(size + 2).await?;
        assert_eq!(chunk.split_off(size), b"\r\n");
        Ok(chunk)
    }

    async fn chunks(&mut self, message: &mut Message) -> Reading<()> {
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                break;
            }
            message.body.extend(chunk);
        }
        loop {
            let line = self.up_to(b"\r\n").await?;
            let line = std::str::from_utf8(&line).unwrap().trim_end();
            if line.is_empty() {
                return Ok(());
            }
            message.trailers.push(field_of(line));
        }
    }

    /// Reads the body that belongs to the head of a request.
    pub async fn body(&mut self, message: &mut Message) -> Reading<()> {
        match message.framing() {
            Framing::None => {}
            Framing::Length(length) => message.body = self.exactly(length).await?,
            Framing::Chunks => self.chunks(message).await?,
        }
        Ok(())
    }

    /// Reads a whole request; `None` is the end of the connection instead.
    pub async fn request(&mut self) -> Reading<Option<Message>> {
        let Some(mut message) = self.head().await? else { return Ok(None) };
        self.body(&mut message).await?;
        Ok(Some(message))
    }

    /// Reads to the end and returns what came.
    pub async fn rest(&mut self) -> Reading<Vec<u8>> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.arrived))
    }

    /// Asserts that the other side ends the connection in good order and says nothing before.
    pub async fn ends(&mut self) {
        let rest = self.rest().await.unwrap();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Closes with a reset.
    pub fn reset(self) {
        super::reset(self.stream);
    }
}

/// A client.
#[derive(Debug)]
pub struct Client(pub Wire);

impl Client {
    /// Connects to the listener `web`.
    pub async fn of(instance: &Instance) -> Self {
        Self(Wire::new(instance.connect().await))
    }

    /// The same from an address of this machine's own.
    pub async fn from(ip: [u8; 4], to: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        Self(Wire::new(within("connect", socket.connect(to)).await.unwrap()))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes).await;
    }

    /// Sends a GET for a path, with these further lines.
    pub async fn get(&mut self, path: &str, lines: &str) {
        self.send(get(path, lines)).await;
    }

    /// Reads a response, an informational one too.
    pub async fn try_response(&mut self) -> Reading<Message> {
        let mut message = self.0.head().await?.ok_or_else(|| cut("place of a response"))?;
        let without = matches!(message.status(), 100..=199 | 204 | 304);
        if message.framing() == Framing::None && !without {
            message.body = self.0.rest().await?;
        } else if !without {
            self.0.body(&mut message).await?;
        }
        Ok(message)
    }

    pub async fn response(&mut self) -> Message {
        self.try_response().await.unwrap()
    }

    /// Reads the response to a HEAD, or the head of any.
    pub async fn head(&mut self) -> Message {
        self.0.head().await.unwrap().expect("a response")
    }

    /// Asks for a path and reads the response.
    pub async fn ask(&mut self, path: &str) -> Message {
        self.ask_with(path, "").await
    }

    pub async fn ask_with(&mut self, path: &str, lines: &str) -> Message {
        self.get(path, lines).await;
        self.response().await
    }

    /// Asserts that the connection ends in good order, with nothing before.
    pub async fn ends(&mut self) {
        self.0.ends().await;
    }

    /// Asserts that what comes cannot be taken for a whole response.
    pub async fn is_cut_off(&mut self) {
        self.try_response().await.unwrap_err();
    }

    /// Asserts that a whole response comes, and that the connection is fit for the next one.
    pub async fn is_served_again(&mut self) {
        assert_eq!(self.ask("/again").await.status(), 200);
    }
}

/// A GET for a path, with these further lines.
pub fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n")
}

/// A server that the test plays itself: nothing happens on its connections but what the test does.
pub struct Stand {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Stand {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next connection.
    pub async fn visit(&self) -> Wire {
        Wire::new(within("a connection", self.listener.accept()).await.unwrap().0)
    }

    /// The next connection and the first request on it.
    pub async fn asked(&self) -> (Wire, Message) {
        let mut wire = self.visit().await;
        let request = wire.request().await.unwrap().expect("a request");
        (wire, request)
    }
}

/// An answer of 200 with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The request that has to come next on a connection of a [`Stand`].
pub async fn next_request(wire: &mut Wire) -> Message {
    wire.request().await.unwrap().expect("a request")
}

/// What a [`Recorder`] saw: the connection it came on, counted from 0, and the request.
pub type Seen = (usize, Message);

/// A server that answers every request with the same bytes and keeps the requests in their order. What is no request that
/// it can read strictly fails the test that asks for what it saw.
pub struct Recorder {
    pub(super) server: Server,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    pub(super) broken: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// One that answers so.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        let (seen, broken) = <(Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Vec<String>>>)>::default();
        let (all, faults) = (Arc::clone(&seen), Arc::clone(&broken));
        let connections = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |stream| {
            let number = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let (answer, seen, broken) = (Arc::clone(&answer), Arc::clone(&all), Arc::clone(&faults));
            async move {
                let mut wire = Wire { stream, arrived: Vec::new() };
                // A connection may wait for long between two requests, which only its own side ends.
                while wire.arrived.is_empty() && matches!(wire.stream.read_buf(&mut wire.arrived).await, Ok(1..)) {
                    match wire.request().await {
                        Ok(Some(request)) => seen.lock().unwrap().push((number, request)),
                        Ok(None) => return,
                        Err(error) => return broken.lock().unwrap().push(error.to_string()),
                    }
                    if wire.stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                let left = String::from_utf8_lossy(&wire.arrived).into_owned();
                if !left.is_empty() {
                    broken.lock().unwrap().push(format!("behind a request: {left:?}"));
                }
            }
        });
        Self { server: server.await, seen, broken }
    }

    /// One that answers 200 and `ok`.
    pub async fn ok() -> Self {
        Self::answering(ok("ok")).await
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.server.accepted()
    }

    /// The requests since it was last asked.
    pub fn seen(&self) -> Vec<Message> {
        let broken = self.broken.lock().unwrap();
        assert!(broken.is_empty(), "{broken:?}");
        std::mem::take(&mut *self.seen.lock().unwrap()).into_iter().map(|(_, request)| request).collect()
    }

    /// The same with the connections they came on.
    pub fn seen_where(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The one request since it was last asked.
    pub fn saw(&self) -> Message {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// The requests that broke off, as far as that was noticed.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }
}

impl Instance {
    /// How many requests to a server of the pool `web` got a new connection, and how many one that was there.
    pub fn upstream(&self, server: SocketAddr) -> (u64, u64) {
        let of = |kind: &str| {
            let labels = format!("pool=\"web\",server=\"{server}\",kind=\"{kind}\"");
            self.metric(&format!("portreeve_upstream_connections_total{{{labels}}}")).unwrap() as u64
        };
        (of("new"), of("reused"))
    }
}
