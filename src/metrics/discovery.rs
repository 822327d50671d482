//! What is counted of where servers are found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::expose::{counter, family, gauge};
use super::lock;
use crate::units::Name;

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Other servers than before.
    Changed,
    /// The same servers.
    Same,
    /// No servers, which was passed over.
    Empty,
    /// No answer, or none that could be used.
    Failed,
}

impl Answered {
    const ALL: [Self; 4] = [Self::Changed, Self::Same, Self::Empty, Self::Failed];

    const fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Same => "same",
            Self::Empty => "empty",
            Self::Failed => "failed",
        }
    }
}

/// What is counted of the sources of one pool.
#[derive(Debug)]
pub struct DiscoveryMetrics {
    pool: Name,
    answers: [AtomicU64; Answered::ALL.len()],
    servers: AtomicU64,
    /// When each source last gave an answer that could be used, or was started.
    good: Mutex<BTreeMap<String, Instant>>,
}

impl DiscoveryMetrics {
    pub(super) fn new(pool: &Name) -> Self {
        Self { pool: pool.clone(), answers: Default::default(), servers: AtomicU64::new(0), good: Mutex::default() }
    }

    /// A source is asked from now on.
    pub fn begun(&self, source: &str) {
        lock(&self.good).insert(source.to_owned(), Instant::now());
    }

    /// A source is asked no more.
    pub fn ended(&self, source: &str) {
        lock(&self.good).remove(source);
    }

    /// A source answered, or did not.
    pub fn answered(&self, source: &str, answer: Answered) {
        if let Some(count) = self.answers.get(answer as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(answer, Answered::Changed | Answered::Same) {
            self.begun(source);
        }
    }

    /// How many answers came to this.
    #[must_use]
    pub fn answers(&self, answer: Answered) -> u64 {
        self.answers.get(answer as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many servers of the pool were found.
    pub fn set_servers(&self, servers: usize) {
        self.servers.store(servers as u64, Ordering::Relaxed);
    }

    fn age(&self) -> Option<Duration> {
        lock(&self.good).values().min().map(Instant::elapsed)
    }
}

pub(super) fn add(all: &[Arc<DiscoveryMetrics>], families: &mut Vec<MetricFamily>) {
    let each = |make: &dyn Fn(&DiscoveryMetrics, &str) -> Vec<Metric>| -> Vec<Metric> {
        all.iter().flat_map(|pool| make(pool, pool.pool.as_str())).collect()
    };
    families.push(family(
        "portreeve_discovery_answers_total",
        "Answers of the sources that the servers of a pool are found by, by what they came to.",
        MetricType::COUNTER,
        each(&|pool, name| {
            let count = |answer: &Answered| {
                counter(&[("pool", name), ("result", answer.label())], pool.answers(*answer) as f64)
            };
            Answered::ALL.iter().map(count).collect()
        }),
    ));
    families.push(family(
        "portreeve_discovery_servers",
        "Servers of a pool that were found.",
        MetricType::GAUGE,
        each(&|pool, name| vec![gauge(&[("pool", name)], pool.servers.load(Ordering::Relaxed) as f64)]),
    ));
    families.push(family(
        "portreeve_discovery_age_seconds",
        "How long ago the sources of a pool last gave an answer that could be used; of several the longest.",
        MetricType::GAUGE,
        each(&|pool, name| pool.age().map(|age| gauge(&[("pool", name)], age.as_secs_f64())).into_iter().collect()),
    ));
}
