//! What decides which of its servers a pool asks first, when it is full, and who waits then.

use std::time::Duration;

use crate::units::{Name, Percent};

/// The rules of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A level of which less than this share is fit passes traffic on to the next one; zero passes on only what would find
    /// no server.
    pub spill_below: Percent,
    /// When less than this share of the servers is fit, nobody asks whether they are.
    pub fail_open: Percent,
    /// Where this instance stands: servers of the same zone are preferred.
    pub zone: Option<Name>,
    /// How long a server that came up or back, or joined others, takes to get its full share.
    pub slow_start: Duration,
    /// How many connections its servers have at once, all together; [`Rules::UNLIMITED`] sets no limit.
    pub max_connections: u32,
    /// How many attempts to connect to a server there may be at once, beyond which it counts as full.
    pub max_pending: u32,
    /// Who waits when all servers that are fit are full.
    pub queue: QueueRules,
}

impl Rules {
    /// The value that sets no limit.
    pub const UNLIMITED: u32 = u32::MAX;
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            spill_below: Percent::ZERO,
            fail_open: Percent::ZERO,
            zone: None,
            slow_start: Duration::ZERO,
            max_connections: Self::UNLIMITED,
            max_pending: Self::UNLIMITED,
            queue: QueueRules::default(),
        }
    }
}

/// Who waits for a server that has room, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// How many at most; with zero nobody does.
    pub max: usize,
    /// How long.
    pub timeout: Duration,
}

impl Default for QueueRules {
    fn default() -> Self {
        Self { max: 1000, timeout: Duration::from_secs(5) }
    }
}
