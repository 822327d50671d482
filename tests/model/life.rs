//! Ten thousand steps in the life of pools: connections come and go, servers die and recover, the configuration changes.
//!
//! The pools, states, streaks and snapshots are the real ones. What this file does in their stead is what their callers do:
//! connections retry as `proxy::connection` does, checkers are kept or started anew by the rules of `app::checkers`, and
//! probes find what the world says. After each step everything must be as in [`Naive`].

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use portreeve::app::{Known, Primaries, duty_changes};
use portreeve::backend::{Duty, Lease, Role, State};
use portreeve::config::model::Model;
use portreeve::config::{Environment, load_text};
use portreeve::ending::Reason;
use portreeve::health::{Change, Check, Initial, Streak};
use portreeve::metrics::Catalogue;
use portreeve::pool::{Picked, Tried};
use portreeve::snapshot::{Published, Snapshot};
use portreeve::units::Name;
use tokio::time::{Instant, advance};

use super::asked::Asked;
use super::found::{Answers, merged};
use super::naive::{Id, Naive, Shares, View};
use super::seeds;

const STEPS: usize = 10_000;
/// Connections held at once, at most.
const MOST_HELD: usize = 60;

#[tokio::test(start_paused = true)]
async fn pools_health_and_reloads_do_what_a_naive_model_says() {
    let (mut rotations, mut minima, mut bounds, mut reloads, mut changes) = (0, 0, 0, 0, 0);
    let (mut preferences, mut parts, mut answers, mut successions) = (0, 0, 0, 0);
    let mut shares = Shares::default();
    for (seed, _witness) in seeds::all("pools_health_and_reloads_do_what_a_naive_model_says", seeds::MANY) {
        let mut life = Life::new(Rng::with_seed(seed));
        for _ in 0..STEPS {
            life.step().await;
            life.check_step();
        }
        rotations += life.naive.rotations_seen;
        minima += life.naive.minima_seen;
        bounds += life.naive.bounds_seen;
        preferences += life.naive.preferences_seen;
        parts += life.naive.parts_seen;
        shares.join(&life.naive.shares);
        answers += life.answers_followed;
        successions += life.successions;
        reloads += life.published.load().generation;
        changes += life.changes;
        life.end();
    }
    println!(
        "{reloads} generations, {changes} changes of health, {rotations} exact turns, {minima} least loaded, \
         {bounds} within a bound, {preferences} near, {parts} within their part, {answers} answers with news, \
         {successions} successions"
    );
    let mut seen = vec![rotations, minima, bounds, preferences, parts, answers, successions];
    for (what, tally) in shares.tallies() {
        println!("{what}: {tally}");
        assert!(tally.is_likely(), "{what}: {tally}");
        seen.push(tally.chances);
    }
    let seen = seen.iter().all(|seen| *seen > 50);
    assert!(seeds::is_replay() || seen && reloads > 50 && changes > 50, "the model was hardly ever asked");
}

/// Everything that is, beside what should be.
pub(crate) struct Life {
    pub(crate) random: Rng,
    /// What the file asks for, and its model.
    pub(crate) asked: Asked,
    pub(crate) plain: Model,
    /// The same with the servers that were found.
    pub(crate) merged: Asked,
    pub(crate) known: Known,
    pub(crate) answers: Answers,
    pub(crate) answers_followed: usize,
    pub(crate) primaries: Primaries,
    pub(crate) successions: usize,
    pub(crate) naive: Naive,
    pub(crate) published: Published,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) states: HashMap<Id, Weak<State>>,
    checkers: HashMap<Id, Checker>,
    held: Vec<(Id, Lease)>,
    slow: Vec<Slow>,
    retired: Vec<Weak<Snapshot>>,
    /// Ports nobody answers on.
    dead: HashSet<u16>,
    /// Ports of those who say that they are the primary.
    masters: HashSet<u16>,
    changes: usize,
}

/// What a checker has, and when it probes next.
struct Checker {
    streak: Streak,
    rise_and_fall: (u32, u32),
    asks_roles: bool,
    port: u16,
    due: Instant,
}

