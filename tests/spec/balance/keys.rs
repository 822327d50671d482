//! Servers that are chosen by a key, and by how long they take.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::hold;
use crate::sni::client_hello;
use crate::stage::http::{Client, Recorder, Stand, ok};
use crate::stage::{Instance, Server, hear, say};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Servers that answer requests with their names.
async fn recorders() -> Vec<Recorder> {
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(Recorder::answering(ok(name)).await);
    }
    servers
}

/// The table of a server by its name.
fn named(name: &str, address: impl std::fmt::Display) -> String {
    format!("{{ name = \"{name}\", address = \"{address}\" }}")
}

fn tables(servers: &[Recorder]) -> Vec<String> {
    servers.iter().zip(NAMES).map(|(server, name)| named(name, server.address())).collect()
}

/// A listener `web` with these further keys, and an unchecked pool that chooses like this.
fn choosing(listener: &str, servers: &[String], balance: &str) -> String {
    let servers = servers.join(", ");
    format!(
        "workers = 2\n[listeners.web]\nbind = \"127.0.0.1:0\"\n{listener}\n\
         [pools.web]\nservers = [{servers}]\ncheck = \"none\"\nbalance = {balance}\n"
    )
}

const HTTP: &str = "protocol = \"http\"\npool = \"web\"";

/// Who answers a request for a path with these further lines, from a client of its own.
async fn answers(instance: &Instance, path: &str, lines: &str) -> String {
    Client::of(instance).await.ask_with(path, lines).await.text().to_owned()
}

