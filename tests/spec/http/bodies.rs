//! Bodies are streamed: nothing waits for its end, and who does not read slows down who sends.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{in_front_of, with};
use crate::stage::http::{Client, Stand, next_request, ok};
use crate::stage::process::Admin;
use crate::stage::volume::{MIB, most_under_way, pour};
use crate::stage::watch::ADMIN;
use crate::stage::{Program, eventually, within};

const CHUNKED_POST: &str = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_piece_of_a_body_goes_on_as_soon_as_it_has_come() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send(CHUNKED_POST).await;
    let mut server = stand.visit().await;
    server.head().await.unwrap().unwrap();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    for word in ["one", "two!", "three"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        client.send(&chunk).await;
        assert_eq!(server.chunk().await.unwrap(), word.as_bytes());
        server.send(&chunk).await;
        assert_eq!(client.0.chunk().await.unwrap(), word.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(server.exactly(5).await.unwrap(), b"0\r\n\r\n");
    server.send("0\r\n\r\n").await;
    assert_eq!(client.0.exactly(5).await.unwrap(), b"0\r\n\r\n");
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways_at_once() {
    const BODY: u64 = 48;
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    let length = BODY * MIB as u64;
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    let mut server = stand.visit().await;
    server.head().await.unwrap().unwrap();
    server.send("HTTP/1.1 200 OK\r\n\r\n").await;
    client.head().await;
    let (client_reader, mut client_writer) = client.0.stream.into_split();
    let (server_reader, mut server_writer) = server.stream.into_split();
    let echo = async {
        let copied = tokio::io::copy(&mut server_reader.take(length), &mut server_writer).await.unwrap();
        assert_eq!(copied, length);
        server_writer.shutdown().await.unwrap();
    };
    let (sent, got, ()) =
        tokio::join!(pour(KeepOpen(&mut client_writer), BODY, 1), chunks(client_reader, length), echo);
    assert_eq!(sent, got);
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_client() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n").await;
    let mut server = stand.visit().await;
    let mut sent = 0;
    let piece = vec![7; 64 * 1024];
    // It is stopped when nothing has been taken for a while in which all was idle.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), client.0.stream.write(&piece)).await {
        sent += written.unwrap() as u64;
        assert!(sent <= most_under_way(), "{sent} bytes were taken, and nobody reads");
    }
    server.head().await.unwrap().unwrap();
    let taken = server.exactly(usize::try_from(sent).unwrap()).await.unwrap();
    assert!(taken.iter().all(|byte| *byte == 7));
    client.send(b"on it goes").await;
    assert_eq!(server.exactly(10).await.unwrap(), b"on it goes");
}

#[tokio::test]
async fn clients_that_do_not_read_cost_no_memory() {
    let stand = Stand::new().await;
    let configuration = crate::stage::http::serving(&[stand.address], "", "");
    let mut program = Program::start(&format!("{ADMIN}{configuration}"));
    let address = program.listening("web").await;
    let admin = Admin(program.admin().await);
    let before = program.memory();
    let mut floods = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::from([127, 0, 0, 1], address).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send("HTTP/1.1 200 OK\r\n\r\n").await;
        floods.spawn(async move { while server.stream.write_all(&[7; 16 * 1024]).await.is_ok() {} });
        clients.push(client);
    }
    let out = "portreeve_listener_bytes_total{listener=\"web\",direction=\"out\"}";
    let mut last = (0.0, 0);
    // All are stopped when the count stands still.
    within("the floods stop", async {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while last.1 < 5 {
            look.tick().await;
            let now = crate::stage::metric(&admin.metrics().await, out).unwrap();
            last = if now == last.0 && now > 0.0 { (now, last.1 + 1) } else { (now, 0) };
        }
    })
    .await;
    let grown = program.peak_memory().saturating_sub(before);
    assert!(grown < 8 * MIB as u64, "the program grew by {grown} bytes for 20 clients");
}

