//! What the chapter's tests ask and what they ask it of: servers that answer requests as they are told and remember them, and
//! clients that say a request byte for byte.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::stage::{Instance, Server, list, within};

/// A request or a response.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its first line and its fields.
    pub head: String,
    /// Its body, without what framed it, and without its coding if it has one.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: String,
}

impl Message {
    /// The values of the fields of a name, in lower case.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The one value there may be.
    pub fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() < 2, "{name} stands twice in {}", self.head);
        values.first().copied()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The cookies that a response sets.
    pub fn cookie(&self) -> Option<&str> {
        self.value("set-cookie")?.split(';').next()
    }

    /// The body as it was before it was coded.
    pub fn decoded(&self) -> Vec<u8> {
        let mut decoded = Vec::new();
        let body = &*self.body;
        match self.value("content-encoding") {
            None => decoded.extend_from_slice(body),
            Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut decoded).unwrap()),
            Some("br") => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut decoded).unwrap()),
            Some("zstd") => decoded = zstd::decode_all(body).unwrap(),
            Some(other) => panic!("what is {other}?"),
        }
        decoded
    }

    /// Reads one; a response to a HEAD has no body, whatever it says. `None` at the end of the connection.
    pub async fn read(reader: &mut (impl AsyncBufReadExt + Unpin), to_head: bool) -> Option<Self> {
        let head = section(reader).await?;
        let mut message = Self { head, body: Vec::new(), trailers: String::new() };
        let is_response = message.head.starts_with("HTTP/");
        if to_head || is_response && matches!(message.status(), 100..=199 | 204 | 304) {
            return Some(message);
        }
        match (message.value("transfer-encoding"), message.value("content-length")) {
            (Some("chunked"), None) => loop {
                let mut line = String::new();
                reader.read_line(&mut line).await.ok()?;
                let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
                if size == 0 {
                    message.trailers = section(reader).await?;
                    break;
                }
                let start = message.body.len();
                message.body.resize(start + size + 2, 0);
                reader.read_exact(&mut message.body[start..]).await.ok()?;
                message.body.truncate(start + size);
            },
            (None, Some(length)) => {
                message.body.resize(length.parse().unwrap(), 0);
                reader.read_exact(&mut message.body).await.ok()?;
            }
            (None, None) if is_response => drop(reader.read_to_end(&mut message.body).await.ok()?),
            (None, None) => {}
            other => panic!("{other:?}"),
        }
        Some(message)
    }
}

/// Lines up to an empty one.
async fn section(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut lines = String::new();
    loop {
        let before = lines.len();
        if reader.read_line(&mut lines).await.ok()? == 0 {
            return None;
        }
        if &lines[before..] == "\r\n" {
            lines.truncate(before);
            return Some(lines);
        }
    }
}

/// A server of HTTP/1 that answers every request by the same rule and remembers what it was asked.
pub struct Origin {
    /// The server.
    pub server: Server,
    asked: Arc<Mutex<Vec<Message>>>,
}

impl Origin {
    /// Answers as `rule` says, byte for byte.
    pub async fn start(rule: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, rule) = (Arc::clone(&asked), Arc::new(rule));
        let server = Server::start(move |stream| {
            let (heard, rule) = (Arc::clone(&heard), Arc::clone(&rule));
            async move {
                let mut stream = BufReader::new(stream);
                while let Some(request) = Message::read(&mut stream, false).await {
                    let answer = rule(&request);
                    heard.lock().unwrap().push(request);
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            }
        });
        Self { server: server.await, asked }
    }

    /// Says who it is.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| ok("", name)).await
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Message> {
        self.asked.lock().unwrap().clone()
    }

    /// The last of it.
    pub fn last(&self) -> Message {
        self.asked().pop().unwrap()
    }
}

/// A response of 200, with these lines of fields and this body.
pub fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An instance with a listener `web` that speaks HTTP, whose table has more, and a pool `web` of these servers.
pub async fn http(listener: &str, servers: &[SocketAddr], pool: &str) -> Instance {
    Instance::start(&configuration(listener, servers, pool)).await
}

/// Its configuration.
pub fn configuration(listener: &str, servers: &[SocketAddr], pool: &str) -> String {
    format!(
        "workers = 1\n[listeners.web]\nbind = \"127.0.0.1:0\"\npool = \"web\"\nprotocol = \"http\"\n{listener}\n\
         [pools.web]\nservers = {}\ncheck = \"none\"\n{pool}\n",
        list(servers)
    )
}

/// Asks over a connection there is, and reads the answer.
pub async fn ask_over<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, request: &str) -> Message {
    within("the request", stream.write_all(request.as_bytes())).await.unwrap();
    let answer = within("the answer", Message::read(stream, request.starts_with("HEAD "))).await;
    answer.unwrap_or_else(|| panic!("no answer to {request}"))
}

/// Asks on a connection of its own for a target, with these lines of fields.
pub async fn get(instance: &Instance, target: &str, fields: &str) -> Message {
    ask(instance, &format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n")).await
}

/// Asks on a connection of its own.
pub async fn ask(instance: &Instance, request: &str) -> Message {
    ask_over(&mut connect(instance).await, request).await
}

/// A connection to the listener `web`.
pub async fn connect(instance: &Instance) -> BufReader<TcpStream> {
    BufReader::new(instance.connect().await)
}
