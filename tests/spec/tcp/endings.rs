//! How connections end, and what each side sees of it.

use std::io::ErrorKind;
use std::time::Duration;

use portreeve::ending::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::reader;
use crate::stage::{Instance, Server, hear, is_reset, listening, reset, within};

#[tokio::test]
async fn a_client_that_has_finished_writing_still_gets_the_whole_answer() {
    let server = Server::echo().await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear(client).await.unwrap(), "hello");
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_server_that_has_finished_answering_still_gets_the_whole_upload() {
    const UPLOAD: usize = 8 * 1024 * 1024;
    let (told, mut uploaded) = mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(b"enough").await.unwrap();
            stream.shutdown().await.unwrap();
            told.send(stream.read_to_end(&mut Vec::new()).await).await.unwrap();
        }
    })
    .await;
    let instance = Instance::balancing(&[server.address], "").await;
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
async fn a_client_that_resets_is_a_reset_to_the_server_and_not_an_end() {
    let (server, mut heard) = reader("hi").await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    within("the greeting", client.read_exact(&mut [0; 2])).await.unwrap();
    client.write_all(b"half a requ").await.unwrap();
    reset(client);
    let read = within("the server", heard.recv()).await.unwrap();
    assert!(is_reset(&read), "the server saw {read:?}");
    instance.ended(Reason::ClientReset, 1).await;
}

#[tokio::test]
async fn a_server_that_resets_is_a_reset_to_the_client_after_what_it_had_sent() {
    let server = Server::start(|mut stream| async move {
        stream.write_all(b"half an answ").await.unwrap();
        reset(stream);
    })
    .await;
    let instance = Instance::balancing(&[server.address], "").await;
    for _ in 0..20 {
        let mut client = instance.connect().await;
        let mut answer = Vec::new();
        let end = within("the end", client.read_to_end(&mut answer)).await;
        assert_eq!(String::from_utf8(answer).unwrap(), "half an answ");
        assert!(is_reset(&end), "the client saw {end:?}");
    }
    instance.ended(Reason::ServerReset, 20).await;
}

#[tokio::test]
async fn a_reset_of_the_server_is_passed_on_to_a_client_that_had_finished() {
    let server = Server::start(|mut stream| async move {
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        reset(stream);
    })
    .await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    client.shutdown().await.unwrap();
    let end = hear(client).await;
    assert!(is_reset(&end), "the client saw {end:?}");
    instance.ended(Reason::ServerReset, 1).await;
}

#[tokio::test]
async fn a_client_that_resets_is_noticed_while_its_server_takes_nothing() {
    let server = Server::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    let fill = async {
        loop {
            client.write_all(&[0; 4096]).await.unwrap();
        }
    };
    // It takes what fits into the buffers on the way, and then nothing more.
    let stalled = tokio::time::timeout(Duration::from_millis(500), fill).await;
    assert!(stalled.is_err());
    reset(client);
    instance.ended(Reason::ClientReset, 1).await;
}

#[tokio::test]
async fn a_server_that_closes_without_a_word_is_named() {
    let server = Server::start(|stream| async move { drop(stream) }).await;
    let instance = Instance::balancing(&[server.address], "").await;
    assert_eq!(instance.hear().await, "");
    instance.ended(Reason::ServerClosed, 1).await;
}

#[tokio::test]
async fn a_client_that_closes_without_a_word_is_named() {
    let (server, mut heard) = reader("").await;
    let instance = Instance::balancing(&[server.address], "").await;
    drop(instance.connect().await);
    let read = within("the server", heard.recv()).await.unwrap();
    assert_eq!(read.unwrap(), b"", "the server sees an ordinary end");
    instance.ended(Reason::ClientClosed, 1).await;
}

#[tokio::test]
async fn a_connection_without_a_byte_for_the_idle_timeout_is_reset_on_both_sides() {
    let (server, mut heard) = reader("hi").await;
    let instance = Instance::start(&listening("timeouts = { idle = \"200ms\" }", &[server.address], "")).await;
    let end = instance.outcome().await;
    assert!(is_reset(&end), "the client saw {end:?}");
    let read = within("the server", heard.recv()).await.unwrap();
    assert!(is_reset(&read), "the server saw {read:?}");
    instance.ended(Reason::IdleTimeout, 1).await;
}

#[tokio::test]
async fn a_connection_that_moves_bytes_now_and_then_outlives_the_idle_timeout() {
    let server = Server::echo().await;
    let instance = Instance::start(&listening("timeouts = { idle = \"2s\" }", &[server.address], "")).await;
    let mut client = instance.connect().await;
    let mut now_and_then = tokio::time::interval(Duration::from_millis(250));
    for _ in 0..12 {
        now_and_then.tick().await;
        client.write_all(b"x").await.unwrap();
        within("the echo", client.read_exact(&mut [0])).await.unwrap();
    }
    drop(client);
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_server_that_does_not_finish_after_the_client_is_reset_after_the_half_close_timeout() {
    let (told, mut seen) = mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
            told.send(error_of(&stream).await).await.unwrap();
        }
    })
    .await;
    let instance = Instance::start(&listening("timeouts = { half_close = \"200ms\" }", &[server.address], "")).await;
    let mut client = instance.connect().await;
    client.shutdown().await.unwrap();
    let end = hear(client).await;
    assert!(is_reset(&end), "the client saw {end:?}");
    let error = within("the server", seen.recv()).await.unwrap();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    instance.ended(Reason::HalfCloseTimeout, 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_after_the_server_is_reset_after_the_half_close_timeout() {
    let server = Server::saying("bye").await;
    let instance = Instance::start(&listening("timeouts = { half_close = \"200ms\" }", &[server.address], "")).await;
    let mut client = instance.connect().await;
    let mut answer = String::new();
    within("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "bye", "what the server said, and its end, arrive before");
    let error = within("the reset", error_of(&client)).await;
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    instance.ended(Reason::HalfCloseTimeout, 1).await;
}

#[tokio::test]
async fn a_connection_reaches_its_age_however_busy_it_is() {
    let server = Server::echo().await;
    let instance = Instance::start(&listening("timeouts = { max_age = \"300ms\" }", &[server.address], "")).await;
    let mut client = instance.connect().await;
    let busy = async {
        let mut echoes = 0;
        while client.write_all(b"x").await.is_ok() && client.read_exact(&mut [0]).await.is_ok() {
            echoes += 1;
        }
        echoes
    };
    assert!(within("the end of a busy connection", busy).await > 0);
    instance.ended(Reason::MaxAge, 1).await;
}

/// Waits until a connection that has nothing more to read fails, and returns how; a reset after the other's end is a broken
/// pipe to Linux.
async fn error_of(stream: &TcpStream) -> std::io::Error {
    stream.ready(Interest::ERROR).await.unwrap();
    stream.take_error().unwrap().unwrap()
}
