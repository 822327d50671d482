//! Who is the primary of each pool that has one: asked again whenever something is found of its servers, and the only writer
//! of what keeps the others from being given anything.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::{Server, State};
use crate::config::model::PrimaryPool;
use crate::health::{Candidate, Election, elect};
use crate::snapshot::{PoolInEffect, Snapshot};
use crate::units::{Name, Percent};

/// The primaries of all pools that have one.
#[derive(Debug, Default)]
pub struct Primaries {
    pools: HashMap<Name, Reign>,
}

/// What is known of one pool.
#[derive(Debug, Default)]
struct Reign {
    primary: Option<Arc<State>>,
    /// What was said of it last.
    standing: Option<Standing>,
    /// Since when servers are fit, by where their states are.
    fit_since: HashMap<usize, Instant>,
    /// When to look again, whatever is heard.
    due: Option<Instant>,
}

/// A server that is no longer the primary of its pool.
#[derive(Debug)]
pub struct Deposed(pub Arc<State>);

impl Primaries {
    /// Takes note of the pools of a snapshot that is about to be in effect: a server that is new to a pool with a primary is
    /// given nothing before it was elected.
    pub fn prepare(&self, snapshot: &Snapshot) {
        for pool in snapshot.pools().filter(|pool| pool.primary.is_some()) {
            let primary = self.pools.get(pool.pool.name()).and_then(|reign| reign.primary.as_ref());
            let is_primary = |server: &Server| primary.is_some_and(|primary| Arc::ptr_eq(primary, &server.state));
            pool.pool.servers().filter(|server| !is_primary(server)).for_each(|server| server.state.set_standby(true));
        }
    }

    /// Looks at all pools of the snapshot in effect. Returns who is no longer the primary.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Vec<Deposed> {
        for pool in snapshot.pools().filter(|pool| pool.primary.is_none()) {
            if self.pools.remove(pool.pool.name()).is_some() {
                pool.pool.servers().for_each(|server| server.state.set_standby(false));
                pool.pool.state().metrics.set_disputed(false);
                pool.pool.state().metrics.set_primary(None);
            }
        }
        self.pools.retain(|name, _| snapshot.pool(name).is_some());
        snapshot.pools().filter_map(|pool| self.look(pool)).collect()
    }

    /// Looks at one pool, of whose servers something was found. Returns who is no longer the primary.
    pub fn look(&mut self, pool: &PoolInEffect) -> Option<Deposed> {
        let settings = pool.primary.as_ref()?;
        let reign = self.pools.entry(pool.pool.name().clone()).or_default();
        reign.look(pool, settings)
    }

    /// When the next look is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.pools.values().filter_map(|reign| reign.due).min()
    }

    /// Looks at the pools whose time has come.
    pub fn look_at_due(&mut self, snapshot: &Snapshot) -> Vec<Deposed> {
        let now = Instant::now();
        let due: Vec<Name> = self
            .pools
            .iter()
            .filter(|(_, reign)| reign.due.is_some_and(|due| due <= now))
            .map(|(name, _)| name.clone())
            .collect();
        due.iter().filter_map(|name| self.look(snapshot.pool(name)?)).collect()
    }
}

