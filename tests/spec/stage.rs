//! What the chapters share: servers that follow a script, clients, an instance in this process, and the program in another.

pub mod access;
pub mod dns;
pub mod frames;
pub mod http;
pub mod http2;
pub mod pki;
pub mod process;
pub mod secure;
pub mod speaker;
pub mod victim;
pub mod volume;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portreeve::app::{Running, Source, start};
use portreeve::ending::Reason;
use portreeve::metrics::ListenerMetrics;
use portreeve::units::Name;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

pub mod watch;

/// How long anything a test waits for may take. Far more than it does; only a failing test takes it.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits for `work` within [`LIMIT`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what}: nothing within {LIMIT:?}"))
}

/// Waits until `condition` holds, for what can be seen only by looking, such as a counter.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    // Looking may take longer than that, and whoever is looked at has to come to its turn.
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    within(what, async {
        while !condition() {
            look.tick().await;
        }
    })
    .await;
}

/// A server that does the same with every connection.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    accepting: Option<AbortHandle>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server that runs `script` for every connection, in a task of its own.
    pub async fn start<F, S>(script: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_on("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// The same at an address of the test's choice, as to bring a stopped server back.
    pub async fn start_on<F, S>(address: SocketAddr, script: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(4096).unwrap();
        Self::serve(listener, script)
    }

    fn serve<F, S>(listener: TcpListener, script: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        let accepting = tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        count.fetch_add(1, Ordering::SeqCst);
                        connections.spawn(script(stream));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, accepted, accepting: Some(accepting), tasks }
    }

    /// Sends back what it receives, and its end after the client's.
    pub async fn echo() -> Self {
        Self::start(echo).await
    }

    /// Answers every connection with `word` and its end, and waits for the client's.
    pub async fn saying(word: &'static str) -> Self {
        Self::start(move |stream| say(stream, word)).await
    }

    /// Accepts and does nothing until the client has ended.
    pub async fn silent() -> Self {
        Self::start(|mut stream| async move {
            let _ended = stream.read_to_end(&mut Vec::new()).await;
        })
        .await
    }

    /// How many connections it has accepted, probes included unless the pool is not checked.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Stops listening and drops every connection; its port is free afterwards.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            while self.tasks.join_next().await.is_some() {}
        }
    }
}

/// Sends back what it receives, and its end after the client's.
pub async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _gone = writer.shutdown().await;
    }
}

/// Answers with `word` and its end, and waits for the client's.
pub async fn say(mut stream: TcpStream, word: &'static str) {
    if stream.write_all(word.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    }
}

/// A server that greets with `greeting`, reads to the end and tells what it read, or how reading failed.
pub async fn reader(greeting: &'static str) -> (Server, mpsc::Receiver<std::io::Result<Vec<u8>>>) {
    let (told, heard) = mpsc::channel(64);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            let read = match stream.write_all(greeting.as_bytes()).await {
                Ok(()) => stream.read_to_end(&mut bytes).await,
                Err(error) => Err(error),
            };
            let _test_over = told.send(read.map(|_| bytes)).await;
        }
    });
    (server.await, heard)
}

/// An address on which nobody listens, and nobody else will for the time of a test: the socket that holds it does not listen.
pub struct ClosedPort {
    /// The address.
    pub address: SocketAddr,
    _held: tokio::net::TcpSocket,
}

impl ClosedPort {
    pub fn new() -> Self {
        Self::held(tokio::net::TcpSocket::new_v4().unwrap())
    }

    /// One on which a server may listen that knows it (see [`Server::start_on`]).
    pub fn shared() -> Self {
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        Self::held(held)
    }

    fn held(held: tokio::net::TcpSocket) -> Self {
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { address: held.local_addr().unwrap(), _held: held }
    }
}

/// A server to which connecting neither succeeds nor fails: its queue of one waiting connection is full, and the kernel
/// drops what comes beyond (listen(2)).
pub struct Deaf {
    /// Its address.
    pub address: SocketAddr,
    _listener: TcpListener,
    _waiting: TcpStream,
}

impl Deaf {
    pub async fn start() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = within("the first in the queue", TcpStream::connect(address)).await.unwrap();
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// An instance in this process.
pub struct Instance {
    /// The instance itself.
    pub running: Running,
}

impl Instance {
    /// Starts an instance; panics with the problems if the configuration has any.
    pub async fn start(configuration: &str) -> Self {
        let running = start(Source::text(configuration)).await.unwrap_or_else(|error| panic!("{error}"));
        Self { running }
    }

