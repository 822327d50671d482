//! Who waits for a server with room: in which order, for how long, and who does not.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use super::{pool, tables};
use crate::stage::watch::{assert_alive, established};
use crate::stage::{Instance, Server, eventually, hear, listening, within};
use portreeve::ending::Reason;

const ONE: &str = "max_connections = 1";

/// A configuration with a server that takes one connection at a time.
fn one(server: &Server, more: &str) -> String {
    tables(&[(server.address, ONE)], more)
}

impl Instance {
    /// Waits until so many wait.
    async fn queues(&self, count: usize) {
        let series = "portreeve_pool_queue{pool=\"web\"}";
        eventually(&format!("{count} in the queue"), || self.metric(series) == Some(count as f64)).await;
    }
}

#[tokio::test]
async fn whoever_finds_every_server_full_waits_and_the_first_to_come_is_the_first_to_go_on() {
    let server = Server::echo().await;
    let instance =
        Instance::start(&one(&server, "queue = { max = 10, timeout = \"1h\" }").replace("workers = 2", "workers = 4"))
            .await;
    let mut holder = established(instance.address("web")).await;
    let (told, mut heard) = mpsc::channel(10);
    for number in 0..8 {
        let (told, mut client) = (told.clone(), instance.connect().await);
        client.write_all(b"x").await.unwrap();
        instance.queues(number + 1).await;
        tokio::spawn(async move {
            let mut byte = [0];
            within("the echo", client.read_exact(&mut byte)).await.unwrap();
            told.send((number, client)).await.unwrap();
        });
    }
    assert_eq!(pool(&instance).await["queue"], 8);
    assert_alive(&mut holder).await;
    drop(holder);
    for number in 0..8 {
        let (first, client) = within("the next in the queue", heard.recv()).await.unwrap();
        assert_eq!(first, number);
        assert!(heard.try_recv().is_err(), "another went on though the server is full");
        instance.queues(7 - number).await;
        drop(client);
    }
    let waits = "portreeve_pool_queue_seconds_count{pool=\"web\"}";
    assert_eq!(instance.metric(waits), Some(8.0));
    eventually("all to be over", || instance.metric("portreeve_pool_connections_active{pool=\"web\"}") == Some(0.0))
        .await;
}

