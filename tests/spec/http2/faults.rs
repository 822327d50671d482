//! What is written down of requests whose clients went wrong or away.

use serde_json::Value;

use portreeve::ending::{Class, Reason};

use crate::stage::access::AccessLog;
use crate::stage::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, Verdict, WHOLE, WINDOW_UPDATE, block, frame, request,
};
use crate::stage::http2::fronting;
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
