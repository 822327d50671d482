//! What should be: plain maps, and looking at everything. Slow and obvious on purpose.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use portreeve::balance::Policy;

use super::asked::{Asked, AskedPool, AskedServer};

/// A server for as long as its names stay in the configuration; one that was removed and comes back is another.
pub(crate) type Id = u64;
/// The names of a pool and a server.
pub(crate) type Key = (&'static str, String);

/// Whether it is that of backup servers, and else which.
type Level = (bool, u8);

fn level(server: &AskedServer) -> Level {
    if server.backup { (true, 0) } else { (false, server.priority) }
}

/// One generation: what is asked for, and who that is.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) pools: Vec<(AskedPool, Vec<Id>)>,
}

impl View {
    pub(crate) fn pool(&self, name: &str) -> Option<(&AskedPool, &[Id])> {
        self.pools.iter().find(|(pool, _)| pool.name == name).map(|(pool, ids)| (pool, &ids[..]))
    }

    /// Every server with its pool.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&AskedPool, &AskedServer, Id)> {
        self.pools.iter().flat_map(|(pool, ids)| pool.servers.iter().zip(ids).map(move |(s, id)| (pool, s, *id)))
    }

    pub(crate) fn member(&self, wanted: Id) -> Option<(&AskedPool, &AskedServer)> {
        self.members().find(|(_, _, id)| *id == wanted).map(|(pool, server, _)| (pool, server))
    }
}

/// What is known of a server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) key: Key,
    pub(crate) active: u32,
    pub(crate) up: bool,
    pub(crate) tested: bool,
    /// What was seen when it last changed.
    pub(crate) reason: String,
    /// Every result since its checker started or its state changed.
    results: Vec<bool>,
    /// Failures that traffic met and the checker has not heard of.
    pub(crate) unheard: u32,
}

/// Picks in a row among the same open servers.
#[derive(Default)]
struct Stretch {
    open: Vec<Id>,
    picks: VecDeque<Id>,
}

pub(crate) struct Naive {
    pub(crate) view: Rc<View>,
    next: Id,
    pub(crate) servers: HashMap<Id, Server>,
    /// Connections made by each name, which outlive a server for as long as anything of it is left.
    pub(crate) connections: HashMap<Key, u64>,
    stretches: HashMap<(&'static str, Level), Stretch>,
    last_picked: HashMap<Id, usize>,
    picks: usize,
    /// How often an exact rotation was seen, a choice of the least loaded, and one within a bound, so that nobody trusts a
    /// check that never ran.
    pub(crate) rotations_seen: usize,
    pub(crate) minima_seen: usize,
    pub(crate) bounds_seen: usize,
}

impl Naive {
    pub(crate) fn new() -> Self {
        Self {
            view: Rc::new(View { pools: Vec::new() }),
            next: 0,
            servers: HashMap::new(),
            connections: HashMap::new(),
            stretches: HashMap::new(),
            last_picked: HashMap::new(),
            picks: 0,
            rotations_seen: 0,
            minima_seen: 0,
            bounds_seen: 0,
        }
    }

    /// The next generation: who keeps both names is the same as before. `left` says of whom anything is left.
    pub(crate) fn plan(&mut self, asked: &Asked, left: impl Fn(Id) -> bool) -> View {
        let mut pools = Vec::new();
        for pool in &asked.pools {
            let mut ids = Vec::new();
            for server in &pool.servers {
                let key = (pool.name, server.name());
                let known = self.view.members().find(|(p, s, _)| (p.name, s.name()) == key).map(|(_, _, id)| id);
                ids.push(known.unwrap_or_else(|| self.add(key, &left)));
            }
            pools.push((pool.clone(), ids));
        }
        View { pools }
    }

    fn add(&mut self, key: Key, left: impl Fn(Id) -> bool) -> Id {
        if !self.servers.iter().any(|(id, server)| server.key == key && left(*id)) {
            self.connections.insert(key.clone(), 0);
        }
        self.next += 1;
        let server = Server {
            key,
            active: 0,
            up: true,
            tested: false,
            reason: "not checked yet".to_owned(),
            results: Vec::new(),
            unheard: 0,
        };
        self.servers.insert(self.next, server);
        self.next
    }

