//! Connecting to servers: what fails, what is tried again, and from where.

use std::net::SocketAddr;

use portreeve::ending::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::stage::access::AccessLog;
use crate::stage::{ClosedPort, Deaf, Instance, Server, balancing, eventually, hear, is_reset, within};

#[tokio::test]
async fn a_closed_port_resets_the_client_at_once() {
    let closed = ClosedPort::new();
    let instance = Instance::balancing(&[closed.address], "").await;
    let end = instance.outcome().await;
    assert!(is_reset(&end), "the client saw {end:?}");
    instance.ended(Reason::ConnectRefused, 1).await;
    assert_eq!(failures(&instance, closed.address, "connect_refused"), 1.0);
}

#[tokio::test]
async fn the_access_log_names_the_server_that_was_tried_last_in_vain() {
    let (closed, log) = (ClosedPort::new(), AccessLog::new());
    let instance = Instance::start(&log.of(&balancing(&[closed.address], ""))).await;
    assert!(is_reset(&instance.outcome().await));
    let line = log.line(1).await;
    assert_eq!((&line["reason"], &line["server"]), (&"connect_refused".into(), &closed.address.to_string().into()));
    assert_eq!(line.get("connect_ms"), None);
}

#[tokio::test]
async fn every_server_is_tried_once_before_the_client_is_given_up() {
    let closed = [ClosedPort::new(), ClosedPort::new(), ClosedPort::new()];
    let instance = Instance::balancing(&closed.each_ref().map(|port| port.address), "").await;
    assert!(is_reset(&instance.outcome().await));
    instance.ended(Reason::ConnectRefused, 1).await;
    for port in &closed {
        assert_eq!(failures(&instance, port.address, "connect_refused"), 1.0, "{}", port.address);
    }
}

#[tokio::test]
async fn no_more_servers_are_tried_than_the_retries_allow() {
    let closed = [ClosedPort::new(), ClosedPort::new(), ClosedPort::new()];
    let instance = Instance::balancing(&closed.each_ref().map(|port| port.address), "retries = 1").await;
    assert!(is_reset(&instance.outcome().await));
    instance.ended(Reason::ConnectRefused, 1).await;
    let tried: f64 = closed.iter().map(|port| failures(&instance, port.address, "connect_refused")).sum();
    assert_eq!(tried, 2.0);
}

#[tokio::test]
async fn with_one_good_server_among_closed_ones_every_client_gets_an_answer() {
    let (first, good, last) = (ClosedPort::new(), Server::saying("good").await, ClosedPort::new());
    let instance = Instance::balancing(&[first.address, good.address, last.address], "").await;
    for _ in 0..60 {
        assert_eq!(instance.hear().await, "good");
    }
    assert_eq!(good.accepted(), 60);
    assert!(failures(&instance, first.address, "connect_refused") > 0.0, "the closed ones were never tried");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_the_connect_timeout() {
    let deaf = Deaf::start().await;
    let more = "timeouts = { connect = \"200ms\" }";
    let instance = Instance::balancing(&[deaf.address], more).await;
    assert!(is_reset(&instance.outcome().await));
    instance.ended(Reason::ConnectTimeout, 1).await;
    assert_eq!(failures(&instance, deaf.address, "connect_timeout"), 1.0);
}

#[tokio::test]
async fn a_client_of_a_server_that_does_not_answer_is_given_to_another() {
    let (deaf, good) = (Deaf::start().await, Server::saying("good").await);
    let more = "timeouts = { connect = \"200ms\" }";
    let instance = Instance::balancing(&[deaf.address, good.address], more).await;
    for _ in 0..4 {
        assert_eq!(instance.hear().await, "good");
    }
    assert!(failures(&instance, deaf.address, "connect_timeout") > 0.0);
}

#[tokio::test]
async fn when_every_server_is_full_the_client_is_reset_and_a_place_frees_with_the_connection_that_held_it() {
    let server = Server::echo().await;
    let servers =
        format!("servers = [{{ address = \"{}\", max_connections = 1 }}]\nqueue = {{ max = 0 }}", server.address);
    let configuration =
        format!("[listeners.web]\nbind = \"127.0.0.1:0\"\npool = \"web\"\n[pools.web]\ncheck = \"none\"\n{servers}\n");
    let instance = Instance::start(&configuration).await;
    let mut holder = instance.connect().await;
    holder.write_all(b"x").await.unwrap();
    within("the echo", holder.read_exact(&mut [0])).await.unwrap();
    assert!(is_reset(&instance.outcome().await));
    instance.ended(Reason::NoServer, 1).await;
    drop(holder);
    instance.ended(Reason::Done, 1).await;
    let mut next = instance.connect().await;
    next.write_all(b"y").await.unwrap();
    within("the echo", next.read_exact(&mut [0])).await.unwrap();
}

#[tokio::test]
async fn source_addresses_are_used_in_turn() {
    let server = Server::start(|mut stream| async move {
        let source = stream.peer_addr().unwrap().ip().to_string();
        stream.write_all(source.as_bytes()).await.unwrap();
    })
    .await;
    let instance = Instance::balancing(&[server.address], "source = [\"127.0.0.2\", \"127.0.0.3\"]").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(instance.hear().await);
    }
    assert_eq!(seen, ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]);
}

#[tokio::test]
async fn a_server_can_be_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let instance = Instance::start(&format!(
        "[listeners.web]\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [pools.web]\ncheck = \"none\"\nservers = [\"unix:{}\"]\n",
        path.display()
    ))
    .await;
    let client = tokio::spawn(hear(instance.connect().await));
    let (mut stream, _) = within("the connection", listener.accept()).await.unwrap();
    stream.write_all(b"from a unix socket").await.unwrap();
    drop(stream);
    assert_eq!(client.await.unwrap().unwrap(), "from a unix socket");
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn connections_to_a_server_are_counted_while_they_last() {
    let server = Server::echo().await;
    let instance = Instance::balancing(&[server.address], "").await;
    let client = instance.connect().await;
    let active = format!("portreeve_server_connections_active{{pool=\"web\",server=\"{}\"}}", server.address);
    eventually("one connection", || instance.metric(&active) == Some(1.0)).await;
    drop(client);
    eventually("none", || instance.metric(&active) == Some(0.0)).await;
}

/// How many attempts to connect to a server failed for a reason.
fn failures(instance: &Instance, server: SocketAddr, reason: &str) -> f64 {
    let labels = format!("pool=\"web\",server=\"{server}\",reason=\"{reason}\"");
    instance.metric(&format!("portreeve_server_connect_failures_total{{{labels}}}")).unwrap_or(0.0)
}
