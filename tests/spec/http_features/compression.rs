//! Responses that are compressed, and those that are not.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use super::origin::{Message, Origin, ask, connect, get, http, ok};
use crate::stage::{Server, within};

const COMPRESS: &str = "compress = true";

fn page() -> String {
    "All work and no play makes Jack a dull boy.\n".repeat(4000)
}

async fn origin() -> Origin {
    let fields = "Content-Type: text/html\r\nETag: \"strong\"\r\nAccept-Ranges: bytes\r\n";
    Origin::start(move |request| match request.head.split(' ').nth(1) {
        Some("/page") if request.value("if-none-match").is_some_and(|named| named.ends_with("\"strong\"")) => {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"strong\"\r\n\r\n".to_vec()
        }
        Some("/page") if request.head.starts_with("HEAD ") => {
            format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", page().len()).into_bytes()
        }
        Some("/page") => ok(fields, &page()),
        Some("/small") => ok(fields, "small"),
        Some("/image") => ok("Content-Type: image/png\r\n", &page()),
        Some("/coded") => ok("Content-Type: text/html\r\nContent-Encoding: br\r\n", &page()),
        Some(_) | None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
    .await
}

#[tokio::test]
async fn a_response_is_compressed_in_the_coding_that_the_client_likes_best() {
    let origin = origin().await;
    let instance = http(COMPRESS, &[origin.server.address], "").await;
    for (accepts, coding) in
        [("gzip", "gzip"), ("gzip, br", "br"), ("gzip, deflate, br, zstd", "zstd"), ("gzip, br;q=0.1", "gzip")]
    {
        let answer = get(&instance, "/page", &format!("Accept-Encoding: {accepts}\r\n")).await;
        assert_eq!(answer.value("content-encoding"), Some(coding), "{accepts}");
        assert_eq!(answer.value("vary"), Some("accept-encoding"));
        assert_eq!(answer.value("etag"), Some("W/\"strong\""));
        assert_eq!(answer.value("content-length"), None);
        assert_eq!(answer.value("accept-ranges"), None);
        assert_eq!(answer.value("transfer-encoding"), Some("chunked"));
        assert!(answer.body.len() < page().len() / 10, "{} bytes", answer.body.len());
        assert_eq!(answer.decoded(), page().as_bytes(), "{coding}");
        assert_eq!(origin.last().value("accept-encoding"), Some(accepts));
    }
}

#[tokio::test]
async fn a_client_that_asks_whether_what_it_has_is_still_good_is_told_by_the_validator_that_it_was_given() {
    let origin = origin().await;
    let instance = http(COMPRESS, &[origin.server.address], "").await;
    for accepts in ["gzip", "identity"] {
        let fields = format!("Accept-Encoding: {accepts}\r\n");
        let given = get(&instance, "/page", &fields).await;
        let etag = given.value("etag").unwrap();
        let answer = get(&instance, "/page", &format!("{fields}If-None-Match: {etag}\r\n")).await;
        assert!(answer.head.starts_with("HTTP/1.1 304 "), "{}", answer.head);
        assert_eq!((answer.value("etag"), answer.value("vary")), (Some(etag), Some("accept-encoding")), "{accepts}");
        assert_eq!(answer.value("content-encoding"), None);
        assert_eq!(origin.last().value("if-none-match"), Some(etag));
    }
}

#[tokio::test]
async fn one_who_takes_no_coding_gets_the_response_as_it_is_and_caches_are_told_that_others_do_not() {
    let origin = origin().await;
    let instance = http(COMPRESS, &[origin.server.address], "").await;
    for fields in ["", "Accept-Encoding: identity\r\n", "Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n"] {
        let answer = get(&instance, "/page", fields).await;
        assert_eq!(answer.value("vary"), Some("accept-encoding"), "{fields}");
        assert_eq!(answer.value("etag"), Some("\"strong\""));
        assert_eq!(answer.value("content-length"), Some(&*page().len().to_string()));
        assert_eq!(answer.text(), page());
    }
}

#[tokio::test]
async fn what_would_not_become_smaller_or_is_coded_already_goes_on_as_it_is() {
    let origin = origin().await;
    let instance = http(COMPRESS, &[origin.server.address], "").await;
    for target in ["/small", "/image", "/coded"] {
        let answer = get(&instance, target, "Accept-Encoding: gzip\r\n").await;
        assert_eq!((answer.value("vary"), answer.value("transfer-encoding")), (None, None), "{target}");
        assert_ne!(answer.value("content-encoding"), Some("gzip"), "{target}");
    }
}

#[tokio::test]
async fn a_head_is_answered_with_the_head_that_a_get_would_have() {
    let origin = origin().await;
    let instance = http(COMPRESS, &[origin.server.address], "").await;
    let mut stream = connect(&instance).await;
    for (fields, length) in [("Accept-Encoding: zstd\r\n", None), ("", Some(page().len().to_string()))] {
        let request = format!("HEAD /page HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let head = super::origin::ask_over(&mut stream, &request).await;
        let whole = get(&instance, "/page", fields).await;
        for name in ["content-encoding", "vary", "etag", "accept-ranges", "content-length"] {
            assert_eq!(head.value(name), whole.value(name), "{name}");
        }
        assert_eq!(head.value("content-length"), length.as_deref());
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_reads_it_until_the_connection_is_closed() {
    let origin = origin().await;
    let instance = http(COMPRESS, &[origin.server.address], "").await;
    let request = "GET /page HTTP/1.0\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = ask(&instance, request).await;
    assert_eq!((answer.value("transfer-encoding"), answer.value("content-length")), (None, None));
    assert_eq!(answer.value("connection"), Some("close"));
    assert_eq!(answer.decoded(), page().as_bytes());
}

#[tokio::test]
async fn a_route_decides_for_itself() {
    let origin = origin().await;
    let routes = "routes = [{ path = \"/page\", pool = \"web\", compress = false }]\ncompress = true";
    let instance = http(routes, &[origin.server.address], "").await;
    let answer = get(&instance, "/page", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((answer.value("content-encoding"), answer.value("vary")), (None, None));
}

#[tokio::test]
async fn what_a_route_says_of_a_field_holds_for_compressed_responses_too() {
    let origin = origin().await;
    let route = "routes = [{ path = \"/\", pool = \"web\", compress = true, response_headers = \
                 { remove = [\"etag\"], set = { vary = \"origin\" } } }]";
    let instance = http(route, &[origin.server.address], "").await;
    let answer = get(&instance, "/page", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(answer.values("vary"), ["origin", "accept-encoding"]);
    assert_eq!(answer.value("etag"), None);
    assert_eq!(answer.decoded(), page().as_bytes());
}

/// A server that begins a stream of events and ends it when it is let.
async fn stream_of_events(go: Arc<Semaphore>) -> Server {
    Server::start(move |stream| {
        let go = Arc::clone(&go);
        async move {
            let mut stream = BufReader::new(stream);
            while Message::read(&mut stream, false).await.is_some() {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(format!("{head}d\r\ndata: first\n\n\r\n").as_bytes()).await.unwrap();
                go.acquire().await.unwrap().forget();
                stream.write_all(b"e\r\ndata: second\n\n\r\n0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_event_is_seen_before_the_next_one_is_sent() {
    let go = Arc::new(Semaphore::new(0));
    let server = stream_of_events(Arc::clone(&go)).await;
    let instance = http(COMPRESS, &[server.address], "").await;
    let mut stream = connect(&instance).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await.unwrap();
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        within("the head", stream.read_line(&mut line)).await.unwrap();
    }
    let mut seen = String::new();
    while seen != "data: first\n\ndata: second\n\n" {
        let mut size = String::new();
        within("a chunk", stream.read_line(&mut size)).await.unwrap();
        let mut chunk = vec![0; usize::from_str_radix(size.trim_end(), 16).unwrap() + 2];
        within("a chunk", stream.read_exact(&mut chunk)).await.unwrap();
        std::io::Write::write_all(&mut decoder, &chunk[..chunk.len() - 2]).unwrap();
        std::io::Write::flush(&mut decoder).unwrap();
        seen = String::from_utf8(decoder.get_ref().clone()).unwrap();
        if seen == "data: first\n\n" {
            go.add_permits(1);
        }
    }
}

#[tokio::test]
async fn a_worker_compresses_so_many_responses_at_once_and_passes_the_others_on_as_they_are() {
    let go = Arc::new(Semaphore::new(0));
    let server = stream_of_events(Arc::clone(&go)).await;
    let instance = http(COMPRESS, &[server.address], "").await;
    let mut open = Vec::new();
    let mut coded = 0;
    for _ in 0..66 {
        let mut stream = connect(&instance).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            within("the head", stream.read_line(&mut head)).await.unwrap();
        }
        coded += usize::from(head.contains("content-encoding: gzip"));
        assert!(head.contains("vary: accept-encoding"));
        open.push(stream);
    }
    assert_eq!(coded, 64);
    go.add_permits(66);
    // Once they are over, there is room again.
    for stream in &mut open {
        let mut rest = String::new();
        while rest != "0\r\n" {
            let mut line = Vec::new();
            within("the rest", stream.read_until(b'\n', &mut line)).await.unwrap();
            rest = String::from_utf8_lossy(&line).into_owned();
        }
    }
    go.add_permits(1);
    let answer = get(&instance, "/", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(answer.value("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn a_server_that_breaks_off_is_not_hidden_by_a_proper_end_of_the_coding() {
    let server = Server::start(|stream| async move {
        let mut stream = BufReader::new(stream);
        drop(Message::read(&mut stream, false).await);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9000\r\n\r\nonly this";
        stream.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    let instance = http(COMPRESS, &[server.address], "").await;
    let mut stream = connect(&instance).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    assert!(within("the end", stream.read_to_end(&mut heard)).await.is_err(), "{}", String::from_utf8_lossy(&heard));
    assert!(!heard.ends_with(b"0\r\n\r\n"));
}
