//! The `tls` check: a handshake is completed, and the connection closed again.

use tokio::time::Instant;

use super::probe::{Problem, Seen};
use super::reach::Reach;
use crate::net::dial::First;

/// Probes once.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(reach: &Reach, until: Instant) -> Result<Seen, Problem> {
    reach.open(First::PerhapsServer, until).await?.close(until).await;
    Ok(Seen::default())
}
