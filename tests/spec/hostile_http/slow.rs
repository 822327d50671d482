//! Clients and servers that take their time at every stage. Each is given up for its own deadline, and others do not wait.

use std::time::Duration;

use portreeve::ending::Reason;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::stage::http::{Client, Recorder, Stand, serving};
use crate::stage::{Instance, Server, eventually, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_given_up_at_every_stage_while_others_are_served() {
    const EACH: usize = 50;
    let server = Recorder::ok().await;
    let timeouts = "timeouts = { request_header = \"1s\", keep_alive = \"1s\", body_idle = \"1s\", idle = \"1s\" }";
    let instance = Instance::start(&serving(&[server.address()], timeouts, "")).await;
    let stages: [&[u8]; 6] = [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
    ];
    let mut slow = JoinSet::new();
    for number in 0..EACH * stages.len() {
        let mut client = Client::of(&instance).await;
        client.send(stages[number % stages.len()]).await;
        slow.spawn(async move { client.0.rest().await.map(drop) });
    }
    let mut client = Client::of(&instance).await;
    for _ in 0..100 {
        let served = tokio::time::timeout(Duration::from_secs(2), client.ask("/quick"));
        assert_eq!(served.await.expect("an answer beside the slow ones").status(), 200);
    }
    within("all are given up", slow.join_all()).await.into_iter().for_each(|end| end.unwrap());
    let listener = instance.listener("web");
    eventually("all are gone", || listener.active.get() <= 1).await;
    assert_eq!(listener.answers(Reason::HeaderTimeout), 2 * EACH as u64);
    assert_eq!(listener.answers(Reason::BodyTimeout), 2 * EACH as u64);
    assert_eq!(listener.endings(Reason::Internal), 0);
}

#[tokio::test]
async fn a_server_whose_head_trickles_in_gains_no_time_by_it() {
    let server = Server::start(|mut stream| async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b"H").await.is_ok() {
            pace.tick().await;
        }
    });
    let server = server.await;
    let trickling = Server::start(|mut stream| async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
        while stream.write_all(b"y").await.is_ok() {
            pace.tick().await;
        }
    });
    let trickling = trickling.await;
    for (address, status) in [(trickling.address, 504), (server.address, 502)] {
        let pool = "timeouts = { response_header = \"300ms\" }";
        let instance = Instance::start(&serving(&[address], "", pool)).await;
        let mut client = Client::of(&instance).await;
        let answered = tokio::time::timeout(Duration::from_secs(5), client.ask("/"));
        let answer = answered.await.expect("an answer in time").status();
        assert!(answer == status || answer == 504, "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended_by_the_idle_timeout() {
    let stand = Stand::new().await;
    let instance = Instance::start(&serving(&[stand.address], "timeouts = { idle = \"500ms\" }", "")).await;
    let mut client = Client::of(&instance).await;
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send("HTTP/1.1 200 OK\r\n\r\n").await;
    let flood = async { while server.stream.write_all(&[7; 16 * 1024]).await.is_ok() {} };
    within("the server is let go", flood).await;
    instance.ended(Reason::IdleTimeout, 1).await;
    client.0.rest().await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_sends_requests_and_reads_nothing_is_ended_and_costs_little() {
    let server = Recorder::answering(crate::stage::http::ok(&"x".repeat(100_000))).await;
    let instance = Instance::start(&serving(&[server.address()], "timeouts = { idle = \"500ms\" }", "")).await;
    let mut client = Client::of(&instance).await;
    let request = crate::stage::http::get("/", "").repeat(100);
    let asking = async { while client.0.stream.write_all(request.as_bytes()).await.is_ok() {} };
    within("it is ended", asking).await;
    eventually("it is gone", || instance.listener("web").active.get() == 0).await;
}
