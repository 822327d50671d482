//! Where and how often is checked, and what servers are before.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::{checked, checking, often, patiently, reason};
use crate::stage::pki::Pki;
use crate::stage::watch::Port;
use crate::stage::{ClosedPort, Instance, Server, balancing, eventually, say, within};

#[tokio::test]
async fn a_pool_is_checked_at_a_port_of_its_own_and_a_server_where_it_says() {
    let (server, probed, elsewhere) = (Server::saying("hello").await, Server::silent().await, ClosedPort::new());
    let check = often(&format!("port = {}", probed.address.port()));
    let instance = checking(&[server.address], &check).await;
    checked(&instance, server.address, "passed", 2.0).await;
    assert_eq!((instance.hear().await.as_str(), server.accepted()), ("hello", 1));
    let entry = format!("{{ address = \"{}\", check_address = \"{}\" }}", server.address, elsewhere.address);
    let text = balancing(&[server.address], &check).replace(&format!("\"{}\"", server.address), &entry);
    let instance = Instance::watched(&text).await;
    assert!(reason(&instance, server.address).await.starts_with("tcp check failed: connect: "));
}

#[tokio::test]
async fn whoever_listens_at_another_port_is_sent_no_proxy_header() {
    let (told, mut heard) = mpsc::channel(16);
    let probed = Server::start(move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            let mut request = vec![0; 4];
            stream.read_exact(&mut request).await.unwrap();
            let _over = told.send(request).await;
        }
    })
    .await;
    let server = Server::silent().await;
    let check = patiently(&format!("type = \"http\", port = {}", probed.address.port()));
    let _instance = checking(&[server.address], &format!("{check}\nproxy_protocol = \"v1\"")).await;
    assert_eq!(within("a request", heard.recv()).await.unwrap(), b"GET ");
}

#[tokio::test]
async fn a_server_that_starts_down_gets_nothing_until_its_first_check_passes() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let agent = Server::start(move |mut stream: TcpStream| {
        let go = Arc::clone(&waits);
        async move {
            go.notified().await;
            let _gone = stream.write_all(b"up\n").await;
        }
    })
    .await;
    let server = Server::start(|stream| say(stream, "hello")).await;
    let check = format!("type = \"agent\", port = {}, initial = \"down\"", agent.address.port());
    let instance = checking(&[server.address], &patiently(&check).replace("rise = 1", "rise = 100")).await;
    let shown = instance.server(server.address).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&"down".into(), &"not checked yet".into()));
    instance.refuses().await;
    eventually("the check", || agent.accepted() == 1).await;
    go.notify_one();
    instance.becomes(server.address, true).await;
    assert_eq!(instance.hear().await, "hello");
}

#[tokio::test]
async fn a_server_that_starts_up_has_as_many_failures_as_any_other() {
    let dead = ClosedPort::new();
    let check = often("initial = \"up\"").replace("fall = 2", "fall = 5");
    let instance = checking(&[dead.address], &check).await;
    instance.becomes(dead.address, false).await;
    assert!(instance.of_server("checks_total", dead.address, ",result=\"failed\"") >= 5.0);
}

#[tokio::test]
async fn a_server_that_is_down_is_asked_less_often_if_the_file_says_so() {
    let port = Port::claim();
    let dead: SocketAddr = ([127, 0, 0, 1], *port).into();
    let check = "check = { interval = \"20ms\", timeout = \"10ms\", down_interval = \"1h\", fall = 3 }";
    let instance = checking(&[dead], check).await;
    instance.becomes(dead, false).await;
    // Nothing speaks against its being down, so it is left alone.
    let server = Server::start_on(dead, |stream| say(stream, "hello")).await;
    let other = Server::silent().await;
    let reference = checking(&[other.address], "check = { interval = \"20ms\", timeout = \"10ms\", fall = 100 }").await;
    checked(&reference, other.address, "passed", 20.0).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_kept_connection_serves_many_checks_and_a_new_one_each_is_the_rule() {
    let answering = || {
        Server::start(|mut stream: TcpStream| async move {
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            }
        })
    };
    let (kept, anew) = (answering().await, answering().await);
    let instance = checking(&[kept.address], &often("type = \"http\", reuse = true")).await;
    checked(&instance, kept.address, "passed", 3.0).await;
    assert_eq!(kept.accepted(), 1);
    let instance = checking(&[anew.address], &often("type = \"http\"")).await;
    checked(&instance, anew.address, "passed", 3.0).await;
    assert!(anew.accepted() >= 3);
}

#[tokio::test]
async fn a_check_speaks_tls_or_does_not_as_it_is_told() {
    let pki = Pki::new();
    let answer = |mut stream: tokio_rustls::server::TlsStream<TcpStream>| async move {
        let _read = stream.read(&mut [0; 1024]).await;
        let _gone = stream.write_all(b"up").await;
        let _gone = stream.shutdown().await;
    };
    let server = Server::secure(pki.server(&pki.issue(&["127.0.0.1"])), answer).await;
    let steps = "type = \"send_expect\", steps = [{ send = \"how?\" }, { expect = \"up\" }]";
    let tls = format!("tls = {{ ca = {:?} }}", pki.root());
    let passing = [(format!("{steps}, tls = true"), ""), (steps.to_owned(), tls.as_str())];
    for (check, pool) in passing {
        let instance = checking(&[server.address], &format!("{}\n{pool}", often(&check))).await;
        checked(&instance, server.address, "passed", 2.0).await;
    }
    let check = often(&format!("{steps}, tls = false"));
    let instance = checking(&[server.address], &format!("{check}\n{tls}")).await;
    assert!(reason(&instance, server.address).await.starts_with("send_expect check failed: step 2: "));
}
