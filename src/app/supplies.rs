//! What is left to connect with: local ports towards every server and descriptors, looked at now and then, shown in metrics
//! and said in the log before it runs out.
//!
//! The kernel's table of sockets is read for it, on the control runtime and at most a fiftieth of the time: a look at a
//! hundred thousand sockets takes a fifth of a second, and so is had every ten. Where requests share connections that are
//! kept, ports hardly change, and the table is read the less. See [`net::ports`](crate::net::ports).

mod trend;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::{Catalogue, SourcePorts, Stock};
use crate::net::address::{Endpoint, ServerAddr};
use crate::net::ports::{LocalPorts, TcpState, for_each_socket};
use crate::snapshot::{Published, Snapshot};
use crate::task::Tasks;
use crate::units::{Name, format_duration};
use trend::{Trend, Turn};

/// How long nobody looks, at least: while there is plenty of everything, and while there is not.
const CALM: Duration = Duration::from_secs(5);
const ALERT: Duration = Duration::from_secs(1);
/// How long nobody looks at the ports, at most.
const LONGEST: Duration = Duration::from_secs(30);
/// When one port in so many may have been taken since, they are looked at.
const STEP: u64 = 100;
/// How many times as long as a look takes nobody looks after it.
const REST: u32 = 50;
/// With no more descriptors left than this, nobody looks at anything that takes one.
const SPARED: u32 = 8;

/// A place that connections are made to, and the local address they are made from if that is not the kernel's choice.
type Way = (SocketAddr, Option<IpAddr>);

/// Looks for as long as the instance runs.
pub(super) fn watch(published: Arc<Published>, catalogue: Arc<Catalogue>, tasks: &Tasks) {
    let stop = tasks.stopping().clone();
    tasks.spawn("supplies", async move {
        let mut watcher = Watcher::new(catalogue);
        loop {
            let snapshot = published.load_full();
            let started = Instant::now();
            // Both tables of the kernel are read there, and may be long.
            let looked = tokio::task::spawn_blocking(move || {
                let seen = see(&snapshot, watcher.wants_ports(&snapshot, started));
                let is_plentiful = watcher.look(&snapshot, &seen, started);
                (watcher, is_plentiful)
            });
            let Ok((same, is_plentiful)) = looked.await else { return };
            watcher = same;
            let rest = (started.elapsed() * REST).max(if is_plentiful { CALM } else { ALERT });
            if stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                return;
            }
        }
    });
}

/// What the system shows at a moment, as far as it does.
#[derive(Debug, Default)]
struct Seen {
    ports: Option<Ports>,
    /// Descriptors that are open, and how many may be.
    descriptors: Option<(u32, u32)>,
}

/// Local ports.
#[derive(Debug)]
struct Ports {
    /// How many connections had been made before they were looked at: those that come meanwhile may not have been seen.
    made: u64,
    /// How many there are.
    all: u32,
    /// How many of them are taken on each way.
    taken: HashMap<Way, u32>,
}

/// Every way there is, with the names of its pool and its server.
fn ways(snapshot: &Snapshot) -> impl Iterator<Item = (Way, &Name, &Name)> {
    snapshot.pools().flat_map(|pool| {
        pool.pool
            .servers()
            .filter_map(|server| match &server.address {
                ServerAddr(Endpoint::Tcp(address)) => Some((server, *address)),
                ServerAddr(Endpoint::Unix(_)) => None,
            })
            .flat_map(|(server, address)| {
                let sources = pool.pool.sources_for(server);
                let is_free = sources.is_empty().then_some(None);
                let all = sources.iter().copied().map(Some).chain(is_free);
                all.map(move |source| ((address, source), &server.state.pool, &server.state.name))
            })
    })
}

/// How many connections were made to the servers there are.
fn made(snapshot: &Snapshot) -> u64 {
    snapshot.pools().flat_map(|pool| pool.pool.servers()).map(|server| server.state.metrics().connections()).sum()
}

/// Looks at the system, and at its ports if they are wanted. Blocks.
fn see(snapshot: &Snapshot, wants_ports: bool) -> Seen {
    let descriptors = descriptors();
    // A look at the ports takes a descriptor or two. The last ones are for others.
    let may_look = descriptors.is_none_or(|(open, limit)| limit.saturating_sub(open) > SPARED);
    Seen { ports: (wants_ports && may_look).then(|| ports(snapshot)).flatten(), descriptors }
}

/// The local ports there are and those that are taken, if the system shows them.
fn ports(snapshot: &Snapshot) -> Option<Ports> {
    let local = LocalPorts::of_this_machine()?;
    let made = made(snapshot);
    // Sets, since a table that changes while it is read may show a socket twice.
    let mut taken: HashMap<Way, HashSet<u16>> = ways(snapshot).map(|(way, ..)| (way, HashSet::new())).collect();
    let mut listening = HashSet::new();
    for ipv6 in [false, true] {
        if !taken.keys().any(|(to, _)| to.is_ipv6() == ipv6) {
            continue;
        }
        for_each_socket(ipv6, |socket| {
            if socket.state == TcpState::Listens {
                // Whatever it listens on, the kernel does not choose that port.
                if local.contains(socket.local.port()) {
                    listening.insert(socket.local.port());
                }
            } else if local.is_taken_by(&socket) {
                for source in [None, Some(socket.local.ip())] {
                    if let Some(taken) = taken.get_mut(&(socket.remote, source)) {
                        taken.insert(socket.local.port());
                    }
                }
            }
        })
        .ok()?;
    }
    let count = |ports: &HashSet<u16>| u32::try_from(ports.len()).unwrap_or(u32::MAX);
    let all = local.count().saturating_sub(count(&listening));
    Some(Ports { made, all, taken: taken.iter().map(|(way, ports)| (*way, count(ports))).collect() })
}

