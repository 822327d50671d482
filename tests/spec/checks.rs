//! Chapter: checks that ask more than whether a port is open, of real servers and of hostile ones.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{Instance, LIMIT, Server, balancing, eventually};

mod agent;
mod databases;
mod grpc;
mod hostile;
mod options;
mod redis;

/// Checks that follow each other at once while something changes, with the rest of their table. Their timeout is one that a
/// busy machine keeps.
fn often(check: &str) -> String {
    format!(
        "check = {{ interval = \"1s\", fast_interval = \"10ms\", timeout = \"900ms\", rise = 2, fall = 2, {check} }}\n\
         retries = 0"
    )
}

/// Checks that a slow machine keeps too, with the rest of their table.
fn patiently(check: &str) -> String {
    format!(
        "check = {{ interval = \"10s\", fast_interval = \"20ms\", timeout = \"9s\", rise = 1, fall = 1, {check} }}\n\
         retries = 0"
    )
}

/// An instance with an admin listener that checks these servers so.
async fn checking(servers: &[SocketAddr], check: &str) -> Instance {
    Instance::watched(&balancing(servers, check)).await
}

/// Waits until so many checks of a server had a result.
async fn checked(instance: &Instance, server: SocketAddr, result: &str, count: f64) {
    let seen = || instance.of_server("checks_total", server, &format!(",result=\"{result}\""));
    eventually(&format!("{count} checks that {result}"), || seen() >= count).await;
}

/// Waits until a server is down and returns why.
async fn reason(instance: &Instance, server: SocketAddr) -> String {
    instance.becomes(server, false).await;
    instance.server(server).await["reason"].as_str().unwrap().to_owned()
}

/// Waits until the API shows this of a server.
async fn shows(instance: &Instance, server: SocketAddr, key: &str, wanted: impl Into<serde_json::Value>) {
    let (wanted, mut shown) = (wanted.into(), serde_json::Value::Null);
    let looking = async {
        while shown != wanted {
            shown = instance.server(server).await[key].clone();
        }
    };
    let looked = tokio::time::timeout(LIMIT, looking).await;
    looked.unwrap_or_else(|_| panic!("{key} of {server} is {shown}, not {wanted}"));
}

/// A server that says this, whatever it is asked.
async fn saying(answer: impl Into<Vec<u8>>) -> Server {
    let answer: Vec<u8> = answer.into();
    Server::start(move |mut stream: TcpStream| {
        let answer = answer.clone();
        async move {
            let _gone = stream.write_all(&answer).await;
            let _end = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}