    /// One listener `web` on a free port, and an unchecked pool `web` of these servers; `more` is added to the pool's table.
    pub async fn balancing(servers: &[SocketAddr], more: &str) -> Self {
        Self::start(&balancing(servers, more)).await
    }

    /// Where a listener is found.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.running.address(listener).unwrap()
    }

    /// Connects to the listener `web`.
    pub async fn connect(&self) -> TcpStream {
        within("connect", TcpStream::connect(self.address("web"))).await.unwrap()
    }

    /// Connects to the listener `web`, reads to the end and returns what came.
    pub async fn hear(&self) -> String {
        hear(self.connect().await).await.unwrap()
    }

    /// What is counted of a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.running.catalogue().listener(&Name::new(name))
    }

    /// Waits until so many connections of the listener `web` have ended for a reason.
    pub async fn ended(&self, reason: Reason, count: u64) {
        let listener = self.listener("web");
        eventually(&format!("{count} endings {reason}, seen: {}", endings(&listener)), || {
            listener.endings(reason) == count
        })
        .await;
    }

    /// The value of a series in the metrics, by its exact text before the value.
    pub fn metric(&self, series: &str) -> Option<f64> {
        metric(&self.running.catalogue().expose(), series)
    }
}

/// The value of a series in a text of metrics, by its exact text before the value.
pub fn metric(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Every reason with its count, for the message of a failure.
pub fn endings(listener: &ListenerMetrics) -> String {
    let counts = Reason::ALL.iter().map(|reason| (reason, listener.endings(*reason))).filter(|(_, count)| *count > 0);
    counts.map(|(reason, count)| format!("{reason} {count} ")).collect()
}

/// A configuration with a listener `web` on a free port and an unchecked pool `web` of these servers.
pub fn balancing(servers: &[SocketAddr], more: &str) -> String {
    let check = if more.contains("check") { "" } else { "check = \"none\"" };
    format!(
        "workers = 2\n[listeners.web]\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [pools.web]\nservers = {}\n{check}\n{more}\n",
        list(servers)
    )
}

/// A TOML list of addresses.
pub fn list(servers: &[SocketAddr]) -> String {
    format!("{:?}", servers.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Reads to the end of a connection, within [`LIMIT`].
pub async fn hear(mut stream: TcpStream) -> std::io::Result<String> {
    let mut heard = String::new();
    within("the end of the stream", stream.read_to_string(&mut heard)).await.map(|_| heard)
}

/// The program in a process of its own.
pub struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Everything it has logged so far, as far as it was looked at.
    pub seen: Vec<String>,
    folder: tempfile::TempDir,
}

impl Program {
    /// Starts `portreeve run` with a configuration, its log as JSON on standard error.
    pub fn start(configuration: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_portreeve")).args(["run", "-c"]), configuration)
    }

    /// The same with a variable in its environment.
    pub fn start_with(variable: &str, value: &Path, configuration: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
        Self::start_by(command.env(variable, value).args(["run", "-c"]), configuration)
    }

    /// The same by a command that takes the path of the configuration as its last argument.
    fn start_by(command: &mut Command, configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portreeve.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, lines) = mpsc::channel(10_000);
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                if sender.send(line).await.is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), folder }
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("portreeve.toml")
    }

    /// The folder of its configuration file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub async fn says(&mut self, text: &str) -> String {
        let wait = async {
            loop {
                let line = self.lines.recv().await?;
                self.seen.push(line.clone());
                if line.contains(text) {
                    return Some(line);
                }
            }
        };
        let heard = tokio::time::timeout(LIMIT, wait).await;
        heard.ok().flatten().unwrap_or_else(|| panic!("it did not say {text:?}, but:\n{}", self.seen.join("\n")))
    }

    /// Waits for a listener to be found and returns its address, from the log line that says so.
    pub async fn listening(&mut self, listener: &str) -> SocketAddr {
        let line = self.says(&format!("\"message\":\"listening\",\"listener\":\"{listener}\"")).await;
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        value["address"].as_str().unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        within("exit", self.child.wait()).await.unwrap()
    }
}

/// A configuration like [`balancing`]'s, with more in the listener's table.
pub fn listening(listener: &str, servers: &[SocketAddr], pool: &str) -> String {
    balancing(servers, pool).replacen("[pools.web]", &format!("{listener}\n[pools.web]"), 1)
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// Whether what came of reading is a reset.
pub fn is_reset<T>(result: &std::io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

impl Instance {
    /// Connects to the listener `web` and reads to the end; a reset may come as early as that.
    pub async fn outcome(&self) -> std::io::Result<String> {
        hear(within("connect", TcpStream::connect(self.address("web"))).await?).await
    }
}
