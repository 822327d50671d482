//! Servers that a reload drains or puts in maintenance.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tables;
use crate::stage::watch::{assert_alive, established};
use crate::stage::{Instance, Program, Server, eventually, within};
use portreeve::ending::Reason;
use rustix::process::Signal;

/// A configuration of two servers, the first of which has this state.
fn with(servers: &[Server; 2], state: &str, more: &str) -> String {
    tables(&[(servers[0].address, &format!("state = \"{state}\"")), (servers[1].address, "")], more)
}

async fn two() -> [Server; 2] {
    [Server::echo().await, Server::echo().await]
}

#[tokio::test]
async fn a_server_that_a_reload_drains_gets_nobody_new_and_keeps_what_it_has() {
    let servers = two().await;
    let instance = Instance::start(&with(&servers, "ready", "")).await;
    let web = instance.address("web");
    let mut clients = [established(web).await, established(web).await];
    assert_eq!([servers[0].accepted(), servers[1].accepted()], [1, 1]);
    for state in ["drain", "maintenance"] {
        instance.running.reload_text(&with(&servers, state, "")).await.unwrap();
        let shown = instance.server(servers[0].address).await;
        assert_eq!((&shown["state"], &shown["connections_active"]), (&state.into(), &1.into()));
        for _ in 0..4 {
            drop(established(web).await);
        }
        assert_eq!(servers[0].accepted(), 1);
        for client in &mut clients {
            assert_alive(client).await;
        }
    }
    instance.running.reload_text(&with(&servers, "ready", "")).await.unwrap();
    assert_eq!(instance.server(servers[0].address).await["state"], "up");
    drop((established(web).await, established(web).await));
    assert_eq!(servers[0].accepted(), 2);
}

#[tokio::test]
async fn connections_of_a_drained_server_have_the_drain_timeout_if_the_pool_says_so() {
    for on_down in ["drain", "reset"] {
        let servers = two().await;
        let text = |state| {
            let more = format!("on_down = \"{on_down}\"");
            format!("drain_timeout = \"300ms\"\n{}", with(&servers, state, &more))
        };
        let instance = Instance::start(&text("ready")).await;
        let web = instance.address("web");
        let mut clients = [established(web).await, established(web).await];
        instance.running.reload_text(&text("drain")).await.unwrap();
        instance.ended(Reason::Drained, 1).await;
        // Which of both was at the drained server is the algorithm's.
        let mut lost = 0;
        for client in &mut clients {
            let mut answer = [0; 6];
            let said = client.write_all(b"there?").await;
            lost += usize::from(said.is_err() || within("an echo", client.read_exact(&mut answer)).await.is_err());
        }
        assert_eq!(lost, 1);
        assert_eq!(instance.server(servers[0].address).await["connections_active"], 0);
    }
}

#[tokio::test]
async fn maintenance_resets_at_once_if_the_pool_resets_and_stops_the_checks() {
    let servers = two().await;
    let more = "on_down = \"reset\"\ncheck = { interval = \"100ms\", timeout = \"90ms\" }";
    let text = |state| format!("drain_timeout = \"1h\"\n{}", with(&servers, state, more));
    let instance = Instance::start(&text("ready")).await;
    let web = instance.address("web");
    let clients = [established(web).await, established(web).await];
    instance.running.reload_text(&text("maintenance")).await.unwrap();
    instance.ended(Reason::Drained, 1).await;
    let checks = |server: &Server| instance.of_server("checks_total", server.address, ",result=\"passed\"");
    let (before, other) = (checks(&servers[0]), checks(&servers[1]));
    eventually("more checks of the other", || checks(&servers[1]) >= other + 5.0).await;
    // One may have been on its way.
    assert!(checks(&servers[0]) <= before + 1.0);
    drop(clients);
}

#[tokio::test]
async fn the_log_says_what_is_left_of_a_drained_server_and_when_it_is_nothing() {
    let servers = two().await;
    let mut program = Program::start(&with(&servers, "ready", ""));
    let web = program.listening("web").await;
    let clients = [established(web).await, established(web).await];
    std::fs::write(program.file(), with(&servers, "drain", "")).unwrap();
    program.signal(Signal::HUP);
    program.says("server is in drain, and 1 connections stay until they end").await;
    for client in clients {
        drop(client);
    }
    let line = program.says("server is drained: its last connection has ended").await;
    assert!(line.contains(&servers[0].address.to_string()), "{line}");
    std::fs::write(program.file(), with(&servers, "ready", "")).unwrap();
    program.signal(Signal::HUP);
    program.says("server is ready again").await;
    drop(established(web).await);
}
