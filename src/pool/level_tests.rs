//! Levels, zones, failing open and slow starts, as picks show them.

use super::tests::{ruled, server};
use super::*;
use crate::balance::Tried;
use crate::units::{Percent, Weight};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// How many of so many picks each server gets, one after the other.
fn shares(pool: &Pool, picks: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        let picked = pool.pick(&Tried::new(), None).unwrap();
        *shares.entry(picked.server.state.name.to_string()).or_default() += 1;
    }
    shares
}

fn percent(percent: u8) -> Percent {
    Percent::new(percent).unwrap()
}

/// Servers of these names, those whose name begins with a number being of that priority.
fn levels(names: &[&str]) -> Vec<Server> {
    let level = |name: &str| name.chars().next().and_then(|c| c.to_digit(10)).unwrap_or(0) as u8;
    names.iter().map(|name| Server { priority: level(name), ..server(name) }).collect()
}

fn assert_share(shares: &BTreeMap<String, usize>, name: &str, percent: f64) {
    assert_between(shares, name, percent, percent);
}

fn assert_between(shares: &BTreeMap<String, usize>, name: &str, least: f64, most: f64) {
    let all: usize = shares.values().sum();
    let share = 100.0 * shares.get(name).copied().unwrap_or(0) as f64 / all as f64;
    let range = least - 1.5..most + 1.5;
    assert!(range.contains(&share), "{name} has {share} % and not {least} to {most}: {shares:?}");
}

#[test]
fn without_spilling_a_level_is_asked_when_nobody_before_it_is_open() {
    for policy in Policy::ALL {
        let servers = levels(&["0a", "0b", "3a", "7a"]);
        let servers: Vec<_> = servers.into_iter().chain([Server { backup: true, ..server("spare") }]).collect();
        let pool = ruled(policy.clone(), Rules::default(), &servers);
        for (place, next) in [(0, "0b"), (1, "3a"), (2, "7a"), (3, "spare")] {
            servers[place].state.set_healthy(false);
            assert_eq!(shares(&pool, 10), BTreeMap::from([(next.to_owned(), 10)]), "{policy:?}");
        }
    }
}

#[test]
fn a_level_of_which_too_little_is_fit_carries_what_it_can_and_passes_the_rest_on() {
    fastrand::seed(11);
    for policy in Policy::ALL {
        let servers = levels(&["0a", "0b", "0c", "0d", "1a"]);
        let pool = ruled(policy.clone(), Rules { spill_below: percent(80), ..Rules::default() }, &servers);
        assert_share(&shares(&pool, 10_000), "1a", 0.0);
        servers[0].state.set_healthy(false);
        // Three of four are 75 of the 80 that it takes to carry all.
        assert_share(&shares(&pool, 20_000), "1a", 6.25);
        servers[1].state.set_healthy(false);
        let now = shares(&pool, 20_000);
        assert_share(&now, "1a", 37.5);
        assert_share(&now, "0c", 31.25);
        servers[2].state.set_healthy(false);
        servers[3].state.set_healthy(false);
        assert_eq!(shares(&pool, 100)["1a"], 100);
    }
}

#[test]
fn levels_that_cannot_carry_all_carry_more_in_proportion() {
    fastrand::seed(12);
    let servers = levels(&["0a", "0b", "0c", "0d", "1a", "1b", "1c", "1d"]);
    let pool = ruled(Policy::Random, Rules { spill_below: percent(100), ..Rules::default() }, &servers);
    [0, 1, 2, 4, 5, 6].iter().for_each(|place| servers[*place].state.set_healthy(false));
    let now = shares(&pool, 20_000);
    assert_share(&now, "0d", 50.0);
    assert_share(&now, "1d", 50.0);
}

#[test]
fn what_weighs_more_carries_more_of_its_level_and_a_server_out_of_service_carries_nothing() {
    fastrand::seed(13);
    let mut servers = levels(&["0a", "0b", "1a"]);
    servers[0].weight = Weight::NONE;
    servers[0].full_weight = Weight::new(3).unwrap();
    let pool = ruled(Policy::Random, Rules { spill_below: percent(100), ..Rules::default() }, &servers);
    assert_share(&shares(&pool, 20_000), "0b", 25.0);
}

