//! Pools as a whole.

use super::*;
use crate::backend::State;
use crate::balance::testing::shares_table;
use crate::net::address::ServerAddr;
use crate::units::{Percent, Weight};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

pub(super) fn server(name: &str) -> Server {
    let address = ServerAddr::parse("127.0.0.1:1", Path::new("/")).unwrap();
    Server::new(State::new(Name::new("pool"), Name::new(name)), address)
}

fn pool(balance: Policy, servers: &[Server]) -> Pool {
    ruled(balance, Rules::default(), servers)
}

pub(super) fn ruled(balance: Policy, rules: Rules, servers: &[Server]) -> Pool {
    let connect_timeout = Duration::from_secs(5);
    let settings = Settings { balance, retries: 2, connect_timeout, sources: Vec::new(), rules };
    let pool = Pool::new(Name::new("pool"), settings, servers.to_vec());
    pool.take_over();
    pool
}

impl Pool {
    /// Which of its groups go by the very same tables as those of another pool.
    pub(crate) fn shared_tables(&self, other: &Self) -> Vec<bool> {
        self.groups().zip(other.groups()).map(|(one, other)| shares_table(&*one.balance, &*other.balance)).collect()
    }
}

fn name<'a>(picked: &'a Picked<'_>) -> &'a str {
    picked.server.state.name.as_str()
}

#[test]
fn backup_servers_are_used_only_while_no_primary_is_open() {
    for policy in Policy::ALL {
        let servers = [server("a"), server("b"), Server { backup: true, ..server("spare") }];
        let pool = pool(policy.clone(), &servers);
        let picks =
            || (0..20).map(|_| name(&pool.pick(&Tried::new(), None).unwrap()).to_owned()).collect::<BTreeSet<_>>();
        assert!(!picks().contains("spare"));
        servers[0].state.set_healthy(false);
        assert_eq!(picks(), BTreeSet::from(["b".to_owned()]));
        servers[1].state.set_healthy(false);
        assert_eq!(picks(), BTreeSet::from(["spare".to_owned()]));
        servers[2].state.set_healthy(false);
        assert!(pool.pick(&Tried::new(), None).is_none());
        servers[0].state.set_healthy(true);
        assert_eq!(picks(), BTreeSet::from(["a".to_owned()]));
        assert_eq!(pool.open_servers(), 1);
    }
}

#[test]
fn a_retry_goes_to_a_server_that_was_not_tried_until_all_were() {
    for policy in Policy::ALL {
        let servers = [server("a"), server("b"), server("c"), Server { backup: true, ..server("spare") }];
        let pool = pool(policy.clone(), &servers);
        let mut tried = Tried::new();
        let mut order = Vec::new();
        while let Some(picked) = pool.pick(&tried, None) {
            order.push(name(&picked).to_owned());
            tried.add(&picked.server.state);
        }
        assert_eq!(order.pop().as_deref(), Some("spare"), "{policy:?}");
        order.sort_unstable();
        assert_eq!(order, ["a", "b", "c"], "{policy:?}");
    }
}

#[test]
fn no_server_ever_has_more_connections_than_its_limit() {
    for policy in Policy::ALL {
        let servers: Vec<_> = (0..5).map(|n| Server { max_connections: 3, ..server(&n.to_string()) }).collect();
        let pool = pool(policy.clone(), &servers);
        thread::scope(|scope| {
            let worker = || {
                let mut held = Vec::new();
                for round in 0..2_000 {
                    held.extend(pool.pick(&Tried::new(), None));
                    assert!(servers.iter().all(|server| server.state.active() <= 3), "{policy:?}");
                    if round % 7 == 0 {
                        held.clear();
                    }
                }
            };
            (0..4).for_each(|_| drop(scope.spawn(worker)));
        });
        assert!(servers.iter().all(|server| server.state.active() == 0), "{policy:?}");
    }
}

#[test]
fn the_last_place_of_a_pool_is_given_away_once() {
    let servers = [Server { max_connections: 1, ..server("a") }];
    let pool = pool(Policy::default(), &servers);
    let held = pool.pick(&Tried::new(), None);
    assert!(held.is_some());
    assert!(pool.pick(&Tried::new(), None).is_none());
    drop(held);
    assert!(pool.pick(&Tried::new(), None).is_some());
}

