//! Kinds of messages: versions, methods and statuses without a body, lengths that are unknown, informational responses,
//! several requests at once.

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::{in_front_of, plain};
use crate::stage::http::{Client, Recorder, Stand, get, next_request, ok};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::within;

/// A body in two chunks, with a trailer.
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n3\r\nefg\r\n0\r\nX-Sum: 7\r\n\r\n";

#[tokio::test]
async fn a_client_of_http_1_0_gets_one_response_and_the_end() {
    let (server, instance, mut client) = plain().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.text(), response.field("connection")), ("ok", "close"));
    client.ends().await;
    assert_eq!(server.saw().field("host"), server.address().to_string(), "servers of HTTP/1.1 need one");
    let mut client = Client::of(&instance).await;
    client.send("GET / HTTP/1.0\r\nHost: b.example\r\nConnection: close\r\n\r\n").await;
    client.response().await;
    client.ends().await;
    assert_eq!(server.saw().field("host"), "b.example");
}

#[tokio::test]
async fn a_client_of_http_1_0_that_wants_to_stay_may_if_lengths_are_known() {
    let (_server, _instance, mut client) = plain().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.text(), response.field("connection")), ("ok", "keep-alive"));
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.response().await;
    client.ends().await;
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let server = Recorder::answering(CHUNKED).await;
    let instance = in_front_of(server.address()).await;
    let mut client = Client::of(&instance).await;
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let response = client.head().await;
    assert_eq!((response.one("transfer-encoding"), response.field("connection")), (None, "close"));
    assert_eq!(client.0.rest().await.unwrap(), b"abcdefg");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_informational_response() {
    let server = Recorder::answering(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("ok"))).await;
    let instance = in_front_of(server.address()).await;
    let mut client = Client::of(&instance).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn the_end_of_a_connection_comes_with_the_last_of_its_bytes() {
    let server = Recorder::ok().await;
    let instance = in_front_of(server.address()).await;
    for path in ["/", "/ x"].repeat(20) {
        let mut client = TcpStream::connect(instance.address("web")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let ready = within("the response", client.ready(Interest::READABLE)).await.unwrap();
        assert!(ready.is_read_closed(), "the system says both at once");
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with(if path == "/" { "HTTP/1.1 200 " } else { "HTTP/1.1 400 " }), "{response}");
    }
}

