//! Whether a server takes what it was chosen for, where something keeps it from its full share.

use std::time::Duration;

use crate::backend::Server;

/// How many of its neighbours are looked at for what servers carry on average.
const SAMPLE: usize = 64;

/// Whether this server, one of `members`, takes one more connection: as likely as the part of its share that it is to have,
/// and for as long as it carries less than that part of what others carry. One it always may have.
pub(super) fn takes(server: &Server, members: &[Server], slow_start: Duration) -> bool {
    if !server.state.is_restrained() {
        return true;
    }
    let part = server.state.part(slow_start);
    if part >= 1.0 {
        return true;
    }
    if fastrand::f64() >= part {
        return false;
    }
    let active = server.state.active();
    active == 0 || f64::from(active) < part * mean_load(members) * f64::from(server.weight.get())
}

/// Connections for each unit of weight of the servers that are fit; of some of them, where there are many.
fn mean_load(members: &[Server]) -> f64 {
    let start = fastrand::usize(..members.len().max(1));
    let sample = members.iter().cycle().skip(start).take(members.len().min(SAMPLE));
    let fit = sample.filter(|server| server.state.is_fit(server.weight));
    let (active, weight) = fit.fold((0.0, 0.0), |(active, weight), server| {
        (active + f64::from(server.state.active()), weight + f64::from(server.weight.get()))
    });
    if weight > 0.0 { active / weight } else { 0.0 }
}
