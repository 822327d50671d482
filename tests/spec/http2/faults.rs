//! What is written down of requests whose clients went wrong or away.

use serde_json::Value;

use portreeve::ending::{Class, Reason};

use crate::stage::access::AccessLog;
use crate::stage::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, SETTINGS, Verdict, WHOLE, WINDOW_UPDATE, block, frame,
    request,
};
use crate::stage::http::{Stand, Wire};
use crate::stage::http2::{Answered, Asked, Client, Message, fronting};
use crate::stage::{Instance, Server, reset};

/// An instance in front of a server that takes requests and never answers, and its access log.
async fn silent() -> (AccessLog, Instance, Server) {
    let (log, server) = (AccessLog::new(), Server::silent().await);
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", ""))).await;
    (log, instance, server)
}

/// The head of a request whose body is said to be two bytes long.
fn two_bytes() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &request("POST", "/p", &[("content-length", b"2")]))
}

/// What a client does wrong on a stream, in frames, and the words for it.
fn wrongs() -> [(Vec<u8>, &'static str, u32); 7] {
    const PROTOCOL_ERROR: u32 = 1;
    const STREAM_CLOSED: u32 = 5;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let trailers = |flags, fields: &[(&str, &[u8])]| frame(HEADERS, flags, 1, &block(fields));
    [
        (frame(DATA, END_STREAM, 1, b"abcdef"), "its body is longer than it says", PROTOCOL_ERROR),
        (frame(DATA, END_STREAM, 1, b"a"), "its body is shorter than it says", PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"").repeat(2000), "its body comes in frames that carry nothing", ENHANCE_YOUR_CALM),
        (frame(WINDOW_UPDATE, 0, 1, &[0; 4]), "its window grows by nothing", PROTOCOL_ERROR),
        (trailers(WHOLE, &[(":path", b"/")]), "its trailers have a pseudo-header field", PROTOCOL_ERROR),
        (trailers(END_HEADERS, &[("a", b"b")]), "something is to follow its trailers", PROTOCOL_ERROR),
        (
            [frame(DATA, END_STREAM, 1, b"ab"), frame(DATA, 0, 1, b"c")].concat(),
            "something comes behind its end",
            STREAM_CLOSED,
        ),
    ]
}

fn assert_bad(line: &Value, words: &str) {
    assert_eq!((&line["protocol"], &line["method"]), (&"h2".into(), &"POST".into()), "{line}");
    assert_eq!((&line["host"], &line["path"]), (&"example.com".into(), &"/p".into()), "{line}");
    assert_eq!((&line["reason"], &line["error"]), (&"bad_request".into(), &words.into()), "{line}");
    assert_eq!(line["status"], Value::Null, "it was not answered: {line}");
}

#[tokio::test]
async fn a_request_that_goes_wrong_under_way_has_a_line_that_says_how() {
    for (bytes, words, code) in wrongs() {
        let (log, instance, server) = silent().await;
        let mut frames = Frames::connect(instance.address("web")).await;
        frames.write(&two_bytes()).await.unwrap();
        crate::stage::eventually("the request", || server.accepted() == 1).await;
        frames.write(&bytes).await.unwrap();
        assert_eq!(frames.verdict(1).await, Verdict::Reset(code), "{words}");
        assert_bad(&log.line(1).await, words);
    }
}

#[tokio::test]
async fn a_request_that_goes_wrong_before_it_is_looked_at_has_one_too_and_is_counted() {
    for (bytes, words, code) in wrongs() {
        let (log, instance, server) = silent().await;
        let mut frames = Frames::connect(instance.address("web")).await;
        frames.write(&[two_bytes(), bytes].concat()).await.unwrap();
        assert_eq!(frames.verdict(1).await, Verdict::Reset(code), "{words}");
        assert_bad(&log.line(1).await, words);
        let listener = instance.listener("web");
        assert_eq!((listener.requests(Class::None), listener.request_endings(Reason::BadRequest)), (1, 1));
        assert_eq!(server.accepted(), 0, "it was sent to nobody");
    }
}

#[tokio::test]
async fn requests_of_a_connection_that_breaks_the_protocol_end_for_that() {
    let (log, instance, server) = silent().await;
    let mut frames = Frames::connect(instance.address("web")).await;
    frames.write(&two_bytes()).await.unwrap();
    crate::stage::eventually("the request", || server.accepted() == 1).await;
    let other = frame(HEADERS, END_HEADERS, 3, &request("POST", "/p", &[]));
    frames.write(&[other, frame(PING, 0, 1, &[0; 8])].concat()).await.unwrap();
    frames.farewell().await;
    let (requests, connections): (Vec<Value>, Vec<Value>) =
        log.lines(3).await.into_iter().partition(|line| line["method"].is_string());
    requests.iter().for_each(|line| assert_bad(line, "a ping comes on a stream"));
    assert_eq!((requests.len(), connections.len()), (2, 1));
    let line = &connections[0];
    assert_eq!((&line["protocol"], &line["reason"]), (&"h2".into(), &"bad_request".into()), "{line}");
}

