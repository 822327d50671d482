//! The `tcp` check: a connection is opened and closed again.

use std::future::poll_fn;

use tokio::time::Instant;

use super::probe::{Problem, Seen};
use super::reach::Reach;
use crate::net::dial::First;

/// Probes once. A server that is to be told whose connection it is gets the header and an orderly end; else the
/// connection is closed with a reset, which leaves no socket waiting on either side.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(reach: &Reach, until: Instant) -> Result<Seen, Problem> {
    let stream = reach.dial(First::PerhapsServer, until).await?;
    let header = reach.header();
    if header.is_empty() {
        stream.reset();
        return Ok(Seen::default());
    }
    // The buffer of a new socket has room for it.
    let sent = poll_fn(|cx| stream.poll_send(cx, header, true)).await;
    sent.map_err(|errno| format!("send: {errno}"))?;
    stream.finish();
    Ok(Seen::default())
}
