//! The demo's own clients: each connects, asks which server it has reached, and finishes.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::net::address::{Endpoint, ServerAddr};
use crate::net::dial::{First, dial};
use crate::net::stream::Stream;
use crate::task::Tasks;

/// How long connecting, an answer or an end may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many clients of a crowd are connected at once.
const AT_ONCE: usize = 10;
/// An answer is one line, and a name is short.
const LONGEST_ANSWER: usize = 64;
const QUESTION: &[u8] = b"who are you?\n";

/// What a crowd of clients was told.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// How many were answered by the server of a name.
    pub(super) by: BTreeMap<String, usize>,
    /// What the others met instead of an answer.
    pub(super) failures: Vec<String>,
}

impl Answers {
    /// How many the server of this name gave.
    pub(super) fn of(&self, name: &str) -> usize {
        self.by.get(name).copied().unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by.values().sum()
    }

    /// How many there are, and the first failure if there is one.
    pub(super) fn words(&self) -> String {
        match self.failures.first() {
            None => format!("{} answers", self.count()),
            Some(failure) => {
                format!("{} answers and {} failures, the first: {failure}", self.count(), self.failures.len())
            }
        }
    }
}

/// Sends `clients` connections to `to`, [`AT_ONCE`] at a time.
pub(super) async fn crowd(to: SocketAddr, clients: usize, tasks: &Tasks) -> Answers {
    let (answered, mut answers) = mpsc::channel(AT_ONCE);
    for number in 0..AT_ONCE {
        let answered = answered.clone();
        tasks.spawn("demo-client", async move {
            for _ in (number..clients).step_by(AT_ONCE) {
                if answered.send(ask_once(to).await).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(answered);
    let mut all = Answers::default();
    while let Some(answer) = answers.recv().await {
        match answer {
            Ok(name) => *all.by.entry(name).or_default() += 1,
            Err(failure) => all.failures.push(failure),
        }
    }
    all
}

async fn ask_once(to: SocketAddr) -> Result<String, String> {
    let mut client = Client::connect(to).await?;
    let answer = client.ask().await?;
    client.finish().await?;
    Ok(answer)
}

/// One client and its connection.
pub(super) struct Client {
    stream: Stream,
    received: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(to: SocketAddr) -> Result<Self, String> {
        let connected = dial(&ServerAddr(Endpoint::Tcp(to)), None, PATIENCE, First::Us).await;
        let stream = connected.map_err(|error| error.to_string())?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Asks the server for its name.
    pub(super) async fn ask(&mut self) -> Result<String, String> {
        self.received.clear();
        let mut question = QUESTION;
        in_time(async {
            while !question.is_empty() {
                let sent = poll_fn(|cx| self.stream.poll_send(cx, question, false)).await;
                question = question.get(sent.map_err(|errno| errno.to_string())?..).unwrap_or_default();
            }
            while self.received.last() != Some(&b'\n') && self.received.len() < LONGEST_ANSWER {
                if !self.receive().await? {
                    return Err("the connection ended before the answer".to_owned());
                }
            }
            Ok(())
        })
        .await?;
        Ok(String::from_utf8_lossy(&self.received).lines().next().unwrap_or_default().to_owned())
    }

    /// Says that nothing more will come and waits for the server to say the same.
    pub(super) async fn finish(mut self) -> Result<(), String> {
        self.stream.finish();
        in_time(async {
            while self.receive().await? {
                self.received.clear();
            }
            Ok(())
        })
        .await
    }

    /// Takes what has come; false at the end of the stream.
    async fn receive(&mut self) -> Result<bool, String> {
        let mut buffer = [0; LONGEST_ANSWER];
        let read = poll_fn(|cx| self.stream.poll_recv(cx, &mut buffer)).await.map_err(|errno| errno.to_string())?;
        self.received.extend(buffer.iter().take(read.bytes));
        Ok(read.bytes > 0)
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))
}
