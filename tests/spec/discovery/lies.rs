//! Names that are not what they should be: missing, failing, silent, lying, flapping.

use std::net::{IpAddr, Ipv4Addr};

use super::{Fleet, finding};
use crate::stage::dns::{Dns, Says};
use crate::stage::{Instance, Program, Server, say, within};
use portreeve::metrics::Answered;
use tokio::time::Instant;

/// What a pool has to say to ask for `api.test`.
pub(super) fn asking(dns: &Dns, port: u16, more: &str) -> String {
    format!(
        "discover = {{ type = \"dns\", name = \"api.test:{port}\", resolvers = [\"{}\"], min_ttl = \"20ms\", \
         max_ttl = \"20ms\", timeout = \"400ms\", {more} }}",
        dns.address
    )
}

const HERE: &str = "allow_loopback = true";

#[tokio::test]
async fn the_last_good_answer_is_kept_when_a_name_is_gone_fails_or_goes_unanswered() {
    let fleet = Fleet::on(&["127.1.1.1", "127.1.1.2"]).await;
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["127.1.1.1"]));
    let instance = Instance::start(&finding(&asking(&dns, *fleet.port, HERE))).await;
    assert_eq!(instance.hear().await, "127.1.1.1");
    for (says, result) in [
        (Says::NoName, Answered::Empty),
        (Says::ips(&[]), Answered::Empty),
        (Says::Failure, Answered::Failed),
        (Says::Silence, Answered::Failed),
    ] {
        dns.say("api.test", says.clone());
        instance.answers_again(result, 2).await;
        assert_eq!(instance.hear().await, "127.1.1.1", "{says:?}");
        let source = instance.source().await;
        assert!(source["error"].is_string() && source["servers"] == 1, "{says:?}: {source}");
    }
    dns.say("api.test", Says::ips(&["127.1.1.2"]));
    instance.has(&[fleet.name("127.1.1.2")]).await;
    assert!(instance.source().await["error"].is_null());
}

#[tokio::test]
async fn a_pool_may_shrink_to_nothing_if_it_is_told_so_and_returns() {
    let fleet = Fleet::on(&["127.1.2.1"]).await;
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["127.1.2.1"]));
    for policy in ["round_robin", "least_conn", "random", "p2c"] {
        let asked = asking(&dns, *fleet.port, "allow_loopback = true, allow_empty = true");
        let instance = Instance::start(&finding(&format!("balance = \"{policy}\"\n{asked}"))).await;
        assert_eq!(instance.hear().await, "127.1.2.1");
        dns.say("api.test", Says::NoName);
        instance.has(&[]).await;
        instance.refuses().await;
        // What fails is no empty answer.
        dns.say("api.test", Says::ips(&["127.1.2.1"]));
        instance.has(&[fleet.name("127.1.2.1")]).await;
        dns.say("api.test", Says::Failure);
        instance.answers_again(Answered::Failed, 2).await;
        assert_eq!(instance.hear().await, "127.1.2.1");
        dns.say("api.test", Says::ips(&["127.1.2.1"]));
    }
}

#[tokio::test]
async fn an_answer_that_leads_to_this_machine_is_refused_unless_it_is_allowed() {
    let fleet = Fleet::on(&["127.1.3.1"]).await;
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["127.1.3.1", "169.254.169.254", "::1", "0.0.0.0", "::ffff:127.0.0.1"]));
    let instance = Instance::start(&finding(&asking(&dns, *fleet.port, ""))).await;
    instance.answers_again(Answered::Failed, 1).await;
    instance.refuses().await;
    assert!(instance.source().await["error"].as_str().unwrap().contains("127.1.3.1"));
    dns.say("api.test", Says::ips(&["127.1.3.1", "192.0.2.1"]));
    instance.has(&[fleet.name("192.0.2.1")]).await;
}

#[tokio::test]
async fn of_thousands_of_addresses_the_first_are_taken_and_it_is_said() {
    let dns = Dns::start().await;
    let many = (0..2000u32).rev().map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n))).collect();
    dns.say("api.test", Says::Addresses(many, 0));
    let mut program = Program::start(&finding(&asking(&dns, 80, "max_servers = 300")));
    let line = program.says("of 2000 servers the first 300 are taken").await;
    assert!(line.contains("\"pool\":\"web\""), "{line}");
    let admin = program.admin().await;
    let pools = crate::stage::watch::get(admin, "/api/v1/pools").await.json();
    let servers = pools[0]["servers"].as_array().unwrap();
    assert_eq!((servers.len(), servers[0]["name"].as_str()), (300, Some("10.0.0.0:80")));
    assert_eq!(servers[299]["name"], "10.0.1.43:80");
}

#[tokio::test]
async fn a_name_that_holds_for_no_time_is_asked_for_no_more_often_than_the_shortest_time_allows() {
    let fleet = Fleet::on(&["127.1.4.1"]).await;
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["127.1.4.1"]));
    let asked =
        asking(&dns, *fleet.port, HERE).replace("min_ttl = \"20ms\", max_ttl = \"20ms\"", "min_ttl = \"200ms\"");
    let start = Instant::now();
    let instance = Instance::start(&finding(&asked)).await;
    instance.answers_again(Answered::Same, 3).await;
    // Two questions for each answer, and a tenth less than the time between them.
    let most = 2 + 2 * start.elapsed().as_millis() / 180;
    assert!(dns.asked() as u128 <= most, "{} questions in {:?}", dns.asked(), start.elapsed());
}

