//! What is held against a server of HTTP: how its connections and streams end, and responses that it does not finish.

use h2::server::SendResponse;
use http::{Method, Response};
use tokio::io::AsyncWriteExt;

use super::{outcomes, why};
use crate::stage::http::{Client, Recorder, Stand, serving};
use crate::stage::http2::{Answered, Asked, BY_HTTP2, Message, Version, ask, send_answer};
use crate::stage::speaker::Speaker;
use crate::stage::{Deaf, Instance, Server, eventually, listening};

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

#[tokio::test]
async fn a_server_that_has_a_request_when_its_time_is_over_is_to_blame_and_not_if_it_is_the_callers() {
    let call = "POST /r HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n";
    for version in Version::each() {
        for (request, expected) in [
            ("GET /r HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), (0.0, 1.0)),
            (format!("{call}\r\n"), (0.0, 1.0)),
            (format!("{call}grpc-timeout: 10S\r\n\r\n"), (0.0, 1.0)),
            (format!("{call}grpc-timeout: 100m\r\n\r\n"), (0.0, 0.0)),
        ] {
            let stand = Stand::new().await;
            let routes = "routes = [{ path = \"/r\", pool = \"web\", timeout = \"300ms\" }]";
            let instance = Instance::start(&serving(&[stand.address], routes, "")).await;
            let mut client = Speaker::of(version, &instance).await;
            client.send(&request).await;
            let (_silent, _) = stand.asked().await;
            client.response().await;
            assert_eq!(outcomes(&instance, stand.address), expected, "{request}");
        }
    }
}

#[tokio::test]
async fn a_server_whose_connection_hangs_when_the_time_of_a_request_is_over_is_to_blame() {
    let deaf = Deaf::start().await;
    let routes = "routes = [{ path = \"/\", pool = \"web\", timeout = \"300ms\" }]";
    let instance = Instance::start(&serving(&[deaf.address], routes, "timeouts = { connect = \"1h\" }")).await;
    let response = Client::of(&instance).await.ask("/").await;
    assert_eq!((response.status(), response.field("x-portreeve-reason")), (504, "request_timeout"));
    assert_eq!(outcomes(&instance, deaf.address), (0.0, 1.0));
}

#[tokio::test]
async fn a_body_that_stands_still_before_its_end_is_the_failure_of_who_has_to_go_on() {
    const LARGE: usize = 8 << 20;
    for version in Version::each() {
        let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_owned();
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc".to_owned();
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n{}", "x".repeat(LARGE));
        for (said, reads, expected) in [
            (half, true, (0.0, 1.0)),
            // Who does not say how much there is may have nothing to say for long, as events do.
            (endless, true, (1.0, 0.0)),
            // It is the client that does not go on.
            (whole, false, (1.0, 0.0)),
        ] {
            let stand = Stand::new().await;
            let instance = Instance::start(&serving(&[stand.address], "timeouts = { idle = \"300ms\" }", "")).await;
            let mut client = Speaker::of(version, &instance).await;
            client.get("/x", "").await;
            let (mut server, _) = stand.asked().await;
            // It may be ended before it has said all.
            let _gone = server.stream.write_all(said.as_bytes()).await;
            if reads {
                client.is_cut_off().await;
            }
            eventually("what it came to", || outcomes(&instance, stand.address) == expected).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_lets_requests_run_out_of_time_is_no_quick_one() {
    let (stand, good) = (Stand::new().await, Recorder::ok().await);
    let routes = "routes = [{ path = \"/\", pool = \"web\", timeout = \"200ms\" }]";
    let pool = "balance = \"peak_ewma\"";
    let instance = Instance::start(&serving(&[stand.address, good.address()], routes, pool)).await;
    let mut client = Client::of(&instance).await;
    let mut late = 0;
    for _ in 0..8 {
        late += u32::from(client.ask("/").await.status() == 504);
    }
    assert!(late <= 2, "{late} of 8 went to the one that does not answer");
}
