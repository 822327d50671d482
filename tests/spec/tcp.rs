//! Chapter: connections.

mod addresses;
mod bytes;
mod endings;
mod servers;

use std::io;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::stage::Server;

/// A server that greets with `greeting`, reads to the end and tells what it read, or how reading failed.
async fn reader(greeting: &'static str) -> (Server, mpsc::Receiver<io::Result<Vec<u8>>>) {
    let (told, heard) = mpsc::channel(16);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            let greeted = tokio::io::AsyncWriteExt::write_all(&mut stream, greeting.as_bytes()).await;
            let read = match greeted {
                Ok(()) => stream.read_to_end(&mut bytes).await,
                Err(error) => Err(error),
            };
            let _test_over = told.send(read.map(|_| bytes)).await;
        }
    });
    (server.await, heard)
}
