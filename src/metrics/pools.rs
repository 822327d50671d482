//! What is counted of pools.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::expose::{counter, family, gauge, histogram};
use super::shard::{CONNECT_BOUNDS, Histogram, Tally, Total};
use super::{ServerMetrics, lock};
use crate::units::Name;

/// What one worker counts of a pool.
#[derive(Debug, Default)]
pub(super) struct PoolShard {
    /// How long those who had to wait did.
    waits: Histogram<{ CONNECT_BOUNDS.len() }>,
    /// Copies of requests for it, and those among them that there was no room for.
    copies: Tally,
    dropped: Tally,
}

/// What is counted of one pool.
#[derive(Debug)]
pub struct PoolMetrics {
    name: Name,
    queue: AtomicUsize,
    fails_open: AtomicBool,
    disputed: AtomicBool,
    /// Its primary, and since when it is that.
    primary: Mutex<Option<(Name, Instant)>>,
    shards: Box<[CachePadded<PoolShard>]>,
}

impl PoolMetrics {
    pub(super) const fn new(name: Name, shards: Box<[CachePadded<PoolShard>]>) -> Self {
        Self {
            name,
            queue: AtomicUsize::new(0),
            fails_open: AtomicBool::new(false),
            disputed: AtomicBool::new(false),
            primary: Mutex::new(None),
            shards,
        }
    }

    /// So many wait for a server that has room.
    pub fn set_queue(&self, waiting: usize) {
        self.queue.store(waiting, Ordering::Relaxed);
    }

    /// Whether so few servers are fit that nobody asks whether they are. Says whether that is news.
    pub fn set_fails_open(&self, fails_open: bool) -> bool {
        self.fails_open.swap(fails_open, Ordering::Relaxed) != fails_open
    }

    /// Whether more than one of its servers says that it is the primary.
    pub fn set_disputed(&self, disputed: bool) {
        self.disputed.store(disputed, Ordering::Relaxed);
    }

    /// From now on this server is its primary, or none is.
    pub fn set_primary(&self, server: Option<&Name>) {
        *lock(&self.primary) = server.map(|server| (server.clone(), Instant::now()));
    }

    /// Somebody waited for so long, with or without getting a server.
    pub fn waited(&self, worker: usize, time: Duration) {
        if let Some(shard) = self.shards.get(worker) {
            shard.waits.observe(&CONNECT_BOUNDS, time);
        }
    }

    /// A request is to be copied to it.
    pub fn copied(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            shard.copies.add(1);
        }
    }

    /// There was no room for a copy, from the beginning or before it was over.
    pub fn dropped_copy(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            shard.dropped.add(1);
        }
    }

    /// So many copies were to be made, and so many of them were given up.
    fn copies(&self) -> (u64, u64) {
        let all = self.shards.iter().map(|shard| (shard.copies.get(), shard.dropped.get()));
        all.fold((0, 0), |(copies, dropped), (more, of_these)| (copies + more, dropped + of_these))
    }
}

/// The name of a pool, as a label.
type Labels<'a> = [(&'static str, &'a str); 1];

pub(super) fn add(all: &[Arc<PoolMetrics>], servers: &[Arc<ServerMetrics>], families: &mut Vec<MetricFamily>) {
    let each = |make: &dyn Fn(&PoolMetrics, Labels<'_>) -> Metric| -> Vec<Metric> {
        all.iter().map(|pool| make(pool, [("pool", pool.name.as_str())])).collect()
    };
    families.push(family(
        "portreeve_pool_connections_active",
        "Connections in flight to the servers of the pool.",
        MetricType::GAUGE,
        each(&|pool, labels| {
            let own = servers.iter().filter(|server| server.pool == pool.name);
            gauge(&labels, own.filter_map(|server| server.vitals()).map(|vitals| f64::from(vitals.active())).sum())
        }),
    ));
    families.push(family(
        "portreeve_pool_fail_open",
        "Whether so few servers of the pool are fit that nobody asks whether they are.",
        MetricType::GAUGE,
        each(&|pool, labels| gauge(&labels, f64::from(u8::from(pool.fails_open.load(Ordering::Relaxed))))),
    ));
    let now = Instant::now();
    families.push(family(
        "portreeve_pool_primary_age_seconds",
        "How long the server has been the primary of the pool; there is none while the pool has no primary.",
        MetricType::GAUGE,
        all.iter()
            .filter_map(|pool| {
                let (server, since) = lock(&pool.primary).clone()?;
                let labels = [("pool", pool.name.as_str()), ("server", server.as_str())];
                Some(gauge(&labels, now.saturating_duration_since(since).as_secs_f64()))
            })
            .collect(),
    ));
    families.push(family(
        "portreeve_pool_primary_disputed",
        "Whether more than one server of the pool says that it is the primary.",
        MetricType::GAUGE,
        each(&|pool, labels| gauge(&labels, f64::from(u8::from(pool.disputed.load(Ordering::Relaxed))))),
    ));
    families.push(family(
        "portreeve_pool_queue",
        "Connections and requests that wait for a server with room.",
        MetricType::GAUGE,
        each(&|pool, labels| gauge(&labels, pool.queue.load(Ordering::Relaxed) as f64)),
    ));
    families.push(family(
        "portreeve_pool_queue_seconds",
        "How long those that had to wait for a server with room did, with or without getting it.",
        MetricType::HISTOGRAM,
        each(&|pool, labels| {
            let mut total = Total::default();
            pool.shards.iter().for_each(|shard| shard.waits.add_to(&mut total));
            histogram(&labels, &CONNECT_BOUNDS, &total)
        }),
    ));
    // Few pools get any.
    let copies = |what: fn((u64, u64)) -> u64| {
        let having = all.iter().map(|pool| (pool, pool.copies())).filter(|(_, copies)| *copies != (0, 0));
        having.map(|(pool, copies)| counter(&[("pool", pool.name.as_str())], what(copies) as f64)).collect()
    };
    families.push(family(
        "portreeve_pool_copies_total",
        "Requests that were to be copied to the pool.",
        MetricType::COUNTER,
        copies(|(copies, _)| copies),
    ));
    families.push(family(
        "portreeve_pool_copies_dropped_total",
        "Those among them whose copy was given up, or not begun, for want of room.",
        MetricType::COUNTER,
        copies(|(_, dropped)| dropped),
    ));
}
