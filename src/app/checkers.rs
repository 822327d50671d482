//! The checkers of the process: one for each server that is checked, started, kept and stopped as the snapshot says.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::backend::{Duty, Server, State};
use crate::health::{Check, Checker, Found};
use crate::net::address::{Endpoint, ServerAddr};
use crate::net::proxy_protocol::Version;
use crate::snapshot::Snapshot;
use crate::task::Tasks;
use crate::units::Name;

/// How many probes may be in flight at once; the descriptors for them are kept in reserve.
const PROBES: usize = 256;
/// How many first probes are started a second, so that those of a large configuration spread.
const FIRST_PROBES_A_SECOND: u32 = 2000;

/// The running checkers.
#[derive(Debug)]
pub(super) struct Checkers {
    tasks: Tasks,
    found: mpsc::Sender<Found>,
    probes: Arc<Semaphore>,
    running: HashMap<(Name, Name), Running>,
}

#[derive(Debug)]
struct Running {
    server: Arc<State>,
    settings: Settings,
    stop: CancellationToken,
}

/// What a checker was started with; when any of it differs, it is started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    address: ServerAddr,
    /// Where it is probed.
    place: ServerAddr,
    check: Check,
    announce: Option<Version>,
    source: Option<IpAddr>,
}

impl Checkers {
    /// None yet. Changes of state are sent to `found`.
    pub(super) fn new(tasks: Tasks, found: mpsc::Sender<Found>) -> Self {
        Self { tasks, found, probes: Arc::new(Semaphore::new(PROBES)), running: HashMap::new() }
    }

    /// Starts, keeps and stops what the snapshot in effect asks for.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut wanted = HashSet::new();
        let mut first_probe = Duration::ZERO;
        for (settings, server) in checked(snapshot) {
            let key = (server.state.pool.clone(), server.state.name.clone());
            wanted.insert(key.clone());
            let before = self.running.get(&key).filter(|running| Arc::ptr_eq(&running.server, &server.state));
            if before.is_some_and(|running| running.settings == settings) {
                continue;
            }
            let moved = before.is_some_and(|running| running.settings.address != settings.address);
            if let Some(old) = self.running.remove(&key) {
                old.stop.cancel();
            }
            // Another machine under the same name, or nobody who would ever find it healthy again.
            if moved || (settings.check == Check::None && !server.state.is_healthy()) {
                server.state.forget_health(settings.check.starts_up());
            } else if settings.check == Check::None {
                server.state.forget_words();
            }
            let running = self.start(&server.state, settings, first_probe);
            self.running.insert(key, running);
            first_probe += Duration::from_secs(1) / FIRST_PROBES_A_SECOND;
        }
        self.running.retain(|key, running| {
            let keep = wanted.contains(key);
            if !keep {
                running.stop.cancel();
            }
            keep
        });
    }

    fn start(&self, server: &Arc<State>, settings: Settings, delay: Duration) -> Running {
        let stop = self.tasks.stopping().child_token();
        let Settings { address: _, place: address, check, announce, source } = settings.clone();
        if check != Check::None {
            let probes = Arc::clone(&self.probes);
            let checker = Checker { server: Arc::clone(server), address, check, announce, source, delay, probes };
            self.tasks.spawn("checker", checker.run(self.found.clone(), stop.clone()));
        }
        Running { server: Arc::clone(server), settings, stop }
    }
}

/// Whether one can connect from an address to this place.
fn reaches(source: IpAddr, place: &ServerAddr) -> bool {
    match &place.0 {
        Endpoint::Tcp(place) => place.is_ipv4() == source.is_ipv4(),
        Endpoint::Unix(_) => false,
    }
}

/// Every server with the settings of its check.
fn checked(snapshot: &Snapshot) -> impl Iterator<Item = (Settings, &Server)> {
    snapshot.model.pools.iter().filter_map(|model| Some((model, snapshot.pool(&model.name)?))).flat_map(
        |(model, pool)| {
            let own: HashMap<&Name, &ServerAddr> = model
                .servers
                .iter()
                .filter_map(|server| Some((&server.name, server.check_address.as_ref()?)))
                .collect();
            pool.pool.servers().map(move |server| {
                let address = server.address.clone();
                let place = match (own.get(&server.state.name), model.check.active()) {
                    (Some(place), _) => ServerAddr::clone(place),
                    (None, Some(active)) => active.place(&address),
                    (None, None) => address.clone(),
                };
                let settings = Settings {
                    // Whoever listens elsewhere knows nothing of what traffic says first.
                    announce: model.announce.filter(|_| place == address),
                    address,
                    // Whoever is in maintenance is left alone.
                    check: if server.duty == Duty::Maintenance { Check::None } else { model.check.clone() },
                    source: pool.pool.first_source(server).filter(|source| reaches(*source, &place)),
                    place,
                };
                (settings, server)
            })
        },
    )
}
