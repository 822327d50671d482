//! What is: the model made ready for connections, and what of its predecessor lives on in it.
//!
//! A snapshot is built from a model and the snapshot before it by [`Snapshot::build`], which touches nothing that lives
//! and so may be thrown away; one task publishes it through a [`Published`] and then calls [`Snapshot::take_over`].

mod http;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::backend::{Duty, Server, State};
use crate::config::model::{self, Model, OnDown, PrimaryPool};
use crate::health::Outlier;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::address::Networks;
use crate::net::proxy_protocol::Version;
use crate::pool::{Pool, PoolState, Settings};
use crate::route::SniRoutes;
use crate::tls::Terminator;
use crate::units::{Name, Weight};

/// The one place the snapshot in effect is read from.
pub type Published = ArcSwap<Snapshot>;

pub use http::{HttpInEffect, RouteInEffect, StickyInEffect};

/// One generation of what is in effect.
#[derive(Debug)]
pub struct Snapshot {
    /// The number of the configuration it is of; the first is 1.
    pub generation: u64,
    /// The number of the snapshot: of one configuration there are several when servers are found.
    pub edition: u64,
    /// What it was built from.
    pub model: Model,
    listeners: FxHashMap<Name, Listener>,
    pools: Vec<PoolInEffect>,
    /// Where each pool stands among them.
    places: FxHashMap<Name, usize>,
    /// What was in effect before, for as long as it is there.
    previous: Weak<Self>,
}

/// What connections of a listener need to know.
#[derive(Debug)]
pub struct Listener {
    /// What is counted of it, whatever the generation.
    pub metrics: Arc<ListenerMetrics>,
    /// How many connections it serves at once.
    pub max_connections: u32,
    /// How long its connections may take for what.
    pub timeouts: model::ListenerTimeouts,
    /// Who has to begin with a PROXY header, if anybody has; others must not.
    pub proxy_protocol: Option<Networks>,
    /// What is done with the first bytes.
    pub front: Front,
    /// What requests need to know, where HTTP is spoken.
    pub http: Option<HttpInEffect>,
    routes: SniRoutes<Name>,
    pool: Option<Name>,
}

/// What is done with the first bytes of a connection.
#[derive(Debug)]
pub enum Front {
    /// Nothing: they go to the server like all others.
    Plain,
    /// The ClientHello is read for its server name, and goes to the server like all else.
    Sniff,
    /// TLS ends here.
    Tls(Arc<Terminator>),
}

/// A pool, with what is done about its servers rather than with them.
#[derive(Debug)]
pub struct PoolInEffect {
    /// The pool.
    pub pool: Pool,
    /// What happens to established connections of a server that goes down.
    pub on_down: OnDown,
    /// How it has a primary that alone is given connections, if it has one.
    pub primary: Option<PrimaryPool>,
    /// The version of the PROXY header that its servers are sent, if they are.
    pub announce: Option<Version>,
    /// What is asked of it for requests.
    pub http: model::http::HttpPool,
    /// How clients are kept with one of its servers, if they are.
    pub sticky: Option<StickyInEffect>,
    /// When a server is ejected for what it does to traffic, if that happens at all.
    pub outlier: Option<Outlier>,
}

impl Listener {
    /// Whether there is a pool for a client which asks for this server name and offers these protocols.
    #[must_use]
    pub fn leads_on(&self, server_name: Option<&str>, offers: impl Fn(&[u8]) -> bool) -> bool {
        self.pool.is_some() || self.routes.find(server_name, offers).is_some()
    }

    /// Whether clients have nothing to say before what is meant for servers: no PROXY header, no ClientHello.
    #[must_use]
    pub const fn hears_out_nobody(&self) -> bool {
        matches!(self.front, Front::Plain) && self.proxy_protocol.is_none()
    }

