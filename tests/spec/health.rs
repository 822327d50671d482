//! Chapter: which servers count as up.

mod flapping;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::stage::{ClosedPort, Instance, Program, Server, balancing, echo, eventually, hear, say, within};
use portreeve::ending::Reason;
use rustix::process::Signal;

/// Checks that follow each other at once while something changes. Their timeout is one that a busy machine keeps.
const OFTEN: &str =
    "check = { interval = \"400ms\", fast_interval = \"10ms\", timeout = \"350ms\", rise = 3, fall = 3 }
retries = 0";
/// Checks of which only the first comes to pass while a test lasts.
const ONCE: &str =
    "check = { interval = \"1h\", fast_interval = \"1h\", timeout = \"5s\", rise = 2, fall = 3 }\nretries = 0";

/// How many checks of a server had a result.
fn checks(instance: &Instance, server: SocketAddr, result: &str) -> f64 {
    instance.of_server("checks_total", server, &format!(",result=\"{result}\""))
}

/// Whether a connection still carries bytes both ways.
async fn assert_alive(stream: &mut TcpStream) {
    stream.write_all(b"still there?").await.unwrap();
    let mut answer = [0; 12];
    within("the echo", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"still there?");
}

/// An echo server that can stop listening without closing what it has.
struct Deaf {
    address: SocketAddr,
    close: Option<oneshot::Sender<()>>,
    _tasks: JoinSet<()>,
}

impl Deaf {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (close, mut closed) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => { connections.spawn(echo(stream)); }
                    _ = &mut closed => break,
                }
            }
            drop(listener);
            connections.join_all().await;
        });
        Self { address, close: Some(close), _tasks: tasks }
    }

    fn stop_listening(&mut self) {
        self.close.take().unwrap().send(()).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_dead_at_the_start_is_down_after_one_check_and_gets_nothing() {
    let (dead, live) = (ClosedPort::new(), Server::saying("live").await);
    let instance = Instance::balancing(&[dead.address, live.address], ONCE).await;
    instance.becomes(dead.address, false).await;
    for _ in 0..10 {
        assert_eq!(instance.hear().await, "live");
    }
    assert_eq!(instance.of_server("connect_failures_total", dead.address, ",reason=\"connect_refused\""), 0.0);
    assert_eq!(checks(&instance, dead.address, "failed"), 1.0);
}

#[tokio::test]
async fn a_server_that_fails_its_checks_gets_no_new_connections_until_it_passes_them_again() {
    let (mut a, b) = (Server::saying("a").await, Server::saying("b").await);
    let instance = Instance::balancing(&[a.address, b.address], OFTEN).await;
    eventually("a first check", || checks(&instance, a.address, "passed") >= 1.0).await;
    a.stop().await;
    instance.becomes(a.address, false).await;
    assert!(checks(&instance, a.address, "failed") >= 3.0, "fall is 3");
    for _ in 0..10 {
        assert_eq!(instance.hear().await, "b");
    }
    let passed = checks(&instance, a.address, "passed");
    let a = Server::start_on(a.address, |stream| say(stream, "a")).await;
    instance.becomes(a.address, true).await;
    assert!(checks(&instance, a.address, "passed") >= passed + 3.0, "rise is 3");
    assert!(matches!([instance.hear().await.as_str(), instance.hear().await.as_str()], ["a", "b"] | ["b", "a"]));
}

#[tokio::test]
async fn a_pool_with_a_primary_uses_that_alone_and_moves_its_connections_when_it_is_another() {
    let (mut first, second) = (Deaf::start().await, Server::echo().await);
    let more = format!("{OFTEN}\nrole = \"primary\"\nfailback = \"50ms\"");
    let instance = Instance::balancing(&[first.address, second.address], &more).await;
    let active = |server| instance.of_server("connections_active", server, "");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = instance.connect().await;
        assert_alive(&mut client).await;
        clients.push(client);
    }
    assert_eq!((active(first.address), active(second.address)), (3.0, 0.0));
    // It still serves those who are connected, who could go on writing to it.
    first.stop_listening();
    instance.ended(Reason::ServerDown, 3).await;
    let mut client = instance.connect().await;
    assert_alive(&mut client).await;
    assert_eq!(active(second.address), 1.0);
    let first = Server::start_on(first.address, echo).await;
    instance.ended(Reason::ServerDown, 4).await;
    let mut client = instance.connect().await;
    assert_alive(&mut client).await;
    assert_eq!((active(first.address), active(second.address)), (1.0, 0.0));
}

