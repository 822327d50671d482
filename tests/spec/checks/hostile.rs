//! Servers that answer checks with nothing, slowly, with megabytes or with garbage: each check ends in time, and says why.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{checking, often, reason, saying};
use crate::stage::Server;

/// Every kind of check that asks something.
const KINDS: [&str; 7] = [
    "type = \"http\"",
    "type = \"grpc\"",
    "type = \"send_expect\", steps = [{ send = \"a\" }, { expect = \"needle\" }]",
    "type = \"postgres\"",
    "type = \"postgres\", user = \"monitor\"",
    "type = \"mysql\", user = \"monitor\"",
    "type = \"agent\", port = PORT",
];

/// What each kind of check says of a server.
async fn told(server: &Server, judge: impl Fn(&str, &str)) {
    for kind in KINDS {
        // None of them is to pass, so it does not matter what a busy machine keeps.
        let check = often(&kind.replace("PORT", &server.address.port().to_string())).replace("900ms", "90ms");
        let instance = checking(&[server.address], &check).await;
        let reason = reason(&instance, server.address).await;
        assert!(reason.chars().count() < 400, "{kind}: {reason}");
        judge(kind, &reason);
    }
}

#[tokio::test]
async fn a_server_that_never_answers() {
    let server = Server::silent().await;
    told(&server, |kind, reason| assert!(reason.contains("no answer in time"), "{kind}: {reason}")).await;
}

#[tokio::test]
async fn a_server_that_answers_a_byte_at_a_time() {
    let server = Server::start(|mut stream: TcpStream| async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b"\0").await.is_ok() {
            tick.tick().await;
        }
    })
    .await;
    told(&server, |kind, reason| assert!(reason.contains(" check failed: "), "{kind}: {reason}")).await;
}

#[tokio::test]
async fn a_server_that_answers_with_megabytes() {
    for byte in [b'x', 0, 0xff] {
        let server = Server::start(move |mut stream: TcpStream| async move {
            let many = vec![byte; 1 << 20];
            while stream.write_all(&many).await.is_ok() {}
        })
        .await;
        told(&server, |kind, reason| assert!(reason.contains(" check failed: "), "{kind}: {reason}")).await;
    }
}

#[tokio::test]
async fn a_server_that_answers_with_garbage() {
    for answer in [
        &b"\x00\xff\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\x0a\x00\x00\x00\x0a",
        b"R\xff\xff\xff\xff\0\0\0\0",
        b"E\0\0\0\x05x",
    ] {
        let server = saying(answer).await;
        told(&server, |kind, reason| {
            assert!(reason.contains(" check failed: ") && !reason.contains(char::is_control), "{kind}: {reason}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_closes_or_resets_at_once() {
    let server = Server::start(|mut stream: TcpStream| async move {
        let _read = stream.read(&mut [0; 1]).await;
        crate::stage::reset(stream);
    })
    .await;
    told(&server, |kind, reason| assert!(reason.contains(" check failed: "), "{kind}: {reason}")).await;
    let server = Server::start(|stream: TcpStream| async move { drop(stream) }).await;
    told(&server, |kind, reason| assert!(reason.contains(" check failed: "), "{kind}: {reason}")).await;
}