impl Reign {
    fn look(&mut self, pool: &PoolInEffect, settings: &PrimaryPool) -> Option<Deposed> {
        let now = Instant::now();
        let servers: Vec<&Server> = pool.pool.servers().collect();
        let place_of = |state: &Arc<State>| servers.iter().position(|server| Arc::ptr_eq(&server.state, state));
        let fit_since: HashMap<usize, Instant> = servers
            .iter()
            .filter(|server| server.weight.get() > 0 && server.state.share() != Percent::ZERO)
            .filter(|server| server.state.is_healthy())
            .map(|server| address(&server.state))
            .map(|address| (address, self.fit_since.get(&address).copied().unwrap_or(now)))
            .collect();
        self.fit_since = fit_since;
        let candidates: Vec<Candidate> = servers
            .iter()
            .map(|server| Candidate {
                fit_since: self.fit_since.get(&address(&server.state)).copied(),
                says: server.state.role(),
            })
            .collect();
        let incumbent = self.primary.as_ref().and_then(place_of);
        let (election, due) = elect(&candidates, settings.by_roles, incumbent, settings.failback, now);
        self.due = due;
        let primary = election.primary().and_then(|place| servers.get(place)).map(|server| Arc::clone(&server.state));
        let before = self.primary.take();
        let stays = match (&before, &primary) {
            (Some(before), Some(primary)) => Arc::ptr_eq(before, primary),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        // The old one first, so that there is never more than one.
        for server in &servers {
            let is_primary = primary.as_ref().is_some_and(|primary| Arc::ptr_eq(primary, &server.state));
            if !is_primary {
                server.state.set_standby(true);
            }
        }
        if let Some(primary) = &primary {
            primary.set_standby(false);
        }
        // Nobody has to act while the first checks are still to come back.
        let is_early = settings.by_roles
            && servers.iter().any(|server| server.state.is_healthy() && !server.state.health().tested);
        let standing = Standing::of(election, is_early);
        if !stays || self.standing != Some(standing) {
            tell(pool, election, standing, before.as_deref().filter(|_| !stays), &servers, &candidates);
            pool.pool.state().metrics.set_disputed(standing == Standing::Disputed);
        }
        if !stays {
            pool.pool.state().metrics.set_primary(primary.as_ref().map(|primary| &primary.name));
        }
        self.standing = Some(standing);
        self.primary = primary;
        before.filter(|_| !stays).map(Deposed)
    }
}

/// A place that no other state can have while the snapshot holds this one.
fn address(state: &Arc<State>) -> usize {
    Arc::as_ptr(state).addr()
}

/// How it stands with an election, whoever won it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Clear,
    Disputed,
    /// There is no primary, and not all servers were asked yet.
    Unknown,
    Vacant,
}

impl Standing {
    const fn of(election: Election, is_early: bool) -> Self {
        match election {
            Election::Won(_) => Self::Clear,
            Election::Contested(_) | Election::Split => Self::Disputed,
            Election::Vacant if is_early => Self::Unknown,
            Election::Vacant => Self::Vacant,
        }
    }
}