    /// When a connection that was accepted at `accepted` is too old, if it ever is: give or take a tenth, so that
    /// connections that were made together are not made anew together.
    #[must_use]
    pub fn retires(&self, accepted: Instant) -> Option<Instant> {
        let max_age = self.timeouts.max_age;
        let jittered = max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        (!max_age.is_zero()).then(|| accepted + jittered)
    }
}

impl Snapshot {
    /// Builds the next generation. Whatever kept its name keeps its state.
    #[must_use]
    pub fn build(model: Model, previous: Option<&Self>, catalogue: &Catalogue) -> Self {
        let log_keys = model.log.insecure_key_log;
        let places = model.pools.iter().enumerate().map(|(place, pool)| (pool.name.clone(), place)).collect();
        let listeners = model
            .listeners
            .iter()
            .map(|listener| {
                let before = previous.and_then(|previous| previous.listeners.get(&listener.name));
                (listener.name.clone(), build_listener(listener, &places, before, catalogue, log_keys))
            })
            .collect();
        let pools = model
            .pools
            .iter()
            .map(|pool| {
                let before = previous.and_then(|previous| previous.pool(&pool.name));
                let in_effect = build_pool(pool, before, catalogue, log_keys);
                PoolInEffect {
                    sticky: pool.http.sticky.as_ref().map(|sticky| StickyInEffect::new(sticky, &in_effect)),
                    pool: in_effect,
                    on_down: pool.on_down,
                    primary: pool.primary,
                    announce: pool.announce,
                    http: pool.http.clone(),
                    outlier: pool.outlier,
                }
            })
            .collect();
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        let edition = previous.map_or(1, |previous| previous.edition + 1);
        Self { generation, edition, model, listeners, pools, places, previous: Weak::new() }
    }

    /// The same configuration with other servers that were found.
    #[must_use]
    pub fn rebuild(model: Model, previous: &Self, catalogue: &Catalogue) -> Self {
        Self { generation: previous.generation, ..Self::build(model, Some(previous), catalogue) }
    }

    /// Lets connections find what is in effect until this is published: see [`Snapshot::with_listener`].
    pub fn succeed(&mut self, previous: &Arc<Self>) {
        self.previous = Arc::downgrade(previous);
    }

    /// This snapshot, or the one before it when only that has the listener: while a reload is under way, a socket still
    /// belongs to a listener that is no more, and what arrives at it is served as that listener would have.
    #[must_use]
    pub fn with_listener(self: Arc<Self>, name: &Name) -> Arc<Self> {
        if self.listeners.contains_key(name) {
            return self;
        }
        self.previous.upgrade().filter(|previous| previous.listeners.contains_key(name)).unwrap_or(self)
    }

    /// The listener of this name.
    #[must_use]
    pub fn listener(&self, name: &Name) -> Option<&Listener> {
        self.listeners.get(name)
    }

    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &Name) -> Option<&PoolInEffect> {
        self.pools.get(self.place_of(name)?)
    }

    /// The place of the pool of this name, as routes know it.
    #[must_use]
    pub fn place_of(&self, name: &Name) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The pool at this place, as routes know it.
    #[must_use]
    pub fn pool_at(&self, place: usize) -> Option<&PoolInEffect> {
        self.pools.get(place)
    }

    /// The pool that a listener's connections go to when no route says otherwise.
    #[must_use]
    pub fn pool_of(&self, listener: &Listener) -> Option<&PoolInEffect> {
        self.pool(listener.pool.as_ref()?)
    }

    /// The pool that a client goes to which asks for this server name and offers these protocols.
    #[must_use]
    pub fn route(
        &self,
        listener: &Listener,
        server_name: Option<&str>,
        offers: impl Fn(&[u8]) -> bool,
    ) -> Option<&PoolInEffect> {
        let routed = listener.routes.find(server_name, offers);
        routed.map_or_else(|| self.pool_of(listener), |pool| self.pool(pool))
    }

    /// The certificates in use, each with the listener and the name it is for, and the last second it is valid in.
    pub fn certificates(&self) -> impl Iterator<Item = (&Name, String, i64)> {
        self.model.listeners.iter().flat_map(|listener| {
            let model::Front::Tls(settings) = &listener.front else { return Vec::new() };
            let each = settings.certificates().flat_map(|certificate| {
                let until = certificate.facts.not_after;
                certificate.known_by().into_iter().map(move |name| (&listener.name, name, until))
            });
            each.collect()
        })
    }

    /// Its pools, in the order of the file.
    pub fn pools(&self) -> impl Iterator<Item = &PoolInEffect> {
        self.pools.iter()
    }

    /// How long connections may go on once they are to end.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.model.drain_timeout
    }

    /// Makes the servers report to the pools of this snapshot. The publisher calls it once the snapshot is published.
    pub fn take_over(&self) {
        self.pools.iter().for_each(|pool| pool.pool.take_over());
    }
}

