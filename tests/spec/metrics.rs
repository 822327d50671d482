//! Chapter: what is counted.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::{ClosedPort, Instance, Server, balancing, eventually, hear, metric, within};
use portreeve::ending::Reason;

/// Every family that a dashboard may rely on, with its type and the names of its labels.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    ("portreeve_build_info", "gauge", &["version"]),
    ("portreeve_config_generation", "gauge", &[]),
    ("portreeve_config_reloads_total", "counter", &["result"]),
    ("portreeve_workers", "gauge", &[]),
    ("portreeve_listener_connections_total", "counter", &["listener"]),
    ("portreeve_listener_connections_active", "gauge", &["listener"]),
    ("portreeve_listener_bytes_total", "counter", &["listener", "direction"]),
    ("portreeve_listener_refused_total", "counter", &["listener", "reason"]),
    ("portreeve_listener_ended_total", "counter", &["listener", "reason"]),
    ("portreeve_listener_connection_seconds", "histogram", &["listener"]),
    ("portreeve_server_up", "gauge", &["pool", "server"]),
    ("portreeve_server_connections_active", "gauge", &["pool", "server"]),
    ("portreeve_server_connections_total", "counter", &["pool", "server"]),
    ("portreeve_server_connect_seconds", "histogram", &["pool", "server"]),
    ("portreeve_server_connect_failures_total", "counter", &["pool", "server", "reason"]),
    ("portreeve_server_bytes_total", "counter", &["pool", "server", "direction"]),
    ("portreeve_server_check_seconds", "histogram", &["pool", "server"]),
    ("portreeve_server_checks_total", "counter", &["pool", "server", "result"]),
    ("process_open_fds", "gauge", &[]),
    ("process_max_fds", "gauge", &[]),
];

