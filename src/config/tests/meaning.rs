//! Files that are right, and what they mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::backend::Duty;
use crate::balance::Policy;
use crate::config::model::{AccessLog, AdminHttp, LogFormat, LogLevel, OnDown, Server};
use crate::health::{Check, Initial, Timing};
use crate::net::address::BindAddr;
use crate::pool::{QueueRules, Rules};
use crate::units::{Name, Percent};

#[test]
fn a_minimal_file_has_the_defaults_of_the_machine() {
    let model = model(MINIMAL);
    assert_eq!(model.workers, 2);
    assert_eq!(model.max_connections, model.descriptors.max_connections);
    assert_eq!(model.descriptors.limit, 65_536);
    assert_eq!(model.listeners[0].max_connections, model.max_connections);
    assert_eq!(model.listeners[0].bind, [BindAddr::Dual(8080)]);
    assert_eq!(model.admin.http, AdminHttp::Off);
    assert_eq!(model.log.format, LogFormat::Auto);
}

#[test]
fn every_key_reaches_the_model() {
    let model = model(
        r#"
        workers = 3
        max_connections = 1000
        drain_timeout = "1m"
        watch = false
        zone = "a"
        admin.http = "[::1]:0"
        log = { level = "debug", format = "text", access = "access.log" }
        [listeners.a]
        bind = [80, ":https", "unix:run/a.sock"]
        protocol = "tcp"
        pool = "b"
        max_connections = 10
        backlog = 7
        timeouts = { idle = "4s", half_close = "3s", max_age = "1h" }
        [pools.b]
        balance = { algorithm = "p2c" }
        servers = [{ name = "n", address = "[::1]:http", weight = 9, backup = false, max_connections = 8,
            priority = 2, zone = "b", state = "drain" }, "1.2.3.4:5"]
        check = { type = "tcp", interval = "4s", fast_interval = "3s", timeout = "2s", rise = 5, fall = 6 }
        timeouts = { connect = "7s" }
        source = ["::2", "10.0.0.1"]
        retries = 0
        on_down = "drain"
        spill_below = "70%"
        fail_open = "20%"
        slow_start = "9s"
        max_connections = 50
        queue = { max = 3, timeout = "8s" }
        breaker = { max_pending = 6, max_requests = 7 }
        "#,
    );
    let seconds = Duration::from_secs;
    assert_eq!((model.workers, model.max_connections), (3, 1000));
    assert_eq!((model.drain_timeout, model.watch), (seconds(60), false));
    assert_eq!(model.admin.http, AdminHttp::On("[::1]:0".parse::<SocketAddr>().unwrap()));
    assert_eq!((model.log.level, model.log.format), (LogLevel::Debug, LogFormat::Text));
    assert_eq!(model.log.access, AccessLog::File(PathBuf::from("/etc/portreeve/access.log")));
    let listener = &model.listeners[0];
    let bind: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
    assert_eq!(bind, ["[::]:80", "[::]:443", "unix:/etc/portreeve/run/a.sock"]);
    assert_eq!((listener.max_connections, listener.backlog), (10, 7));
    let timeouts = listener.timeouts;
    assert_eq!([timeouts.idle, timeouts.half_close, timeouts.max_age], [seconds(4), seconds(3), seconds(3600)]);
    let pool = &model.pools[0];
    assert_eq!((&pool.balance, pool.retries, pool.on_down), (&Policy::P2c, 0, OnDown::Drain));
    assert_eq!(pool.timeouts.connect, seconds(7));
    assert_eq!(pool.source.len(), 2);
    let timing = Timing {
        interval: seconds(4),
        fast_interval: seconds(3),
        down_interval: seconds(4),
        timeout: seconds(2),
        rise: 5,
        fall: 6,
        initial: Initial::Check,
    };
    assert_eq!(pool.check, Check::tcp(timing));
    let [first, second] = pool.servers.as_slice() else { panic!("{:?}", pool.servers) };
    assert_eq!((first.name.as_str(), first.weight.get(), first.max_connections), ("n", 9, 8));
    assert_eq!(first.address.to_string(), "[::1]:80");
    assert_eq!((first.priority, first.zone.clone(), first.duty), (2, Some(Name::new("b")), Duty::Drain));
    let rules = Rules {
        spill_below: Percent::new(70).unwrap(),
        fail_open: Percent::new(20).unwrap(),
        zone: Some(Name::new("a")),
        slow_start: seconds(9),
        max_connections: 50,
        max_pending: 6,
        queue: QueueRules { max: 3, timeout: seconds(8) },
    };
    assert_eq!((&pool.rules, pool.max_requests), (&rules, 7));
    assert_eq!((second.name.as_str(), second.max_connections), ("1.2.3.4:5", Server::UNLIMITED));
}

#[test]
fn short_forms_mean_what_the_long_ones_do() {
    let short = MINIMAL.to_owned() + "balance = \"random\"\ncheck = \"none\"\n";
    let long = MINIMAL.to_owned() + "balance = { algorithm = \"random\" }\ncheck = { type = \"none\" }\n";
    assert_eq!(model(&short), model(&long));
    assert_eq!(model(&short).pools[0].check, Check::None);
}

#[test]
fn listeners_and_pools_keep_the_order_of_the_file() {
    let table = |name: &str| format!("[listeners.{name}]\nbind = 0\npool = \"{name}\"\n");
    let pool = |name: &str| format!("[pools.{name}]\nservers = [\"10.0.0.1:80\"]\n");
    let text: String = ["z", "a", "m"].iter().flat_map(|name| [table(name), pool(name)]).collect();
    let model = model(&text);
    let listeners: Vec<&str> = model.listeners.iter().map(|listener| listener.name.as_str()).collect();
    let pools: Vec<&str> = model.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!((listeners.as_slice(), pools.as_slice()), (["z", "a", "m"].as_slice(), ["z", "a", "m"].as_slice()));
}

#[test]
fn a_short_interval_shortens_the_fast_one_that_nobody_set() {
    let model = model(&(MINIMAL.to_owned() + "check = { interval = \"200ms\", timeout = \"100ms\" }\n"));
    let timing = model.pools[0].check.timing().unwrap();
    assert_eq!((timing.fast_interval, timing.down_interval), (Duration::from_millis(200), Duration::from_millis(200)));
}

#[test]
fn a_listener_serves_no_more_connections_than_the_process() {
    let text = format!("max_connections = 5\n{MINIMAL}");
    assert_eq!(model(&text).listeners[0].max_connections, 5);
}

#[test]
fn servers_that_are_not_checked_reserve_no_descriptors() {
    let checked = model(MINIMAL).descriptors.reserve;
    assert_eq!(model(&(MINIMAL.to_owned() + "check = \"none\"\n")).descriptors.reserve, checked - 1);
}
