//! How connections to servers that speak TLS begin and end badly or well.

use std::io::ErrorKind;
use std::sync::Arc;

use portreeve::ending::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{converse, tls};
use crate::stage::access::AccessLog;
use crate::stage::pki::{Pki, welcome};
use crate::stage::{Instance, Server, balancing, hear, is_reset, reset, within};

/// A server that reads to the end and tells how that went, and then answers `answer`.
async fn reader(pki: &Pki, answer: &'static str) -> (Server, mpsc::Receiver<std::io::Result<Vec<u8>>>) {
    let (told, heard) = mpsc::channel(16);
    let server = Server::secure(pki.server(&pki.issue(&["127.0.0.1"])), move |mut stream| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            let read = stream.read_to_end(&mut bytes).await;
            told.send(read.map(|_| bytes)).await.unwrap();
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                let _gone = stream.shutdown().await;
            }
        }
    });
    (server.await, heard)
}

#[tokio::test]
async fn a_client_that_has_finished_is_an_orderly_end_to_the_server_which_may_still_answer() {
    let pki = Pki::new();
    let (server, mut heard) = reader(&pki, "an answer").await;
    let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
    let mut client = instance.connect().await;
    client.write_all(b"a question").await.unwrap();
    client.shutdown().await.unwrap();
    // Reading succeeds only if the end was announced (RFC 8446 section 6.1).
    assert_eq!(within("the server", heard.recv()).await.unwrap().unwrap(), b"a question");
    assert_eq!(hear(client).await.unwrap(), "an answer");
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_server_that_has_finished_still_gets_the_whole_upload() {
    const UPLOAD: usize = 1024 * 1024;
    let (pki, (told, mut uploaded)) = (Pki::new(), mpsc::channel(1));
    let server = Server::secure(pki.server(&pki.issue(&["127.0.0.1"])), move |mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(b"enough").await.unwrap();
            stream.shutdown().await.unwrap();
            told.send(stream.read_to_end(&mut Vec::new()).await).await.unwrap();
        }
    })
    .await;
    let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
    let mut client = instance.connect().await;
    let mut answer = String::new();
    within("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "enough");
    within("the upload", client.write_all(&vec![7; UPLOAD])).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(within("the upload", uploaded.recv()).await.unwrap().unwrap(), UPLOAD);
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_client_that_resets_is_no_orderly_end_to_the_server() {
    let (pki, (told, mut heard)) = (Pki::new(), mpsc::channel(1));
    let server = Server::secure(pki.server(&pki.issue(&["127.0.0.1"])), move |mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(b"hi").await.unwrap();
            told.send(stream.read_to_end(&mut Vec::new()).await).await.unwrap();
        }
    })
    .await;
    let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
    let mut client = instance.connect().await;
    client.write_all(b"half a requ").await.unwrap();
    within("the greeting", client.read_exact(&mut [0; 2])).await.unwrap();
    reset(client);
    let error = within("the server", heard.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    instance.ended(Reason::ClientReset, 1).await;
}

/// A server that shakes hands, says half an answer and then does `end` with the connection below.
async fn stopping<F>(pki: &Pki, end: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    Server::secure(pki.server(&pki.issue(&["127.0.0.1"])), move |mut stream| {
        let end = end.clone();
        async move {
            stream.get_ref().0.set_nodelay(true).unwrap();
            stream.write_all(b"half an answ").await.unwrap();
            end(stream.into_inner().0).await;
        }
    })
    .await
}

/// Hears half an answer through the instance, and then a reset.
async fn hear_half(instance: &Instance, reason: Reason) {
    let mut client = instance.connect().await;
    let mut answer = Vec::new();
    let end = within("the end", client.read_to_end(&mut answer)).await;
    assert_eq!(String::from_utf8(answer).unwrap(), "half an answ");
    assert!(is_reset(&end), "the client saw {end:?}");
    instance.ended(reason, 1).await;
}

#[tokio::test]
async fn a_server_that_closes_without_saying_so_is_a_reset_to_the_client() {
    let pki = Pki::new();
    let server = stopping(&pki, |mut stream| async move {
        stream.shutdown().await.unwrap();
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
    hear_half(&instance, Reason::ServerTruncated).await;
}

#[tokio::test]
async fn a_server_that_resets_is_a_reset_to_the_client() {
    let pki = Pki::new();
    let server = stopping(&pki, |stream| async move { reset(stream) }).await;
    let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
    hear_half(&instance, Reason::ServerReset).await;
}

#[tokio::test]
async fn plain_text_in_the_midst_of_tls_is_a_reset_to_the_client() {
    let (pki, log) = (Pki::new(), AccessLog::new());
    let server = stopping(&pki, |mut stream| async move {
        stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await.unwrap();
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let instance = Instance::start(&log.of(&balancing(&[server.address], &tls(&pki, "")))).await;
    hear_half(&instance, Reason::ServerTlsError).await;
    assert!(!log.line(1).await["error"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_speaks_plain_text_before_or_instead_of_its_handshake_is_refused() {
    let pki = Pki::new();
    let config = Arc::new(pki.server(&pki.issue(&["127.0.0.1"])));
    let before = Server::start(move |mut stream| {
        let config = Arc::clone(&config);
        async move {
            stream.write_all(b"220 mail.internal ESMTP\r\n").await.unwrap();
            assert!(welcome(config, stream).await.is_err());
        }
    })
    .await;
    let instead = Server::saying("SSH-2.0-OpenSSH\r\n").await;
    for server in [before, instead, Server::echo().await] {
        let instance = Instance::balancing(&[server.address], &format!("retries = 0\n{}", tls(&pki, ""))).await;
        let end = instance.outcome().await;
        assert!(is_reset(&end), "{end:?}");
        instance.ended(Reason::ServerTlsError, 1).await;
        let failures = instance.of_server("connect_failures_total", server.address, ",reason=\"server_tls_error\"");
        assert_eq!(failures, 1.0);
    }
}

#[tokio::test]
async fn a_server_that_closes_in_the_handshake_is_refused() {
    let pki = Pki::new();
    let server = Server::start(|mut stream| async move {
        stream.read_exact(&mut [0; 100]).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let instance = Instance::balancing(&[server.address], &format!("retries = 0\n{}", tls(&pki, ""))).await;
    let end = instance.outcome().await;
    assert!(is_reset(&end), "{end:?}");
    instance.ended(Reason::ServerTlsError, 1).await;
}

#[tokio::test]
async fn a_server_that_stalls_in_the_handshake_has_the_connect_timeout_and_then_the_next_is_tried() {
    let pki = Pki::new();
    let stalled = Server::silent().await;
    let more = format!("timeouts = {{ connect = \"300ms\" }}\n{}", tls(&pki, ""));
    let instance = Instance::balancing(&[stalled.address], &format!("retries = 0\n{more}")).await;
    let end = instance.outcome().await;
    assert!(is_reset(&end), "{end:?}");
    instance.ended(Reason::ConnectTimeout, 1).await;
    let good = Server::secure_echo(pki.server(&pki.issue(&["127.0.0.1"]))).await;
    let more = more.replace("300ms", "2s");
    let instance = Instance::balancing(&[stalled.address, good.address], &more).await;
    let (_first, _second) = tokio::join!(converse(&instance), converse(&instance));
    let failures = instance.of_server("connect_failures_total", stalled.address, ",reason=\"connect_timeout\"");
    assert_eq!((failures, good.accepted()), (1.0, 2));
}
