//! Servers of the tests' own that speak TLS, and reading what a handshake came to.

use std::sync::Arc;

use rustls::{AlertDescription, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Server;
use super::pki::welcome;

impl Server {
    /// Shakes hands with every client, and runs `script` for those that it comes to something with.
    pub async fn secure<F, S>(config: ServerConfig, script: S) -> Self
    where
        S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let config = Arc::new(config);
        Self::start(move |stream| {
            let (config, script) = (Arc::clone(&config), script.clone());
            async move {
                if let Ok(stream) = welcome(config, stream).await {
                    script(stream).await;
                }
            }
        })
        .await
    }

    /// Shakes hands, sends back what it receives, and its end after the client's.
    pub async fn secure_echo(config: ServerConfig) -> Self {
        Self::secure(config, secure_echo).await
    }
}

/// Sends back what it receives, and its end after the client's.
pub async fn secure_echo(stream: TlsStream<TcpStream>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _gone = writer.shutdown().await;
    }
}

/// The alert that a handshake failed with, if the other side sent one.
pub fn alert_of<T>(result: &std::io::Result<T>) -> Option<AlertDescription> {
    match result.as_ref().err()?.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
