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

    /// The first of them.
    pub(super) fn first(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }

    /// The next of them.
    pub(super) fn next(&self) -> Option<IpAddr> {
        match *self.addresses {
            [] => None,
            [only] => Some(only),
            ref several => several.get(self.turn.fetch_add(1, Ordering::Relaxed) % several.len()).copied(),
        }
    }
}