/// Servers of zone `a` and others, seen from `a`.
fn zoned(policy: Policy, local: usize, others: &[(&str, usize)]) -> (Pool, Vec<Server>) {
    let zone = |zone: &str, count: usize| {
        let zone = zone.to_owned();
        (0..count).map(move |n| Server { zone: Some(Name::new(&zone)), ..server(&format!("{zone}{n}")) })
    };
    let servers: Vec<_> = zone("a", local).chain(others.iter().flat_map(|(name, count)| zone(name, *count))).collect();
    let rules = Rules { zone: Some(Name::new("a")), ..Rules::default() };
    (ruled(policy, rules, &servers), servers)
}

fn in_zone(shares: &BTreeMap<String, usize>, zone: &str) -> f64 {
    let sum = |of: &str| shares.iter().filter(|(name, _)| name.starts_with(of)).map(|(_, count)| count).sum::<usize>();
    100.0 * sum(zone) as f64 / sum("") as f64
}

#[test]
fn servers_of_our_zone_get_all_while_they_are_as_many_as_those_of_any_zone() {
    fastrand::seed(14);
    for policy in Policy::ALL {
        let (pool, servers) = zoned(policy.clone(), 4, &[("b", 4), ("c", 4)]);
        assert!((in_zone(&shares(&pool, 1_000), "a") - 100.0).abs() < f64::EPSILON, "{policy:?}");
        // Two of ten are left, and their zone has a third of the instances.
        servers[..2].iter().for_each(|server| server.state.set_healthy(false));
        assert!((in_zone(&shares(&pool, 20_000), "a") - 60.0).abs() < 1.5, "{policy:?}");
        servers[2..4].iter().for_each(|server| server.state.set_healthy(false));
        assert!(in_zone(&shares(&pool, 1_000), "a").abs() < f64::EPSILON, "{policy:?}");
        servers[4..].iter().for_each(|server| server.state.set_healthy(false));
        servers[0].state.set_healthy(true);
        assert_eq!(shares(&pool, 100)["a0"], 100, "{policy:?}");
    }
}

#[test]
fn a_key_stays_in_its_zone_where_servers_of_ours_get_but_a_part() {
    for policy in Policy::ALL.iter().filter(|policy| policy.hashing().is_some()) {
        let (pool, _) = zoned(policy.clone(), 2, &[("b", 4), ("c", 4)]);
        let go = |key: u32| {
            let picked = pool.pick(&Tried::new(), Some(Key::of(&key.to_be_bytes()))).unwrap();
            picked.server.state.name.clone()
        };
        let first: Vec<_> = (0..1_000).map(go).collect();
        assert_eq!((0..1_000).map(go).collect::<Vec<_>>(), first, "{policy:?}");
        let local = first.iter().filter(|name| name.as_str().starts_with('a')).count();
        assert!(local.abs_diff(600) < 60, "{policy:?}: {local}");
    }
}

#[test]
fn without_servers_of_our_zone_it_makes_no_difference() {
    let (pool, _) = zoned(Policy::RoundRobin, 0, &[("b", 2), ("c", 2)]);
    assert!(shares(&pool, 100).values().all(|count| *count == 25));
}

