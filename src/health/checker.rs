//! The loop that checks one server: probe, count, set what the server is, say what was found.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::probe::{Prober, Problem, Seen};
use super::{Change, Check, Streak, Timing};
use crate::backend::State;
use crate::metrics::CheckResult;
use crate::net::address::ServerAddr;
use crate::net::proxy_protocol::Version;
use crate::units::Percent;

/// Checks one server for the whole process, and is the only writer of its health, its role and its share.
#[derive(Debug)]
pub struct Checker {
    /// The server.
    pub server: Arc<State>,
    /// Where it is probed.
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

/// What changed and what led to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The server.
    pub server: Arc<State>,
    /// What is different from now on.
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
        let Some(active) = self.check.active() else {
            return;
        };
        let timing = active.timing;
        let health = self.server.health();
        let mut streak = Streak::new(health.up, timing.initial.next_decides(health.up, health.tested));
        let mut next = Instant::now() + self.delay;
        let mut prober = Prober::new(active, &self.address, self.source, self.announce);
        let mut lacks = false;
        if !active.probe.tells_role() {
            self.server.set_role(None);
        }
        if !active.probe.tells_share() {
            self.server.set_share(Percent::ALL);
        }
        loop {
            let (change, reason) = tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let outcome = match self.probe(&timing, &mut prober).await {
                        Ok(seen) => Ok(seen),
                        Err(Problem::Server(words)) => Err(words),
                        Err(Problem::Ours(words)) => {
                            // It says nothing of the server, and an outage of ours is not to become one of all servers.
                            self.cannot_ask(&mut lacks, &words);
                            next = Instant::now() + pause(&timing, &streak);
                            continue;
                        }
                    };
                    lacks = false;
                    let change = streak.probed(outcome.is_ok(), timing.rise, timing.fall);
                    next = Instant::now() + pause(&timing, &streak);
                    self.server.set_tested(if outcome.is_ok() { "passed its first check" } else { "failed its first check" });
                    if let Ok(seen) = &outcome
                        && !self.take(seen, &found).await
                    {
                        return;
                    }
                    (change, self.words(outcome, &timing))
                }
                failures = self.server.failures() => {
                    let change = streak.failed_in_traffic(failures, timing.fall);
                    // The next probe comes sooner and never later, however often traffic fails.
                    next = next.min(Instant::now() + pause(&timing, &streak));
                    (change, "traffic failed to connect to it".to_owned())
                }
            };
            let Some(change) = change else {
                continue;
            };
            self.server.set_health(streak.is_up(), &reason);
            self.server.metrics().changed(streak.is_up());
            if !self.tell(&found, change, reason).await {
                return;
            }
        }
    }

    /// Says once that the server cannot be asked.
    fn cannot_ask(&self, lacks: &mut bool, words: &str) {
        if !std::mem::replace(lacks, true) {
            let State { pool, name, .. } = &*self.server;
            tracing::warn!(%pool, server = %name, "the server cannot be checked, and stays what it is: {words}");
        }
    }

    async fn probe(&self, timing: &Timing, prober: &mut Prober<'_>) -> Result<Seen, Problem> {
        // The semaphore is never closed; were it, the probe would go ahead.
        let _permit = self.probes.acquire().await;
        let started = Instant::now();
        let outcome = prober.probe(timing.timeout).await;
        let result = match &outcome {
            Ok(_) => CheckResult::Passed,
            Err(Problem::Server(_)) => CheckResult::Failed,
            Err(Problem::Ours(_)) => CheckResult::Skipped,
        };
        self.server.metrics().checked(result, started.elapsed());
        outcome
    }

    /// Sets what a server says of itself, before anybody is told that it is up. Says whether somebody listens.
    async fn take(&self, seen: &Seen, found: &mpsc::Sender<Found>) -> bool {
        let reason =
            || if seen.words.is_empty() { format!("{} check", self.check.label()) } else { seen.words.clone() };
        if let Some(role) = seen.role
            && self.server.role() != Some(role)
        {
            self.server.set_role(Some(role));
            if !self.tell(found, Change::Role(role), reason()).await {
                return false;
            }
        }
        if let Some(share) = seen.share
            && self.server.share() != share
        {
            self.server.set_share(share);
            return self.tell(found, Change::Share(share), reason()).await;
        }
        true
    }

    /// Says what was found, and whether anybody listens.
    async fn tell(&self, found: &mpsc::Sender<Found>, change: Change, reason: String) -> bool {
        found.send(Found { server: Arc::clone(&self.server), change, reason }).await.is_ok()
    }

    fn words(&self, outcome: Result<Seen, String>, timing: &Timing) -> String {
        let kind = self.check.label();
        match outcome {
            Err(problem) => format!("{kind} check failed: {problem}"),
            Ok(Seen { words, .. }) => {
                let said = if words.is_empty() { words } else { format!(", {words}") };
                format!("{kind} check passed {} times in a row{said}", timing.rise)
            }
        }
    }
}

/// How long until the next probe: the interval of the state, or the fast one while it is changing, give or take a tenth.
fn pause(timing: &Timing, streak: &Streak) -> Duration {
    let steady = if streak.is_up() { timing.interval } else { timing.down_interval };
    let interval = if streak.is_changing() { timing.fast_interval.min(steady) } else { steady };
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
        let timing = Timing { down_interval: timing.interval * 3, ..timing };
        assert!(pause(&timing, &Streak::new(false, false)) > timing.interval * 2);
    }
}
