//! Who is asked first in a pool, when it is full and who waits.

use std::time::Duration;

use crate::config::model::PrimaryPool;
use crate::config::problem::Findings;
use crate::config::raw_rules::{RawBreaker, RawPrimary, RawQueue, RawRules, RoleKind};
use crate::config::read::At;
use crate::health::Failback;
use crate::pool::{QueueRules, Rules};
use crate::units::{Name, Percent, parse_duration};

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

/// How a pool has a primary, if it has one; `by_roles` says that its check asks the servers what they are.
pub(super) fn resolve_primary(raw: RawPrimary<'_>, by_roles: bool, findings: &mut Findings) -> Option<PrimaryPool> {
    let RawPrimary { role, failback } = raw;
    let has_primary = role.is_some_and(|At { value, .. }| value == RoleKind::Primary);
    // That it never does is so everywhere.
    let span = failback.as_ref().filter(|failback| failback.value != "never").map(|At { span, .. }| span.clone());
    if let (Some(span), true) = (span, by_roles || !has_primary) {
        let message = if has_primary {
            "`failback` means nothing where the check asks which server is the primary: the servers decide"
        } else {
            "`failback` means nothing without `role = \"primary\"`"
        };
        findings.error(span, message);
    }
    let failback = failback.and_then(|At { value, span }| match value {
        "never" => Some(Failback::Never),
        _ => match parse_duration(value) {
            Ok(patience) => Some(Failback::After(patience)),
            Err(_) => {
                let why = "expected \"never\", or how long a preferred server has to be up first, such as \"10s\"";
                findings.refused(span, value, "a time to fail back after", why);
                None
            }
        },
    });
    has_primary.then(|| PrimaryPool { by_roles, failback: failback.unwrap_or_default() })
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
