//! How large requests may be and how long they may take.

use std::time::{Duration, Instant};

use portreeve::ending::Reason;

use super::{plain, with};
use crate::stage::http::{Client, Recorder, Stand, next_request, ok};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, within};

/// What a client of this instance gets for a request that is given up.
async fn refused(version: Version, instance: &Instance, bytes: impl AsRef<[u8]>) -> (u16, String) {
    let mut client = Speaker::of(version, instance).await;
    client.send(bytes).await;
    let response = client.response().await;
    client.is_refused_with(&response).await;
    (response.status(), response.field("x-portreeve-reason").to_owned())
}

#[tokio::test]
async fn a_header_is_no_larger_than_it_may_be() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "http = { max_header = \"4KiB\", max_header_fields = 10 }", "").await;
    let too_large = (431, "header_too_large".to_owned());
    let fields = |count: usize| crate::stage::http::get("/", &"A: b\r\n".repeat(count));
    for version in Version::each() {
        // The host is a field of HTTP/1 and none of HTTP/2.
        let most = if version == Version::One { 9 } else { 10 };
        assert_eq!(refused(version, &instance, fields(most + 1)).await, too_large);
        let long = crate::stage::http::get("/", &format!("A: {}\r\n", "b".repeat(4096)));
        assert_eq!(refused(version, &instance, long).await, too_large);
        let mut client = Speaker::of(version, &instance).await;
        client.send(fields(most)).await;
        assert_eq!(client.response().await.status(), 200);
        assert_eq!(client.ask_with("/", &format!("A: {}\r\n", "b".repeat(4000))).await.status(), 200);
    }
    // It is told before all of it has come.
    let begun = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(5000));
    assert_eq!(refused(Version::One, &instance, begun).await, too_large);
    assert_eq!(instance.listener("web").answers(Reason::HeaderTooLarge), 5);
}

#[tokio::test]
async fn a_target_is_no_longer_than_it_may_be() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "http = { max_uri = \"1KiB\" }", "").await;
    let too_long = (414, "uri_too_long".to_owned());
    let request = |length: usize| crate::stage::http::get(&format!("/{}", "x".repeat(length - 1)), "");
    for version in Version::each() {
        assert_eq!(refused(version, &instance, request(1025)).await, too_long);
        let mut client = Speaker::of(version, &instance).await;
        client.send(request(1024)).await;
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(refused(Version::One, &instance, format!("GET /{}", "x".repeat(2000))).await, too_long);
}

#[tokio::test]
async fn a_body_whose_length_says_that_it_is_too_large_is_not_even_read() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "http = { max_body = \"10B\" }", "").await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789").await;
        assert_eq!(client.response().await.status(), 200);
        for expect in ["", "Expect: 100-continue\r\n"] {
            let answer =
                refused(version, &instance, format!("PUT / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 11\r\n\r\n"))
                    .await;
            assert_eq!(answer, (413, "body_too_large".to_owned()));
        }
        // Whoever speaks HTTP/2 has gone on with other requests, which got through.
        let put = server.seen().iter().filter(|request| request.asked().starts_with("PUT")).count();
        assert_eq!(put, 1);
    }
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_stopped_where_it_does() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "http = { max_body = \"10B\" }", "").await;
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for version in Version::each() {
        for too_much in ["1\r\nx\r\n", "1\r\nx\r\n0\r\n\r\n"] {
            let mut client = Speaker::of(version, &instance).await;
            client.send([head, "a\r\n0123456789\r\n"].concat()).await;
            let mut server = stand.visit().await;
            let mut request = server.head().await.unwrap().unwrap();
            assert_eq!(server.chunk().await.unwrap().len(), 10);
            client.send(too_much).await;
            let response = client.response().await;
            assert_eq!((response.status(), response.field("x-portreeve-reason")), (413, "body_too_large"));
            server.body(&mut request).await.unwrap_err();
            assert!(request.body.is_empty(), "what is too much went on");
        }
        let mut client = Speaker::of(version, &instance).await;
        client.send([head, "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"].concat()).await;
        let (mut server, request) = stand.asked().await;
        assert_eq!(request.text(), "0123456789");
        server.send(ok("just")).await;
        assert_eq!(client.response().await.text(), "just");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_given_up() {
    let (server, _, _) = plain().await;
    let instance = with(server.address(), "timeouts = { request_header = \"300ms\", keep_alive = \"1h\" }", "").await;
    assert_eq!(
        refused(Version::One, &instance, "GET / HTTP/1.1\r\nHost: a\r\n").await,
        (408, "header_timeout".to_owned())
    );
    // Bytes that trickle in gain no time.
    let mut client = Client::of(&instance).await;
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let trickle = async {
        while client.0.stream.try_write(b"X").is_ok() && began.elapsed() < Duration::from_secs(5) {
            pace.tick().await;
        }
    };
    within("it is given up", trickle).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // Who has said nothing is told nothing.
    Client::of(&instance).await.ends().await;
    // The same holds for every later request of a connection.
    let mut client = Client::of(&instance).await;
    client.ask("/").await;
    client.send("GET /").await;
    assert_eq!(client.response().await.status(), 408);
    client.ends().await;
}

#[tokio::test]
async fn a_connection_between_requests_is_closed_after_keep_alive() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "timeouts = { keep_alive = \"200ms\" }", "").await;
    let mut client = Client::of(&instance).await;
    client.ask("/").await;
    client.ends().await;
    instance.ended(Reason::IdleTimeout, 1).await;
}

