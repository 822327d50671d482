//! Chapter: who is asked first, who waits when all are full, and who is taken out of service.

mod duty;
mod queue;

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::stage::watch::ADMIN;
use crate::stage::{Instance, Server, balancing, eventually, say};

const OFTEN: &str = "check = { interval = \"200ms\", timeout = \"190ms\", rise = 1, fall = 1 }\nretries = 0";

/// A pool `web` of servers with settings of their own, seen by an instance with an admin listener.
fn tables(servers: &[(SocketAddr, &str)], more: &str) -> String {
    let tables: Vec<_> = servers
        .iter()
        .map(|(server, more)| format!("{{ address = \"{server}\", {more} }}").replace(",  }", " }"))
        .collect();
    let text = balancing(&[], more).replace("servers = []", &format!("servers = [{}]", tables.join(", ")));
    format!("{ADMIN}{text}")
}

/// How often each of so many connections, one after the other, was answered with what.
async fn answers(instance: &Instance, connections: usize) -> HashMap<String, usize> {
    let mut answers = HashMap::new();
    for _ in 0..connections {
        *answers.entry(instance.hear().await).or_default() += 1;
    }
    answers
}

fn assert_about(answers: &HashMap<String, usize>, name: &str, percent: usize) {
    let all: usize = answers.values().sum();
    let share = 100 * answers.get(name).copied().unwrap_or(0) / all;
    assert!(share.abs_diff(percent) <= 12, "{name} has {share} % and not about {percent}: {answers:?}");
}

async fn pool(instance: &Instance) -> Value {
    instance.get("/api/v1/pools").await.json()[0].clone()
}

#[tokio::test]
async fn a_level_that_is_half_down_passes_half_of_the_connections_on_and_takes_them_back() {
    let [mut a, b, spare] = [Server::saying("a").await, Server::saying("b").await, Server::saying("spare").await];
    let servers = [(a.address, "priority = 0"), (b.address, ""), (spare.address, "priority = 1")];
    let text = tables(&servers, &format!("spill_below = \"100%\"\nbalance = \"random\"\n{OFTEN}"));
    let instance = Instance::start(&text).await;
    assert!(!answers(&instance, 50).await.contains_key("spare"));
    a.stop().await;
    instance.becomes(a.address, false).await;
    let now = answers(&instance, 300).await;
    assert_about(&now, "b", 50);
    assert_about(&now, "spare", 50);
    let _again = Server::start_on(a.address, |stream| say(stream, "a")).await;
    instance.becomes(a.address, true).await;
    assert!(!answers(&instance, 50).await.contains_key("spare"));
    let shown = pool(&instance).await;
    assert_eq!((&shown["servers"][2]["priority"], &shown["servers"][0]["priority"]), (&1.into(), &0.into()));
}

#[tokio::test]
async fn servers_of_the_own_zone_get_what_they_can_carry_and_the_others_the_rest() {
    let servers = [Server::saying("near").await, Server::saying("far").await, Server::saying("far").await];
    let zones = ["zone = \"a\"", "zone = \"b\"", "zone = \"b\""];
    let tabled: Vec<_> = servers.iter().map(|server| server.address).zip(zones).collect();
    // One of three servers, for one of two zones.
    let instance = Instance::start(&format!("zone = \"a\"\n{}", tables(&tabled, ""))).await;
    assert_about(&answers(&instance, 300).await, "near", 67);
    instance.running.reload_text(&format!("zone = \"a\"\n{}", tables(&tabled[..2], ""))).await.unwrap();
    assert_eq!(answers(&instance, 50).await["near"], 50);
    instance.running.reload_text(&format!("zone = \"c\"\n{}", tables(&tabled[..2], ""))).await.unwrap();
    assert_about(&answers(&instance, 300).await, "near", 50);
}

#[tokio::test]
async fn a_server_that_comes_up_or_joins_others_starts_slowly_and_a_pool_that_is_new_does_not() {
    let [mut a, b, c] = [Server::saying("a").await, Server::saying("b").await, Server::saying("c").await];
    let slow = format!("slow_start = \"1h\"\n{OFTEN}");
    let instance = Instance::start(&tables(&[(a.address, ""), (b.address, "")], &slow)).await;
    assert_about(&answers(&instance, 100).await, "a", 50);
    a.stop().await;
    instance.becomes(a.address, false).await;
    let _again = Server::start_on(a.address, |stream| say(stream, "a")).await;
    instance.becomes(a.address, true).await;
    assert_eq!(instance.server(a.address).await["warming"], true);
    assert_about(&answers(&instance, 200).await, "a", 9);
    let three = [(a.address, ""), (b.address, ""), (c.address, "")];
    instance.running.reload_text(&tables(&three, &slow)).await.unwrap();
    assert_eq!(instance.server(c.address).await["warming"], true);
    let now = answers(&instance, 200).await;
    assert_about(&now, "c", 9);
    assert_about(&now, "b", 83);
    instance.running.reload_text(&tables(&three, OFTEN)).await.unwrap();
    assert_about(&answers(&instance, 90).await, "c", 33);
    assert_eq!(instance.server(a.address).await["warming"], false);
}

#[tokio::test]
async fn a_pool_whose_checks_all_fail_is_used_all_the_same_if_it_fails_open() {
    let [a, b] = [Server::saying("a").await, Server::saying("b").await];
    // Neither speaks HTTP.
    let check = "check = { type = \"http\", interval = \"200ms\", timeout = \"190ms\", rise = 1, fall = 1 }";
    let servers = [(a.address, ""), (b.address, "")];
    for balance in ["round_robin", "least_conn"] {
        let text = tables(&servers, &format!("fail_open = \"50%\"\nbalance = \"{balance}\"\n{check}"));
        let instance = Instance::start(&text).await;
        instance.becomes(a.address, false).await;
        instance.becomes(b.address, false).await;
        let series = "portreeve_pool_fail_open{pool=\"web\"}";
        eventually("the metric", || instance.metric(series) == Some(1.0)).await;
        assert_about(&answers(&instance, 100).await, "a", 50);
        let shown = pool(&instance).await;
        assert_eq!((&shown["fail_open"], &shown["servers_open"]), (&true.into(), &2.into()));
        instance.running.reload_text(&tables(&servers, &format!("balance = \"{balance}\"\n{check}"))).await.unwrap();
        assert_eq!(instance.metric(series), Some(0.0));
        instance.refuses().await;
    }
}