/// How many descriptors are open, and how many may be.
fn descriptors() -> Option<(u32, u32)> {
    use rustix::process::{Resource, getrlimit};
    const FOLDER: &str = "/proc/self/fd";
    let limit = getrlimit(Resource::Nofile).current?;
    // Linux says how many there are without a look at each, since 6.2 (proc(5)).
    let open = match std::fs::metadata(FOLDER).ok()?.len() {
        0 => std::fs::read_dir(FOLDER).ok()?.count() as u64,
        count => count,
    };
    Some((u32::try_from(open).unwrap_or(u32::MAX), u32::try_from(limit).unwrap_or(u32::MAX)))
}

/// What is known of how things go.
#[derive(Debug)]
struct Watcher {
    catalogue: Arc<Catalogue>,
    ports: HashMap<Way, Trend>,
    descriptors: Trend,
    /// The last look at the ports, if there was one.
    last: Option<Look>,
}

/// A look at the ports.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Of which snapshot it was.
    generation: u64,
    /// How many connections had been made.
    made: u64,
    /// How many ports there are.
    all: u32,
    is_plentiful: bool,
}

impl Watcher {
    fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, ports: HashMap::new(), descriptors: Trend::default(), last: None }
    }

    /// Whether the ports are to be looked at: whether they may be other than they were. Those that other processes take are
    /// seen later.
    fn wants_ports(&self, snapshot: &Snapshot, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|last| {
            !last.is_plentiful
                || last.generation != snapshot.generation
                || now.duration_since(last.at) >= LONGEST
                || made(snapshot).abs_diff(last.made) * STEP >= u64::from(last.all)
        })
    }

    /// Takes down what was seen, and says what is to be said. Returns whether there is plenty of everything.
    fn look(&mut self, snapshot: &Snapshot, seen: &Seen, now: Instant) -> bool {
        let of_ports = seen.ports.as_ref().is_none_or(|ports| self.look_at_ports(snapshot, ports, now));
        let of_descriptors = seen.descriptors.is_none_or(|(open, limit)| self.look_at_descriptors(open, limit, now));
        of_ports && of_descriptors
    }

    fn look_at_ports(&mut self, snapshot: &Snapshot, Ports { made, all, taken }: &Ports, now: Instant) -> bool {
        let mut shown: BTreeMap<_, Vec<SourcePorts>> = BTreeMap::new();
        let mut known: HashMap<Way, (Trend, Stock)> = HashMap::new();
        for (way @ (to, source), pool, server) in ways(snapshot) {
            let Some(taken) = taken.get(&way) else { continue };
            // Where another server is at the same place, perhaps of another pool, it was said.
            let (ports, turn) = match known.get(&way) {
                Some((_, ports)) => (*ports, None),
                None => {
                    let mut trend = self.ports.remove(&way).unwrap_or_default();
                    let (ports, turn) = trend.follow(*taken, *all, now);
                    known.insert(way, (trend, ports));
                    (ports, turn)
                }
            };
            let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
            match turn {
                None => {}
                Some(Turn::Short) => tracing::warn!(
                    %pool, %server,
                    "local ports towards {to}{from} run out: {}; give the pool more addresses in `source`, or keep \
                     connections for longer, so that fewer are made", Left(&ports)
                ),
                Some(Turn::Enough) => {
                    tracing::info!(%pool, %server, "there are local ports enough towards {to}{from}: {}", Left(&ports));
                }
            }
            shown.entry((pool.clone(), server.clone())).or_default().push(SourcePorts { source, ports });
        }
        let is_plentiful = known.values().all(|(trend, ports)| trend.is_plentiful(ports));
        self.last = Some(Look { at: now, generation: snapshot.generation, made: *made, all: *all, is_plentiful });
        self.ports = known.into_iter().map(|(way, (trend, _))| (way, trend)).collect();
        self.catalogue.set_source_ports(shown);
        is_plentiful
    }

    fn look_at_descriptors(&mut self, open: u32, limit: u32, now: Instant) -> bool {
        let (stock, turn) = self.descriptors.follow(open, limit, now);
        match turn {
            None => {}
            Some(Turn::Short) => tracing::warn!(
                "descriptors run out: {}; raise the limit (LimitNOFILE, ulimit -n) or lower `max_connections`",
                Left(&stock)
            ),
            Some(Turn::Enough) => tracing::info!("there are descriptors enough: {}", Left(&stock)),
        }
        self.catalogue.set_descriptors(stock);
        self.descriptors.is_plentiful(&stock)
    }
}

/// What is left, in words.
struct Left<'a>(&'a Stock);

impl std::fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stock { free, total, lasts } = self.0;
        write!(f, "{free} of {total} are left")?;
        match lasts {
            // To the second: it is a guess.
            Some(lasts) => write!(f, ", for {} at this rate", format_duration(Duration::from_secs(lasts.as_secs()))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
