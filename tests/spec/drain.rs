//! Chapter: stopping.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::stage::watch::{ADMIN, get};
use crate::stage::watch::{assert_alive, established};
use crate::stage::{Instance, Program, Server, balancing, eventually, hear, within};
use portreeve::app::Stopped;
use portreeve::ending::Reason;
use rustix::process::Signal;

/// A program that balances over an echo server, with an admin listener, and the addresses of both listeners.
async fn program(server: &Server, drain_timeout: &str) -> (Program, SocketAddr, SocketAddr) {
    let text = balancing(&[server.address], "");
    let mut program = Program::start(&format!("drain_timeout = \"{drain_timeout}\"\n{ADMIN}{text}"));
    let web = program.listening("web").await;
    let admin = program.admin().await;
    (program, web, admin)
}

async fn assert_reset(stream: TcpStream) {
    assert_eq!(hear(stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

async fn assert_refused(address: SocketAddr) {
    let refused = within("connect", TcpStream::connect(address)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

/// Asserts a good end, and how many connections it says had which.
async fn assert_stopped(mut program: Program, drained: u32, reset: u32) {
    let line = program.says("\"message\":\"stopped\"").await;
    assert!(line.contains(&format!("\"drained\":{drained},\"reset\":{reset}")), "{line}");
    assert_eq!(program.exit().await.code(), Some(0));
}

#[tokio::test]
async fn on_sigterm_listeners_close_and_connections_may_finish() {
    let server = Server::echo().await;
    let (mut program, web, admin) = program(&server, "1h").await;
    let mut client = established(web).await;
    assert_eq!(get(admin, "/readyz").await.status, 200);
    program.signal(Signal::TERM);
    assert!(program.says("stopping: ").await.contains("\"connections\":1"));
    let ready = get(admin, "/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining"));
    assert_eq!(get(admin, "/healthz").await.status, 200);
    assert_eq!(get(admin, "/api/v1/status").await.json()["draining"], true);
    assert_refused(web).await;
    assert_alive(&mut client).await;
    client.shutdown().await.unwrap();
    hear(client).await.unwrap();
    assert_stopped(program, 1, 0).await;
    assert_refused(admin).await;
}

#[tokio::test]
async fn sigint_does_the_same() {
    let server = Server::echo().await;
    let (mut program, web, _) = program(&server, "1h").await;
    let mut client = established(web).await;
    program.signal(Signal::INT);
    program.says("stopping: ").await;
    assert_refused(web).await;
    assert_alive(&mut client).await;
    drop(client);
    assert_stopped(program, 1, 0).await;
}

#[tokio::test]
async fn connections_that_do_not_finish_within_the_drain_timeout_are_reset() {
    let server = Server::echo().await;
    let (mut program, web, _) = program(&server, "300ms").await;
    let (finishing, staying, another) = (established(web).await, established(web).await, established(web).await);
    let told = Instant::now();
    program.signal(Signal::TERM);
    program.says("stopping: ").await;
    drop(finishing);
    assert_reset(staying).await;
    assert!(told.elapsed() >= Duration::from_millis(300));
    assert_reset(another).await;
    assert_stopped(program, 1, 2).await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
        let server = Server::echo().await;
        let (mut program, web, _) = program(&server, "1h").await;
        let client = established(web).await;
        program.signal(first);
        program.says("stopping: ").await;
        program.signal(second);
        program.says("stopping at once").await;
        assert_reset(client).await;
        assert_stopped(program, 0, 1).await;
    }
}

#[tokio::test]
async fn a_signal_that_comes_as_soon_as_a_listener_is_there_is_heard() {
    let server = Server::echo().await;
    for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
        let mut program = Program::start(&balancing(&[server.address], ""));
        program.listening("web").await;
        program.signal(signal);
        if signal == Signal::HUP {
            program.says("reloaded: nothing changed").await;
            program.signal(Signal::TERM);
        }
        assert_stopped(program, 0, 0).await;
    }
}

#[tokio::test]
async fn an_instance_that_is_stopped_tells_how_its_connections_ended() {
    let server = Server::echo().await;
    let text = format!("drain_timeout = \"200ms\"\n{}", balancing(&[server.address], ""));
    let instance = Instance::start(&text).await;
    let (web, metrics) = (instance.address("web"), instance.listener("web"));
    let clients = [established(web).await, established(web).await];
    let stopped = within("the stop", instance.running.stop()).await;
    assert_eq!(stopped, Stopped { drained: 0, reset: 2 });
    assert_eq!(metrics.endings(Reason::Shutdown), 2);
    for client in clients {
        assert_reset(client).await;
    }
    assert_refused(web).await;
    assert!(instance.running.reload().await.unwrap_err().to_string().contains("stopping"));
    assert_eq!(instance.running.stop().await, stopped, "once more changes nothing");
}

#[tokio::test]
async fn an_instance_that_is_told_to_stop_now_resets_its_connections_even_while_they_drain() {
    let server = Server::echo().await;
    let text = format!("drain_timeout = \"1h\"\n{}", balancing(&[server.address], ""));
    let instance = Instance::start(&text).await;
    let web = instance.address("web");
    let client = established(web).await;
    let hurry = async {
        eventually("closed listeners", || instance.running.address("web").is_none()).await;
        instance.running.stop_now().await
    };
    let (stopped, now) = within("the stop", async { tokio::join!(instance.running.stop(), hurry) }).await;
    assert_eq!((stopped, now), (Stopped { drained: 0, reset: 1 }, Stopped { drained: 0, reset: 1 }));
    assert_reset(client).await;
}

#[tokio::test]
async fn an_instance_that_is_dropped_stops_at_once() {
    let server = Server::echo().await;
    let instance = Instance::balancing(&[server.address], "").await;
    let web = instance.address("web");
    let client = established(web).await;
    drop(instance);
    assert_reset(client).await;
    eventually("closed listeners", || std::net::TcpStream::connect(web).is_err()).await;
}

#[tokio::test]
async fn who_has_connected_before_the_stop_is_served() {
    let server = Server::saying("hello").await;
    for _ in 0..10 {
        let instance = Instance::balancing(&[server.address], "").await;
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(std::net::TcpStream::connect(instance.address("web")).unwrap());
        }
        let answers = async {
            for client in clients {
                client.set_nonblocking(true).unwrap();
                assert_eq!(hear(TcpStream::from_std(client).unwrap()).await.unwrap(), "hello");
            }
        };
        let (stopped, ()) = within("the stop", async { tokio::join!(instance.running.stop(), answers) }).await;
        assert_eq!(stopped.reset, 0);
    }
}

#[tokio::test]
async fn who_has_connected_just_before_the_stop_is_reset_in_time_as_well() {
    let server = Server::silent().await;
    for _ in 0..10 {
        let text = format!("drain_timeout = \"50ms\"\n{}", balancing(&[server.address], ""));
        let instance = Instance::start(&text.replace("workers = 2", "workers = 4")).await;
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(std::net::TcpStream::connect(instance.address("web")).unwrap());
        }
        let told = Instant::now();
        assert_eq!(instance.running.stop().await, Stopped { drained: 0, reset: 200 });
        assert!(told.elapsed() < Duration::from_secs(4), "a worker was left behind: {:?}", told.elapsed());
    }
}