/// One line for what has changed, loud where somebody has to act.
fn tell(
    pool: &PoolInEffect,
    election: Election,
    standing: Standing,
    before: Option<&State>,
    servers: &[&Server],
    candidates: &[Candidate],
) {
    let pool_name = pool.pool.name();
    let name = |place: usize| servers.get(place).map_or("", |server| server.state.name.as_str());
    let claimants = || {
        let claims = |candidate: &Candidate| candidate.fit_since.is_some() && candidate.claims();
        let all = (0..).zip(candidates).filter(|(_, candidate)| claims(candidate)).map(|(place, _)| name(place));
        all.collect::<Vec<_>>().join(", ")
    };
    match election {
        Election::Won(place) => {
            let instead = before.map(|before| format!(", in place of {}", before.name)).unwrap_or_default();
            tracing::info!(pool = %pool_name, server = name(place), "server is the primary now{instead}");
        }
        Election::Contested(place) => {
            let all = claimants();
            tracing::error!(pool = %pool_name, server = name(place), "more than one server says it is the primary ({all}): the one that was it stays");
        }
        Election::Split => {
            let all = claimants();
            tracing::error!(pool = %pool_name, "more than one server says it is the primary ({all}), and none was it before: none is given connections");
        }
        Election::Vacant if standing == Standing::Unknown => {
            tracing::info!(pool = %pool_name, "the primary is not known yet: the servers are being asked");
        }
        Election::Vacant => tracing::error!(pool = %pool_name, "the pool has no primary: none is given connections"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Role;
    use crate::config::{Environment, load_text};
    use crate::metrics::Catalogue;
    use crate::pool::Tried;
    use std::path::Path;
    use std::time::Duration;
    use tokio::time::advance;

    fn build(servers: &[&str], more: &str, before: Option<&Snapshot>, catalogue: &Catalogue) -> Snapshot {
        let servers: Vec<_> = servers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let text =
            format!("[listeners.l]\nbind = 0\npool = \"p\"\n[pools.p]\nservers = [{}]\n{more}\n", servers.join(", "));
        let environment = Environment { descriptor_limit: 20_000, cores: 2 };
        let loaded =
            load_text(&text, "test", Path::new("/"), &environment).unwrap_or_else(|p| panic!("{}", p.human(false)));
        Snapshot::build(loaded.model, before, catalogue)
    }

    fn server<'s>(snapshot: &'s Snapshot, port: &str) -> &'s Arc<State> {
        let pool = &snapshot.pools().next().unwrap().pool;
        &pool.servers().find(|server| server.state.name.as_str().ends_with(&format!(":{port}"))).unwrap().state
    }

    /// Who is given connections, by its port.
    fn given(snapshot: &Snapshot) -> Option<String> {
        let pool = &snapshot.pools().next().unwrap().pool;
        let picks: Vec<_> =
            (0..5).map(|_| pool.pick(&Tried::new(), None).map(|picked| picked.server.state.name.clone())).collect();
        assert!(picks.iter().all(|pick| *pick == picks[0]), "{picks:?}");
        picks[0].as_ref().map(|name| name.as_str().rsplit(':').next().unwrap().to_owned())
    }

    fn deposed(list: impl IntoIterator<Item = Deposed>) -> Vec<String> {
        list.into_iter().map(|Deposed(state)| state.name.as_str().rsplit(':').next().unwrap().to_owned()).collect()
    }

    const BY_ROLES: &str = "role = \"primary\"\ncheck = { type = \"mysql\", user = \"monitor\" }";

    #[tokio::test(start_paused = true)]
    async fn connections_follow_the_server_that_says_it_is_the_primary() {
        let catalogue = Catalogue::new(1);
        let snapshot = build(&["1", "2"], BY_ROLES, None, &catalogue);
        let mut primaries = Primaries::default();
        primaries.prepare(&snapshot);
        assert_eq!(given(&snapshot), None, "nobody is given anything before the first was asked");
        assert!(primaries.follow(&snapshot).is_empty());
        assert_eq!(given(&snapshot), None);
        let mut say = |port: &str, role| {
            server(&snapshot, port).set_role(Some(role));
            let gone = primaries.look(snapshot.pools().next().unwrap());
            (given(&snapshot), deposed(gone))
        };
        assert_eq!(say("2", Role::Primary), (Some("2".to_owned()), vec![]));
        // Another is promoted while the old one still believes that it is it, and then no longer does.
        assert_eq!(say("1", Role::Primary), (Some("2".to_owned()), vec![]));
        assert!(catalogue.expose().contains("portreeve_pool_primary_disputed{pool=\"p\"} 1"));
        assert_eq!(say("2", Role::Replica), (Some("1".to_owned()), vec!["2".to_owned()]));
        assert!(catalogue.expose().contains("portreeve_pool_primary_disputed{pool=\"p\"} 0"));
        assert_eq!(say("1", Role::Replica), (None, vec!["1".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_metrics_name_the_primary_and_nobody_while_there_is_none() {
        let catalogue = Catalogue::new(1);
        let snapshot = build(&["1", "2"], "role = \"primary\"", None, &catalogue);
        let mut primaries = Primaries::default();
        primaries.prepare(&snapshot);
        let named = || -> Vec<String> {
            let text = catalogue.expose();
            let own = text.lines().filter(|line| line.starts_with("portreeve_pool_primary_age_seconds{"));
            own.map(|line| line.split(['{', '}']).nth(1).unwrap().to_owned()).collect()
        };
        assert!(named().is_empty());
        primaries.follow(&snapshot);
        for (port, next) in [("1", Some("2")), ("2", None)] {
            let name = &server(&snapshot, port).name;
            assert_eq!(named(), [format!("pool=\"p\",server=\"{name}\"")]);
            server(&snapshot, port).set_healthy(false);
            primaries.look(snapshot.pools().next().unwrap());
            assert_eq!(given(&snapshot).as_deref(), next);
        }
        assert!(named().is_empty());
        server(&snapshot, "2").set_healthy(true);
        primaries.look(snapshot.pools().next().unwrap());
        assert_eq!(named().len(), 1);
        primaries.follow(&build(&["1", "2"], "", Some(&snapshot), &catalogue));
        assert!(named().is_empty(), "a pool that has no such role any more");
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_no_primary_is_an_error_only_once_every_server_was_asked() {
        let catalogue = Catalogue::new(1);
        let snapshot = build(&["1", "2"], BY_ROLES, None, &catalogue);
        let mut primaries = Primaries::default();
        primaries.prepare(&snapshot);
        primaries.follow(&snapshot);
        let mut asked = |port: &str, up| {
            server(&snapshot, port).set_role(Some(Role::Replica));
            server(&snapshot, port).set_tested("it follows another");
            server(&snapshot, port).set_healthy(up);
            primaries.look(snapshot.pools().next().unwrap());
            primaries.pools.values().next().unwrap().standing
        };
        assert_eq!(asked("1", true), Some(Standing::Unknown));
        assert_eq!(asked("2", false), Some(Standing::Vacant), "one that does not answer has been asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stand_in_hands_back_when_it_is_time() {
        let catalogue = Catalogue::new(1);
        let snapshot = build(&["1", "2"], "role = \"primary\"\nfailback = \"10s\"", None, &catalogue);
        let pool = snapshot.pools().next().unwrap();
        let mut primaries = Primaries::default();
        primaries.prepare(&snapshot);
        primaries.follow(&snapshot);
        assert_eq!(given(&snapshot).as_deref(), Some("1"));
        server(&snapshot, "1").set_healthy(false);
        assert_eq!(given(&snapshot), None);
        assert_eq!(deposed(primaries.look(pool)), ["1"]);
        assert_eq!(given(&snapshot).as_deref(), Some("2"));
        server(&snapshot, "1").set_healthy(true);
        assert!(primaries.look(pool).is_none());
        assert_eq!(given(&snapshot).as_deref(), Some("2"));
        assert_eq!(primaries.due(), Some(Instant::now() + Duration::from_secs(10)));
        advance(Duration::from_secs(10)).await;
        assert_eq!(deposed(primaries.look_at_due(&snapshot)), ["2"]);
        assert_eq!((given(&snapshot).as_deref(), primaries.due()), (Some("1"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_the_primary_and_what_is_no_longer_asked_for_ends() {
        let catalogue = Catalogue::new(1);
        let role = "role = \"primary\"";
        let first = build(&["1", "2"], role, None, &catalogue);
        let mut primaries = Primaries::default();
        primaries.prepare(&first);
        primaries.follow(&first);
        server(&first, "1").set_healthy(false);
        primaries.look(first.pools().next().unwrap());
        server(&first, "1").set_healthy(true);
        let second = build(&["3", "2", "1"], role, Some(&first), &catalogue);
        primaries.prepare(&second);
        assert_eq!(given(&second).as_deref(), Some("2"));
        assert!(primaries.follow(&second).is_empty());
        let third = build(&["3", "1"], role, Some(&second), &catalogue);
        primaries.prepare(&third);
        assert_eq!(deposed(primaries.follow(&third)), ["2"]);
        assert_eq!(given(&third).as_deref(), Some("3"));
        let last = build(&["3", "1"], "", Some(&third), &catalogue);
        primaries.prepare(&last);
        primaries.follow(&last);
        assert!(["1", "3"].iter().all(|port| !server(&last, port).is_standby()));
    }
}
