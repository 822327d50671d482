//! The demo's own servers: each answers every line with its name, and a web browser as well.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::metrics::Catalogue;
use crate::task::Tasks;

/// How long a client may say nothing before it is told where it is: long enough for a request that is on its way.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a conversation may last.
const LIFE: Duration = Duration::from_secs(600);
/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(10);
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A server that can be stopped and started again at the same address.
pub(super) struct LittleServer {
    /// What it answers with.
    pub(super) name: &'static str,
    /// Where it listens while it runs.
    pub(super) address: SocketAddr,
    /// Holds the port without listening, so that nobody is given it while the server is stopped.
    _port: TcpSocket,
    catalogue: Arc<Catalogue>,
    tasks: Option<Tasks>,
}

impl LittleServer {
    /// A server on a free port of 127.0.0.1, running.
    pub(super) fn start(name: &'static str, catalogue: &Arc<Catalogue>) -> io::Result<Self> {
        let port = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = port.local_addr()?;
        let mut server = Self { name, address, _port: port, catalogue: Arc::clone(catalogue), tasks: None };
        server.resume()?;
        Ok(server)
    }

    /// Listens again.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        let listener = bind(self.address)?.listen(BACKLOG)?;
        let tasks = Tasks::new(Arc::clone(&self.catalogue));
        tasks.spawn("demo-server", accept(listener, self.name, tasks.clone()));
        self.tasks = Some(tasks);
        Ok(())
    }

    /// Stops listening and drops every connection, as a server does that is killed.
    pub(super) async fn stop(&mut self) {
        if let Some(tasks) = self.tasks.take() {
            tasks.stop();
            tasks.ended().await;
        }
    }
}

/// Sockets that allow the reuse of their address may share it as long as only one of them listens (socket(7)).
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, name: &'static str, tasks: Tasks) {
    let stopping = tasks.stopping().clone();
    while let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((client, _)) => {
                let stopping = stopping.clone();
                tasks.spawn("demo-conversation", async move {
                    // However it ends, it ends this conversation alone.
                    let _ended = stopping.run_until_cancelled(timeout(LIFE, converse(client, name))).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Answers each line, and a client that says nothing once; to one that speaks HTTP, answers in HTTP and ends.
async fn converse(mut client: TcpStream, name: &str) -> io::Result<()> {
    let line = format!("{name}\n");
    let mut buffer = [0; 1024];
    let mut read = match timeout(SILENCE, client.read(&mut buffer)).await {
        Ok(read) => read?,
        Err(_silent) => {
            client.write_all(line.as_bytes()).await?;
            client.read(&mut buffer).await?
        }
    };
    let http = ["GET ", "HEAD "].iter().any(|method| buffer.starts_with(method.as_bytes()));
    if http {
        let head = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", line.len());
        client.write_all(head.as_bytes()).await?;
        client.write_all(line.as_bytes()).await?;
        client.shutdown().await?;
    }
    while read > 0 {
        let lines = buffer.iter().take(read).filter(|byte| **byte == b'\n').count();
        if !http && lines > 0 {
            client.write_all(line.repeat(lines).as_bytes()).await?;
        }
        read = client.read(&mut buffer).await?;
    }
    client.shutdown().await
}
