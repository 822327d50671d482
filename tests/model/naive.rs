//! What should be: plain maps, and looking at everything. Slow and obvious on purpose.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use portreeve::balance::Policy;
use tokio::time::Instant;

use super::asked::{Asked, AskedPool, AskedServer};
use super::reign::{Candidate, Reign};
pub(crate) use shares::Shares;

mod shares;

/// A server for as long as its names stay in the configuration; one that was removed and comes back is another.
pub(crate) type Id = u64;
/// The names of a pool and a server.
pub(crate) type Key = (&'static str, String);

/// Whether it is that of backup servers, and else which.
type Level = (bool, u8);
/// Those of a level that nothing but the algorithm chooses among: whether they stand elsewhere than we do.
type Group = (Level, bool);

fn level(server: &AskedServer) -> Level {
    if server.backup { (true, 0) } else { (false, server.priority) }
}

/// Which of a level are asked first.
#[derive(Clone, Copy, PartialEq)]
enum Preference {
    /// Those of our zone, all of which stand here or nowhere else.
    Ours,
    Others,
    /// Ours are as likely as that.
    Chance(f64),
    /// Nobody says: they all stand here, or elsewhere.
    Neither,
}

/// One generation: what is asked for, and who that is.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) zone: Option<&'static str>,
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

    /// A server among those of its pool.
    fn group(&self, server: &AskedServer) -> Group {
        (level(server), self.zone.is_none() || server.zone != self.zone)
    }

    /// Whether some of a server's level stand here and some do not.
    pub(crate) fn splits(&self, pool: &AskedPool, server: &AskedServer) -> bool {
        let is = |ours: bool| pool.servers.iter().any(|other| self.group(other) == (level(server), !ours));
        is(true) && is(false)
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
    /// Whether it stands by for the primary.
    pub(crate) standby: bool,
    /// Whether it says it is the primary, if it says anything.
    pub(crate) role: Option<bool>,
    /// Since when it has its part of the traffic only.
    warm_since: Option<Instant>,
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
    stretches: HashMap<(&'static str, Group), Stretch>,
    reigns: HashMap<&'static str, Reign>,
    last_picked: HashMap<Id, usize>,
    /// Who may have been chosen since and refused, as servers that are warming do, which an algorithm takes for a pick.
    perhaps_chosen: HashSet<Id>,
    picks: usize,
    /// How often an exact rotation was seen, a choice of the least loaded, and one within a bound, so that nobody trusts a
    /// check that never ran.
    pub(crate) rotations_seen: usize,
    pub(crate) minima_seen: usize,
    pub(crate) bounds_seen: usize,
    /// And that a server of our zone was preferred, and that one with its part already was passed over.
    pub(crate) preferences_seen: usize,
    pub(crate) parts_seen: usize,
    pub(crate) shares: Shares,
}

impl Naive {
    pub(crate) fn new() -> Self {
        Self {
            view: Rc::new(View { zone: None, pools: Vec::new() }),
            next: 0,
            servers: HashMap::new(),
            connections: HashMap::new(),
            stretches: HashMap::new(),
            reigns: HashMap::new(),
            last_picked: HashMap::new(),
            perhaps_chosen: HashSet::new(),
            picks: 0,
            rotations_seen: 0,
            minima_seen: 0,
            bounds_seen: 0,
            preferences_seen: 0,
            parts_seen: 0,
            shares: Shares::default(),
        }
    }

    /// The next generation: who keeps both names is the same as before. `left` says of whom anything is left.
    pub(crate) fn plan(&mut self, asked: &Asked, left: impl Fn(Id) -> bool) -> View {
        let mut pools = Vec::new();
        for pool in &asked.pools {
            let known = |server: &AskedServer| {
                let key = (pool.name, server.name());
                self.view.members().find(|(p, s, _)| (p.name, s.name()) == key).map(|(_, _, id)| id)
            };
            let known: Vec<Option<Id>> = pool.servers.iter().map(known).collect();
            let joins = known.iter().any(Option::is_some);
            let mut ids = Vec::new();
            for (server, known) in pool.servers.iter().zip(known) {
                let id = known.unwrap_or_else(|| self.add((pool.name, server.name()), &left));
                if known.is_none() && joins {
                    self.warm_up(id);
                }
                ids.push(id);
            }
            pools.push((pool.clone(), ids));
        }
        View { zone: asked.zone, pools }
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
            standby: false,
            role: None,
            warm_since: None,
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
            if server.ready && self.view.member(id).is_some_and(|(_, before)| !before.ready) {
                self.warm_up(id);
            }
            let before = self.view.member(id).map(|(pool, server)| (pool.check, pool.asks_roles(), server.port));
            if before == Some((pool.check, pool.asks_roles(), server.port)) {
                continue;
            }
            let known = self.servers.get_mut(&id).unwrap();
            known.results.clear();
            known.unheard = 0;
            let moved = before.is_some_and(|(_, _, port)| port != server.port);
            if moved || !pool.asks_roles() {
                known.role = None;
            }
            if moved || (pool.check.is_none() && !known.up) {
                known.up = true;
                known.tested = false;
                known.reason = "not checked yet".to_owned();
            }
        }
        self.view = view;
        self.stretches.clear();
        self.last_picked.clear();
        self.perhaps_chosen.clear();
        let view = Rc::clone(&self.view);
        self.reigns.retain(|name, _| view.pool(name).is_some_and(|(pool, _)| pool.primary.is_some()));
        for (pool, _, id) in view.members() {
            // Whoever has stood by does so until somebody looks.
            let primary = self.reigns.get(pool.name).and_then(|reign| reign.primary);
            self.servers.get_mut(&id).unwrap().standby |= pool.primary.is_some() && primary != Some(id);
        }
    }

    /// Looks who is the primary of a pool. Returns who was and is no longer.
    pub(crate) fn look(&mut self, pool: &str) -> Option<Id> {
        let view = Rc::clone(&self.view);
        let (pool, ids) = view.pool(pool)?;
        let Some(how) = pool.primary else {
            ids.iter().for_each(|id| self.servers.get_mut(id).unwrap().standby = false);
            return None;
        };
        let mut all: Vec<(Group, usize)> =
            pool.servers.iter().enumerate().map(|(at, server)| (view.group(server), at)).collect();
        all.sort_unstable();
        let candidate = |(_, at): &(Group, usize)| {
            let (server, known) = (&pool.servers[*at], &self.servers[&ids[*at]]);
            let is_fit = server.weight > 0 && server.ready && known.up;
            Candidate { id: ids[*at], is_fit, claims: known.role == Some(true) }
        };
        let candidates: Vec<Candidate> = all.iter().map(candidate).collect();
        let reign = self.reigns.entry(pool.name).or_default();
        let deposed = reign.look(how, &candidates);
        let primary = reign.primary;
        for id in ids {
            self.servers.get_mut(id).unwrap().standby = primary != Some(*id);
        }
        deposed
    }

    fn warm_up(&mut self, id: Id) {
        self.servers.get_mut(&id).unwrap().warm_since = Some(Instant::now());
    }

    /// The part of its share that a server has while it is warming, as milliseconds are told apart; nothing once it is warm.
    fn warmth(&self, pool: &AskedPool, id: Id) -> Option<f64> {
        let elapsed = self.servers[&id].warm_since?.elapsed().as_millis() as u64;
        (elapsed < pool.slow_start + 2).then(|| ((elapsed + 2) as f64 / pool.slow_start as f64).max(0.1))
    }

    /// Whether so few servers of a pool are fit that nobody asks whether they are.
    pub(crate) fn fails_open(&self, view: &View, pool: &str) -> bool {
        let (pool, ids) = view.pool(pool).unwrap();
        let wanted = || pool.servers.iter().zip(ids).filter(|(server, _)| server.weight > 0 && server.ready);
        let fit = wanted().filter(|(_, id)| self.servers[id].up && !self.servers[id].standby).count();
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
            let tier = || pool.servers.iter().zip(ids).filter(move |(server, _)| level(server) == this);
            let is_open = |(server, id): &(&AskedServer, &Id)| {
                let known = &self.servers[*id];
                let room = server.max_connections == 0 || known.active < server.max_connections;
                let fit = (known.up || blind) && !known.standby;
                server.weight > 0 && server.ready && fit && room && !tried.contains(id)
            };
            let open = |is_ours: bool| -> Vec<Id> {
                let own = tier().filter(|(server, _)| view.group(server).1 != is_ours);
                own.filter(is_open).map(|(_, id)| *id).collect()
            };
            let (ours, others) = (open(true), open(false));
            let open = match self.preference(view, &tier().collect::<Vec<_>>(), blind) {
                Preference::Ours if !ours.is_empty() => ours,
                Preference::Others if !others.is_empty() => others,
                Preference::Ours | Preference::Others | Preference::Chance(_) | Preference::Neither => {
                    [ours, others].concat()
                }
            };
            if !open.is_empty() {
                return open;
            }
        }
        Vec::new()
    }

    /// Which servers of a level are asked first: those of our zone while they are as large a part of it as one zone is of all,
    /// and else the smaller a part of the traffic the smaller a part they are.
    fn preference(&self, view: &View, level: &[(&AskedServer, &Id)], blind: bool) -> Preference {
        let is_ours = |server: &AskedServer| !view.group(server).1;
        let weight = |(server, id): &(&AskedServer, &Id)| {
            let known = &self.servers[*id];
            let counts = blind || server.ready && known.up && !known.standby;
            if counts { usize::from(server.weight) } else { 0 }
        };
        // What an older pool knows of its servers all together is as old as the newer pool.
        if !std::ptr::eq(view, &*self.view) {
            return Preference::Neither;
        }
        if level.iter().all(|(server, _)| is_ours(server)) || !level.iter().any(|(server, _)| is_ours(server)) {
            return Preference::Neither;
        }
        let all: usize = level.iter().map(weight).sum();
        let ours: usize = level.iter().filter(|(server, _)| is_ours(server)).map(weight).sum();
        let zones = level.iter().map(|(server, _)| server.zone).collect::<std::collections::HashSet<_>>().len();
        match () {
            () if ours * zones >= all => Preference::Ours,
            () if ours == 0 => Preference::Others,
            () => Preference::Chance((ours * zones) as f64 / all as f64),
        }
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
        let group = view.group(asked(id));
        let own: Vec<Id> = eligible.iter().copied().filter(|other| view.group(asked(*other)) == group).collect();
        if own.len() < eligible.len() {
            let level: Vec<_> = pool.servers.iter().zip(ids).filter(|(server, _)| level(server) == group.0).collect();
            if let Preference::Chance(chance) = self.preference(&view, &level, self.fails_open(&view, pool.name)) {
                self.tally_near(chance, !group.1);
            }
        }
        let elsewhere = ids.iter().any(|other| view.group(asked(*other)) == (group.0, true));
        self.preferences_seen += usize::from(!group.1 && elsewhere && own.len() == eligible.len());
        let eligible = &own[..];
        self.picks += 1;
        if eligible.iter().any(|id| self.warmth(pool, *id).is_some()) {
            self.judge_warmth(&view, pool, ids, eligible, id);
            self.tally_warming(&view, pool, ids, eligible, id);
            self.stretches.retain(|(name, _), _| *name != pool.name);
            self.last_picked.insert(id, self.picks);
            self.perhaps_chosen.extend(eligible);
            return;
        }
        match &pool.balance {
            Policy::RoundRobin => self.judge_rotation(&view, pool, ids, tried, eligible, id),
            // Then the ranking is not asked, which knows those that are fit.
            Policy::LeastConn if self.fails_open(&view, pool.name) => {}
            Policy::LeastConn => {
                let load = |id: &Id| (u64::from(self.servers[id].active) + 1, u64::from(asked(*id).weight));
                let (mine, weight) = load(&id);
                for other in eligible {
                    let (others, its) = load(other);
                    assert!(mine * its <= others * weight, "{other} has less to do for its weight than {id}");
                    let is_told = [id, *other].iter().all(|id| !self.perhaps_chosen.contains(id));
                    if is_told && mine * its == others * weight {
                        assert!(
                            self.last_picked.get(&id) <= self.last_picked.get(other),
                            "{other} was picked longer ago than {id}, of equal load"
                        );
                    }
                }
                self.minima_seen += usize::from(eligible.len() > 1);
                self.last_picked.insert(id, self.picks);
                self.perhaps_chosen.remove(&id);
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
    fn judge_rotation(&mut self, view: &View, pool: &AskedPool, ids: &[Id], tried: &[Id], open: &[Id], id: Id) {
        let group = |server: &AskedServer| view.group(server);
        let own =
            pool.servers.iter().zip(ids).find(|(_, other)| **other == id).map(|(server, _)| group(server)).unwrap();
        // Turns of the levels before it were passed over, and perhaps those of the other zones.
        self.stretches.retain(|(name, other), _| *name != pool.name || *other == own || other.0 > own.0);
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
            .filter(|(server, _)| group(server) == own && server.weight > 0 && server.ready)
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

    /// A server that is warming is picked while it carries less than its part of what others carry, or nothing, or where
    /// nobody else is there to take it.
    fn judge_warmth(&mut self, view: &View, pool: &AskedPool, ids: &[Id], eligible: &[Id], id: Id) {
        let asked = |id: Id| pool.servers.iter().zip(ids).find(|(_, other)| **other == id).unwrap().0;
        let Some(part) = self.warmth(pool, id).filter(|part| *part < 1.0) else { return };
        // So many are asked at most before the first of them has to take it.
        let is_warm = |other: &Id| self.warmth(pool, *other).is_none();
        let others_can = eligible.len() <= 8 && eligible.iter().any(is_warm);
        let active = self.servers[&id].active;
        if !others_can || self.fails_open(view, pool.name) {
            return;
        }
        let group = view.group(asked(id));
        let load = self.mean_load(view, pool, ids, group);
        let most = part * load * f64::from(asked(id).weight);
        assert!(
            active == 0 || f64::from(active) < most + 1e-6,
            "{id} has {active} connections and {most} are its part"
        );
        self.parts_seen += usize::from(active > 0);
    }

    /// Connections for each unit of weight of the servers of a group that are fit.
    fn mean_load(&self, view: &View, pool: &AskedPool, ids: &[Id], group: Group) -> f64 {
        let fit = pool.servers.iter().zip(ids).filter(|(server, id)| {
            let known = &self.servers[*id];
            view.group(server) == group && server.weight > 0 && server.ready && known.up && !known.standby
        });
        let (load, weight) = fit.fold((0.0, 0.0), |(load, weight), (server, id)| {
            (load + f64::from(self.servers[id].active), weight + f64::from(server.weight))
        });
        if weight > 0.0 { load / weight } else { 0.0 }
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
        let up = server.up;
        if up {
            self.warm_up(id);
        }
        Some(up)
    }
}