#[tokio::test]
async fn servers_that_come_and_go_all_the_time_are_put_into_effect_once_a_second() {
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["192.0.2.1"]));
    let instance = Instance::start(&finding(&asking(&dns, 80, ""))).await;
    let start = Instant::now();
    let (first, mut flips) = (instance.running.snapshot().edition, 0);
    while instance.answers(Answered::Changed) < 20 {
        flips += 1;
        dns.say("api.test", Says::ips(&[if flips % 2 == 0 { "192.0.2.1" } else { "192.0.2.2" }]));
        instance.answers_again(Answered::Changed, 1).await;
    }
    let editions = instance.running.snapshot().edition - first;
    assert!(editions <= 2 + start.elapsed().as_secs(), "{editions} in {:?}", start.elapsed());
}

#[tokio::test]
async fn services_lead_nowhere_without_ports_targets_or_addresses_and_one_target_that_fails_fails_the_answer() {
    let dns = Dns::start().await;
    let service = |port, target: &str| (0, 0, port, target.to_owned());
    let usable = service(80, "a.test.");
    let all = vec![usable.clone(), service(0, "a.test."), service(80, "."), service(81, "nowhere.test.")];
    dns.say("_web._tcp.api.test", Says::Services(all));
    dns.say("a.test", Says::ips(&["192.0.2.1", "2001:db8::1"]));
    dns.say("b.test", Says::Failure);
    let asked = asking(&dns, 80, "").replace("api.test:80", "_web._tcp.api.test");
    let instance = Instance::start(&finding(&asked)).await;
    let names = ["192.0.2.1:80".to_owned(), "[2001:db8::1]:80".to_owned()];
    instance.has(&names).await;
    dns.say("_web._tcp.api.test", Says::Services(vec![service(80, "b.test."), usable]));
    instance.answers_again(Answered::Failed, 2).await;
    instance.has(&names).await;
}

#[tokio::test]
async fn a_resolver_that_says_nothing_delays_the_start_no_longer_than_its_timeout_and_others_serve_meanwhile() {
    let dns = Dns::start().await;
    dns.say("api.test", Says::Silence);
    let fixed = Server::saying("fixed").await;
    let pool = format!("servers = [\"{}\"]\n{}", fixed.address, asking(&dns, 80, HERE));
    let instance = within("the start", Instance::start(&finding(&pool))).await;
    assert_eq!(instance.hear().await, "fixed");
    assert_eq!(instance.source().await["error"], "no answer in time");
}

#[tokio::test]
async fn a_reload_keeps_what_was_found_even_if_the_source_fails_and_is_asked_in_another_way() {
    let fleet = Fleet::on(&["127.1.5.1"]).await;
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["127.1.5.1"]));
    let text = finding(&asking(&dns, *fleet.port, HERE));
    let instance = Instance::start(&text).await;
    assert_eq!(instance.hear().await, "127.1.5.1");
    dns.say("api.test", Says::Silence);
    instance.answers_again(Answered::Failed, 1).await;
    let applied =
        instance.running.reload_text(&text.replace("workers = 2", "workers = 2\ndrain_timeout = \"1s\"")).await;
    let applied = applied.unwrap();
    assert_eq!((applied.changes, applied.generation), (vec!["drain_timeout changed".to_owned()], 2));
    assert_eq!(instance.hear().await, "127.1.5.1");
    let other = text.replace("timeout = \"400ms\"", "timeout = \"300ms\"");
    instance.running.reload_text(&other).await.unwrap();
    assert_eq!(instance.hear().await, "127.1.5.1");
    assert_eq!(instance.of_server("connections_total", fleet.name("127.1.5.1"), ""), 3.0);
    // Without the source there is nothing left of it.
    let server = Server::start(|stream| say(stream, "fixed")).await;
    let fixed = finding(&format!("servers = [\"{}\"]", server.address));
    instance.running.reload_text(&fixed).await.unwrap();
    instance.has(&[server.address.to_string()]).await;
    assert_eq!(instance.hear().await, "fixed");
    assert!(!instance.running.catalogue().expose().contains("portreeve_discovery_"));
}

#[tokio::test]
async fn one_kind_of_address_that_fails_takes_none_of_the_other_away() {
    let dns = Dns::start().await;
    dns.say("api.test", Says::ips(&["192.0.2.1", "2001:db8::1"]));
    let instance = Instance::start(&finding(&asking(&dns, 80, ""))).await;
    instance.has(&["192.0.2.1:80".to_owned(), "[2001:db8::1]:80".to_owned()]).await;
    dns.say("api.test", Says::OnlyV4(vec!["192.0.2.1".parse().unwrap()]));
    instance.answers_again(Answered::Same, 3).await;
    assert_eq!(instance.names().await.len(), 2);
    dns.say("api.test", Says::ips(&["192.0.2.1"]));
    instance.has(&["192.0.2.1:80".to_owned()]).await;
}