#[tokio::test]
async fn the_next_request_is_waited_for_from_when_the_response_is_over() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "timeouts = { keep_alive = \"1s\", request = \"1200ms\" }", "").await;
    let mut client = Client::of(&instance).await;
    // The first was waited for longer than that.
    client.get("/", "").await;
    let (_mute, _) = stand.asked().await;
    assert_eq!(client.response().await.status(), 504);
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send(ok("in time")).await;
    assert_eq!(client.response().await.text(), "in time");
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "timeouts = { body_idle = \"200ms\" }", "").await;
    for version in Version::each() {
        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let mut client = Speaker::of(version, &instance).await;
            client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n1\r\nx\r\n")).await;
            let mut server = stand.visit().await;
            server.head().await.unwrap().unwrap();
            let response = client.response().await;
            assert_eq!((response.status(), response.field("x-portreeve-reason")), (408, "body_timeout"));
            server.rest().await.ok();
            if version == Version::One {
                client.ends().await;
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_more_slowly_than_min_rate_is_given_up_after_a_while() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "http = { min_rate = \"1MiB\" }\ntimeouts = { body_idle = \"1h\" }", "").await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        let mut server = stand.visit().await;
        server.head().await.unwrap().unwrap();
        let began = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        let response = loop {
            tokio::select! {
                response = client.response() => break response,
                _ = pace.tick() => drop(client.try_send(b"x").await),
            }
        };
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (408, "body_timeout"));
        assert!(began.elapsed() >= Duration::from_millis(4900), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_client_whose_body_is_not_there_when_the_time_of_its_request_is_over_is_told_so() {
    let stand = Stand::new().await;
    for version in Version::each() {
        let instance = with(stand.address, "timeouts = { request = \"200ms\" }", "").await;
        let mut client = Speaker::of(version, &instance).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
        let _server = stand.visit().await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (408, "body_timeout"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_given_up() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "", "timeouts = { response_header = \"200ms\" }").await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (504, "response_timeout"));
        server.ends().await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 100);
        assert_eq!(client.response().await.status(), 504, "a word in between is no answer");
    }
}

#[tokio::test]
async fn a_request_takes_no_longer_than_it_may_in_all() {
    let stand = Stand::new().await;
    let routes = "routes = [{ path = \"/r\", pool = \"web\", timeout = \"200ms\" }]";
    for version in Version::each() {
        for (listener, path) in [("timeouts = { request = \"200ms\" }", "/"), (routes, "/r")] {
            let instance = with(stand.address, listener, "").await;
            let mut client = Speaker::of(version, &instance).await;
            client.get(path, "").await;
            let (_server, _) = stand.asked().await;
            let response = client.response().await;
            assert_eq!((response.status(), response.field("x-portreeve-reason")), (504, "request_timeout"));
            // A response that has begun cannot be taken back; it is cut off.
            client.get(path, "").await;
            let (mut server, _) = stand.asked().await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            client.is_cut_off().await;
            server.rest().await.ok();
        }
    }
}

#[tokio::test]
async fn a_response_that_stands_still_is_cut_off_by_the_idle_timeout() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "timeouts = { idle = \"200ms\" }", "").await;
    for version in Version::each() {
        for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "\r\nhalf"] {
            let mut client = Speaker::of(version, &instance).await;
            client.get("/", "").await;
            let (mut server, _) = stand.asked().await;
            server.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
            client.is_cut_off().await;
            server.rest().await.ok();
        }
    }
}

#[tokio::test]
async fn a_connection_has_no_more_requests_than_it_may() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "http = { max_requests = 2 }", "").await;
    let mut client = Client::of(&instance).await;
    assert_eq!(client.ask("/").await.one("connection"), None);
    assert_eq!(client.ask("/").await.field("connection"), "close");
    client.ends().await;
}

#[tokio::test]
async fn a_connection_that_has_reached_its_age_is_closed_with_the_next_response_and_not_while_it_waits() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "timeouts = { max_age = \"300ms\" }", "").await;
    let began = Instant::now();
    let mut waiting = Client::of(&instance).await;
    let mut client = Client::of(&instance).await;
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send(ok("young")).await;
    assert_eq!(client.response().await.one("connection"), None);
    client.get("/", "").await;
    next_request(&mut server).await;
    crate::stage::eventually("its age is over", || began.elapsed() > Duration::from_millis(340)).await;
    server.send(ok("old")).await;
    let response = client.response().await;
    assert_eq!((response.text(), response.field("connection")), ("old", "close"));
    client.ends().await;
    // Whoever sends a request could not know whether it was served if its connection were closed just then.
    waiting.get("/", "").await;
    next_request(&mut server).await;
    server.send(ok("late")).await;
    let response = waiting.response().await;
    assert_eq!((response.text(), response.field("connection")), ("late", "close"));
    waiting.ends().await;
    instance.ended(Reason::MaxAge, 2).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_before_it_has_sent_all_gets_the_answer_nevertheless() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "http = { max_body = \"1KiB\" }", "").await;
    let mut client = Client::of(&instance).await;
    let body = vec![b'x'; 16 * 1024 * 1024];
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    let response = client.response().await;
    assert_eq!((response.status(), response.field("connection")), (413, "close"));
    client.ends().await;
}