#[test]
fn a_client_gets_to_the_server_it_was_with_as_long_as_that_is_open() {
    let servers =
        [Server { backup: true, ..server("spare") }, server("a"), Server { max_connections: 1, ..server("b") }];
    let pool = pool(Policy::LeastConn, &servers);
    let table = pool.sticky_table();
    let pick = |server: &str, tried| {
        let mark = sticky::Mark::of(pool.name(), &Name::new(server));
        let picked = pool.pick_this(table.find(mark.as_str().as_bytes())?, tried)?;
        assert_eq!(name(&picked), server);
        Some(picked)
    };
    let none = Tried::new();
    assert!(pick("a", &none).is_some() && pick("spare", &none).is_some() && pick("elsewhere", &none).is_none());
    let full = pick("b", &none);
    assert!(full.is_some() && pick("b", &none).is_none());
    let mut tried = Tried::new();
    tried.add(&servers[1].state);
    assert!(pick("a", &tried).is_none());
    servers[1].state.set_healthy(false);
    assert!(pick("a", &none).is_none());
    assert!(pool.pick_this(3, &none).is_none() && pool.pick_this(usize::MAX, &none).is_none());
}

#[test]
fn a_server_without_weight_is_given_nobody_back() {
    let pool = pool(Policy::default(), &[Server { weight: Weight::new(0).unwrap(), ..server("drained") }]);
    assert!(pool.pick_this(0, &Tried::new()).is_none());
}

#[test]
fn retries_keep_to_the_budget_of_the_pool_and_their_guards_may_outlive_it() {
    let pool = pool(Policy::default(), &[]).with_retry_budget(RetryBudget { percent: 50, min: 1 });
    let requests: Vec<_> = (0..4).map(|worker| pool.enter(worker)).collect();
    let retries = [pool.may_retry(), pool.may_retry(), pool.may_retry()];
    assert_eq!(retries.each_ref().map(Option::is_some), [true, true, false]);
    drop(requests);
    drop(pool);
    drop(retries);
}

#[test]
fn a_newer_pool_hears_of_connections_the_older_one_began() {
    let servers = [server("a"), server("b")];
    let old = pool(Policy::LeastConn, &servers);
    let first = old.pick(&Tried::new(), None).unwrap();
    let new = pool(Policy::LeastConn, &servers);
    let second = new.pick(&Tried::new(), None).unwrap();
    assert_ne!(name(&first), name(&second));
    let freed = name(&first).to_owned();
    drop(first);
    drop(old);
    for _ in 0..3 {
        assert_eq!(name(&new.pick(&Tried::new(), None).unwrap()), freed);
    }
}

#[test]
fn a_pool_goes_on_with_the_tables_of_those_levels_whose_servers_stay_as_they_are() {
    let (first, spare) = ([server("a"), server("b")], Server { backup: true, ..server("spare") });
    for fail_open in [Percent::ZERO, Percent::HALF] {
        let before = ruled(
            Policy::Random,
            Rules { fail_open, ..Rules::default() },
            &[&first[..], std::slice::from_ref(&spare)].concat(),
        );
        let later = |rules: Rules, servers: &[Server]| {
            let settings = Settings {
                balance: Policy::Random,
                retries: 1,
                connect_timeout: Duration::ZERO,
                sources: Vec::new(),
                rules,
            };
            Pool::continuing(&before, settings, servers.to_vec()).shared_tables(&before)
        };
        let [a, b] = first.clone();
        assert_eq!(later(Rules::default(), &[spare.clone(), a.clone(), b.clone()]), [true, true]);
        assert_eq!(later(Rules::default(), &[a.clone(), spare.clone()]), [false, true]);
        let spare = Server { priority: 3, backup: false, ..spare.clone() };
        assert_eq!(later(Rules::default(), &[a, b, spare]), [true, false], "of another level");
    }
}