#[tokio::test]
async fn a_server_that_a_reload_moves_to_where_somebody_answers_is_the_primary_without_a_further_word() {
    let (dead, live) = (ClosedPort::new(), Server::echo().await);
    let text = |address: SocketAddr| {
        let named = format!("[{{ name = \"a\", address = \"{address}\" }}]");
        let text = balancing(&[address], &format!("{ONCE}\nrole = \"primary\""));
        text.replace(&format!("[\"{address}\"]"), &named)
    };
    let instance = Instance::start(&text(dead.address)).await;
    eventually("it is down", || !instance.is_up("a")).await;
    instance.running.reload_text(&text(live.address)).await.unwrap();
    assert!(instance.is_up("a"));
    let mut client = instance.connect().await;
    assert_alive(&mut client).await;
}

#[tokio::test]
async fn connections_that_traffic_cannot_make_count_towards_the_fall() {
    let mut server = Server::saying("hello").await;
    let instance = Instance::watched(&balancing(&[server.address], ONCE)).await;
    eventually("the only check", || checks(&instance, server.address, "passed") == 1.0).await;
    server.stop().await;
    for _ in 0..2 {
        instance.refuses().await;
    }
    assert!(instance.is_up(server.address), "fall is 3");
    instance.refuses().await;
    instance.becomes(server.address, false).await;
    assert_eq!(checks(&instance, server.address, "failed"), 0.0);
    let shown = instance.server(server.address).await;
    assert_eq!(
        (shown["state"].as_str(), shown["reason"].as_str()),
        (Some("down"), Some("traffic failed to connect to it"))
    );
    // Nobody is tried any more.
    instance.ended(Reason::ConnectRefused, 3).await;
    instance.refuses().await;
    instance.ended(Reason::NoServer, 1).await;
}

#[tokio::test]
async fn the_api_shows_the_state_of_a_server_with_its_reason_and_since_when() {
    let mut server = Server::saying("hello").await;
    let instance = Instance::watched(&balancing(&[server.address], OFTEN)).await;
    eventually("a first check", || checks(&instance, server.address, "passed") >= 1.0).await;
    let up = instance.server(server.address).await;
    assert_eq!((up["state"].as_str(), up["reason"].as_str()), (Some("up"), Some("passed its first check")));
    server.stop().await;
    instance.becomes(server.address, false).await;
    let down = instance.server(server.address).await;
    assert_eq!(down["state"], "down");
    assert!(down["reason"].as_str().unwrap().starts_with("tcp check failed: connect: "), "{down}");
    assert!(down["since"].as_str() > up["since"].as_str(), "{down} {up}");
    assert_eq!(instance.get("/api/v1/pools").await.json()[0]["servers_open"], 0);
}

#[tokio::test]
async fn each_change_of_state_is_one_log_line_with_its_reason() {
    let mut server = Server::saying("hello").await;
    let mut program = Program::start(&balancing(&[server.address], OFTEN));
    program.listening("web").await;
    eventually("checks", || server.accepted() >= 2).await;
    server.stop().await;
    program.says("server is down").await;
    let server = Server::start_on(server.address, |stream| say(stream, "hello")).await;
    program.says("server is up").await;
    // One more check, of which nothing is to be said.
    let seen = server.accepted();
    eventually("a check", || server.accepted() > seen).await;
    program.signal(Signal::TERM);
    program.exit().await;
    let lines: Vec<_> = program.log().await.into_iter().filter(|line| line.contains("\"server\":")).collect();
    let [down, up] = &lines[..] else { panic!("{lines:#?}") };
    assert!(down.contains("\"WARN\"") && down.contains("server is down: tcp check failed: connect: "), "{down}");
    assert!(down.contains("0 of 1 are open") && down.contains(&format!("\"server\":\"{}\"", server.address)), "{down}");
    assert!(up.contains("\"INFO\"") && up.contains("server is up: tcp check passed 3 times in a row"), "{up}");
}

/// An established connection through an instance to a server that has stopped listening and been found down.
async fn left_behind(settings: &str) -> (Instance, TcpStream, Deaf) {
    let mut server = Deaf::start().await;
    let text = balancing(&[server.address], &format!("{OFTEN}\n{settings}"));
    let instance = Instance::start(&format!("drain_timeout = \"300ms\"\n{text}")).await;
    let mut client = instance.connect().await;
    assert_alive(&mut client).await;
    server.stop_listening();
    instance.becomes(server.address, false).await;
    (instance, client, server)
}