    /// This is what is in effect from now on.
    pub(crate) fn publish(&mut self, view: Rc<View>) {
        for (pool, server, id) in view.members() {
            let before = self.view.member(id).map(|(pool, server)| (pool.check, server.port));
            if before == Some((pool.check, server.port)) {
                continue;
            }
            let known = self.servers.get_mut(&id).unwrap();
            known.results.clear();
            known.unheard = 0;
            let moved = before.is_some_and(|(_, port)| port != server.port);
            if moved || (pool.check.is_none() && !known.up) {
                known.up = true;
                known.tested = false;
                known.reason = "not checked yet".to_owned();
            }
        }
        self.view = view;
        self.stretches.clear();
        self.last_picked.clear();
    }

    /// Whether so few servers of a pool are fit that nobody asks whether they are.
    pub(crate) fn fails_open(&self, view: &View, pool: &str) -> bool {
        let (pool, ids) = view.pool(pool).unwrap();
        let wanted = || pool.servers.iter().zip(ids).filter(|(server, _)| server.weight > 0 && server.ready);
        let fit = wanted().filter(|(_, id)| self.servers[id].up).count();
        fit * 100 < pool.fail_open * wanted().count()
    }

    /// Who may be picked now: the servers that are open, of the first level where some are.
    pub(crate) fn eligible(&self, view: &View, pool: &str, tried: &[Id]) -> Vec<Id> {
        let (pool, ids) = view.pool(pool).unwrap();
        let blind = self.fails_open(view, pool.name);
        let active: u32 = ids.iter().map(|id| self.servers[id].active).sum();
        if pool.max_connections > 0 && active >= pool.max_connections {
            return Vec::new();
        }
        let mut levels: Vec<Level> = pool.servers.iter().map(level).collect();
        levels.sort_unstable();
        for this in levels {
            let tier = pool.servers.iter().zip(ids).filter(|(server, _)| level(server) == this);
            let open: Vec<Id> = tier
                .filter(|(server, id)| {
                    let known = &self.servers[id];
                    let room = server.max_connections == 0 || known.active < server.max_connections;
                    server.weight > 0 && server.ready && (known.up || blind) && room && !tried.contains(id)
                })
                .map(|(_, id)| *id)
                .collect();
            if !open.is_empty() {
                return open;
            }
        }
        Vec::new()
    }

    /// The pool in effect was asked in vain: turns were passed over.
    pub(crate) fn judge_nobody(&mut self, pool: &str) {
        self.stretches.retain(|(name, _), _| *name != pool);
    }

    /// The pool in effect picked `id` of those that were `eligible`. Whether that is the algorithm's word kept.
    pub(crate) fn judge(&mut self, pool: &str, tried: &[Id], eligible: &[Id], id: Id) {
        let view = Rc::clone(&self.view);
        let (pool, ids) = view.pool(pool).unwrap();
        let asked = |id: Id| pool.servers.iter().zip(ids).find(|(_, other)| **other == id).unwrap().0;
        self.picks += 1;
        match &pool.balance {
            Policy::RoundRobin => self.judge_rotation(pool, ids, tried, eligible, id),
            // Then the ranking is not asked, which knows those that are fit.
            Policy::LeastConn if self.fails_open(&view, pool.name) => {}
            Policy::LeastConn => {
                let load = |id: &Id| (u64::from(self.servers[id].active) + 1, u64::from(asked(*id).weight));
                let (mine, weight) = load(&id);
                for other in eligible {
                    let (others, its) = load(other);
                    assert!(mine * its <= others * weight, "{other} has less to do for its weight than {id}");
                    if mine * its == others * weight {
                        assert!(
                            self.last_picked.get(&id) <= self.last_picked.get(other),
                            "{other} was picked longer ago than {id}, of equal load"
                        );
                    }
                }
                self.minima_seen += usize::from(eligible.len() > 1);
                self.last_picked.insert(id, self.picks);
            }
            Policy::SourceHash(_) | Policy::Maglev { .. } | Policy::RingHash(_)
                // A pool that fails open goes by the shares of those that are fit.
                if tried.is_empty() && eligible.iter().all(|id| self.servers[id].up) =>
            {
                let active: u64 = eligible.iter().map(|id| u64::from(self.servers[id].active)).sum();
                let weight: u64 = eligible.iter().map(|id| u64::from(asked(*id).weight)).sum();
                let most = (5 * (active + 1) * u64::from(asked(id).weight)).div_ceil(4 * weight).max(8);
                assert!(u64::from(self.servers[&id].active) < most, "{id} had its share, {most}, already");
                self.bounds_seen += usize::from(eligible.len() > 1 && active > 8);
            }
            Policy::SourceHash(_) | Policy::Maglev { .. } | Policy::RingHash(_) => {}
            Policy::Random | Policy::P2c | Policy::PeakEwma { .. } => {}
        }
    }

