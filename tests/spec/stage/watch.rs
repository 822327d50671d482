//! Looking at an instance from outside: its admin listener, its log to the end; and ports to give it by number.

use std::net::SocketAddr;
use std::ops::Deref;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Instance, Program, hear, within};

/// What an admin listener answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, from the status line on.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks an admin listener for a path.
pub async fn get(admin: SocketAddr, path: &str) -> Answer {
    get_as(admin, path, &admin.to_string()).await
}

/// The same in the name of another host.
pub async fn get_as(admin: SocketAddr, path: &str, host: &str) -> Answer {
    let mut stream = within("connect", TcpStream::connect(admin)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = hear(stream).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A connection through which something was said, and which stays.
pub async fn established(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_alive(&mut stream).await;
    stream
}

/// Says something through a connection to an echo and hears it again.
pub async fn assert_alive(stream: &mut TcpStream) {
    stream.write_all(b"there?").await.unwrap();
    let mut answer = [0; 6];
    within("the echo", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"there?");
}

/// The part of a configuration that gives an instance an admin listener on a free port.
pub const ADMIN: &str = "admin = { http = \"127.0.0.1:0\" }\n";

impl Instance {
    /// Starts an instance with an admin listener.
    pub async fn watched(configuration: &str) -> Self {
        Self::start(&format!("{ADMIN}{configuration}")).await
    }

    /// Asks its admin listener for a path.
    pub async fn get(&self, path: &str) -> Answer {
        get(self.running.admin().unwrap(), path).await
    }

    /// Connects to the listener `web` and is reset, perhaps before it knows that it was connected.
    pub async fn refuses(&self) {
        if let Ok(stream) = within("connect", TcpStream::connect(self.address("web"))).await {
            hear(stream).await.unwrap_err();
        }
    }

    /// How a server of the pool `web` is shown in the API.
    pub async fn server(&self, name: impl ToString) -> serde_json::Value {
        let pools = self.get("/api/v1/pools").await.json();
        let name = name.to_string();
        let servers = pools[0]["servers"].as_array().unwrap();
        servers.iter().find(|server| server["name"] == *name).unwrap_or_else(|| panic!("no {name}: {pools}")).clone()
    }

    /// The value of a server's series in the metrics.
    pub fn of_server(&self, family: &str, server: impl ToString, labels: &str) -> f64 {
        let series = format!("portreeve_server_{family}{{pool=\"web\",server=\"{}\"{labels}}}", server.to_string());
        self.metric(&series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    /// Whether a server of the pool `web` counts as up.
    pub fn is_up(&self, server: impl ToString) -> bool {
        self.of_server("up", server, "") == 1.0
    }

    /// Waits until a server of the pool `web` counts as up, or as down.
    pub async fn becomes(&self, server: SocketAddr, up: bool) {
        super::eventually(&format!("{server} up: {up}"), || self.is_up(server) == up).await;
    }
}

impl Program {
    /// Waits for its admin listener to be found and returns its address, from the log line that says so.
    pub async fn admin(&mut self) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.says("the admin listener answers").await).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// Everything it has logged, up to its end.
    pub async fn log(mut self) -> Vec<String> {
        let rest = async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line)
            }
        };
        within("the end of the log", rest).await;
        self.seen
    }
}

/// A port that no other test is given, and no client either, for as long as this value lives.
#[derive(Debug)]
pub struct Port {
    port: u16,
    /// Its name is the claim, which other processes see too.
    _claim: UnixListener,
}

impl Port {
    /// A free one, below those the kernel gives to clients.
    pub fn claim() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let claimed = (0..10_000).find_map(|_| {
            let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
            let name = UnixAddr::from_abstract_name(format!("portreeve-spec-{port}")).unwrap();
            let claim = UnixListener::bind_addr(&name).ok()?;
            std::net::TcpListener::bind(("0.0.0.0", port)).ok()?;
            Some(Self { port, _claim: claim })
        });
        claimed.expect("a free port")
    }
}

impl Deref for Port {
    type Target = u16;

    fn deref(&self) -> &u16 {
        &self.port
    }
}
