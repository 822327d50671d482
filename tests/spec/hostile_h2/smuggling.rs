//! Requests by which a server of HTTP/1 should see another, or more than one.

use super::Fortress;
use crate::stage::frames::{DATA, END_HEADERS, END_STREAM, Field, Frames, HEADERS, Verdict, WHOLE, block, request};

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// Sends a head with these fields and what should become a request of its own as its body.
async fn with_a_request_within(frames: &mut Frames, method: &str, fields: &[Field<'_>]) -> Verdict {
    frames.send(HEADERS, END_HEADERS, 1, &request(method, "/outer", fields)).await;
    frames.send(DATA, END_STREAM, 1, SMUGGLED).await;
    frames.verdict(1).await
}

#[tokio::test]
async fn a_body_never_becomes_a_request() {
    let fortress = Fortress::start().await;
    let length = SMUGGLED.len().to_string();
    // Framed wrongly: none of the body arrives.
    let refused: [(&str, &[Field<'_>]); 8] = [
        ("GET", &[("content-length", b"0")]),
        ("POST", &[("content-length", b"0")]),
        ("POST", &[("content-length", b"5")]),
        ("POST", &[("content-length", b"500")]),
        ("POST", &[("transfer-encoding", b"chunked")]),
        ("POST", &[("transfer-encoding", b"identity"), ("content-length", b"0")]),
        ("POST", &[("content-length", b"0"), ("content-length", length.as_bytes())]),
        ("POST", &[("content-length", b"0\r\ntransfer-encoding: chunked")]),
    ];
    for (method, fields) in refused {
        let verdict = with_a_request_within(&mut fortress.connect().await, method, fields).await;
        assert!(verdict.is_refusal(), "{method} {fields:?}: {verdict:?}");
    }
    // Framed well: it arrives as the body it is.
    for (method, fields) in [("POST", &[][..]), ("GET", &[]), ("POST", &[("content-length", length.as_bytes())])] {
        let verdict = with_a_request_within(&mut fortress.connect().await, method, fields).await;
        assert_eq!(verdict, Verdict::Status(200), "{method} {fields:?}");
    }
    fortress.stands().await;
    // A head that says that nothing follows is whole for the server, if it is passed on before something does.
    let whole_without = |request: &&String| matches!(request.as_str(), "GET /outer HTTP/1.1" | "POST /outer HTTP/1.1");
    let requests = fortress.record.requests();
    let others: Vec<&str> =
        requests.iter().filter(|request| !whole_without(request)).map(|request| request.as_str()).collect();
    let post = "POST /outer HTTP/1.1 GET /smuggled HTTP/1.1\r\nHost: example.com";
    let get = "GET /outer HTTP/1.1 GET /smuggled HTTP/1.1\r\nHost: example.com";
    assert_eq!(others, ["GET /healthy HTTP/1.1", post, get, post, "GET /healthy HTTP/1.1"]);
}

#[tokio::test]
async fn names_and_values_never_become_lines() {
    let fortress = Fortress::start().await;
    let fields: [(&str, &[u8]); 9] = [
        ("x", b"1\r\ntransfer-encoding: chunked"),
        ("x", b"1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("x\r\ntransfer-encoding", b"chunked"),
        ("transfer-encoding: chunked\r\nx", b"1"),
        ("x: 1\r\n\r\nGET /smuggled HTTP/1.1\r\nx", b"1"),
        (" transfer-encoding", b"chunked"),
        ("transfer-encoding ", b"chunked"),
        ("transfer-encoding\0", b"chunked"),
        ("content-length ", b"0"),
    ];
    for field in fields {
        let verdict = with_a_request_within(&mut fortress.connect().await, "POST", &[field]).await;
        assert!(verdict.is_refusal(), "{field:?}: {verdict:?}");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn names_that_servers_take_for_another_are_dropped() {
    let fortress = Fortress::start().await;
    // Some servers take these for Transfer-Encoding and X-Forwarded-For.
    let fields: [(&str, &[u8]); 2] = [("transfer_encoding", b"chunked"), ("x_forwarded_for", b"10.0.0.1")];
    let verdict = fortress.verdict_on(&request("GET", "/healthy", &fields)).await;
    assert_eq!(verdict, Verdict::Status(200));
    fortress.has_withstood().await;
}

#[tokio::test]
async fn values_lose_the_spaces_around_them_and_keep_what_is_text() {
    let fortress = Fortress::start().await;
    let verdict =
        fortress.verdict_on(&request("GET", "/healthy", &[("x-spaces", b"  a b  "), ("x-text", "ä".as_bytes())])).await;
    assert!(verdict == Verdict::Status(200) || verdict.is_refusal(), "{verdict:?}");
    fortress.has_withstood().await;
}

#[tokio::test]
async fn trailers_never_become_what_frames_a_body() {
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/trailed", &[])).await;
    frames.send(DATA, 0, 1, b"body").await;
    let trailers: [(&str, &[u8]); 3] = [("content-length", b"0"), ("host", b"other.example.com"), ("x-trailer", b"1")];
    frames.send(HEADERS, WHOLE, 1, &block(&trailers)).await;
    let verdict = frames.verdict(1).await;
    assert!(verdict == Verdict::Status(200) || verdict.is_refusal(), "{verdict:?}");
    fortress.stands().await;
    let requests = fortress.record.requests();
    assert!(
        requests.iter().all(|request| request == "GET /healthy HTTP/1.1" || request == "POST /trailed HTTP/1.1 body"),
        "{requests:#?}"
    );
}

#[tokio::test]
async fn a_request_that_is_cut_off_spoils_no_connection_to_the_server() {
    let fortress = Fortress::start().await;
    for number in 0..20 {
        let mut frames = fortress.connect().await;
        let length: &[Field<'_>] = if number % 2 == 0 { &[("content-length", b"1000")] } else { &[] };
        frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/cut", length)).await;
        frames.send(DATA, 0, 1, SMUGGLED).await;
        frames.send(crate::stage::frames::RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await;
        frames.get(3, "/healthy").await;
        assert_eq!(frames.verdict(3).await, Verdict::Status(200));
    }
    let requests = fortress.record.requests();
    assert!(requests.iter().all(|request| !request.contains("smuggled")), "{requests:#?}");
    fortress.stands().await;
}
