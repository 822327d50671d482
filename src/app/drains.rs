//! Servers that the operator takes out of service, and those that come back.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Duty, State};
use crate::config::model::OnDown;
use crate::snapshot::Snapshot;
use crate::units::format_duration;

/// Servers that are to serve nobody and still have connections.
#[derive(Debug, Default)]
pub(super) struct Drains(Vec<Arc<State>>);

/// What becomes of a server whose duty a reload changes.
#[derive(Debug)]
pub struct Change {
    /// The server.
    pub server: Arc<State>,
    /// Its duty from now on.
    pub duty: Duty,
    /// How long its connections have to end, if they have to.
    pub limit: Option<Duration>,
}

/// The servers whose duty differs, and how long their connections have.
#[must_use]
pub fn changes(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    for pool in after.pools() {
        let Some(old) = before.pool(pool.pool.name()) else { continue };
        if pool.pool.servers().chain(old.pool.servers()).all(|server| server.duty == Duty::Ready) {
            continue;
        }
        for server in pool.pool.servers() {
            let was = old.pool.servers().find(|was| Arc::ptr_eq(&was.state, &server.state)).map(|was| was.duty);
            if was.is_some_and(|was| was != server.duty) {
                let limit = limit(server.duty, pool.on_down, after.drain_timeout());
                changes.push(Change { server: Arc::clone(&server.state), duty: server.duty, limit });
            }
        }
    }
    changes
}

/// How long connections of a server with this duty have to end, if they have to.
const fn limit(duty: Duty, on_down: OnDown, drain_timeout: Duration) -> Option<Duration> {
    match (duty, on_down) {
        (Duty::Ready, _) | (Duty::Drain | Duty::Maintenance, OnDown::Keep) => None,
        (Duty::Drain, OnDown::Drain | OnDown::Reset) | (Duty::Maintenance, OnDown::Drain) => Some(drain_timeout),
        (Duty::Maintenance, OnDown::Reset) => Some(Duration::ZERO),
    }
}

impl Drains {
    /// Nobody is waited for.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A server is on duty again, or no more: says so, and waits for its last connection.
    pub(super) fn note(&mut self, change: &Change) {
        let Change { server, duty, limit } = change;
        self.0.retain(|other| !Arc::ptr_eq(other, server));
        let (pool, name, word) = (&server.pool, &server.name, duty.label());
        let count = server.active();
        match (duty, limit) {
            (Duty::Ready, _) => tracing::info!(%pool, server = %name, "server is ready again"),
            (Duty::Drain | Duty::Maintenance, _) if count == 0 => {
                tracing::info!(%pool, server = %name, "server is in {word} and has no connections");
            }
            (Duty::Drain | Duty::Maintenance, None) => {
                tracing::info!(%pool, server = %name, "server is in {word}, and {count} connections stay until they end");
            }
            (Duty::Drain | Duty::Maintenance, Some(limit)) => {
                tracing::info!(%pool, server = %name, "server is in {word}, and {count} connections have {} to end", format_duration(*limit));
            }
        }
        if *duty != Duty::Ready && count > 0 {
            self.0.push(Arc::clone(server));
        }
    }

    /// Says of whom the last connection has ended.
    pub(super) fn look(&mut self) {
        self.0.retain(|server| {
            let is_drained = server.active() == 0;
            if is_drained {
                tracing::info!(pool = %server.pool, server = %server.name, "server is drained: its last connection has ended");
            }
            !is_drained
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_as_long_as_the_pool_and_the_word_of_the_operator_say() {
        const TIMEOUT: Duration = Duration::from_secs(30);
        let limit = |duty, on_down| limit(duty, on_down, TIMEOUT);
        assert_eq!(limit(Duty::Drain, OnDown::Keep), None);
        assert_eq!(limit(Duty::Maintenance, OnDown::Keep), None);
        assert_eq!(limit(Duty::Drain, OnDown::Drain), Some(TIMEOUT));
        assert_eq!(limit(Duty::Drain, OnDown::Reset), Some(TIMEOUT));
        assert_eq!(limit(Duty::Maintenance, OnDown::Drain), Some(TIMEOUT));
        assert_eq!(limit(Duty::Maintenance, OnDown::Reset), Some(Duration::ZERO));
        assert_eq!(limit(Duty::Ready, OnDown::Reset), None);
    }
}