#[tokio::test]
async fn a_client_that_closes_is_told_from_one_that_resets() {
    for (resets, at_once) in [(false, false), (true, false), (false, true)] {
        let (log, instance, server) = silent().await;
        let mut frames = Frames::connect(instance.address("web")).await;
        // What this side says first is read, or its end would be a reset.
        frames.until(|frame| frame.kind == WINDOW_UPDATE).await.unwrap();
        frames.send(PING, 0, 0, &[0; 8]).await;
        frames.until(|frame| frame.kind == PING).await.unwrap();
        frames.get(1, "/").await;
        if !at_once {
            crate::stage::eventually("the request", || server.accepted() == 1).await;
        }
        match resets {
            true => reset(frames.stream),
            false => drop(frames),
        }
        let line = log.line(1).await;
        let reason = if resets { "client_reset" } else { "client_closed" };
        assert_eq!((&line["reason"], &line["path"]), (&reason.into(), &"/".into()), "{line}");
        assert_eq!(line["error"], Value::Null, "{line}");
    }
}

#[tokio::test]
async fn a_connection_without_requests_says_what_is_spoken_on_it() {
    let (log, instance, _server) = silent().await;
    let mut frames = Frames::connect(instance.address("web")).await;
    frames.send(PING, 0, 1, &[0; 8]).await;
    frames.farewell().await;
    assert_eq!(log.line(1).await["protocol"], "h2");
    drop(instance.connect().await);
    assert_eq!(log.line(2).await["protocol"], "http");
}

#[tokio::test]
async fn what_is_refused_is_logged_as_far_as_it_was_read_and_a_head_for_it_has_no_body() {
    let (log, instance, server) = silent().await;
    let refused: [(Vec<u8>, &str, &str, Option<&str>); 4] = [
        (request("HEAD", "/a/../b", &[]), "HEAD", "/a/../b", Some("example.com")),
        (request("HEAD", "/x", &[("Upper", b"1")]), "HEAD", "/x", Some("example.com")),
        (request("GET", &format!("/{}", "x".repeat(9000)), &[]), "GET", "", Some("example.com")),
        (
            block(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"a b"), (":path", b"/")]),
            "GET",
            "/",
            None,
        ),
    ];
    for (count, (block, method, path, host)) in refused.into_iter().enumerate() {
        let mut frames = Frames::connect(instance.address("web")).await;
        frames.send(HEADERS, WHOLE, 1, &block).await;
        assert!(matches!(frames.verdict(1).await, Verdict::Status(400 | 414)));
        if method == "HEAD" {
            frames.send(PING, 0, 0, &[0; 8]).await;
            let next = frames.until(|frame| frame.kind == DATA || frame.kind == PING).await.unwrap();
            assert_eq!(next.kind, PING, "it has a body: {next:?}");
        }
        let line = log.line(count + 1).await;
        assert_eq!((line["method"].as_str(), line["host"].as_str()), (Some(method), host), "{line}");
        match path {
            "" => {
                assert_eq!(line["path"].as_str().unwrap().len(), 1024, "{line}");
                assert_eq!(line["error"], "its path is longer than `max_uri`");
            }
            path => assert_eq!(line["path"], path, "{line}"),
        }
    }
    // One that has no path at all, and which is no tunnel.
    let mut frames = Frames::connect(instance.address("web")).await;
    frames.send(HEADERS, END_HEADERS, 1, &block(&[(":method", b"CONNECT"), (":authority", b"b:443")])).await;
    assert!(frames.verdict(1).await.is_refusal());
    let line = log.line(5).await;
    assert_eq!((&line["method"], &line["host"]), (&"CONNECT".into(), &"b".into()), "{line}");
    assert!(line.get("path").is_none(), "{line}");
    assert_eq!(server.accepted(), 0);
}

/// An instance in front of a server that is played by the test, and its access log.
async fn staged() -> (AccessLog, Instance, Stand) {
    let (log, stand) = (AccessLog::new(), Stand::new().await);
    let instance = Instance::start(&log.of(&fronting(&[stand.address], "", ""))).await;
    (log, instance, stand)
}

/// Begins to answer a call, and says no more.
async fn begin_to_answer(stand: &Stand) -> Wire {
    let (mut server, _) = stand.asked().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.send(format!("{head}5\r\n\0\0\0\0\0\r\n")).await;
    server
}

#[tokio::test]
async fn a_call_whose_time_is_over_in_the_middle_ends_with_the_status_that_says_so() {
    let (log, instance, stand) = staged().await;
    let client = Client::connect(instance.address("web")).await;
    let message = Message::of("call").with("content-type", "application/grpc").with("grpc-timeout", "300m");
    let asked = Asked { message, ..Asked::post("/s/m", "") };
    let (answered, _server) = tokio::join!(client.ask(asked), begin_to_answer(&stand));
    let Answered { status, message } = answered.unwrap();
    assert_eq!((status, &message.body[..]), (200, &[0; 5][..]));
    assert_eq!(message.trailers["grpc-status"], "4");
    assert_eq!(message.trailers["grpc-message"], "request_timeout");
    let line = log.line(1).await;
    assert_eq!((&line["reason"], &line["grpc_status"]), (&"request_timeout".into(), &"deadline_exceeded".into()));
}

#[tokio::test]
async fn a_call_that_has_no_room_for_its_status_is_cancelled() {
    const CANCEL: u32 = 8;
    let (log, instance, stand) = staged().await;
    let mut frames = Frames::connect(instance.address("web")).await;
    // A window of nothing (RFC 9113 §6.5.2).
    frames.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let fields: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("grpc-timeout", b"300m")];
    frames.send(HEADERS, WHOLE, 1, &request("POST", "/s/m", &fields)).await;
    let _server = begin_to_answer(&stand).await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(200));
    assert_eq!(frames.verdict(1).await, Verdict::Reset(CANCEL));
    assert_eq!(log.line(1).await["grpc_status"], "deadline_exceeded");
}
