//! What the file says of who is asked first in a pool, when it is full and who waits, with the place where it says it.

use std::time::Duration;

use super::keys::Section;
use super::raw::MOST_CONNECTIONS;
use super::read::{At, Fields, Read};
use crate::units::Percent;

/// The most that can be made to wait.
const MOST_WAITING: i64 = 100_000;

/// The keys of a pool that are about that.
#[derive(Debug)]
pub(super) struct RawRules {
    pub(super) spill_below: Option<At<Percent>>,
    pub(super) fail_open: Option<At<Percent>>,
    pub(super) slow_start: Option<At<Duration>>,
    pub(super) max_connections: Option<At<u32>>,
    pub(super) queue: Option<RawQueue>,
    pub(super) breaker: Option<RawBreaker>,
}

impl RawRules {
    /// Takes its keys from the table of a pool.
    pub(super) fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            spill_below: fields.optional("spill_below").percent(),
            fail_open: fields.optional("fail_open").percent(),
            slow_start: fields.optional("slow_start").duration(),
            max_connections: fields.optional("max_connections").whole_number(0..=MOST_CONNECTIONS),
            queue: fields.optional("queue").table(),
            breaker: fields.optional("breaker").table(),
        }
    }
}

/// Which servers of a pool are used at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleKind {
    /// Any that is fit.
    Any,
    /// The primary.
    Primary,
}

/// The keys of a pool that are about its primary.
#[derive(Debug)]
pub(super) struct RawPrimary<'t> {
    pub(super) role: Option<At<RoleKind>>,
    pub(super) failback: Option<At<&'t str>>,
}

impl<'t> RawPrimary<'t> {
    /// Takes its keys from the table of a pool.
    pub(super) fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            role: fields.optional("role").word(&[("any", RoleKind::Any), ("primary", RoleKind::Primary)]),
            failback: fields.optional("failback").text(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawQueue {
    pub(super) max: Option<At<usize>>,
    pub(super) timeout: Option<At<Duration>>,
}

impl<'t> Read<'t> for RawQueue {
    const SECTION: Section = Section::Queue;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            max: fields.optional("max").whole_number(0..=MOST_WAITING),
            timeout: fields.optional("timeout").deadline(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawBreaker {
    pub(super) max_pending: Option<At<u32>>,
    pub(super) max_requests: Option<At<u32>>,
}

impl<'t> Read<'t> for RawBreaker {
    const SECTION: Section = Section::Breaker;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            max_pending: fields.optional("max_pending").whole_number(0..=MOST_CONNECTIONS),
            max_requests: fields.optional("max_requests").whole_number(0..=MOST_CONNECTIONS),
        }
    }
}