#[test]
fn a_dropped_pool_leaves_nothing_behind_though_connections_go_on() {
    let servers = [server("a"), server("b")];
    let pool = pool(Policy::LeastConn, &servers);
    let ranking = Arc::downgrade(&pool.levels[0].groups()[0].balance);
    let lease = pool.pick(&Tried::new(), None).unwrap().lease;
    assert!(ranking.upgrade().is_some());
    drop(pool);
    assert!(ranking.upgrade().is_none());
    drop(lease);
}

#[test]
fn a_pool_that_keeps_no_ranking_silences_the_one_before_it() {
    let servers = [server("a"), server("b")];
    let ranked = pool(Policy::LeastConn, &servers);
    let ranking = Arc::downgrade(&ranked.levels[0].groups()[0].balance);
    let plain = pool(Policy::RoundRobin, &servers);
    assert_eq!(ranking.strong_count(), 1);
    drop((ranked, plain));
}

#[test]
fn local_addresses_of_the_family_of_the_server_are_used_in_turn() {
    let ips = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let sources = ips.to_vec();
    let settings = Settings {
        balance: Policy::default(),
        retries: 0,
        connect_timeout: Duration::ZERO,
        sources,
        rules: Rules::default(),
    };
    let at = |text: &str| Server { address: ServerAddr::parse(text, Path::new("/")).unwrap(), ..server(text) };
    let pool = Pool::new(Name::new("pool"), settings, Vec::new());
    let all = |text: &str| pool.sources_in_turn(&at(text)).collect::<Vec<_>>();
    let (first, last) = (Some(ips[0]), Some(ips[2]));
    assert_eq!([(); 3].map(|()| all("127.0.0.1:1")), [[first, last], [last, first], [first, last]]);
    assert_eq!(all("[::1]:1"), [Some(ips[1])]);
    assert_eq!(all("unix:/run/a.sock"), [None]);
    assert_eq!((pool.sources_for(&at("[::1]:1")), pool.first_source(&at("127.0.0.1:1"))), (&ips[1..2], first));
}

/// One event in the life of a pool.
#[derive(Clone, Debug)]
enum Event {
    Health(prop::sample::Index, bool),
    Pick(Vec<prop::sample::Index>),
    Release(prop::sample::Index),
    Reload(prop::sample::Index),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, up)| Event::Health(at, up)),
        4 => prop::collection::vec(any::<prop::sample::Index>(), 0..4).prop_map(Event::Pick),
        2 => any::<prop::sample::Index>().prop_map(Event::Release),
        1 => any::<prop::sample::Index>().prop_map(Event::Reload),
    ]
}

proptest! {
    #[test]
    fn every_pick_is_open_and_untried_and_there_is_one_if_there_can_be(
        servers in prop::collection::vec((0u16..4, any::<bool>(), 1u32..4), 1..12),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let servers: Vec<_> = servers.into_iter().enumerate().map(|(place, (weight, backup, max_connections))| {
            let weight = Weight::new(weight).unwrap();
            Server { weight, backup, max_connections, ..server(&place.to_string()) }
        }).collect();
        let mut current = pool(Policy::default(), &servers);
        let mut leases = Vec::new();
        for event in events {
            match event {
                Event::Health(at, up) => at.get(&servers).state.set_healthy(up),
                Event::Release(at) if !leases.is_empty() => drop(leases.swap_remove(at.index(leases.len()))),
                Event::Release(_) => {}
                Event::Reload(at) => current = pool(at.get(Policy::ALL).clone(), &servers),
                Event::Pick(before) => {
                    let mut tried = Tried::new();
                    before.iter().for_each(|at| tried.add(&at.get(&servers).state));
                    let open = |server: &&Server| server.is_open() && !tried.has(&server.state);
                    let candidates: Vec<_> = servers.iter().filter(open).map(|s| s.state.name.clone()).collect();
                    let primary = servers.iter().filter(open).any(|server| !server.backup);
                    match current.pick(&tried, None) {
                        None => prop_assert!(candidates.is_empty()),
                        Some(Picked { server, lease }) => {
                            prop_assert!(candidates.contains(&server.state.name));
                            prop_assert_eq!(server.backup, !primary);
                            leases.push(lease);
                        }
                    }
                }
            }
        }
        drop(leases);
        prop_assert!(servers.iter().all(|server| server.state.active() == 0));
    }
}
