//! The `tcp` check: a connection is opened and closed again.

use std::future::poll_fn;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::address::ServerAddr;
use crate::net::dial::{First, dial};

/// Probes once. A server that is to be told whose connection it is gets the header and an orderly end; else the
/// connection is closed with a reset, which leaves no socket waiting on either side.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(
    to: &ServerAddr,
    source: Option<IpAddr>,
    timeout: Duration,
    header: &[u8],
) -> Result<(), String> {
    let stream = dial(to, source, timeout, First::PerhapsServer).await.map_err(|error| format!("connect: {error}"))?;
    if header.is_empty() {
        stream.reset();
        return Ok(());
    }
    // The buffer of a new socket has room for it.
    let sent = poll_fn(|cx| stream.poll_send(cx, header, true)).await;
    sent.map_err(|errno| format!("send: {errno}"))?;
    stream.finish();
    Ok(())
}
