//! HTTP over TLS, on either side: where records begin and end says nothing of messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::stage::access::AccessLog;
use crate::stage::http::{Recorder, serving};
use crate::stage::http2::{self, Answered, Asked, Version, read_body, send_answer, serve_http2};
use crate::stage::pki::{Pki, shake};
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, Server, within};

/// Less than a record, about the half of one, about a whole one, and many.
const SIZES: [usize; 9] = [100, 7_000, 8_000, 8_500, 9_000, 16_000, 16_500, 40_000, 200_000];

/// The pool's table for servers that a root vouches for.
fn by_tls(pki: &Pki) -> String {
    format!("tls = {{ ca = {:?}, server_name = \"example.com\" }}", pki.root())
}

/// Reads the head of a request and a body with a length.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

/// An answer of 200 with this body.
fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// A server that sends bodies back, head and body at once.
async fn echo(pki: &Pki) -> Server {
    let pair = pki.issue(&["example.com"]);
    Server::secure(pki.server(&pair), |mut stream| async move {
        while let Ok((_, body)) = read_request(&mut stream).await {
            if stream.write_all(&ok(&body)).await.is_err() {
                break;
            }
        }
    })
    .await
}

#[tokio::test]
async fn bodies_of_every_size_go_to_a_server_and_come_from_it() {
    let pki = Pki::new();
    let server = echo(&pki).await;
    let instance = Instance::start(&serving(&[server.address], "", &by_tls(&pki))).await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        for size in SIZES {
            let body = "x".repeat(size);
            client.send(format!("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}")).await;
            let response = client.response().await;
            assert_eq!((response.status(), response.body.len()), (200, size));
        }
    }
    assert_eq!(server.accepted(), 1, "one connection served them all");
}

/// The same in HTTP/2.
async fn echo_by_http2(pki: &Pki) -> Server {
    let mut config = pki.server(&pki.issue(&["example.com"]));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Server::secure(config, |stream| {
        serve_http2(stream, h2::server::Builder::new(), |mut request, mut respond| async move {
            let Ok((body, _)) = read_body(request.body_mut()).await else { return };
            let mut message = http2::Message::of(body);
            message.fields.insert("content-length", message.body.len().into());
            send_answer(&mut respond, Answered::ok(message));
        })
    })
    .await
}

