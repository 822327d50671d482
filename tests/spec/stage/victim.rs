//! A server in a process of its own, which can be killed as servers are: at any moment, without a word. It is this very
//! binary, asked for one test that serves until it is killed.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::http2::{Answered, Asked, Message, Version};
use super::{ClosedPort, Server, within};

/// The name of the test that serves, and of the variable that has it do so.
const SERVES: (&str, &str) = ("stage::victim::serves_until_it_is_killed", "PORTREEVE_VICTIM");
/// What it says once it listens.
const LISTENS: &str = "the victim listens";

/// A server that answers every request with an empty 200, and wrote it down before.
pub struct Victim {
    port: ClosedPort,
    version: Version,
    record: PathBuf,
    child: Option<Child>,
}

impl Victim {
    /// Starts one that speaks this version.
    pub async fn start(version: Version, record: PathBuf) -> Self {
        // Nobody else gets the port while the server is dead.
        let mut victim = Self { port: ClosedPort::shared(), version, record, child: None };
        victim.come_back().await;
        victim
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Starts it, again if it was killed before, and waits until it listens.
    pub async fn come_back(&mut self) {
        let (test, variable) = SERVES;
        let task = format!("{} {:?} {}", self.port.address, self.version, self.record.display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(variable, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(LISTENS) {
                    return true;
                }
            }
            false
        };
        assert!(within("a server in a process of its own", listens).await, "it ended");
        self.child = Some(child);
    }

    /// SIGKILL: its connections and its port are closed by the system.
    pub async fn is_killed(&mut self) {
        let mut child = self.child.take().expect("it lives");
        child.start_kill().unwrap();
        let status = within("its end", child.wait()).await.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    }

    /// What it was asked for in all its lives, and how often.
    pub fn saw(&self) -> HashMap<String, usize> {
        let mut times = HashMap::new();
        for line in std::fs::read_to_string(&self.record).unwrap().lines() {
            *times.entry(line.to_owned()).or_default() += 1;
        }
        times
    }
}

#[tokio::test]
#[ignore = "it is the server of other tests, in a process of its own"]
async fn serves_until_it_is_killed() {
    let Ok(task) = std::env::var(SERVES.1) else { return };
    let [address, version, record] = task.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let version = Version::each().find(|known| format!("{known:?}") == version).unwrap();
    let record = Arc::new(std::fs::OpenOptions::new().append(true).create(true).open(record).unwrap());
    let answer = move |asked: Asked| {
        // One write, which stands whatever happens next.
        let line = format!("{} {}\n", asked.method, asked.path);
        let mut record = &*record;
        record.write_all(line.as_bytes()).unwrap();
        Answered::ok(Message::default())
    };
    let _server = Server::of_http_on(address.parse().unwrap(), version, answer).await;
    println!("{LISTENS}");
    // The end of its parent is its own.
    let parent = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    parent.await.unwrap().unwrap();
}
