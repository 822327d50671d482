//! Chapter: changing the configuration of a running instance.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::stage::watch::Port;
use crate::stage::watch::{assert_alive, established};
use crate::stage::{ClosedPort, Instance, Program, Server, balancing, eventually, hear, within};
use portreeve::ending::Reason;
use rustix::process::Signal;

/// Clients that connect, say something, end and wait for the echo and its end, over and over.
struct Load {
    enough: Arc<AtomicBool>,
    clients: JoinSet<Vec<std::io::Result<()>>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..6 {
            let enough = Arc::clone(&enough);
            clients.spawn(async move {
                let mut results = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    results.push(converse(address).await);
                }
                results
            });
        }
        Self { enough, clients }
    }

    /// Ends it once it has seen something of the last change. Not one connection may have failed.
    async fn assert_lossless(self) {
        self.enough.store(true, Ordering::Relaxed);
        let results: Vec<_> = within("the clients", self.clients.join_all()).await.into_iter().flatten().collect();
        let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert!(failures.is_empty(), "{} of {} failed, such as {:?}", failures.len(), results.len(), failures[0]);
        assert!(results.len() > 100, "{} connections are no load", results.len());
    }
}

async fn converse(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer == b"hello" { Ok(()) } else { Err(std::io::Error::other(format!("{answer:?}"))) }
}

