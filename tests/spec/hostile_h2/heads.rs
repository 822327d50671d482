//! Heads that are none, or too large.

use super::Fortress;
use crate::stage::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, Field, HEADERS, RST_STREAM, Verdict, WHOLE, block, request,
};

/// Pseudo-header fields as they should be.
const GOOD: [(&str, &[u8]); 4] =
    [(":method", b"GET"), (":scheme", b"http"), (":authority", b"example.com"), (":path", b"/bad")];

/// With one of them replaced.
fn with(name: &str, value: &'static [u8]) -> Vec<u8> {
    block(&GOOD.map(|(own, was)| (own, if own == name { value } else { was })))
}

/// With one of them left out.
fn without(name: &str) -> Vec<u8> {
    block(&GOOD.into_iter().filter(|(own, _)| *own != name).collect::<Vec<_>>())
}

/// With more behind them.
fn and(more: &[Field<'_>]) -> Vec<u8> {
    block(&[&GOOD[..], more].concat())
}

#[tokio::test]
async fn a_head_that_is_none_is_refused() {
    let fortress = Fortress::start().await;
    let regular_first = block(&[&[("x-early", &b"1"[..])], &GOOD[..]].concat());
    let bad = [
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("an empty scheme", with(":scheme", b"")),
        ("a scheme with a line's end", with(":scheme", b"http\r\n\r\n")),
        ("a scheme with a zero", with(":scheme", b"http\0")),
        ("a scheme that begins with a digit", with(":scheme", b"1http")),
        ("no path", without(":path")),
        ("no authority", without(":authority")),
        ("two methods", and(&[(":method", b"GET")])),
        ("two paths", block(&[&GOOD[..], &[(":path", b"/two")]].concat())),
        ("two authorities", and(&[(":authority", b"example.com")])),
        ("a pseudo-header behind a field", regular_first),
        ("a pseudo-header of responses", and(&[(":status", b"200")])),
        ("a pseudo-header nobody knows", and(&[(":unknown", b"1")])),
        ("an upper-case name", and(&[("X-Upper", b"1")])),
        ("an empty name", and(&[("", b"1")])),
        ("a name with a space", and(&[("x y", b"1")])),
        ("a name with a colon", and(&[("x:y", b"1")])),
        ("a name with a newline", and(&[("x\ny", b"1")])),
        ("connection", and(&[("connection", b"close")])),
        ("connection that nominates", and(&[("connection", b"x-secret"), ("x-secret", b"1")])),
        ("keep-alive", and(&[("keep-alive", b"timeout=5")])),
        ("proxy-connection", and(&[("proxy-connection", b"keep-alive")])),
        ("transfer-encoding", and(&[("transfer-encoding", b"chunked")])),
        ("upgrade", and(&[("upgrade", b"h2c")])),
        ("te", and(&[("te", b"trailers, gzip")])),
        ("an empty path", with(":path", b"")),
        ("a path without a slash", with(":path", b"bad")),
        ("a path that is a URL", with(":path", b"http://example.com/bad")),
        ("a path with a space", with(":path", b"/bad HTTP/1.1")),
        ("a path with a tab", with(":path", b"/bad\tHTTP/1.1")),
        ("a path with a newline", with(":path", b"/bad HTTP/1.1\r\nx: y\r\n\r\nGET /smuggled")),
        ("a path with a bare newline", with(":path", b"/bad\n")),
        ("a path with a NUL", with(":path", b"/bad\0")),
        ("a path that leads up", with(":path", b"/bad/../admin")),
        ("an asterisk with GET", with(":path", b"*")),
        ("an authority with a newline", with(":authority", b"example.com\r\nx: y")),
        ("an authority with a space", with(":authority", b"example.com evil")),
        ("an authority with a user", with(":authority", b"user@example.com")),
        ("an authority with a path", with(":authority", b"example.com/x")),
        ("an empty authority", with(":authority", b"")),
        ("a method with a space", with(":method", b"GET /bad HTTP/1.1\r\n")),
        ("a method with a newline", with(":method", b"GET\r\n")),
        ("an empty method", with(":method", b"")),
        ("two lengths", and(&[("content-length", b"0"), ("content-length", b"1")])),
        ("a length that is none", and(&[("content-length", b"-1")])),
        ("a length with a sign", and(&[("content-length", b"+0")])),
        ("a length in a list", and(&[("content-length", b"0, 0")])),
        ("a length without a body", and(&[("content-length", b"5")])),
        ("a length beyond all", and(&[("content-length", b"99999999999999999999")])),
        ("two hosts", and(&[("host", b"example.com"), ("host", b"example.org")])),
        ("another host", and(&[("host", b"example.org")])),
    ];
    for (what, block) in bad {
        let verdict = fortress.verdict_on(&block).await;
        assert_eq!(verdict, Verdict::Status(400), "{what}");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn what_is_no_request_is_told_why_and_its_stream_given_up() {
    const PROTOCOL_ERROR: u32 = 1;
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, WHOLE, 1, &and(&[("X-Upper", b"1")])).await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(400));
    // RFC 9113 §8.1.1: it may be answered before its stream is reset, and does not end.
    let last = frames.until(|frame| frame.kind == RST_STREAM || frame.flags & END_STREAM != 0).await.unwrap();
    assert_eq!((last.kind, last.stream, last.number(0)), (RST_STREAM, 1, PROTOCOL_ERROR));
    frames.get(3, "/healthy").await;
    assert_eq!(frames.verdict(3).await, Verdict::Status(200));
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_fragment_goes_no_further() {
    let fortress = Fortress::start().await;
    let verdict = fortress.verdict_on(&with(":path", b"/healthy#there")).await;
    assert!(verdict == Verdict::Status(200) || verdict.is_refusal(), "{verdict:?}");
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_value_with_what_ends_a_line_is_refused() {
    let fortress = Fortress::start().await;
    let values = [
        "a\r\nx-injected: 1",
        "a\nx-injected: 1",
        "a\rb",
        "a\0b",
        "a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
        "a\x7f",
    ];
    for name in ["x-value", "cookie", "user-agent", "content-type"] {
        for value in values {
            let verdict = fortress.verdict_on(&and(&[(name, value.as_bytes())])).await;
            assert_eq!(verdict, Verdict::Status(400), "{name}: {value:?}");
        }
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_header_that_is_too_large_is_431() {
    let fortress = Fortress::start().await;
    // One field, many fields, and more fields than may be.
    let large = vec![b'x'; 17 * 1024];
    let many: Vec<(&str, &[u8])> = (0..120).map(|_| ("x-many", &[b'x'; 200][..])).collect();
    let countless: Vec<(&str, &[u8])> = (0..200).map(|_| ("x", &b"1"[..])).collect();
    for (what, block) in [("large", and(&[("x-large", &large)])), ("many", and(&many)), ("countless", and(&countless))]
    {
        let mut frames = fortress.connect().await;
        let mut pieces = block.chunks(16_000).peekable();
        let first = pieces.next().unwrap();
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        frames.send(HEADERS, END_STREAM | end, 1, first).await;
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            frames.send(CONTINUATION, end, 1, piece).await;
        }
        let verdict = frames.verdict(1).await;
        assert_eq!(verdict, Verdict::Status(431), "{what}");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_small_block_that_unfolds_to_a_large_header_is_refused() {
    // The HPACK bomb, CVE-2016-6581: a field of 4 KB is put into the table once, and then named by one byte each time.
    let fortress = Fortress::start().await;
    let mut bomb = request("GET", "/bomb", &[]);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x80 | 0x21, 0x1e]);
    let length = 127 + 0x21 + 0x1e * 128;
    bomb.extend(vec![b'x'; length]);
    bomb.extend([0xbe; 8000]);
    for _ in 0..20 {
        let mut frames = fortress.connect().await;
        frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &bomb).await;
        assert_eq!(frames.verdict(1).await, Verdict::Status(431));
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_block_that_cannot_be_unpacked_ends_the_connection() {
    const COMPRESSION_ERROR: u32 = 9;
    let fortress = Fortress::start().await;
    let good = request("GET", "/bad", &[]);
    let tails: [(&str, &[u8]); 5] = [
        ("an index of no entry", &[0xff, 0xff, 0x03]),
        ("the index zero", &[0x80]),
        ("a length beyond the end", &[0, 5, b'x']),
        ("a number without an end", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a table larger than agreed", &[0x3f, 0xff, 0xff, 0x7f]),
    ];
    for (what, tail) in tails {
        let verdict = fortress.verdict_on(&[&good[..], tail].concat()).await;
        assert!(matches!(verdict, Verdict::GoAway(COMPRESSION_ERROR)), "{what}: {verdict:?}");
    }
    fortress.has_withstood().await;
}