fn build_listener(
    listener: &model::Listener,
    places: &FxHashMap<Name, usize>,
    before: Option<&Listener>,
    catalogue: &Catalogue,
    log_keys: bool,
) -> Listener {
    let model::Listener {
        name,
        bind: _,
        protocol,
        proxy_protocol,
        front,
        routes,
        pool,
        max_connections,
        backlog: _,
        timeouts,
    } = listener;
    let mut by_name = SniRoutes::default();
    for model::SniRoute { host, alpn, pool } in routes {
        by_name.add(host.as_ref(), alpn.clone(), pool.clone());
    }
    let front = match front {
        model::Front::Plain => Front::Plain,
        model::Front::Sniff => Front::Sniff,
        model::Front::Tls(settings) => {
            let before = before.and_then(|before| match &before.front {
                Front::Tls(terminator) => Some(&**terminator),
                Front::Plain | Front::Sniff => None,
            });
            Front::Tls(Arc::new(Terminator::new(settings, before, log_keys)))
        }
    };
    let http = match protocol {
        model::Protocol::Tcp => None,
        model::Protocol::Http(settings) => {
            let before = before.and_then(|before| before.http.as_ref());
            Some(HttpInEffect::build(settings, pool.as_ref(), places, before))
        }
    };
    Listener {
        http,
        metrics: catalogue.listener(name),
        max_connections: *max_connections,
        timeouts: *timeouts,
        proxy_protocol: proxy_protocol.clone(),
        front,
        routes: by_name,
        pool: pool.clone(),
    }
}

