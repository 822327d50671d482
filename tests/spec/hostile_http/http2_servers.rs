//! Servers of HTTP/2 whose responses are none by its rules (RFC 9113 §8.1.1), towards clients of either version: to those of
//! HTTP/1, what one response has too much or too little would be the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::stage::access::AccessLog;
use crate::stage::frames::{DATA, END_HEADERS, END_STREAM, Field, Frames, HEADERS, RST_STREAM, WHOLE, block, frame};
use crate::stage::http::{Stand, serving};
use crate::stage::http2::{BY_HTTP2, Version};
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, Server};

const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!";

/// What a server says on a stream that was asked for something.
type Saying = Vec<(u8, u8, Vec<u8>)>;

fn head(status: &str, fields: &[Field<'_>], flags: u8) -> (u8, u8, Vec<u8>) {
    (HEADERS, flags, block(&[&[(":status", status.as_bytes())], fields].concat()))
}

fn evil(flags: u8) -> (u8, u8, Vec<u8>) {
    (DATA, flags, EVIL.to_vec())
}

fn bytes(saying: &Saying, stream: u32) -> Vec<u8> {
    saying.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, stream, payload)).collect()
}

/// A server that says this at once to the first request and to every other after it, and to those between `next`.
async fn saying(bad: Saying) -> Server {
    let (bad, asked) = (Arc::new(bad), Arc::new(AtomicUsize::new(0)));
    let good = vec![head("200", &[("content-length", b"4")], END_HEADERS), (DATA, END_STREAM, b"next".to_vec())];
    let good = Arc::new(good);
    Server::start(move |stream| {
        let (bad, good, asked) = (Arc::clone(&bad), Arc::clone(&good), Arc::clone(&asked));
        async move {
            let mut frames = Frames::welcome(stream, &[]).await;
            while let Some(head) = frames.until(|frame| frame.kind == HEADERS).await {
                let is_first = asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                if frames.write(&bytes(if is_first { &bad } else { &good }, head.stream)).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

fn request(method: &str) -> String {
    format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Asserts that clients are answered by us, and their next request by the server; and that the log has the words.
async fn assert_bad(method: &str, said: Saying, words: &str) {
    let server = saying(said).await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&serving(&[server.address], "", BY_HTTP2))).await;
    for (number, version) in Version::each().enumerate() {
        let mut client = Speaker::of(version, &instance).await;
        client.send(request(method)).await;
        let response = client.head().await;
        assert_eq!((response.status(), response.one("x-portreeve-reason")), (502, Some("bad_response")), "{words}");
        if method != "HEAD" && version == Version::One {
            let Speaker::One(client) = &mut client else { panic!("it is one of HTTP/1") };
            client.0.exactly("502 Bad Gateway: bad_response\n".len()).await.unwrap();
        }
        let line = log.line(2 * number + 1).await;
        assert_eq!((line["reason"].as_str(), line["error"].as_str()), (Some("bad_response"), Some(words)), "{line:#}");
        assert_eq!((&line["status"], line.get("retries").and_then(|retries| retries.as_u64())), (&502.into(), Some(0)));
        assert_eq!(client.ask("/next").await.text(), "next", "{words}");
        log.line(2 * number + 2).await;
    }
}

#[tokio::test]
async fn a_body_where_there_can_be_none_reaches_nobody() {
    let length = EVIL.len().to_string();
    let told = [("content-length", length.as_bytes())];
    let trailers = || (HEADERS, WHOLE, block(&[("x-t", b"1")]));
    for (method, said) in [
        ("HEAD", vec![head("200", &[], END_HEADERS), evil(END_STREAM)]),
        ("HEAD", vec![head("200", &told, END_HEADERS), evil(END_STREAM)]),
        ("HEAD", vec![head("200", &[], END_HEADERS), evil(0), trailers()]),
        ("GET", vec![head("304", &[], END_HEADERS), evil(END_STREAM)]),
        ("GET", vec![head("204", &[], END_HEADERS), evil(END_STREAM)]),
    ] {
        assert_bad(method, said, "it has a body where there can be none").await;
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_its_head_says_is_no_response() {
    let sixty = || head("200", &[("content-length", b"60")], END_HEADERS);
    let over = head("200", &[("content-length", b"60")], WHOLE);
    let trailers = (HEADERS, WHOLE, block(&[("x-t", b"1")]));
    let short = "its body is shorter than it says";
    for (said, words) in [
        (vec![over], short),
        (vec![sixty(), (DATA, END_STREAM, Vec::new())], short),
        (vec![sixty(), (DATA, END_STREAM, b"abc".to_vec())], short),
        (vec![sixty(), trailers], short),
        (vec![sixty(), (DATA, END_STREAM, vec![b'x'; 61])], "its body is longer than it says"),
    ] {
        assert_bad("GET", said, words).await;
    }
}

#[tokio::test]
async fn a_head_that_breaks_the_rules_is_no_response() {
    let one_connection = "it has a field of HTTP/1 that concerns one connection";
    for field in [
        ("connection", &b"close"[..]),
        ("transfer-encoding", b"chunked"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"keep-alive"),
        ("upgrade", b"h2c"),
    ] {
        assert_bad("GET", vec![head("200", &[field], WHOLE)], one_connection).await;
    }
    let said = vec![(HEADERS, WHOLE, block(&[("x-status", b"200")]))];
    assert_bad("GET", said, "it has no status").await;
    assert_bad("GET", vec![head("101", &[], END_HEADERS)], "it answers 101, which HTTP/2 has not").await;
    assert_bad("GET", vec![(DATA, END_STREAM, EVIL.to_vec())], "its body comes before its head").await;
}

#[tokio::test]
async fn a_length_without_a_body_is_said_where_that_may_be() {
    for (method, status, told) in [("HEAD", "200", Some("60")), ("GET", "304", Some("60")), ("GET", "204", None)] {
        let server = saying(vec![head(status, &[("content-length", b"60")], WHOLE)]).await;
        let instance = Instance::start(&serving(&[server.address], "", BY_HTTP2)).await;
        for version in Version::each() {
            let mut client = Speaker::of(version, &instance).await;
            client.send(request(method)).await;
            let response = client.head().await;
            assert_eq!((response.status().to_string(), response.one("content-length")), (status.to_owned(), told));
            assert_eq!(client.ask("/next").await.text(), "next");
        }
    }
}

#[tokio::test]
async fn nothing_of_a_body_that_comes_behind_a_response_without_one_is_passed_on() {
    for (method, status) in [("HEAD", "200"), ("GET", "304"), ("GET", "204")] {
        for version in Version::each() {
            let stand = Stand::new().await;
            let log = AccessLog::new();
            let instance = Instance::start(&log.of(&serving(&[stand.address], "", BY_HTTP2))).await;
            let mut client = Speaker::of(version, &instance).await;
            client.send(request(method)).await;
            let mut server = Frames::welcome(stand.visit().await.stream, &[]).await;
            let asked = server.until(|frame| frame.kind == HEADERS).await.unwrap();
            server.write(&bytes(&vec![head(status, &[], END_HEADERS)], asked.stream)).await.unwrap();
            assert_eq!(client.head().await.status().to_string(), status);
            server.write(&bytes(&vec![evil(END_STREAM)], asked.stream)).await.unwrap();
            server.until(|frame| frame.kind == RST_STREAM).await.unwrap();
            if let Speaker::One(client) = &mut client {
                // Its connection is of no more use, however it ends.
                assert_eq!(client.0.rest().await.unwrap_or_default(), b"");
            }
            let line = log.line(1).await;
            assert_eq!(line["error"], "it has a body where there can be none", "{line:#}");
            assert_eq!((&line["reason"], &line["bytes_out"]), (&"bad_response".into(), &0.into()));
        }
    }
}