#[tokio::test]
async fn a_server_may_answer_before_it_has_read_the_request() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome of it").await;
    let mut server = stand.visit().await;
    server.head().await.unwrap().unwrap();
    assert_eq!(server.exactly(10).await.unwrap(), b"some of it");
    server.send(ok("enough")).await;
    let response = client.response().await;
    assert_eq!((response.text(), response.field("connection")), ("enough", "close"));
    client.ends().await;
    server.rest().await.map(|rest| assert!(rest.is_empty())).unwrap();
    assert_eq!(instance.upstream(stand.address), (1, 0), "nobody knows what that connection would be in for");
}

#[tokio::test]
async fn a_server_that_answers_and_closes_early_is_heard() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send(CHUNKED_POST).await;
    client.send("1\r\nx\r\n").await;
    let mut server = stand.visit().await;
    server.head().await.unwrap().unwrap();
    assert_eq!(server.chunk().await.unwrap(), b"x");
    server.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig").await;
    drop(server);
    let response = client.response().await;
    assert_eq!((response.status(), response.text(), response.one("x-portreeve-reason")), (413, "big", None));
    client.ends().await;
}

#[tokio::test]
async fn a_response_may_go_on_while_the_request_does() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send(CHUNKED_POST).await;
    let mut server = stand.visit().await;
    server.head().await.unwrap().unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.0.exactly(2).await.unwrap(), b"ab");
    client.send("3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(server.exactly(13).await.unwrap(), b"3\r\nabc\r\n0\r\n\r\n");
    server.send("cd").await;
    assert_eq!(client.0.exactly(2).await.unwrap(), b"cd");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_at_the_server() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    for reset in [true, false] {
        let mut client = Client::of(&instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        if reset {
            client.0.reset()
        } else {
            drop(client)
        }
        assert!(server.rest().await.is_ok_and(|rest| rest.is_empty()) || reset);
    }
    eventually("both are over", || instance.listener("web").active.get() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_leaves_the_server_with_half_a_request() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "", "retries = 3").await;
    for framing in ["Content-Length: 11", "Transfer-Encoding: chunked"] {
        let mut client = Client::of(&instance).await;
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nabcde\r\n")).await;
        let mut server = stand.visit().await;
        let mut request = server.head().await.unwrap().unwrap();
        drop(client);
        server.body(&mut request).await.unwrap_err();
    }
    assert_eq!(instance.upstream(stand.address), (2, 0), "it was not tried again");
}

#[tokio::test]
async fn a_body_may_be_large_and_come_slowly_piece_by_piece() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.send(CHUNKED_POST).await;
    let mut server = stand.visit().await;
    server.head().await.unwrap().unwrap();
    for number in 0..300 {
        client.send("1\r\n").await;
        client.send(if number % 2 == 0 { "x\r\n" } else { "y\r\n" }).await;
        assert_eq!(server.chunk().await.unwrap().len(), 1);
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(server.exactly(5).await.unwrap(), b"0\r\n\r\n");
    server.send(ok("all")).await;
    assert_eq!(client.response().await.text(), "all");
    client.get("/", "").await;
    next_request(&mut server).await;
}

/// A writer whose end is not the end of what lies beneath.
struct KeepOpen<'a, W>(&'a mut W);

impl<W: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for KeepOpen<'_, W> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Reads a body in chunks of so many bytes and returns the hash of what was in them.
async fn chunks(reader: impl tokio::io::AsyncRead + Unpin, length: u64) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    use tokio::io::AsyncBufReadExt;
    let mut reader = tokio::io::BufReader::with_capacity(64 * 1024, reader);
    let (mut hash, mut read, mut line, mut piece) = (Sha256::new(), 0, String::new(), Vec::new());
    loop {
        line.clear();
        within("the line of a chunk", reader.read_line(&mut line)).await.unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        piece.resize(size + 2, 0);
        within("a chunk", reader.read_exact(&mut piece)).await.unwrap();
        if size == 0 {
            assert_eq!(read, length);
            return hash.finalize().into();
        }
        hash.update(&piece[..size]);
        read += size as u64;
    }
}