#[tokio::test]
async fn the_response_to_head_keeps_its_length_and_has_no_body() {
    for framing in ["Content-Length: 5000000000", "Transfer-Encoding: chunked", "X-None: 1"] {
        let server = Recorder::answering(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
        let instance = in_front_of(server.address()).await;
        let mut client = Client::of(&instance).await;
        for _ in 0..2 {
            client.send("HEAD /x HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            let response = client.head().await;
            let length = framing.strip_prefix("Content-Length: ");
            assert_eq!((response.status(), response.one("content-length")), (200, length));
        }
        assert_eq!(server.seen().len(), 2);
        assert_eq!(instance.upstream(server.address()), (1, 1), "{framing}");
    }
}

#[tokio::test]
async fn no_content_and_not_modified_have_no_body_whatever_their_fields_say() {
    for (head, kept) in [
        ("204 No Content", None),
        ("204 No Content\r\nContent-Length: 0", None),
        ("304 Not Modified\r\nContent-Length: 1234", Some("1234")),
        ("304 Not Modified\r\nETag: \"a\"", None),
    ] {
        let server = Recorder::answering(format!("HTTP/1.1 {head}\r\n\r\n")).await;
        let instance = in_front_of(server.address()).await;
        let mut client = Client::of(&instance).await;
        for _ in 0..2 {
            let response = client.ask("/").await;
            assert_eq!((response.one("content-length"), response.one("transfer-encoding")), (kept, None), "{head}");
        }
        assert_eq!(instance.upstream(server.address()), (1, 1), "{head}");
    }
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_sent_in_chunks() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    assert_eq!(client.head().await.field("transfer-encoding"), "chunked");
    assert_eq!(client.0.chunk().await.unwrap(), b"first");
    server.send("second").await;
    assert_eq!(client.0.chunk().await.unwrap(), b"second");
    drop(server);
    assert_eq!(client.0.exactly(5).await.unwrap(), b"0\r\n\r\n");
    client.get("/next", "").await;
    let (mut server, request) = stand.asked().await;
    assert_eq!(request.asked(), "GET /next");
    server.send(ok("next")).await;
    assert_eq!(client.response().await.text(), "next", "the client's connection did not end with the server's");
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let server = Recorder::answering(CHUNKED).await;
    let instance = in_front_of(server.address()).await;
    let mut client = Client::of(&instance).await;
    for _ in 0..2 {
        client
            .send("POST / HTTP/1.1\r\nHost: a.example\r\nTrailer: X-Check\r\nTransfer-Encoding: Chunked\r\n\r\n")
            .await;
        client.send("5;a=\"b\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Check: 15\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.text(), "abcdefg");
        assert_eq!(response.trailers, [("X-Sum".to_owned(), "7".to_owned())]);
        let request = server.saw();
        assert_eq!((request.text(), request.field("trailer")), ("hello0123456789", "X-Check"));
        assert_eq!(request.trailers, [("X-Check".to_owned(), "15".to_owned())]);
        assert_eq!(request.field("transfer-encoding"), "chunked");
    }
    assert_eq!(instance.upstream(server.address()), (1, 1));
}

#[tokio::test]
async fn trailers_that_would_change_how_a_message_is_read_are_dropped() {
    let server = Recorder::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nX-A: 1\r\nConnection: close\r\n\r\n",
    )
    .await;
    let instance = in_front_of(server.address()).await;
    let mut client = Client::of(&instance).await;
    let trailers =
        "Transfer-Encoding: chunked\r\nHost: evil\r\nX-Forwarded-For: 1.2.3.4\r\nX-B: 2\r\nAuthorization: x\r\n";
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{trailers}\r\n"))
        .await;
    let response = client.response().await;
    assert_eq!(response.trailers, [("X-A".to_owned(), "1".to_owned())]);
    assert_eq!(server.saw().trailers, [("X-B".to_owned(), "2".to_owned())]);
    client.is_served_again().await;
}

#[tokio::test]
async fn a_body_that_is_empty_is_said_to_be() {
    let (server, _instance, mut client) = plain().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    client.response().await;
    assert_eq!(server.saw().field("content-length"), "0");
    client.ask("/").await;
    let request = server.saw();
    assert_eq!((request.one("content-length"), request.one("transfer-encoding")), (None, None));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    client.response().await;
    assert_eq!(server.saw().text(), "abc", "a GET may have a body");
}

#[tokio::test]
async fn who_expects_100_continue_waits_for_the_server_to_say_so() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut server = stand.visit().await;
    let mut request = server.head().await.unwrap().unwrap();
    assert_eq!(request.field("expect"), "100-continue");
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.response().await.line, "HTTP/1.1 100 Continue");
    client.send("body").await;
    server.body(&mut request).await.unwrap();
    assert_eq!(request.text(), "body");
    server.send(ok("done")).await;
    assert_eq!(client.response().await.text(), "done");
    // Another server says at once what it has to say.
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n").await;
    server.head().await.unwrap().unwrap();
    server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.field("connection")), (417, "close"), "the body may come or not");
    client.ends().await;
    server.ends().await;
}

#[tokio::test]
async fn who_expects_something_else_is_refused() {
    let (server, instance, _) = plain().await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (400, "bad_request"));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn informational_responses_are_passed_on_as_they_come() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    for link in ["</a.css>", "</b.css>"] {
        server.send(format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\nConnection: close\r\n\r\n")).await;
        let hints = client.response().await;
        assert_eq!((hints.line.as_str(), hints.field("link")), ("HTTP/1.1 103 Early Hints", link));
        assert_eq!(hints.one("connection"), None);
    }
    server.send("HTTP/1.1 102 Processing\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 102);
    server.send(ok("at last")).await;
    assert_eq!(client.response().await.text(), "at last");
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_their_order() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    let post = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    client
        .send([&get("/a", ""), post, "\r\n", &get("/c", ""), &get("/d", "Connection: close\r\n"), "junk"].concat())
        .await;
    let (mut server, request) = stand.asked().await;
    assert_eq!(request.asked(), "GET /a");
    server.send(ok("a")).await;
    for (asked, body) in [("POST /b", "abc"), ("GET /c", ""), ("GET /d", "")] {
        let request = next_request(&mut server).await;
        assert_eq!((request.asked(), request.text()), (asked, body));
        server.send(ok(asked)).await;
    }
    for body in ["a", "POST /b", "GET /c", "GET /d"] {
        assert_eq!(client.response().await.text(), body);
    }
    client.ends().await;
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]).await;
    }
    let (mut server, request) = stand.asked().await;
    assert_eq!((request.text(), request.trailers.len()), ("abc", 1));
    for byte in CHUNKED.bytes() {
        server.send([byte]).await;
    }
    let response = client.response().await;
    assert_eq!((response.text(), response.trailers.len()), ("abcdefg", 1));
}