#[tokio::test]
async fn established_connections_outlive_the_fall_of_their_server_by_default() {
    let (instance, mut client, _server) = left_behind("").await;
    assert_alive(&mut client).await;
    client.shutdown().await.unwrap();
    hear(client).await.unwrap();
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn with_on_down_reset_they_are_reset_at_once() {
    let (instance, client, _server) = left_behind("on_down = \"reset\"").await;
    assert_eq!(hear(client).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    instance.ended(Reason::ServerDown, 1).await;
}

#[tokio::test]
async fn with_on_down_drain_they_have_the_drain_timeout_to_finish() {
    let started = Instant::now();
    let (instance, client, _server) = left_behind("on_down = \"drain\"").await;
    assert_eq!(hear(client).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(started.elapsed() >= Duration::from_millis(300));
    instance.ended(Reason::ServerDown, 1).await;
}

#[tokio::test]
async fn a_server_that_is_not_checked_is_never_down() {
    let dead = ClosedPort::new();
    let instance = Instance::balancing(&[dead.address], "retries = 0").await;
    for _ in 0..10 {
        instance.refuses().await;
    }
    instance.ended(Reason::ConnectRefused, 10).await;
    assert!(instance.is_up(dead.address));
    assert_eq!(checks(&instance, dead.address, "failed"), 0.0);
}

#[tokio::test]
async fn a_server_that_nobody_can_connect_to_is_ejected_for_a_while_though_nothing_checks_it() {
    let (dead, live) = (ClosedPort::new(), Server::saying("live").await);
    let more = "check = \"none\"\noutlier = { consecutive_failures = 2, ejection = \"1h\", max_ejection = \"1h\" }";
    let instance = Instance::watched(&balancing(&[dead.address, live.address], more)).await;
    let is_ejected = || instance.of_server("ejected", dead.address, "") == 1.0;
    for _ in 0..10 {
        assert_eq!(instance.hear().await, "live", "the next server is tried");
    }
    eventually("the ejection", is_ejected).await;
    assert!(instance.is_up(dead.address));
    assert_eq!(instance.of_server("ejections_total", dead.address, ""), 1.0);
    let shown = instance.server(dead.address).await;
    assert_eq!(
        (shown["state"].as_str(), shown["reason"].as_str()),
        (Some("ejected"), Some("2 attempts in a row failed, the last with connect_refused"))
    );
    let failures = || instance.of_server("connect_failures_total", dead.address, ",reason=\"connect_refused\"");
    let before = failures();
    for _ in 0..10 {
        assert_eq!(instance.hear().await, "live");
    }
    assert_eq!(failures(), before, "nothing is sent there");
}

/// A server that answers every request so.
async fn answering(answer: &'static str) -> Server {
    Server::start(move |mut stream: TcpStream| async move {
        let _read = stream.read(&mut [0; 4096]).await;
        let _gone = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn checks_by_http_ask_for_a_page_and_say_what_is_wrong_with_the_answer() {
    let good = answering("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nall ok\n").await;
    let busy = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let lost = answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlost").await;
    let check = ONCE.replacen('{', "{ type = \"http\", path = \"/healthz\", body = \"ok\",", 1);
    let servers = [good.address, busy.address, lost.address];
    let instance = Instance::watched(&balancing(&servers, &check)).await;
    for (server, words) in [
        (&busy, "http check failed: status 503, expected 200-399"),
        (&lost, "http check failed: the body does not contain \"ok\""),
    ] {
        instance.becomes(server.address, false).await;
        assert_eq!(instance.server(server.address).await["reason"], words);
    }
    eventually("a first check", || checks(&instance, good.address, "passed") >= 1.0).await;
    assert!(instance.is_up(good.address));
}

#[tokio::test]
async fn one_checker_checks_a_server_however_many_workers_there_are() {
    const CHECKS: u32 = 20;
    let server = Server::silent().await;
    let text = balancing(&[server.address], "check = { interval = \"30ms\", timeout = \"25ms\" }");
    let _instance = Instance::start(&text.replace("workers = 2", "workers = 4")).await;
    eventually("a first check", || server.accepted() >= 1).await;
    let (started, seen) = (Instant::now(), server.accepted());
    eventually("checks", || server.accepted() >= seen + CHECKS as usize).await;
    // Each comes after the interval, give or take a tenth; the first of those may have come early in it.
    assert!(started.elapsed() >= Duration::from_millis(27) * (CHECKS - 1), "{:?}", started.elapsed());
}
