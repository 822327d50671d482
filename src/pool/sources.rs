//! Local addresses to connect from.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Local addresses of one family, used in turn.
#[derive(Debug)]
pub(super) struct Sources {
    addresses: Vec<IpAddr>,
    turn: AtomicUsize,
}

impl Sources {
    pub(super) const fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, turn: AtomicUsize::new(0) }
    }

    /// All of them.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// All of them, from the next one on.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = IpAddr> {
        let next = match self.addresses.len() {
            0 | 1 => 0,
            several => self.turn.fetch_add(1, Ordering::Relaxed) % several,
        };
        let (before, after) = self.addresses.split_at_checked(next).unwrap_or_default();
        after.iter().chain(before).copied()
    }
}
