//! The `tcp` check: a connection is opened and closed again.

use std::net::IpAddr;
use std::time::Duration;

use crate::net::address::ServerAddr;
use crate::net::dial::{First, dial};

/// Probes once. The connection is closed with a reset, which leaves no socket waiting on either side.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(to: &ServerAddr, source: Option<IpAddr>, timeout: Duration) -> Result<(), String> {
    match dial(to, source, timeout, First::PerhapsServer).await {
        Ok(stream) => {
            stream.reset();
            Ok(())
        }
        Err(error) => Err(format!("connect: {error}")),
    }
}