/// A connection that is set up by the snapshot of its beginning, whatever is published meanwhile.
struct Slow {
    snapshot: Arc<Snapshot>,
    view: Rc<View>,
    pool: &'static str,
    tried: Tried,
    tried_ids: Vec<Id>,
}

/// What came of one attempt to connect.
enum Attempt {
    Connected,
    Failed,
    NoServer,
}

fn load(text: &str) -> Model {
    let environment = Environment { descriptor_limit: 65_536, cores: 2 };
    load_text(text, "model.toml", Path::new("/"), &environment)
        .unwrap_or_else(|problems| panic!("{}\n{text}", problems.human(false)))
        .model
}

impl Life {
    fn new(mut random: Rng) -> Self {
        let asked = Asked::any(&mut random);
        let catalogue = Catalogue::new(1);
        let plain = load(&asked.text(&mut random));
        let first = Snapshot::build(plain.clone(), None, &catalogue);
        let mut life = Self {
            random,
            naive: Naive::new(),
            published: Published::from_pointee(first),
            catalogue,
            states: HashMap::new(),
            checkers: HashMap::new(),
            held: Vec::new(),
            slow: Vec::new(),
            retired: Vec::new(),
            dead: HashSet::new(),
            masters: HashSet::new(),
            changes: 0,
            plain,
            merged: asked.clone(),
            known: Known::default(),
            answers: Answers::new(),
            answers_followed: 0,
            primaries: Primaries::default(),
            successions: 0,
            asked,
        };
        let view = life.naive.plan(&life.asked, |_| false);
        life.primaries.prepare(&life.published.load());
        life.published.load().take_over();
        life.take_effect(view);
        life.elect();
        life
    }

    async fn step(&mut self) {
        let crowded = self.held.len() >= MOST_HELD;
        match self.random.u16(..1000) {
            0..330 if !crowded => self.connect(),
            0..560 => self.release(),
            560..640 => self.burst(),
            640..690 => self.world_changes(),
            690..800 => self.time_passes().await,
            800..860 => self.checkers_listen(),
            860..900 => self.slow_connection_begins(),
            900..960 => self.slow_connection_goes_on(),
            960..968 => self.reload(true),
            968..971 => self.reload(false),
            973..981 => self.hears_of_servers(),
            971..973 => self.held.drain(..).for_each(|(id, lease)| release(&mut self.naive, id, lease)),
            _ => {}
        }
    }