#[tokio::test]
async fn requests_of_one_key_go_to_one_server_and_instances_agree_on_it() {
    let servers = recorders().await;
    let in_order = tables(&servers);
    let mut reversed = in_order.clone();
    reversed.reverse();
    for (key, path, line) in [
        ("header:x-user", "/", "X-User: #\r\n"),
        ("cookie:sid", "/", "Cookie: lang=en; sid=#\r\n"),
        ("path", "/items/#?sort=up", ""),
        ("query:id", "/items?sort=up&id=#", ""),
    ] {
        for algorithm in ["source_hash", "maglev", "ring_hash"] {
            let balance = format!("{{ algorithm = \"{algorithm}\", key = \"{key}\" }}");
            let instance = Instance::start(&choosing(HTTP, &in_order, &balance)).await;
            let other = Instance::start(&choosing(HTTP, &reversed, &balance)).await;
            let mut seen = BTreeSet::new();
            for number in 0..40 {
                let number = number.to_string();
                let (path, line) = (path.replace('#', &number), line.replace('#', &number));
                let first = answers(&instance, &path, &line).await;
                assert_eq!(answers(&instance, &path, &line).await, first, "{algorithm} by {key}");
                assert_eq!(answers(&other, &path, &line).await, first, "{algorithm} by {key}");
                seen.insert(first);
            }
            assert_eq!(seen.len(), NAMES.len(), "{algorithm} by {key}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_request_without_the_key_goes_by_the_address_of_its_client() {
    let servers = recorders().await;
    let balance = |key: &str| format!("{{ algorithm = \"maglev\", key = \"{key}\" }}");
    let by_header = Instance::start(&choosing(HTTP, &tables(&servers), &balance("header:x-user"))).await;
    let by_source = Instance::start(&choosing(HTTP, &tables(&servers), &balance("source"))).await;
    let mut seen = BTreeSet::new();
    for last in 1..30 {
        let from = async |instance: &Instance| {
            let mut client = Client::from([127, 0, 0, last], instance.address("web")).await;
            client.ask("/").await.text().to_owned()
        };
        let first = from(&by_source).await;
        assert_eq!(from(&by_source).await, first);
        assert_eq!(from(&by_header).await, first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), NAMES.len(), "{seen:?}");
}

#[tokio::test]
async fn connections_for_one_server_name_go_to_one_server_without_being_decrypted() {
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(Server::saying(name).await);
    }
    let tables: Vec<_> = servers.iter().zip(NAMES).map(|(server, name)| named(name, server.address)).collect();
    let listener = "sni = [{ host = \"*.example.com\", pool = \"web\" }]";
    let balance = "{ algorithm = \"maglev\", key = \"sni\" }";
    let instance = Instance::start(&choosing(listener, &tables, balance)).await;
    let mut seen = BTreeSet::new();
    for number in 0..24 {
        let hear_for = async |name: String| {
            let mut client = instance.connect().await;
            client.write_all(&client_hello(Some(&name), &[])).await.unwrap();
            hear(client).await.unwrap()
        };
        let first = hear_for(format!("shop{number}.example.com")).await;
        assert_eq!(hear_for(format!("SHOP{number}.Example.COM")).await, first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), NAMES.len(), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_joins_takes_keys_over_and_the_others_keep_theirs() {
    let servers = recorders().await;
    let all = tables(&servers);
    let text = |servers: &[String]| choosing(HTTP, servers, "{ algorithm = \"ring_hash\", key = \"path\" }");
    let instance = Instance::start(&text(&all[..3])).await;
    let mut before = HashMap::new();
    for number in 0..60 {
        before.insert(number, answers(&instance, &format!("/{number}"), "").await);
    }
    instance.running.reload_text(&text(&all)).await.unwrap();
    let mut moved = 0;
    for (number, before) in before {
        let after = answers(&instance, &format!("/{number}"), "").await;
        assert!(after == before || after == "d", "{number} went from {before} to {after}");
        moved += usize::from(after == "d");
    }
    assert!((5..30).contains(&moved), "{moved} of 60");
}

#[tokio::test]
async fn a_hot_client_spills_over_and_stays_where_it_is_if_the_bound_is_off() {
    // Of forty, a server may have ⌈1.25 × 40 ∕ 4⌉.
    for (load_factor, most) in [("1.25", 13), ("\"off\"", 40)] {
        let mut servers = Vec::new();
        for name in NAMES {
            servers.push(Server::start(move |stream| say(stream, name)).await);
        }
        let tables: Vec<_> = servers.iter().zip(NAMES).map(|(server, name)| named(name, server.address)).collect();
        let balance = format!("{{ algorithm = \"maglev\", load_factor = {load_factor} }}");
        let instance = Instance::start(&choosing("pool = \"web\"", &tables, &balance)).await;
        let mut held = Vec::new();
        for _ in 0..40 {
            held.push(hold(&instance).await);
        }
        let counts: Vec<_> = servers.iter().map(Server::accepted).collect();
        assert_eq!(counts.iter().sum::<usize>(), 40);
        let fullest = counts.into_iter().max().unwrap();
        assert!(fullest <= most && (load_factor != "\"off\"" || fullest == most), "{load_factor}: {fullest}");
    }
}

#[tokio::test]
async fn a_server_that_is_slow_to_answer_gets_nothing_while_another_is_quick() {
    let (quick, slow) = (Recorder::answering(ok("quick")).await, Stand::new().await);
    let servers = [named("quick", quick.address()), named("slow", slow.address)];
    let instance = Instance::start(&choosing(HTTP, &servers, "\"peak_ewma\"")).await;
    let (mut patient, mut client) = (Client::of(&instance).await, Client::of(&instance).await);
    // Each is asked once, since nobody knows how long it takes.
    patient.get("/", "").await;
    let mut asked = tokio::select! {
        biased;
        response = patient.response() => {
            assert_eq!(response.text(), "quick");
            patient.get("/", "").await;
            slow.asked().await.0
        }
        (asked, _) = slow.asked() => asked,
    };
    let waiting = Instant::now();
    while waiting.elapsed() < Duration::from_secs(1) {
        assert_eq!(client.ask("/").await.text(), "quick", "nobody knows yet how long the other one takes");
    }
    asked.send(ok("slow")).await;
    assert_eq!(patient.response().await.text(), "slow");
    for _ in 0..200 {
        assert_eq!(client.ask("/").await.text(), "quick");
    }
}