fn build_pool(pool: &model::Pool, before: Option<&PoolInEffect>, catalogue: &Catalogue, log_keys: bool) -> Pool {
    let kept: HashMap<&Name, &Server> = before
        .into_iter()
        .flat_map(|before| before.pool.servers())
        .map(|server| (&server.state.name, server))
        .collect();
    let model::Pool {
        name,
        balance,
        servers,
        discover: _,
        check,
        outlier: _,
        timeouts,
        source,
        retries,
        on_down: _,
        primary: _,
        rules,
        max_requests,
        announce: _,
        tls,
        http,
    } = pool;
    // Where all are new, nobody is there to carry what they do not.
    let joins = servers.iter().any(|server| kept.contains_key(&server.name));
    let servers = servers
        .iter()
        .map(|server| {
            let model::Server {
                name: server_name,
                address,
                weight,
                priority,
                backup,
                zone,
                max_connections,
                duty,
                check_address: _,
            } = server;
            let before = kept.get(server_name);
            let state = before.map_or_else(
                || {
                    let state = State::counted(name.clone(), server_name.clone(), catalogue);
                    if !check.starts_up() {
                        // Before anybody can be sent there.
                        state.forget_health(false);
                    }
                    if joins {
                        state.warm_up();
                    }
                    state
                },
                |before| Arc::clone(&before.state),
            );
            let sessions = before.and_then(|before| before.tls.as_ref());
            let duty_since = before.filter(|before| before.duty == *duty).map(|before| before.duty_since);
            Server {
                tls: tls.as_ref().map(|settings| settings.for_server(address, sessions, log_keys)),
                weight: if *duty == Duty::Ready { *weight } else { Weight::NONE },
                full_weight: *weight,
                duty: *duty,
                duty_since: duty_since.unwrap_or_else(SystemTime::now),
                priority: *priority,
                backup: *backup,
                zone: zone.clone(),
                max_connections: *max_connections.min(max_requests),
                ..Server::new(state, address.clone())
            }
        })
        .collect();
    let settings = Settings {
        balance: balance.clone(),
        retries: *retries,
        connect_timeout: timeouts.connect,
        sources: source.clone(),
        rules: rules.clone(),
    };
    let pool = match before {
        Some(before) => Pool::continuing(&before.pool, settings, servers),
        None => Pool::counted(PoolState::counted(name.clone(), catalogue), settings, servers),
    };
    pool.with_retry_budget(http.retry_budget)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};
    use std::path::Path;

    fn built(listener: &str) -> Snapshot {
        after(None, listener, "servers = [\"127.0.0.1:1\"]")
    }

    fn after(before: Option<&Snapshot>, listener: &str, pool: &str) -> Snapshot {
        let text = format!("[listeners.l]\nbind = 0\npool = \"p\"\n{listener}\n[pools.p]\n{pool}\n");
        let environment = Environment { descriptor_limit: 20_000, cores: 2 };
        let loaded =
            load_text(&text, "test", Path::new("/"), &environment).unwrap_or_else(|p| panic!("{}", p.human(false)));
        Snapshot::build(loaded.model, before, &Catalogue::new(1))
    }

    #[test]
    fn connections_that_were_made_together_grow_old_at_different_moments_around_their_age() {
        let snapshot = built("timeouts = { max_age = \"100s\" }");
        let listener = snapshot.listener(&Name::new("l")).unwrap();
        let now = Instant::now();
        let ages: Vec<_> =
            (0..1000).map(|_| listener.retires(now).unwrap().duration_since(now).as_secs_f64()).collect();
        assert!(ages.iter().all(|age| (90.0..=110.0).contains(age)));
        assert!(ages.iter().any(|age| *age < 92.0) && ages.iter().any(|age| *age > 108.0), "they bunch");
        let (snapshot, name) = (built(""), Name::new("l"));
        assert_eq!(snapshot.listener(&name).unwrap().retires(now), None);
    }

    #[test]
    fn a_reload_keeps_the_tables_of_a_pool_unless_names_weights_order_or_size_change() {
        for algorithm in ["round_robin", "random", "p2c", "peak_ewma", "source_hash", "maglev", "ring_hash"] {
            let pool = |first: &str, weight: u16, more: &str| {
                let servers = format!(
                    "{{ name = \"{first}\", address = \"127.0.0.1:1\", weight = {weight} }}, \
                     {{ name = \"c\", address = \"127.0.0.1:2\" }}"
                );
                format!("balance = \"{algorithm}\"\nservers = [{servers}]\n{more}")
            };
            let before = after(None, "", &pool("a", 2, ""));
            let keeps = |listener, pool: &str| {
                let later = after(Some(&before), listener, pool);
                let [one, other] = [&before, &later].map(|snapshot| snapshot.pool(&Name::new("p")).unwrap());
                one.pool.shared_tables(&other.pool) == [true]
            };
            assert!(keeps("timeouts = { idle = \"7s\" }", &pool("a", 2, "retries = 1\ncheck = { interval = \"7s\" }")));
            assert!(!keeps("", &pool("a", 3, "")), "{algorithm}");
            let is_hashed = algorithm.ends_with("hash") || algorithm == "maglev";
            assert_eq!(keeps("", &pool("b", 2, "")), !is_hashed, "{algorithm}");
        }
    }
}