#[tokio::test]
async fn bodies_of_every_size_go_and_come_where_both_sides_speak_tls() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    let listener = format!("tls = {{ certificates = [{}] }}", pair.entry());
    for (version, behind) in Version::pairs() {
        let server = match behind {
            Version::One => echo(&pki).await,
            Version::Two => echo_by_http2(&pki).await,
        };
        let pool = format!("{}\n{}", by_tls(&pki), behind.of_pool());
        let instance = Instance::start(&serving(&[server.address], &listener, &pool)).await;
        let mut config = pki.client(None);
        config.alpn_protocols = vec![if version == Version::Two { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let mut stream = shake(config, instance.address("web"), "example.com").await.unwrap();
        if version == Version::Two {
            let client = http2::Client::over(stream, &h2::client::Builder::new()).await;
            for size in SIZES {
                let mut asked = Asked::post("/x", "x".repeat(size));
                asked.message.fields.insert("content-length", size.into());
                let answered = client.ask(asked).await.unwrap();
                assert_eq!((answered.status, answered.text().len()), (200, size));
            }
            continue;
        }
        for size in SIZES {
            let body = "x".repeat(size);
            let request = format!("PUT /x HTTP/1.1\r\nHost: example.com\r\nContent-Length: {size}\r\n\r\n{body}");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let (head, body) = within("an answer", read_request(&mut stream)).await.unwrap();
            assert!(head.starts_with("http/1.1 200 "), "{size}: {head}");
            assert_eq!(body.len(), size);
        }
    }
}

#[tokio::test]
async fn a_request_may_come_in_records_of_any_sizes() {
    let pki = Pki::new();
    let server = Recorder::ok().await;
    let pair = pki.issue(&["example.com"]);
    let tls = format!("tls = {{ certificates = [{}] }}", pair.entry());
    let instance = Instance::start(&serving(&[server.address()], &tls, "")).await;
    for size in SIZES {
        let mut client = shake(pki.client(None), instance.address("web"), "example.com").await.unwrap();
        // The head is in two records, and the body in that of its end and others.
        client.write_all(b"PUT /x HTTP/1.1\r\nHo").await.unwrap();
        client.flush().await.unwrap();
        let rest = format!("st: a\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size));
        client.write_all(rest.as_bytes()).await.unwrap();
        client.flush().await.unwrap();
        let (answer, _) = within("an answer", read_request(&mut client)).await.unwrap();
        assert!(answer.starts_with("http/1.1 200 "), "{size}: {answer}");
        assert_eq!(server.saw().body.len(), size);
    }
}

#[tokio::test]
async fn the_line_of_a_connection_without_requests_says_who_it_was() {
    let pki = Pki::new();
    let (server, log) = (Recorder::ok().await, AccessLog::new());
    let pair = pki.issue(&["example.com"]);
    let tls = format!(
        "tls = {{ certificates = [{}], client_ca = {:?}, client_auth = \"optional\" }}",
        pair.entry(),
        pki.root()
    );
    let instance = Instance::start(&log.of(&serving(&[server.address()], &tls, ""))).await;
    let own = pki.issue(&["alice.client"]);
    for (number, (protocol, said)) in [("http/1.1", ""), ("h2", "this is no preface, is it?")].into_iter().enumerate() {
        let mut config = pki.client(Some(&own));
        config.alpn_protocols = vec![protocol.into()];
        let mut client = shake(config, instance.address("web"), "example.com").await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let _gone = client.read_to_end(&mut Vec::new()).await;
        let line = log.line(number + 1).await;
        assert_eq!(line["protocol"], if protocol == "h2" { "h2" } else { "http" }, "{line}");
        assert_eq!((&line["server_name"], &line["tls"]), (&"example.com".into(), &"1.3".into()), "{line}");
        assert_eq!(line["client_names"], serde_json::json!(["alice.client"]), "{line}");
    }
    // Of one that did not get so far it is known what it came for.
    let mut stranger = instance.connect().await;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _gone = stranger.read_to_end(&mut Vec::new()).await;
    let line = log.line(3).await;
    assert_eq!((&line["protocol"], &line["reason"]), (&"http".into(), &"tls_error".into()), "{line}");
}

#[tokio::test]
async fn a_connection_that_had_waited_and_ends_without_a_close_notify_was_closed_all_the_same() {
    // As when the server's process dies: the system says the end, and TLS does not.
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    for (version, retry_on) in Version::each().flat_map(|version| [(version, "[]"), (version, "[\"reset\"]")]) {
        let connections = Arc::new(AtomicUsize::new(0));
        let server = Server::secure(pki.server(&pair), move |mut stream| {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            async move {
                while let Ok((head, _)) = read_request(&mut stream).await {
                    // The socket is closed, and nothing is said before.
                    if number == 0 && !head.starts_with("get /first ") {
                        return;
                    }
                    stream.write_all(&ok(b"ok")).await.unwrap();
                }
            }
        })
        .await;
        let pool = format!("{}\nretries = 0\nretry_on = {retry_on}", by_tls(&pki));
        let instance = Instance::start(&serving(&[server.address], "", &pool)).await;
        let mut client = Speaker::of(version, &instance).await;
        for path in ["/first", "/second", "/third"] {
            assert_eq!(client.ask(path).await.status(), 200, "{path}");
        }
        assert_eq!(server.accepted(), 2);
    }
}

#[tokio::test]
async fn a_server_that_ends_without_a_close_notify_before_it_answers_has_broken_off() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    for version in Version::each() {
        let broken = Server::secure(pki.server(&pair), |mut stream| async move {
            let _request = read_request(&mut stream).await;
        })
        .await;
        let well = echo(&pki).await;
        let pool = format!("{}\nretry_on = [\"reset\"]", by_tls(&pki));
        let instance = Instance::start(&serving(&[broken.address, well.address], "", &pool)).await;
        let mut client = Speaker::of(version, &instance).await;
        for _ in 0..4 {
            assert_eq!(client.ask("/x").await.status(), 200);
        }
        assert!(broken.accepted() > 0);
    }
}
