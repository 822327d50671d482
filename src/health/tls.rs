//! The `tls` check: a handshake is completed, and the connection closed again.

use std::net::IpAddr;
use std::time::Duration;

use crate::net::address::ServerAddr;
use crate::net::dial::{First, dial};
use crate::tls::{ServerTls, connect};

/// Probes once; `header` goes out before the handshake.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(
    to: &ServerAddr,
    source: Option<IpAddr>,
    timeout: Duration,
    header: Vec<u8>,
    settings: &ServerTls,
) -> Result<(), String> {
    let shaken = async {
        let socket = dial(to, source, timeout, First::Us).await.map_err(|error| format!("connect: {error}"))?;
        let shaken = connect(socket, header, settings, First::PerhapsServer).await;
        let (stream, _) = shaken.map_err(|failed| format!("handshake: {failed}"))?;
        stream.close().await;
        Ok(())
    };
    tokio::time::timeout(timeout, shaken).await.unwrap_or_else(|_| Err("handshake: no answer in time".to_owned()))
}