    fn any_pool(&mut self) -> &'static str {
        let view = &self.naive.view;
        view.pools[self.random.usize(..view.pools.len())].0.name
    }

    /// A connection that is set up between two events.
    fn connect(&mut self) {
        let pool = self.any_pool();
        let (snapshot, view) = (self.published.load_full(), Rc::clone(&self.naive.view));
        let mut slow = Slow { snapshot, view, pool, tried: Tried::new(), tried_ids: Vec::new() };
        while let Attempt::Failed = self.attempt(&mut slow, true) {}
    }

    fn slow_connection_begins(&mut self) {
        if self.slow.len() < 4 {
            let pool = self.any_pool();
            let (snapshot, view) = (self.published.load_full(), Rc::clone(&self.naive.view));
            self.slow.push(Slow { snapshot, view, pool, tried: Tried::new(), tried_ids: Vec::new() });
        }
    }

    fn slow_connection_goes_on(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        let at = self.random.usize(..self.slow.len());
        let mut slow = self.slow.swap_remove(at);
        let is_current = Arc::ptr_eq(&slow.snapshot, &self.published.load());
        match self.attempt(&mut slow, is_current) {
            Attempt::Failed => self.slow.push(slow),
            Attempt::Connected | Attempt::NoServer => drop(slow),
        }
    }

    /// Picks, and connects if the world lets it; [`Attempt::Failed`] if another server may be tried.
    fn attempt(&mut self, slow: &mut Slow, is_current: bool) -> Attempt {
        let Some((id, lease)) = self.pick(slow, is_current) else {
            return Attempt::NoServer;
        };
        let (pool, server) = slow.view.member(id).unwrap();
        let state = Arc::clone(lease.server());
        if !self.dead.contains(&server.port) {
            state.metrics().connected(0, Duration::from_millis(1));
            *self.naive.connections.get_mut(&self.naive.servers[&id].key).unwrap() += 1;
            self.held.push((id, lease));
            return Attempt::Connected;
        }
        state.metrics().connect_failed(0, Reason::ALL[0]);
        state.report_failure();
        self.naive.servers.get_mut(&id).unwrap().unheard += 1;
        release(&mut self.naive, id, lease);
        slow.tried.add(&state);
        slow.tried_ids.push(id);
        if slow.tried_ids.len() > pool.retries { Attempt::NoServer } else { Attempt::Failed }
    }

    /// One pick of the real pool, judged.
    fn pick(&mut self, slow: &Slow, is_current: bool) -> Option<(Id, Lease)> {
        let Slow { snapshot, view, pool, tried, tried_ids } = slow;
        // What an older pool knows of its servers all together is as old as the newer pool.
        let (asked, _) = view.pool(pool).unwrap();
        if !is_current && (asked.max_connections > 0 || asked.fail_open > 0) {
            return None;
        }
        let eligible = self.naive.eligible(view, pool, tried_ids);
        let Some(Picked { server, lease }) = snapshot.pool(&Name::new(pool)).unwrap().pool.pick(tried, None) else {
            assert!(eligible.is_empty(), "nobody was picked in {pool} though {eligible:?} may be");
            if is_current {
                self.naive.judge_nobody(pool);
            }
            return None;
        };
        let (asked, ids) = view.pool(pool).unwrap();
        let name = server.state.name.as_str();
        let place = asked.servers.iter().position(|server| server.name() == name).unwrap();
        let id = ids[place];
        assert!(std::ptr::eq(self.states[&id].as_ptr(), Arc::as_ptr(&server.state)), "{name} is not who it was");
        assert!(std::ptr::eq(self.states[&id].as_ptr(), Arc::as_ptr(lease.server())), "the lease is another's");
        assert!(eligible.contains(&id), "{id} was picked in {pool} and only {eligible:?} may be");
        assert_eq!(server.address.to_string(), asked.servers[place].address());
        if is_current {
            self.naive.judge(pool, tried_ids, &eligible, id);
        }
        let known = self.naive.servers.get_mut(&id).unwrap();
        known.active += 1;
        let limit = asked.servers[place].max_connections;
        assert!(limit == 0 || server.state.active() <= limit, "{id} has more than its {limit} connections");
        Some((id, lease))
    }

    fn release(&mut self) {
        if !self.held.is_empty() {
            let at = self.random.usize(..self.held.len());
            let (id, lease) = self.held.swap_remove(at);
            release(&mut self.naive, id, lease);
        }
    }

    /// Connections that end before the next begins, all among the same servers.
    fn burst(&mut self) {
        let pool = self.any_pool();
        let (snapshot, view) = (self.published.load_full(), Rc::clone(&self.naive.view));
        let slow = Slow { snapshot, view, pool, tried: Tried::new(), tried_ids: Vec::new() };
        for _ in 0..self.random.usize(1..40) {
            if let Some((id, lease)) = self.pick(&slow, true) {
                release(&mut self.naive, id, lease);
            }
        }
    }

    fn world_changes(&mut self) {
        let count = self.naive.view.members().count();
        let Some((_, server, _)) = self.naive.view.members().nth(self.random.usize(..count.max(1))) else { return };
        if self.random.u8(..3) == 0 && !self.masters.insert(server.port) {
            self.masters.remove(&server.port);
        }
        // More alive than dead, or nothing would ever be picked.
        if self.random.u8(..3) > 0 || !self.dead.insert(server.port) {
            self.dead.remove(&server.port);
        }
    }

    async fn time_passes(&mut self) {
        let end = Instant::now() + Duration::from_millis(self.random.u64(..1500));
        self.checkers_listen();
        loop {
            let probe = self.checkers.iter().map(|(id, checker)| (checker.due, *id)).min();
            let look = self.primaries.due();
            let Some(due) = probe.map(|(due, _)| due).into_iter().chain(look).min().filter(|due| *due <= end) else {
                break;
            };
            advance(due.saturating_duration_since(Instant::now())).await;
            match probe {
                Some((at, id)) if at == due => self.probe(id),
                Some(_) | None => self.look_at_due(),
            }
        }
        advance(end.saturating_duration_since(Instant::now())).await;
    }

    fn probe(&mut self, id: Id) {
        let checker = self.checkers.get_mut(&id).unwrap();
        let state = self.states[&id].upgrade().unwrap();
        let passed = !self.dead.contains(&checker.port);
        let (rise, fall) = checker.rise_and_fall;
        let change = checker.streak.probed(passed, rise, fall);
        let is_master = self.masters.contains(&checker.port);
        let role = if is_master { Role::Primary } else { Role::Replica };
        let is_told = passed && checker.asks_roles && state.role() != Some(role);
        state.set_tested(if passed { "passed its first check" } else { "failed its first check" });
        if is_told {
            state.set_role(Some(role));
            self.naive.servers.get_mut(&id).unwrap().role = Some(is_master);
            self.look(id);
        }
        let expected = self.naive.probed(id, passed, (rise, fall));
        self.settle(id, &state, change, expected, if passed { "the check passed" } else { "the check failed" });
    }

    /// Checkers hear of the failures that traffic met.
    fn checkers_listen(&mut self) {
        let mut ids: Vec<Id> = self.checkers.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let state = self.states[&id].upgrade().unwrap();
            let failures = failures(&state);
            assert_eq!(failures, self.naive.servers[&id].unheard, "{id}");
            if failures > 0 {
                let checker = self.checkers.get_mut(&id).unwrap();
                let (_, fall) = checker.rise_and_fall;
                let change = checker.streak.failed_in_traffic(failures, fall);
                let expected = self.naive.heard(id, fall);
                self.settle(id, &state, change, expected, "traffic failed to connect to it");
            }
        }
    }

    fn settle(&mut self, id: Id, state: &State, change: Option<Change>, expected: Option<bool>, reason: &str) {
        assert_eq!(change.map(|change| change == Change::Up), expected, "the streak of {id}");
        let checker = self.checkers.get_mut(&id).unwrap();
        assert_eq!(checker.streak.against(), self.naive.against(id), "the streak of {id}");
        assert_eq!(checker.streak.is_changing(), self.naive.against(id) > 0, "the streak of {id}");
        checker.due = Instant::now() + Duration::from_millis(if checker.streak.is_changing() { 500 } else { 2000 });
        if let Some(change) = change {
            state.set_health(change == Change::Up, reason);
            reason.clone_into(&mut self.naive.servers.get_mut(&id).unwrap().reason);
            self.changes += 1;
            self.look(id);
        }
    }

    /// Builds the next generation and publishes it, or throws it away as when an address cannot be listened on.
    fn reload(&mut self, publishes: bool) {
        let asked = self.asked.changed(&mut self.random);
        let previous = self.published.load_full();
        let plain = load(&asked.text(&mut self.random));
        let built = Snapshot::build(self.with_found(plain.clone()), Some(&previous), &self.catalogue);
        assert_eq!(built.generation, previous.generation + 1);
        let merged = merged(&asked, &self.answers);
        let view = self.plan(&merged);
        if !publishes {
            let known: HashSet<Id> = self.states.keys().copied().collect();
            self.naive.servers.retain(|id, _| known.contains(id));
            drop(built);
            self.check_all();
            return;
        }
        self.traffic_goes_on();
        (self.asked, self.plain, self.merged) = (asked, plain, merged);
        self.publish(built, previous, view);
        let published = self.published.load_full();
        self.forget_answers(&published.model);
    }

    /// What is next, where that is asked for.
    pub(crate) fn plan(&mut self, asked: &Asked) -> View {
        let left: HashSet<Id> = self.held.iter().map(|(id, _)| *id).chain(self.slow_ids()).collect();
        self.naive.plan(asked, |id| left.contains(&id))
    }

    /// Puts a snapshot into effect.
    pub(crate) fn publish(&mut self, built: Snapshot, previous: Arc<Snapshot>, view: View) {
        self.primaries.prepare(&built);
        let duties = duty_changes(&previous, &built);
        self.published.store(Arc::new(built));
        self.published.load().take_over();
        // As the writer does.
        duties.iter().filter(|change| change.duty == Duty::Ready).for_each(|change| change.server.warm_up());
        self.retired.push(Arc::downgrade(&previous));
        drop(previous);
        self.take_effect(view);
        self.traffic_goes_on();
        self.elect();
        self.check_all();
    }

    /// Traffic does not wait for the writer.
    fn traffic_goes_on(&mut self) {
        for _ in 0..self.random.usize(..8) {
            if self.random.bool() { self.connect() } else { self.release() }
        }
    }

    fn slow_ids(&self) -> impl Iterator<Item = Id> {
        self.slow.iter().flat_map(|slow| slow.view.members().map(|(_, _, id)| id))
    }

    /// Learns who the servers of the published snapshot are, and has the checkers follow it by the rules of `app::checkers`.
    fn take_effect(&mut self, view: View) {
        let snapshot = self.published.load_full();
        let view = Rc::new(view);
        let before = Rc::clone(&self.naive.view);
        let mut checkers = std::mem::take(&mut self.checkers);
        assert_eq!(snapshot.pools().count(), view.pools.len());
        for (pool, server, id) in view.members() {
            let name = server.name();
            let real = &snapshot.pool(&Name::new(pool.name)).unwrap().pool;
            assert_eq!((real.policy(), usize::from(real.retries())), (&pool.balance, pool.retries));
            assert_eq!(real.servers().count(), pool.servers.len());
            let found = real.servers().find(|server| server.state.name.as_str() == name).unwrap();
            let limit = if server.max_connections == 0 { u32::MAX } else { server.max_connections };
            let priority = if server.backup { 0 } else { server.priority };
            assert_eq!(found.weight.get(), if server.ready { server.weight } else { 0 });
            assert_eq!(
                (
                    found.full_weight.get(),
                    found.priority,
                    found.backup,
                    found.max_connections,
                    found.address.to_string()
                ),
                (server.weight, priority, server.backup, limit, server.address())
            );
            let state = &found.state;
            let twins = |(known, _): &(&Id, &Weak<State>)| **known != id;
            assert!(
                self.states.iter().filter(twins).all(|(_, other)| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(state))),
                "{name} was removed and added again and is still who it was"
            );
            let known = self.states.entry(id).or_insert_with(|| Arc::downgrade(state));
            assert!(std::ptr::eq(known.as_ptr(), Arc::as_ptr(state)), "{name} kept its name and is another");

            let asked_before = before.member(id).map(|(pool, server)| (pool.check, pool.asks_roles(), server.port));
            if asked_before == Some((pool.check, pool.asks_roles(), server.port)) {
                self.checkers.extend(checkers.remove(&id).map(|checker| (id, checker)));
                continue;
            }
            let moved = asked_before.is_some_and(|(_, _, port)| port != server.port);
            if moved || (pool.check.is_none() && !state.is_healthy()) {
                state.forget_health(true);
            } else if pool.check.is_none() {
                state.forget_words();
            }
            // What an earlier machine or unchecked times have left is not this checker's to count.
            failures(state);
            if let Some(rise_and_fall) = pool.check {
                let health = state.health();
                let streak = Streak::new(health.up, Initial::Check.next_decides(health.up, health.tested));
                let due = Instant::now() + Duration::from_millis(self.random.u64(..100));
                let asks_roles = pool.asks_roles();
                if !asks_roles {
                    state.set_role(None);
                }
                self.checkers.insert(id, Checker { streak, rise_and_fall, asks_roles, port: server.port, due });
            }
        }
        for (pool, model) in self.merged.pools.iter().zip(&snapshot.model.pools) {
            let timing = |check: &Check| check.timing().map(|timing| (timing.rise, timing.fall));
            assert_eq!(timing(&model.check), pool.check);
        }
        self.naive.publish(view);
    }

    /// What holds after every step.
    pub(crate) fn check_step(&self) {
        for (id, state) in &self.states {
            let Some(state) = state.upgrade() else { continue };
            let known = &self.naive.servers[id];
            assert_eq!(state.active(), known.active, "connections of {id}, {:?}", known.key);
            assert_eq!(state.is_healthy(), known.up, "the flag of {id}, {:?}", known.key);
            assert_eq!(state.is_standby(), known.standby, "whether {id}, {:?}, stands by", known.key);
        }
    }

    /// What holds after every step and takes longer to look at.
    fn check_all(&mut self) {
        self.check_step();
        let view = Rc::clone(&self.naive.view);
        let published = self.published.load_full();
        for (pool, server, id) in view.members() {
            let state = self.states[&id].upgrade().unwrap();
            let (known, health) = (&self.naive.servers[&id], state.health());
            assert_eq!(
                (health.up, health.tested, health.reason.as_str()),
                (known.up, known.tested, known.reason.as_str()),
                "the health of {id}"
            );
            assert_eq!(state.metrics().connections(), self.naive.connections[&known.key], "{:?}", known.key);
            let is_limited =
                pool.max_connections > 0 || pool.queues && pool.servers.iter().any(|s| s.max_connections > 0);
            let counts = pool.is_watching() || is_limited || pool.fail_open > 0 || view.splits(pool, server);
            assert_eq!(is_watched(&state), counts, "who watches {:?}", known.key);
            let shown = published.pool(&Name::new(pool.name)).unwrap().pool.open_servers();
            let open = |id: &Id| published_open(&self.naive, &view, *id);
            assert_eq!(shown, view.pool(pool.name).unwrap().1.iter().filter(|id| open(id)).count());
        }
        // A snapshot lives for as long as connections are set up by it, and not a moment longer.
        self.retired.retain(|retired| {
            let users = self.slow.iter().filter(|slow| std::ptr::eq(Arc::as_ptr(&slow.snapshot), retired.as_ptr()));
            assert_eq!(retired.strong_count(), users.count(), "who keeps an old snapshot?");
            retired.strong_count() > 0
        });
        // A server that was removed lives for as long as its connections do, and nobody ranks it any more.
        let named: HashSet<Id> = view.members().map(|(_, _, id)| id).chain(self.slow_ids()).collect();
        let led: HashSet<Id> = self.held.iter().map(|(id, _)| *id).collect();
        self.states.retain(|id, state| {
            let state = state.upgrade();
            assert_eq!(state.is_some(), named.contains(id) || led.contains(id), "who keeps {id}?");
            if let Some(state) = &state {
                assert!(named.contains(id) || !is_watched(state), "{id} was removed and still reports to a pool");
            }
            state.is_some()
        });
        let living: HashSet<Id> = self.states.keys().copied().collect();
        self.naive.servers.retain(|id, _| living.contains(id));
    }

    /// Everything ends, and nothing is left.
    fn end(mut self) {
        self.slow.clear();
        self.held.drain(..).for_each(|(id, lease)| release(&mut self.naive, id, lease));
        self.check_all();
        assert!(self.naive.servers.values().all(|server| server.active == 0));
        drop((self.published, self.primaries));
        assert!(self.states.values().all(|state| state.strong_count() == 0), "a server outlived everything");
        assert!(!self.catalogue.expose().contains("server="), "a series outlived its server");
    }
}

fn release(naive: &mut Naive, id: Id, lease: Lease) {
    drop(lease);
    naive.servers.get_mut(&id).unwrap().active -= 1;
}

/// Whether it may be given a connection by the settings of `view`.
fn published_open(naive: &Naive, view: &View, id: Id) -> bool {
    let (pool, server) = view.member(id).unwrap();
    let known = &naive.servers[&id];
    let fit = (known.up || naive.fails_open(view, pool.name)) && !known.standby;
    server.weight > 0 && server.ready && fit && (server.max_connections == 0 || known.active < server.max_connections)
}

/// The failures that traffic met so far, without waiting for any.
fn failures(state: &State) -> u32 {
    match pin!(state.failures()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(failures) => failures,
        Poll::Pending => 0,
    }
}

/// Whether the ranking of a pool hears of its changes. Only what a state shows of itself when debugged tells.
fn is_watched(state: &State) -> bool {
    let shown = format!("{state:?}");
    let (_, rest) = shown.split_once("watching: ").expect("a state shows who is watching");
    !rest.split(',').next().unwrap().contains("None")
}