/// One line of the text format that is a series.
#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads a line as the text format 0.0.4 has it: `name{label="value",…} value`.
fn series(line: &str) -> Option<Series> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let labels = labels.split_terminator(',').map(|label| {
        let (label, value) = label.split_once('=')?;
        is_name(label).then_some(())?;
        Some((label.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
    });
    let labels = labels.collect::<Option<BTreeMap<_, _>>>()?;
    is_name(name).then_some(Series { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The sum of all series of a family.
fn sum(text: &str, family: &str) -> f64 {
    let all = text.lines().filter(|line| !line.starts_with('#')).filter_map(series);
    all.filter(|series| series.name == family).map(|series| series.value).sum()
}

/// An instance with a checked pool, over a server and a port on which there is none.
async fn exposed() -> (Server, ClosedPort, Instance, String) {
    const CHECK: &str = "check = { interval = \"1h\", fast_interval = \"1h\", timeout = \"5s\" }";
    let (server, dead) = (Server::echo().await, ClosedPort::new());
    let instance = Instance::watched(&balancing(&[server.address, dead.address], CHECK)).await;
    instance.becomes(dead.address, false).await;
    eventually("the first check", || instance.of_server("checks_total", server.address, ",result=\"passed\"") == 1.0)
        .await;
    let answer = instance.get("/metrics").await;
    assert!(answer.head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    (server, dead, instance, answer.body)
}

#[tokio::test]
async fn every_family_is_there_with_its_type_and_its_labels() {
    let (_server, _dead, _instance, text) = exposed().await;
    for (family, kind, labels) in FAMILIES {
        assert!(text.lines().any(|line| line == format!("# TYPE {family} {kind}")), "{family} is no {kind}");
        assert!(text.lines().any(|line| line.starts_with(&format!("# HELP {family} "))), "{family} has no help");
        let name = if *kind == "histogram" { format!("{family}_count") } else { (*family).to_owned() };
        let all: Vec<_> = text.lines().filter_map(series).filter(|series| series.name == name).collect();
        assert!(!all.is_empty(), "{family} has no series");
        for Series { labels: seen, .. } in all {
            assert!(
                seen.len() == labels.len() && labels.iter().all(|label| seen.contains_key(*label)),
                "{family} {seen:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_line_is_a_series_a_type_or_a_help_and_no_series_stands_twice() {
    let (_server, _dead, _instance, text) = exposed().await;
    let mut seen = std::collections::HashSet::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => assert!(comment.starts_with("HELP ") || comment.starts_with("TYPE "), "{line}"),
            None => {
                assert!(series(line).is_some_and(|series| series.value >= 0.0), "{line}");
                assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "{line} stands twice");
            }
        }
    }
    assert!(seen.len() > 100, "only {} series were seen", seen.len());
}

#[tokio::test]
async fn every_reason_to_end_for_has_its_series_from_the_start() {
    let (_server, _dead, _instance, text) = exposed().await;
    for reason in Reason::ALL {
        let family = if reason.is_refusal() { "refused" } else { "ended" };
        let series = format!("portreeve_listener_{family}_total{{listener=\"web\",reason=\"{reason}\"}}");
        assert_eq!(metric(&text, &series), Some(0.0), "{series}");
    }
}

#[tokio::test]
async fn known_traffic_is_counted_exactly() {
    let server = Server::echo().await;
    let instance = Instance::balancing(&[server.address], "").await;
    for _ in 0..10 {
        let mut client = instance.connect().await;
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(hear(client).await.unwrap(), "hello");
    }
    instance.ended(Reason::Done, 10).await;
    let of_listener = |family: &str, labels: &str| {
        instance.metric(&format!("portreeve_listener_{family}{{listener=\"web\"{labels}}}")).unwrap()
    };
    assert_eq!(of_listener("connections_total", ""), 10.0);
    assert_eq!(of_listener("connections_active", ""), 0.0);
    assert_eq!(of_listener("bytes_total", ",direction=\"in\""), 50.0);
    assert_eq!(of_listener("bytes_total", ",direction=\"out\""), 50.0);
    assert_eq!(of_listener("connection_seconds_count", ""), 10.0);
    assert_eq!(of_listener("connection_seconds_bucket", ",le=\"+Inf\""), 10.0);
    assert_eq!(instance.of_server("connections_total", server.address, ""), 10.0);
    assert_eq!(instance.of_server("connections_active", server.address, ""), 0.0);
    assert_eq!(instance.of_server("bytes_total", server.address, ",direction=\"in\""), 50.0);
    assert_eq!(instance.of_server("bytes_total", server.address, ",direction=\"out\""), 50.0);
    assert_eq!(instance.of_server("connect_seconds_count", server.address, ""), 10.0);
}

#[tokio::test]
async fn bytes_are_counted_while_a_connection_lasts() {
    let server = Server::echo().await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    for said in 1..=3 {
        client.write_all(b"hello").await.unwrap();
        within("the echo", client.read_exact(&mut [0; 5])).await.unwrap();
        let bytes = f64::from(said * 5);
        eventually("the count", || instance.of_server("bytes_total", server.address, ",direction=\"out\"") == bytes)
            .await;
    }
    assert_eq!(instance.metric("portreeve_listener_connections_active{listener=\"web\"}"), Some(1.0));
    assert_eq!(instance.of_server("connections_active", server.address, ""), 1.0);
}

#[tokio::test]
async fn at_rest_every_connection_was_refused_or_has_ended() {
    let (server, dead) = (Server::silent().await, ClosedPort::new());
    let text = balancing(&[dead.address, server.address], "retries = 0\nbalance = \"random\"")
        .replace("pool = \"web\"", "pool = \"web\"\nmax_connections = 3");
    let instance = Instance::start(&text).await;
    let mut held = Vec::new();
    for round in 0..60 {
        if round % 6 == 0 {
            held.clear();
        }
        held.extend(tokio::net::TcpStream::connect(instance.address("web")).await);
    }
    drop(held);
    eventually("rest", || {
        let text = instance.running.catalogue().expose();
        let of_listener = |family: &str| sum(&text, &format!("portreeve_listener_{family}"));
        let over = of_listener("refused_total") + of_listener("ended_total");
        of_listener("connections_total") == 60.0 && of_listener("connections_active") == 0.0 && over == 60.0
    })
    .await;
    let text = instance.running.catalogue().expose();
    assert!(sum(&text, "portreeve_listener_refused_total") > 0.0, "some were to be refused");
    let failures = instance.of_server("connect_failures_total", dead.address, ",reason=\"connect_refused\"");
    let refused = "portreeve_listener_ended_total{listener=\"web\",reason=\"connect_refused\"}";
    assert_eq!(metric(&text, refused), Some(failures));
}
