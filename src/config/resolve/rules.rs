//! Who is asked first in a pool, when it is full and who waits.

use std::time::Duration;

use crate::config::raw_rules::{RawBreaker, RawQueue, RawRules};
use crate::config::read::At;
use crate::pool::{QueueRules, Rules};
use crate::units::{Name, Percent};

/// The rules, and how many requests each server may have at once.
pub(super) fn resolve(raw: RawRules, zone: Option<&Name>) -> (Rules, u32) {
    let RawRules { spill_below, fail_open, slow_start, max_connections, queue, breaker } = raw;
    let RawBreaker { max_pending, max_requests } =
        breaker.unwrap_or(RawBreaker { max_pending: None, max_requests: None });
    let rules = Rules {
        spill_below: spill_below.map_or(Percent::ZERO, |At { value, .. }| value),
        fail_open: fail_open.map_or(Percent::ZERO, |At { value, .. }| value),
        zone: zone.cloned(),
        slow_start: slow_start.map_or(Duration::ZERO, |At { value, .. }| value),
        max_connections: limit(max_connections),
        max_pending: limit(max_pending),
        queue: queue.map_or_else(QueueRules::default, resolve_queue),
    };
    (rules, limit(max_requests))
}

fn resolve_queue(raw: RawQueue) -> QueueRules {
    let RawQueue { max, timeout } = raw;
    let default = QueueRules::default();
    QueueRules {
        max: max.map_or(default.max, |At { value, .. }| value),
        timeout: timeout.map_or(default.timeout, |At { value, .. }| value),
    }
}

/// A limit, of which the file says zero to set none.
pub(super) fn limit(raw: Option<At<u32>>) -> u32 {
    match raw {
        None | Some(At { value: 0, .. }) => Rules::UNLIMITED,
        Some(At { value, .. }) => value,
    }
}
