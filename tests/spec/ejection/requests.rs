//! What is held against a server of HTTP: how its connections and streams end, and responses that it does not finish.

use h2::server::SendResponse;
use http::{Method, Response};

use super::{outcomes, why};
use crate::stage::http::{Client, Recorder, Stand, serving};
use crate::stage::http2::{Answered, Asked, BY_HTTP2, Message, Version, ask, send_answer};
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, Server, eventually, listening};

const STRICT: &str = "outlier = { consecutive_failures = 2, ejection = \"1h\", max_ejection = \"1h\" }";

/// A server of HTTP/2 that answers what asks for `/good`, and fails all else so.
async fn failing(fail: fn(SendResponse<bytes::Bytes>)) -> Server {
    Server::of_http2(h2::server::Builder::new(), move |request, mut respond| async move {
        match request.uri().path() {
            "/good" => send_answer(&mut respond, Answered::ok(Message::of("good"))),
            _ => fail(respond),
        }
    })
    .await
}

fn reset(mut respond: SendResponse<bytes::Bytes>) {
    respond.send_reset(h2::Reason::INTERNAL_ERROR);
}

#[tokio::test]
async fn a_server_that_resets_streams_on_a_connection_that_had_waited_is_ejected_and_another_tried_only_if_the_pool_says_so()
 {
    for (method, retry_on, is_retried) in
        [(Method::POST, "reset", false), (Method::GET, "connect", false), (Method::GET, "reset", true)]
    {
        let (bad, good) = (failing(reset).await, Recorder::speaking(Version::Two, crate::stage::http::ok("ok")).await);
        let pool = format!("check = \"none\"\n{STRICT}\n{BY_HTTP2}\nretry_on = [\"{retry_on}\"]");
        let text = listening("protocol = \"http\"", &[bad.address, good.address()], &pool);
        let instance = Instance::watched(&text.replace("workers = 2", "workers = 1")).await;
        for _ in 0..2 {
            ask(Version::Two, instance.address("web"), Asked::get("/good")).await;
        }
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let asked = Asked::of(method.clone(), "/x", Message::default());
            statuses.push(ask(Version::One, instance.address("web"), asked).await.status);
        }
        assert_eq!(why(&instance, bad.address).await, "2 attempts in a row failed, the last with server_reset");
        assert_eq!(outcomes(&instance, bad.address), (1.0, 2.0), "{method} {retry_on}");
        let failed = statuses.iter().filter(|status| **status == 502).count();
        assert_eq!(failed, if is_retried { 0 } else { 2 }, "{method} {retry_on}: {statuses:?}");
        assert_eq!(bad.accepted(), 1, "nothing was wrong with its connection");
    }
}

#[tokio::test]
async fn a_response_that_its_server_does_not_finish_is_a_failure() {
    for version in Version::each() {
        for said in [
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        ] {
            let stand = Stand::new().await;
            let instance = Instance::start(&serving(&[stand.address], "", "")).await;
            let mut client = Speaker::of(version, &instance).await;
            client.get("/x", "").await;
            let (mut server, _) = stand.asked().await;
            server.send(said).await;
            drop(server);
            match client.try_response().await {
                Ok(response) => assert_eq!(response.status(), 502, "{said}"),
                Err(_cut_off) => {}
            }
            eventually("what it came to", || outcomes(&instance, stand.address) == (0.0, 1.0)).await;
        }
    }
    let halving = failing(|mut respond| {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("half".into(), false).unwrap();
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let halving = halving.await;
    let instance = Instance::start(&serving(&[halving.address], "", BY_HTTP2)).await;
    let mut client = Client::of(&instance).await;
    client.get("/x", "").await;
    let _cut_off = client.try_response().await;
    eventually("what it came to", || outcomes(&instance, halving.address) == (0.0, 1.0)).await;
}

#[tokio::test]
async fn a_client_that_leaves_amid_a_response_is_not_its_servers_fault() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = Instance::start(&serving(&[stand.address], "", "")).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/x", "").await;
        let (mut server, _) = stand.asked().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc").await;
        if let Speaker::One(client) = &mut client {
            assert_eq!(client.head().await.status(), 200);
        }
        assert_eq!(outcomes(&instance, stand.address), (0.0, 0.0), "it is not over");
        drop(client);
        eventually("what it came to", || outcomes(&instance, stand.address) == (1.0, 0.0)).await;
    }
}