async fn assert_refused(address: SocketAddr) {
    let refused = within("connect", TcpStream::connect(address)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// One listener of this name and address, and a pool `web` of these servers.
fn listening(name: &str, bind: &str, servers: &[SocketAddr]) -> String {
    balancing(servers, "")
        .replace("[listeners.web]\nbind = \"127.0.0.1:0\"", &format!("[listeners.{name}]\nbind = \"{bind}\""))
}

/// One more listener, on the pool `web`.
fn another(name: &str, bind: &str) -> String {
    format!("[listeners.{name}]\nbind = \"{bind}\"\npool = \"web\"\n")
}

#[tokio::test]
async fn a_hundred_reloads_under_load_lose_not_one_connection() {
    let [a, b, c] = [Server::echo().await, Server::echo().await, Server::echo().await];
    let one = balancing(&[a.address, b.address], "");
    let other = format!(
        "drain_timeout = \"5s\"\n{}{}",
        balancing(&[b.address, c.address], "balance = \"least_conn\"\nretries = 1")
            .replace("pool = \"web\"", "pool = \"web\"\nbacklog = 1000\ntimeouts = { idle = \"1m\" }"),
        another("more", "127.0.0.1:0")
    );
    let instance = Instance::start(&one).await;
    let web = instance.address("web");
    let load = Load::on(web);
    for round in 0..100 {
        let text = if round % 2 == 0 { &other } else { &one };
        let applied = instance.running.reload_text(text).await.unwrap();
        assert!(!applied.changes.is_empty());
    }
    assert_eq!(instance.address("web"), web);
    load.assert_lossless().await;
    assert_eq!(instance.metric("portreeve_config_generation"), Some(101.0));
    assert!([a, b, c].iter().all(|server| server.accepted() > 0));
}

#[tokio::test]
async fn what_stays_keeps_its_socket_its_counters_and_its_connections() {
    let (a, b) = (Server::echo().await, Server::echo().await);
    let instance = Instance::balancing(&[a.address], "").await;
    let web = instance.address("web");
    let mut client = established(web).await;
    instance.running.reload_text(&balancing(&[a.address, b.address], "balance = \"p2c\"")).await.unwrap();
    assert_eq!(instance.address("web"), web);
    assert_alive(&mut client).await;
    assert_eq!(instance.metric("portreeve_listener_connections_total{listener=\"web\"}"), Some(1.0));
    assert_eq!(instance.metric("portreeve_listener_connections_active{listener=\"web\"}"), Some(1.0));
    assert_eq!(instance.of_server("connections_total", a.address, ""), 1.0);
    assert_eq!(instance.of_server("connections_active", a.address, ""), 1.0);
}

#[tokio::test]
async fn a_server_that_stays_keeps_its_health() {
    const CHECK: &str = "check = { interval = \"1h\", fast_interval = \"1h\", timeout = \"5s\" }";
    let (dead, live) = (ClosedPort::new(), Server::echo().await);
    let text = balancing(&[dead.address, live.address], CHECK);
    let instance = Instance::watched(&text).await;
    instance.becomes(dead.address, false).await;
    let before = instance.server(dead.address).await;
    let more = Server::echo().await;
    let text = balancing(&[dead.address, live.address, more.address], CHECK);
    instance.running.reload_text(&text).await.unwrap();
    eventually("the check of the new server", || {
        instance.of_server("checks_total", more.address, ",result=\"passed\"") == 1.0
    })
    .await;
    let after = instance.server(dead.address).await;
    assert_eq!((&after["state"], &after["since"]), (&before["state"], &before["since"]));
    assert_eq!(instance.of_server("checks_total", dead.address, ",result=\"failed\""), 1.0);
}

#[tokio::test]
async fn a_listener_that_is_removed_accepts_no_more_and_its_connections_have_the_drain_timeout() {
    let server = Server::echo().await;
    let web = balancing(&[server.address], "");
    let instance = Instance::start(&format!("{web}{}", another("old", "127.0.0.1:0"))).await;
    let old = (instance.address("old"), instance.listener("old"));
    let (finishing, mut staying) = (established(old.0).await, established(old.0).await);
    let applied = instance.running.reload_text(&format!("drain_timeout = \"300ms\"\n{web}")).await.unwrap();
    assert!(applied.changes.iter().any(|change| change == "listener old removed"), "{:?}", applied.changes);
    assert_refused(old.0).await;
    drop(finishing);
    assert_alive(&mut staying).await;
    assert_eq!(hear(staying).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    eventually("both endings", || old.1.endings(Reason::Done) == 1 && old.1.endings(Reason::Drained) == 1).await;
    drop(old);
    eventually("the end of its series", || !instance.running.catalogue().expose().contains("listener=\"old\"")).await;
}

#[tokio::test]
async fn what_has_arrived_at_a_listener_is_served_though_it_is_removed() {
    let server = Server::saying("hello").await;
    let web = balancing(&[server.address], "");
    let instance = Instance::start(&web).await;
    for _ in 0..20 {
        instance.running.reload_text(&format!("{web}{}", another("old", "127.0.0.1:0"))).await.unwrap();
        let old = instance.address("old");
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(TcpStream::connect(old).await.unwrap());
        }
        instance.running.reload_text(&web).await.unwrap();
        for client in clients {
            assert_eq!(hear(client).await.unwrap(), "hello");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_removed_gets_nothing_new_and_keeps_its_connections() {
    let (a, b) = (Server::echo().await, Server::echo().await);
    let instance = Instance::balancing(&[a.address], "").await;
    let mut client = established(instance.address("web")).await;
    instance.running.reload_text(&balancing(&[b.address], "")).await.unwrap();
    for _ in 0..10 {
        converse(instance.address("web")).await.unwrap();
    }
    assert_eq!((a.accepted(), b.accepted()), (1, 10));
    assert_alive(&mut client).await;
    client.shutdown().await.unwrap();
    hear(client).await.unwrap();
    instance.ended(Reason::Done, 11).await;
}

#[tokio::test]
async fn a_listener_that_is_renamed_goes_on_accepting() {
    let (server, port) = (Server::echo().await, Port::claim());
    let bind = format!("127.0.0.1:{}", *port);
    let instance = Instance::start(&listening("a", &bind, &[server.address])).await;
    let load = Load::on(instance.address("a"));
    for name in ["b", "a"].into_iter().cycle().take(50) {
        instance.running.reload_text(&listening(name, &bind, &[server.address])).await.unwrap();
        converse(instance.address(name)).await.unwrap();
        assert!(instance.listener(name).connections() > 0);
    }
    load.assert_lossless().await;
}

#[tokio::test]
async fn a_listener_can_go_from_one_address_to_all_and_back_on_the_same_port() {
    let (server, port) = (Server::echo().await, Port::claim());
    let text = |address| listening("web", &format!("{address}:{}", *port), &[server.address]);
    let instance = Instance::start(&text("127.0.0.1")).await;
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], *port));
    assert_refused(elsewhere).await;
    instance.running.reload_text(&text("0.0.0.0")).await.unwrap();
    converse(elsewhere).await.unwrap();
    converse(SocketAddr::from(([127, 0, 0, 1], *port))).await.unwrap();
    instance.running.reload_text(&text("127.0.0.1")).await.unwrap();
    converse(SocketAddr::from(([127, 0, 0, 1], *port))).await.unwrap();
    assert_refused(elsewhere).await;
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_is_said_and_counted() {
    let server = Server::echo().await;
    let instance = Instance::watched(&balancing(&[server.address], "")).await;
    let bad = balancing(&[server.address], "balance = \"leastconn\"");
    let error = instance.running.reload_text(&bad).await.unwrap_err().to_string();
    assert!(error.contains("leastconn"), "{error}");
    converse(instance.address("web")).await.unwrap();
    assert_eq!(instance.metric("portreeve_config_generation"), Some(1.0));
    assert_eq!(instance.metric("portreeve_config_reloads_total{result=\"failed\"}"), Some(1.0));
    assert_eq!(instance.metric("portreeve_config_reloads_total{result=\"applied\"}"), Some(0.0));
    let last = &instance.get("/api/v1/status").await.json()["last_reload"];
    assert_eq!((&last["applied"], last["message"].as_str()), (&false.into(), Some(error.as_str())));
}

#[tokio::test]
async fn an_address_that_somebody_else_has_fails_the_whole_reload() {
    let (server, other) = (Server::echo().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let instance = Instance::balancing(&[server.address], "").await;
    let taken = other.local_addr().unwrap();
    let text = balancing(&[server.address], "balance = \"p2c\"");
    let text = format!("{text}{}{}", another("good", "127.0.0.1:0"), another("taken", &taken.to_string()));
    let error = instance.running.reload_text(&text).await.unwrap_err().to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(error.contains(&format!("listener taken: cannot listen on {taken}: in use by ")), "{error}");
    assert!(error.contains(&pid), "{error}");
    assert_eq!(instance.running.address("good"), None);
    assert_eq!(instance.running.snapshot().generation, 1);
    assert_eq!(instance.metric("portreeve_config_reloads_total{result=\"failed\"}"), Some(1.0));
    converse(instance.address("web")).await.unwrap();
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_is_named() {
    let server = Server::echo().await;
    let text = balancing(&[server.address], "");
    let instance = Instance::start(&text).await;
    let applied =
        instance.running.reload_text(&text.replace("workers = 2", "workers = 3\nwatch = false")).await.unwrap();
    assert_eq!(applied.needs_restart, ["workers", "watch"]);
    assert_eq!(instance.metric("portreeve_workers"), Some(2.0));
}

// The program and its file.

/// What the program's file says, with a number to tell one text from another.
fn numbered(server: SocketAddr, number: u32) -> String {
    format!("watch = true\nmax_connections = {number}\n{}", balancing(&[server], ""))
}

/// Waits for a reload and checks which generation it led to and from and to which number.
async fn expect_reload(program: &mut Program, generation: u32, from: u32, to: u32) {
    let line = program.says("reloaded: ").await;
    assert!(line.contains(&format!("\"generation\":{generation}")), "{line}");
    assert!(line.contains(&format!("max_connections {from} -> {to}")), "{line}");
}

#[tokio::test]
async fn sighup_reloads_the_file() {
    let server = Server::echo().await;
    let text = format!("watch = false\n{}", balancing(&[server.address], ""));
    let mut program = Program::start(&text);
    let web = program.listening("web").await;
    std::fs::write(program.file(), text.replace("workers = 2", "workers = 1")).unwrap();
    program.signal(Signal::HUP);
    assert!(program.says("reloaded: ").await.contains("\"generation\":2"));
    assert!(program.says("takes effect at the next start only").await.contains("workers"));
    std::fs::write(program.file(), "nonsense").unwrap();
    program.signal(Signal::HUP);
    assert!(program.says("the reload failed and changed nothing").await.contains("portreeve.toml:1:"));
    converse(web).await.unwrap();
}

#[tokio::test]
async fn the_file_is_reloaded_when_it_changes_however_it_is_written() {
    let server = Server::echo().await;
    let mut program = Program::start(&numbered(server.address, 100));
    program.listening("web").await;
    std::fs::write(program.file(), numbered(server.address, 101)).unwrap();
    expect_reload(&mut program, 2, 100, 101).await;
    let written_aside = program.folder().join("next");
    std::fs::write(&written_aside, numbered(server.address, 102)).unwrap();
    std::fs::rename(written_aside, program.file()).unwrap();
    expect_reload(&mut program, 3, 101, 102).await;
    for number in 103..=120 {
        std::fs::write(program.file(), numbered(server.address, number)).unwrap();
    }
    expect_reload(&mut program, 4, 102, 120).await;
    std::fs::write(program.file(), numbered(server.address, 121)).unwrap();
    expect_reload(&mut program, 5, 120, 121).await;
}

#[tokio::test]
async fn a_change_is_seen_though_something_else_in_the_folder_never_rests() {
    let server = Server::echo().await;
    let mut program = Program::start(&numbered(server.address, 100));
    program.listening("web").await;
    let log = program.folder().join("log");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut often = tokio::time::interval(Duration::from_millis(10));
        loop {
            often.tick().await;
            std::fs::write(&log, "busy").unwrap();
        }
    });
    std::fs::write(program.file(), numbered(server.address, 101)).unwrap();
    expect_reload(&mut program, 2, 100, 101).await;
}

#[tokio::test]
async fn a_file_that_vanishes_is_said_and_changes_nothing_and_one_that_returns_is_reloaded() {
    let server = Server::echo().await;
    let mut program = Program::start(&numbered(server.address, 100));
    let web = program.listening("web").await;
    std::fs::remove_file(program.file()).unwrap();
    let line = program.says("the reload failed and changed nothing").await;
    assert!(line.contains("portreeve.toml") && line.contains("ERROR"), "{line}");
    converse(web).await.unwrap();
    std::fs::write(program.file(), numbered(server.address, 101)).unwrap();
    expect_reload(&mut program, 2, 100, 101).await;
}
