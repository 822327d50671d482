//! The health of gRPC servers, by a server of gRPC's own implementation.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{checked, checking, often, reason};
use crate::stage::pki::Pki;
use crate::stage::{Server, eventually, within};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/checks/health.py");

/// A server of gRPC that says of the service `shop.Cart` what it is told to.
struct Grpc {
    address: SocketAddr,
    told: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Grpc {
    async fn start(arguments: &[&std::path::Path]) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(SCRIPT).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port: u16 = within("its port", lines.next_line()).await.unwrap().unwrap().parse().unwrap();
        Self { address: ([127, 0, 0, 1], port).into(), told: child.stdin.take().unwrap(), lines, _child: child }
    }

    async fn is_to_say(&mut self, status: &str) {
        self.told.write_all(format!("{status}\n").as_bytes()).await.unwrap();
        assert_eq!(within("it is told", self.lines.next_line()).await.unwrap().unwrap(), status);
    }
}

#[tokio::test]
async fn the_health_of_a_service_is_what_the_server_says_it_is() {
    for reuse in ["false", "true"] {
        let mut server = Grpc::start(&[]).await;
        let check = format!("type = \"grpc\", service = \"shop.Cart\", reuse = {reuse}");
        let instance = checking(&[server.address], &often(&check)).await;
        checked(&instance, server.address, "passed", 3.0).await;
        assert!(instance.is_up(server.address));
        server.is_to_say("NOT_SERVING").await;
        let words = "grpc check failed: the service says NOT_SERVING";
        assert_eq!(reason(&instance, server.address).await, words);
        server.is_to_say("SERVING").await;
        instance.becomes(server.address, true).await;
        let address = server.address;
        drop(server);
        assert!(reason(&instance, address).await.starts_with("grpc check failed: connect: "), "reuse = {reuse}");
    }
}

#[tokio::test]
async fn the_server_as_a_whole_is_asked_for_unless_a_service_is_named_and_one_that_it_does_not_know_fails() {
    let server = Grpc::start(&[]).await;
    let instance = checking(&[server.address], &often("type = \"grpc\"")).await;
    checked(&instance, server.address, "passed", 2.0).await;
    assert!(instance.is_up(server.address));
    let instance = checking(&[server.address], &often("type = \"grpc\", service = \"shop.Till\"")).await;
    assert_eq!(
        reason(&instance, server.address).await,
        "grpc check failed: the call failed with not_found: unknown service"
    );
}

#[tokio::test]
async fn a_server_without_health_or_without_grpc_fails() {
    let http = Server::start(|stream| async {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(http::Response::new(()), true).unwrap();
        }
    })
    .await;
    let (echo, silent) = (Server::echo().await, Server::silent().await);
    let instance = checking(&[http.address, echo.address, silent.address], &often("type = \"grpc\"")).await;
    assert_eq!(reason(&instance, http.address).await, "grpc check failed: the answer is not gRPC");
    assert!(reason(&instance, echo.address).await.starts_with("grpc check failed: "));
    assert_eq!(reason(&instance, silent.address).await, "grpc check failed: no answer in time");
}

#[tokio::test]
async fn health_is_asked_for_over_tls_where_the_pool_speaks_it() {
    let pki = Pki::new();
    let pair = pki.issue(&["127.0.0.1"]);
    let server = Grpc::start(&[&pair.cert, &pair.key]).await;
    let tls = format!("tls = {{ ca = {:?} }}", pki.root());
    let instance = checking(&[server.address], &format!("{}\n{tls}", often("type = \"grpc\", reuse = true"))).await;
    checked(&instance, server.address, "passed", 3.0).await;
    eventually("it is up", || instance.is_up(server.address)).await;
}