#[tokio::test]
async fn a_queue_has_so_many_places_and_nobody_waits_for_longer_than_its_timeout() {
    let server = Server::echo().await;
    let instance = Instance::start(&one(&server, "queue = { max = 1, timeout = \"300ms\" }")).await;
    let mut holder = established(instance.address("web")).await;
    let waiting = instance.connect().await;
    instance.queues(1).await;
    instance.refuses().await;
    instance.ended(Reason::QueueFull, 1).await;
    assert_eq!(hear(waiting).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    instance.ended(Reason::QueueTimeout, 1).await;
    instance.queues(0).await;
    assert_alive(&mut holder).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_leaves_the_queue() {
    let server = Server::echo().await;
    let instance = Instance::start(&one(&server, "queue = { timeout = \"1h\" }")).await;
    let holder = established(instance.address("web")).await;
    let resetting = instance.connect().await;
    instance.queues(1).await;
    let closing = instance.connect().await;
    instance.queues(2).await;
    // One that has said all it has to say has not left.
    let mut brief = instance.connect().await;
    brief.write_all(b"brief").await.unwrap();
    brief.shutdown().await.unwrap();
    instance.queues(3).await;
    crate::stage::reset(resetting);
    instance.ended(Reason::ClientReset, 1).await;
    instance.queues(2).await;
    drop(closing);
    instance.ended(Reason::ClientClosed, 1).await;
    instance.queues(1).await;
    drop(holder);
    assert_eq!(hear(brief).await.unwrap(), "brief");
}

#[tokio::test]
async fn a_reload_that_makes_room_and_a_server_that_comes_up_let_the_first_go_on() {
    let (a, b) = (Server::echo().await, Server::echo().await);
    let queue = "queue = { timeout = \"1h\" }";
    let instance = Instance::start(&one(&a, queue)).await;
    let mut holder = established(instance.address("web")).await;
    let mut waiting = [instance.connect().await, instance.connect().await];
    instance.queues(2).await;
    instance.running.reload_text(&tables(&[(a.address, ONE), (b.address, ONE)], queue)).await.unwrap();
    instance.queues(1).await;
    instance.running.reload_text(&tables(&[(a.address, ONE), (b.address, "")], queue)).await.unwrap();
    instance.queues(0).await;
    for client in &mut waiting {
        assert_alive(client).await;
    }
    assert_alive(&mut holder).await;
    assert_eq!((a.accepted(), b.accepted()), (1, 2));
}

#[tokio::test]
async fn a_pool_has_so_many_connections_whichever_servers_they_are_at() {
    let (a, b) = (Server::echo().await, Server::echo().await);
    let more = "max_connections = 3\nqueue = { timeout = \"1h\" }";
    let instance = Instance::start(&tables(&[(a.address, ""), (b.address, "")], more)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(established(instance.address("web")).await);
    }
    let mut waiting = instance.connect().await;
    instance.queues(1).await;
    assert_eq!(instance.metric("portreeve_pool_connections_active{pool=\"web\"}"), Some(3.0));
    let shown = pool(&instance).await;
    assert_eq!((&shown["max_connections"], &shown["connections_active"]), (&3.into(), &3.into()));
    held.pop();
    assert_alive(&mut waiting).await;
    assert_eq!(a.accepted() + b.accepted(), 4);
}

#[tokio::test]
async fn with_nobody_fit_nobody_waits() {
    let mut server = Server::echo().await;
    let check = "check = { interval = \"200ms\", timeout = \"190ms\", rise = 1, fall = 1 }";
    let instance = Instance::start(&one(&server, &format!("queue = {{ timeout = \"1h\" }}\n{check}"))).await;
    server.stop().await;
    instance.becomes(server.address, false).await;
    instance.refuses().await;
    instance.ended(Reason::NoServer, 1).await;
}

/// A server of HTTP that answers each request once it is let.
async fn patient(go: &Arc<Semaphore>) -> Server {
    let go = Arc::clone(go);
    Server::start(move |mut stream: TcpStream| {
        let go = Arc::clone(&go);
        async move {
            let mut buffer = vec![0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                go.acquire().await.unwrap().forget();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await
}

async fn ask(instance: &Instance) -> TcpStream {
    let mut client = instance.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    client
}

#[tokio::test]
async fn requests_wait_as_well_and_are_answered_with_503_when_they_do_in_vain() {
    let go = Arc::new(Semaphore::new(0));
    let server = patient(&go).await;
    let more = "breaker = { max_requests = 1 }\nqueue = { max = 2, timeout = \"1h\" }";
    let text = format!("{}{}", crate::stage::watch::ADMIN, listening("protocol = \"http\"", &[server.address], more));
    let instance = Instance::start(&text).await;
    let first = ask(&instance).await;
    eventually("the first request", || server.accepted() == 1).await;
    let second = ask(&instance).await;
    instance.queues(1).await;
    let third = ask(&instance).await;
    instance.queues(2).await;
    let refused = hear(ask(&instance).await).await.unwrap();
    assert!(
        refused.starts_with("HTTP/1.1 503 ") && refused.contains("X-Portreeve-Reason: queue_full\r\n"),
        "{refused}"
    );
    // A client that leaves is not waited for.
    drop(second);
    instance.queues(1).await;
    go.add_permits(2);
    for client in [first, third] {
        assert!(hear(client).await.unwrap().ends_with("\r\n\r\nok"));
    }
    instance.queues(0).await;
    instance.running.reload_text(&text.replace("1h", "200ms")).await.unwrap();
    let holding = ask(&instance).await;
    eventually("the next request", || instance.of_server("connections_active", server.address, "") == 1.0).await;
    let late = hear(ask(&instance).await).await.unwrap();
    assert!(late.starts_with("HTTP/1.1 503 ") && late.contains("X-Portreeve-Reason: queue_timeout\r\n"), "{late}");
    go.add_permits(1);
    hear(holding).await.unwrap();
    let reasons = [Reason::QueueFull, Reason::QueueTimeout].map(|reason| instance.listener("web").answers(reason));
    assert_eq!(reasons, [1, 1]);
}

#[tokio::test]
async fn five_hundred_clients_of_two_places_are_all_served() {
    let (a, b) = (Server::saying("served").await, Server::saying("served").await);
    let servers = [(a.address, ONE), (b.address, ONE)];
    let text = tables(&servers, "queue = { timeout = \"1h\" }").replace("workers = 2", "workers = 4");
    let instance = Instance::start(&text).await;
    let web = instance.address("web");
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..500 {
        clients.spawn(async move { hear(TcpStream::connect(web).await.unwrap()).await.unwrap() });
    }
    let served = within("everybody", clients.join_all()).await;
    assert!(served.iter().all(|answer| answer == "served"));
    assert_eq!(a.accepted() + b.accepted(), 500);
    instance.queues(0).await;
}