    /// While the same servers are open, each has exactly its turns in any stretch as long as a rotation; while all are, it
    /// is never two turns from its share in a shorter one either.
    fn judge_rotation(&mut self, pool: &AskedPool, ids: &[Id], tried: &[Id], open: &[Id], id: Id) {
        let own =
            pool.servers.iter().zip(ids).find(|(_, other)| **other == id).map(|(server, _)| level(server)).unwrap();
        // Turns of the levels before it were passed over.
        self.stretches.retain(|(name, other), _| *name != pool.name || *other >= own);
        let stretch = self.stretches.entry((pool.name, own)).or_default();
        if !tried.is_empty() || stretch.open != open {
            *stretch = Stretch { open: open.to_vec(), picks: VecDeque::new() };
        }
        if !tried.is_empty() {
            return;
        }
        stretch.picks.push_back(id);
        let tier: Vec<(u64, Id)> = pool
            .servers
            .iter()
            .zip(ids)
            .filter(|(server, _)| level(server) == own && server.weight > 0 && server.ready)
            .map(|(server, id)| (u64::from(server.weight), *id))
            .collect();
        let common = (1..=1000).rev().find(|n| tier.iter().all(|(weight, _)| weight % n == 0)).unwrap();
        let turns = |is_open: bool| {
            tier.iter()
                .filter(move |(_, id)| open.contains(id) == is_open)
                .map(move |(weight, id)| (weight / common, *id))
        };
        let rotation: u64 = turns(true).map(|(turns, _)| turns).sum();
        let closed: u64 = turns(false).map(|(turns, _)| turns).sum();
        // So many closed turns can follow each other that the algorithm counts the open ones out instead; and a long
        // rotation takes long to look at.
        if closed >= 64 || rotation > 200 {
            return;
        }
        if stretch.picks.len() as u64 > rotation {
            stretch.picks.pop_front();
        }
        let seen = stretch.picks.len() as u64;
        for (turns, id) in turns(true) {
            let count = stretch.picks.iter().filter(|picked| **picked == id).count() as u64;
            if seen == rotation {
                assert_eq!(count, turns, "{id} has {turns} turns in a rotation of {rotation}: {:?}", stretch.picks);
                self.rotations_seen += 1;
            } else if closed == 0 {
                let off = (count * rotation).abs_diff(seen * turns);
                assert!(off < 2 * rotation, "{id} had {count} of {seen} picks, with {turns} turns of {rotation}");
            }
        }
    }

    /// A probe came back. `Some` is a change of state.
    pub(crate) fn probed(&mut self, id: Id, passed: bool, (rise, fall): (u32, u32)) -> Option<bool> {
        let server = self.servers.get_mut(&id).unwrap();
        let first = !server.tested;
        server.tested = true;
        let needed = match server.up {
            true if first => 1,
            true => fall,
            false => rise,
        };
        if first && server.up {
            server.reason = if passed { "passed its first check" } else { "failed its first check" }.to_owned();
        }
        server.results.push(passed);
        self.settle(id, needed)
    }

    /// The checker heard of failures in traffic: each is a failed result while the server is up, and none while it is down.
    pub(crate) fn heard(&mut self, id: Id, fall: u32) -> Option<bool> {
        let server = self.servers.get_mut(&id).unwrap();
        let failures = std::mem::take(&mut server.unheard);
        if !server.up {
            return None;
        }
        server.results.extend((0..failures).map(|_| false));
        self.settle(id, fall)
    }

    /// Results at the end of the list that speak against the present state.
    pub(crate) fn against(&self, id: Id) -> u32 {
        let server = &self.servers[&id];
        server.results.iter().rev().take_while(|passed| **passed != server.up).count() as u32
    }

    fn settle(&mut self, id: Id, needed: u32) -> Option<bool> {
        if self.against(id) < needed.max(1) {
            return None;
        }
        let server = self.servers.get_mut(&id).unwrap();
        server.up = !server.up;
        server.results.clear();
        Some(server.up)
    }
}
