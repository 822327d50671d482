//! The loop that checks one server: probe, count, set the server's flag, say what was found.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::Asked;
use super::{Change, Check, Streak, Timing, http, tcp, tls};
use crate::backend::State;
use crate::net::address::ServerAddr;
use crate::net::proxy_protocol::{Announcement, Origin, Version, encode};
use crate::tls::ServerTls;

/// Checks one server for the whole process, and is the only writer of its health.
#[derive(Debug)]
pub struct Checker {
    /// The server.
    pub server: Arc<State>,
    /// Where it listens.
    pub address: ServerAddr,
    /// How it is checked; with [`Check::None`] the checker ends at once.
    pub check: Check,
    /// The PROXY header that it is sent, if traffic has one as well.
    pub announce: Option<Version>,
    /// The local address to probe from, if traffic has one as well.
    pub source: Option<IpAddr>,
    /// How long to wait before the first probe, so that those of many servers spread.
    pub delay: Duration,
    /// Shared by all checkers: how many probes may be in flight at once.
    pub probes: Arc<Semaphore>,
}

/// A change of state and what led to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The server.
    pub server: Arc<State>,
    /// Whether it counts as up or as down from now on.
    pub change: Change,
    /// What was seen.
    pub reason: String,
}

impl Checker {
    /// Runs until `stop` is cancelled or nobody listens to `found` any more. What traffic met before this call counts for
    /// nothing: it says little of now.
    pub fn run(self, found: mpsc::Sender<Found>, stop: CancellationToken) -> impl Future<Output = ()> {
        self.server.discard_failures();
        async move {
            tokio::select! {
                // First, so that a probe that comes back in the same moment no longer has a say.
                biased;
                () = stop.cancelled() => {}
                () = self.check(found) => {}
            }
        }
    }

    async fn check(self, found: mpsc::Sender<Found>) {
        let Some(timing) = self.check.timing().copied() else {
            return;
        };
        let health = self.server.health();
        let mut streak = Streak::new(health.up, !health.tested);
        let mut next = Instant::now() + self.delay;
        let prober = Prober::new(&self.check, &self.address, self.announce);
        loop {
            let change = tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let outcome = self.probe(&timing, &prober).await;
                    let change = streak.probed(outcome.is_ok(), timing.rise, timing.fall);
                    next = Instant::now() + pause(&timing, &streak);
                    self.server.set_tested(if outcome.is_ok() { "passed its first check" } else { "failed its first check" });
                    change.map(|change| (change, self.words(outcome, change, &timing)))
                }
                failures = self.server.failures() => {
                    let change = streak.failed_in_traffic(failures, timing.fall);
                    // The next probe comes sooner and never later, however often traffic fails.
                    next = next.min(Instant::now() + pause(&timing, &streak));
                    change.map(|change| (change, "traffic failed to connect to it".to_owned()))
                }
            };
            let Some((change, reason)) = change else {
                continue;
            };
            self.server.set_health(change == Change::Up, &reason);
            let finding = Found { server: Arc::clone(&self.server), change, reason };
            if found.send(finding).await.is_err() {
                return;
            }
        }
    }

    async fn probe(&self, timing: &Timing, prober: &Prober) -> Result<(), String> {
        // The semaphore is never closed; were it, the probe would go ahead.
        let _permit = self.probes.acquire().await;
        let started = Instant::now();
        let (to, source, timeout, header) = (&self.address, self.source, timing.timeout, &prober.header);
        let outcome = match &prober.kind {
            Kind::Tcp => tcp::probe(to, source, timeout, header).await,
            Kind::Tls(settings) => tls::probe(to, source, timeout, header.clone(), settings).await,
            Kind::Http(asked) => http::probe(to, source, timeout, header.clone(), asked).await,
        };
        self.server.metrics().checked(outcome.is_ok(), started.elapsed());
        outcome
    }

    fn words(&self, outcome: Result<(), String>, change: Change, timing: &Timing) -> String {
        let kind = self.check.label();
        match (outcome, change) {
            (Err(problem), _) => format!("{kind} check failed: {problem}"),
            (Ok(()), _) => format!("{kind} check passed {} times in a row", timing.rise),
        }
    }
}

/// What each probe of a server has in common.
struct Prober {
    /// Says that the connection is the checker's own.
    header: Vec<u8>,
    kind: Kind,
}

/// What a probe does once it has connected, made ready for one server.
enum Kind {
    Tcp,
    Tls(Arc<ServerTls>),
    Http(Box<Asked>),
}

impl Prober {
    fn new(check: &Check, address: &ServerAddr, announce: Option<Version>) -> Self {
        let own = Announcement { origin: Origin::Local, authority: None, alpn: None, unique_id: None, tls: None };
        Self {
            header: announce.map(|version| encode(version, &own)).unwrap_or_default(),
            kind: match check {
                Check::None | Check::Tcp(_) => Kind::Tcp,
                Check::Tls(_, settings) => Kind::Tls(settings.for_server(address, None, false)),
                Check::Http(_, probe) => Kind::Http(Box::new(Asked::of(probe, address))),
            },
        }
    }
}

/// How long until the next probe: the interval, or the fast one while the state is changing, give or take a tenth.
fn pause(timing: &Timing, streak: &Streak) -> Duration {
    let interval = if streak.is_changing() { timing.fast_interval.min(timing.interval) } else { timing.interval };
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_jittered_and_hurry_while_the_state_is_changing() {
        let timing = Timing::default();
        let mut streak = Streak::new(true, false);
        for _ in 0..1000 {
            let pause = pause(&timing, &streak);
            assert!(pause >= timing.interval.mul_f64(0.899) && pause <= timing.interval.mul_f64(1.101), "{pause:?}");
        }
        assert_eq!(streak.probed(false, 2, 3), None);
        assert!(pause(&timing, &streak) < timing.interval / 2);
    }
}
