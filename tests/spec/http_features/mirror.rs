//! Copies of requests for another pool, whose answers nobody reads.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use super::origin::{Message, Origin, ask, configuration, connect, get, ok};
use crate::stage::access::AccessLog;
use crate::stage::{ClosedPort, Instance, Server, eventually, within};

/// An instance whose requests go to `web` and are copied to `next`.
async fn mirroring(web: &Origin, next: std::net::SocketAddr, next_pool: &str) -> Instance {
    Instance::start(&mirrored(web, next, next_pool)).await
}

fn mirrored(web: &Origin, next: std::net::SocketAddr, next_pool: &str) -> String {
    let route = "routes = [{ path = \"/v1\", pool = \"web\", mirror = \"next\", rewrite = { prefix = \"/v2\" } }]";
    let more = format!("[pools.next]\nservers = [\"{next}\"]\ncheck = \"none\"\n{next_pool}");
    configuration(route, &[web.server.address], &more)
}

#[tokio::test]
async fn another_pool_gets_a_copy_and_the_client_the_first_pools_answer() {
    let (web, next) = (Origin::named("web").await, Origin::named("next").await);
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&mirrored(&web, next.server.address, ""))).await;
    let body = "x".repeat(300_000);
    for (count, request) in [
        "GET /v1/a?b=c HTTP/1.1\r\nHost: example.com\r\nX-Own: 1\r\n\r\n".to_owned(),
        format!("POST /v1/b HTTP/1.1\r\nHost: example.com\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        format!("POST /v1/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n493e0\r\n{body}\r\n0\r\n\r\n"),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(ask(&instance, request).await.text(), "web");
        eventually("the copy", || next.asked().len() == count + 1).await;
        let (own, copy) = (web.last(), next.last());
        let line = |message: &Message| message.head.lines().next().unwrap().to_owned();
        assert_eq!(line(&own), line(&copy));
        assert!(line(&copy).contains(" /v2/"));
        assert!(own.body == copy.body, "{} bytes and {}", own.body.len(), copy.body.len());
        for name in ["x-request-id", "x-forwarded-for", "x-own", "host"] {
            assert_eq!(own.value(name), copy.value(name), "{name}");
        }
        assert_eq!(log.line(count + 1).await["server"], web.server.address.to_string());
    }
    let trailed = "POST /v1/d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n";
    assert_eq!(ask(&instance, trailed).await.text(), "web");
    eventually("the copy", || next.asked().len() == 4).await;
    let (own, copy) = (web.last(), next.last());
    assert_eq!((&*own.trailers, &*copy.trailers), ("X-Sum: 1\r\n", "X-Sum: 1\r\n"));
    assert_eq!(get(&instance, "/other", "").await.text(), "web");
    let series = |pool: &str, server: &Origin| {
        format!("portreeve_server_requests_total{{pool=\"{pool}\",server=\"{}\",class=\"2xx\"}}", server.server.address)
    };
    let requests = "portreeve_http_requests_total{listener=\"web\",class=\"2xx\"}".to_owned();
    for (series, count) in [(series("next", &next), 4.0), (series("web", &web), 5.0), (requests, 5.0)] {
        eventually(&series, || instance.metric(&series) == Some(count)).await;
    }
    // The connection of one copy served the next.
    assert_eq!(next.server.accepted(), 1);
}

#[tokio::test]
async fn nothing_that_becomes_of_a_copy_is_seen_by_the_client() {
    let web = Origin::named("web").await;
    let closed = ClosedPort::new();
    let resets = Server::start(|stream| async { crate::stage::reset(stream) }).await;
    let garbles = Origin::start(|_| b"nonsense\r\n\r\n".to_vec()).await;
    let fails = Origin::start(|_| b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let talks = Origin::start(|_| ok("", &"x".repeat(4 << 20))).await;
    let addresses = [
        closed.address,
        resets.address,
        garbles.server.address,
        fails.server.address,
        talks.server.address,
        Server::silent().await.address,
    ];
    for next in addresses {
        let instance = mirroring(&web, next, "").await;
        let mut stream = connect(&instance).await;
        for _ in 0..3 {
            let request = "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
            assert_eq!(super::origin::ask_over(&mut stream, request).await.text(), "web");
        }
    }
    assert!(web.asked().iter().all(|request| request.body == b"abc"));
}

#[tokio::test]
async fn a_copy_of_a_large_body_arrives_whole() {
    let (web, next) = (Origin::named("web").await, Origin::named("next").await);
    let instance = mirroring(&web, next.server.address, "").await;
    let body = "x".repeat(8 << 20);
    let request = format!("POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for count in 1..=3 {
        assert_eq!(ask(&instance, &request).await.text(), "web");
        eventually("the copy", || next.asked().len() == count).await;
        assert!(next.last().body.len() == body.len());
    }
}

#[tokio::test]
async fn a_copy_that_lags_behind_is_given_up_and_the_request_goes_on() {
    let web = Origin::named("web").await;
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let go = Arc::new(Semaphore::new(0));
    let let_go = Arc::clone(&go);
    let lags = Server::start(move |mut stream| {
        let (told, go) = (told.clone(), Arc::clone(&let_go));
        async move {
            go.acquire().await.unwrap().forget();
            let mut read = Vec::new();
            drop(stream.read_to_end(&mut read).await);
            told.send(read.len()).await.unwrap();
        }
    })
    .await;
    let instance = mirroring(&web, lags.address, "").await;
    let body = "x".repeat(64 << 20);
    let request = format!("POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(ask(&instance, &request).await.text(), "web");
    assert!(web.last().body.len() == body.len());
    go.add_permits(1);
    let read = within("the end of the copy", heard.recv()).await.unwrap();
    assert!(read < body.len(), "{read}");
    let (copies, dropped) = copies(&instance);
    assert_eq!((copies, dropped), (1.0, 1.0));
}

/// How many requests were to be copied, and how many of those copies were given up.
fn copies(instance: &Instance) -> (f64, f64) {
    let count = |name: &str| instance.metric(&format!("portreeve_pool_{name}{{pool=\"next\"}}")).unwrap();
    (count("copies_total"), count("copies_dropped_total"))
}

#[tokio::test]
async fn a_worker_has_so_many_copies_under_way_and_makes_no_further_ones() {
    let (web, silent) = (Origin::named("web").await, Server::silent().await);
    let instance = mirroring(&web, silent.address, "").await;
    let mut stream = connect(&instance).await;
    for _ in 0..100 {
        assert_eq!(super::origin::ask_over(&mut stream, "GET /v1 HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "web");
    }
    eventually("the copies", || silent.accepted() == 64).await;
    assert_eq!(copies(&instance), (100.0, 36.0));
}

#[tokio::test]
async fn the_end_of_a_client_is_that_of_the_copy() {
    let web = Server::silent().await;
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let next = Server::start(move |stream| {
        let told = told.clone();
        async move {
            let mut stream = BufReader::new(stream);
            told.send(Message::read(&mut stream, false).await.is_none()).await.unwrap();
        }
    })
    .await;
    let route = "routes = [{ path = \"/\", pool = \"web\", mirror = \"next\" }]";
    let more = format!("[pools.next]\nservers = [\"{}\"]\ncheck = \"none\"", next.address);
    let instance = Instance::start(&configuration(route, &[web.address], &more)).await;
    let mut stream = connect(&instance).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
    eventually("the copy", || next.accepted() == 1).await;
    drop(stream);
    assert!(within("the end", heard.recv()).await.unwrap(), "a cut copy was taken for a whole one");
}