#[test]
fn with_too_few_fit_all_are_used_but_those_whom_the_operator_keeps_out_or_who_are_full() {
    for policy in Policy::ALL {
        let mut servers = levels(&["a", "b", "c", "d", "e"]);
        servers[3].weight = Weight::NONE;
        servers[4].max_connections = 1;
        let pool = ruled(policy.clone(), Rules { fail_open: percent(50), ..Rules::default() }, &servers);
        servers[..2].iter().for_each(|server| server.state.set_healthy(false));
        assert!(!pool.fails_open(), "two of four are half");
        assert!(shares(&pool, 100).keys().eq(["c", "e"]), "{policy:?}");
        servers[2].state.set_healthy(false);
        assert!(pool.fails_open());
        let held = loop {
            let picked = pool.pick(&Tried::new(), None).unwrap();
            if picked.server.state.name.as_str() == "e" {
                break picked;
            }
        };
        assert!(shares(&pool, 200).keys().eq(["a", "b", "c"]), "{policy:?}");
        let mut tried = Tried::new();
        servers[..2].iter().for_each(|server| tried.add(&server.state));
        assert_eq!(pool.pick(&tried, None).unwrap().server.state.name.as_str(), "c");
        drop(held);
        servers[2].state.set_healthy(true);
        assert!(!pool.fails_open() && shares(&pool, 100).keys().eq(["c", "e"]), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_came_up_gets_its_share_little_by_little() {
    fastrand::seed(15);
    const SLOW: Duration = Duration::from_secs(10);
    for policy in [Policy::RoundRobin, Policy::Random] {
        let servers = levels(&["a", "b", "c", "d"]);
        let pool = ruled(policy, Rules { slow_start: SLOW, ..Rules::default() }, &servers);
        servers[0].state.set_health(false, "seen");
        servers[0].state.set_health(true, "seen");
        // Whether its share is that part of the whole, or of its weight, is the algorithm's.
        assert_between(&shares(&pool, 20_000), "a", 2.5, 3.2);
        tokio::time::advance(SLOW / 2).await;
        assert_between(&shares(&pool, 20_000), "a", 12.5, 14.3);
        tokio::time::advance(SLOW / 2).await;
        assert_share(&shares(&pool, 20_000), "a", 25.0);
        assert!(!servers[0].state.is_restrained());
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_last_do_not_pile_up_at_a_server_that_is_warming() {
    fastrand::seed(16);
    for policy in Policy::ALL {
        let servers = levels(&["a", "b", "c", "d"]);
        let pool = ruled(policy.clone(), Rules { slow_start: Duration::from_secs(10), ..Rules::default() }, &servers);
        let mut held: Vec<_> = (0..400).map(|_| pool.pick(&Tried::new(), None).unwrap()).collect();
        held.retain(|picked| picked.server.state.name.as_str() != "a");
        servers[0].state.set_health(false, "seen");
        servers[0].state.set_health(true, "seen");
        held.extend((0..200).map(|_| pool.pick(&Tried::new(), None).unwrap()));
        // A tenth of what others have on average, which is 150 at the end.
        let active = servers[0].state.active();
        assert!((1..=15).contains(&active), "{policy:?}: {active}");
    }
}

#[test]
fn a_server_that_is_warming_is_used_when_nobody_else_is_there() {
    for policy in Policy::ALL {
        let servers = levels(&["a", "b", "1z"]);
        let pool = ruled(policy.clone(), Rules { slow_start: Duration::from_secs(1000), ..Rules::default() }, &servers);
        servers[0].state.set_health(false, "seen");
        servers[1].state.warm_up();
        let held: Vec<_> = (0..50).map(|_| pool.pick(&Tried::new(), None).unwrap()).collect();
        assert!(held.iter().all(|picked| picked.server.state.name.as_str() == "b"), "{policy:?}");
    }
}

#[test]
fn a_server_gets_the_share_that_it_asks_for_and_nothing_when_that_is_none() {
    fastrand::seed(17);
    let servers = levels(&["a", "b"]);
    let pool = ruled(Policy::RoundRobin, Rules::default(), &servers);
    servers[0].state.set_share(percent(50));
    assert_between(&shares(&pool, 20_000), "a", 25.0, 33.3);
    servers[0].state.set_share(Percent::ZERO);
    assert_eq!(shares(&pool, 100)["b"], 100);
}

#[test]
fn a_server_with_too_many_attempts_to_connect_under_way_is_passed_over() {
    for policy in Policy::ALL {
        let servers = levels(&["a", "b"]);
        let pool = ruled(policy.clone(), Rules { max_pending: 2, ..Rules::default() }, &servers);
        let mut connecting: Vec<_> = (0..2).map(|_| servers[0].state.connecting()).collect();
        assert_eq!(shares(&pool, 20)["b"], 20, "{policy:?}");
        let others = [servers[1].state.connecting(), servers[1].state.connecting()];
        assert!(pool.pick(&Tried::new(), None).is_none() && pool.pick_this(0, &Tried::new()).is_none());
        assert!(pool.is_full(&Tried::new()));
        connecting.pop();
        assert_eq!(shares(&pool, 20)["a"], 20, "{policy:?}");
        drop(others);
    }
}

#[test]
fn a_pool_never_has_more_connections_than_its_limit() {
    for policy in Policy::ALL {
        let servers = levels(&["a", "b", "c"]);
        let pool = ruled(policy.clone(), Rules { max_connections: 5, ..Rules::default() }, &servers);
        std::thread::scope(|scope| {
            let worker = || {
                let mut held = Vec::new();
                for round in 0..2_000 {
                    held.extend(pool.pick(&Tried::new(), None));
                    held.extend(pool.pick_this(round % 3, &Tried::new()));
                    let active: u32 = servers.iter().map(|server| server.state.active()).sum();
                    assert!(active <= 5, "{policy:?}: {active}");
                    if round % 7 == 0 {
                        held.clear();
                    }
                }
            };
            (0..4).for_each(|_| drop(scope.spawn(worker)));
        });
        let held: Vec<_> = (0..5).map(|_| pool.pick(&Tried::new(), None).unwrap()).collect();
        assert!(pool.pick(&Tried::new(), None).is_none() && pool.is_full(&Tried::new()));
        drop(held);
    }
}

#[test]
fn whoever_waits_is_called_when_a_connection_ends_a_server_comes_up_or_a_reload_makes_room() {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    let is_called = |ticket: &Ticket| {
        std::pin::pin!(ticket.called()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    };
    let servers = [Server { max_connections: 1, ..server("a") }, server("b")];
    let pool = ruled(Policy::default(), Rules::default(), &servers);
    servers[1].state.set_healthy(false);
    let held = pool.pick(&Tried::new(), None).unwrap();
    assert!(pool.pick(&Tried::new(), None).is_none() && pool.is_full(&Tried::new()));
    let ticket = pool.state().join(10).unwrap();
    assert!(!is_called(&ticket));
    drop(held);
    assert!(is_called(&ticket));
    let held = pool.pick(&Tried::new(), None).unwrap();
    assert!(!is_called(&ticket), "a server that is full calls nobody");
    servers[1].state.set_healthy(true);
    assert!(is_called(&ticket));
    let settings = Settings {
        balance: Policy::default(),
        retries: 0,
        connect_timeout: Duration::ZERO,
        sources: Vec::new(),
        rules: Rules::default(),
    };
    let wider = Pool::continuing(&pool, settings, vec![Server { max_connections: 2, ..servers[0].clone() }]);
    wider.take_over();
    assert!(is_called(&ticket));
    drop(held);
}

proptest! {
    #[test]
    fn whatever_the_rules_a_pick_is_eligible_and_there_is_one_if_there_can_be(
        servers in prop::collection::vec((0u16..4, 0u8..3, 0u8..3, 1u32..4, any::<bool>()), 1..12),
        (spill, fail_open, zone, limit) in (0u8..=100, 0u8..=100, 0u8..4, 1u32..20),
        events in prop::collection::vec((any::<prop::sample::Index>(), 0u8..6, any::<bool>()), 1..150),
        policy in prop::sample::select(Policy::ALL),
    ) {
        let servers: Vec<_> = servers.into_iter().enumerate().map(|(place, (weight, priority, zone, most, warm))| {
            let server = Server {
                weight: Weight::new(weight).unwrap(), full_weight: Weight::new(weight).unwrap(), priority,
                zone: (zone > 0).then(|| Name::new(&zone.to_string())), max_connections: most, ..server(&place.to_string())
            };
            if !warm {
                server.state.warm_up();
            }
            server
        }).collect();
        let rules = Rules {
            spill_below: percent(spill), fail_open: percent(fail_open), max_connections: limit,
            zone: (zone > 0).then(|| Name::new(&zone.to_string())), slow_start: Duration::from_secs(100), ..Rules::default()
        };
        let pool = ruled(policy, rules, &servers);
        let mut held = Vec::new();
        for (at, event, flag) in events {
            let server = at.get(&servers);
            match event {
                0 => server.state.set_healthy(flag),
                1 if !held.is_empty() => drop(held.swap_remove(at.index(held.len()))),
                2 => server.state.set_share(if flag { Percent::ALL } else { Percent::ZERO }),
                _ => {
                    let mut tried = Tried::new();
                    if flag {
                        tried.add(&server.state);
                    }
                    let wanted = |s: &&Server| s.weight.get() > 0;
                    let fit = servers.iter().filter(wanted).filter(|s| s.state.is_fit(s.weight)).count();
                    let blind = fit * 100 < usize::from(fail_open) * servers.iter().filter(wanted).count();
                    prop_assert_eq!(pool.fails_open(), blind);
                    let eligible = |s: &Server| {
                        let healthy = blind || s.state.is_healthy();
                        s.weight.get() > 0 && s.state.share() != Percent::ZERO && healthy
                            && s.state.active() < s.max_connections && !tried.has(&s.state)
                    };
                    let active: u32 = servers.iter().map(|s| s.state.active()).sum();
                    let possible = active < limit && servers.iter().any(eligible);
                    let states: Vec<_> = servers.iter().filter(|s| eligible(s)).map(|s| s.state.name.clone()).collect();
                    match pool.pick(&tried, None) {
                        None => prop_assert!(!possible),
                        Some(picked) => {
                            prop_assert!(active < limit && states.contains(&picked.server.state.name));
                            held.push(picked.lease);
                        }
                    }
                }
            }
        }
    }
}
