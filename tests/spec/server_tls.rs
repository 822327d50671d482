//! Chapter: TLS that is spoken to servers.

mod checks;
mod endings;
mod trust;

use std::sync::Arc;

use portreeve::ending::Reason;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

use crate::stage::pki::{Pair, Pki, provider, shake, welcome};
use crate::stage::secure::secure_echo;
use crate::stage::{Instance, Server, balancing, eventually, hear, list, listening, within};

/// The `tls` of a pool whose servers a root vouches for, with more in it.
fn tls(pki: &Pki, more: &str) -> String {
    format!("tls = {{ ca = {:?}, {more} }}", pki.root())
}

/// What a server needs that shows this certificate and speaks TLS 1.2 only.
fn old_server(own: &Pair) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(own.chain(), own.private_key())
        .unwrap()
}

/// Says something to an echo and hears it again, to the end.
async fn converse(instance: &Instance) {
    let mut client = instance.connect().await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear(client).await.unwrap(), "hello");
}

/// How many handshakes with a server were completed, in full and by resuming.
fn handshakes(instance: &Instance, server: &Server) -> (f64, f64) {
    let of =
        |result: &str| instance.of_server("tls_handshakes_total", server.address, &format!(",result=\"{result}\""));
    (of("full"), of("resumed"))
}

#[tokio::test]
async fn bytes_go_both_ways_in_either_version() {
    const SIZE: usize = 3 * 1024 * 1024;
    let pki = Pki::new();
    let own = pki.issue(&["127.0.0.1"]);
    for config in [pki.server(&own), old_server(&own)] {
        let server = Server::secure_echo(config).await;
        let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
        let (mut reader, mut writer) = instance.connect().await.into_split();
        let sent: Vec<u8> = (0..SIZE).map(|_| fastrand::u8(..)).collect();
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&copy).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut heard = Vec::new();
        within("the echo", reader.read_to_end(&mut heard)).await.unwrap();
        writing.await.unwrap();
        assert!(heard == sent, "{} bytes came back", heard.len());
        instance.ended(Reason::Done, 1).await;
        assert_eq!(handshakes(&instance, &server), (1.0, 0.0));
        assert_eq!(instance.of_server("bytes_total", server.address, ",direction=\"in\""), SIZE as f64);
    }
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let pki = Pki::new();
    let own = pki.issue(&["127.0.0.1"]);
    for config in [pki.server(&own), old_server(&own)] {
        let server = Server::secure(config, |mut stream| async move {
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let _ended = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
        assert_eq!(instance.hear().await, "hello");
        instance.ended(Reason::Done, 1).await;
    }
}

#[tokio::test]
async fn tls_can_end_at_the_listener_and_begin_again_towards_the_server() {
    let (inside, outside) = (Pki::new(), Pki::new());
    let config = inside.server(&inside.issue(&["db.internal"]));
    let (told, mut asked) = mpsc::channel(1);
    let server = Server::secure(config, move |stream| {
        let told = told.clone();
        async move {
            told.send(stream.get_ref().1.server_name().map(str::to_owned)).await.unwrap();
            secure_echo(stream).await;
        }
    })
    .await;
    let front = format!("tls = {{ certificates = [{}] }}", outside.issue(&["www.example.com"]).entry());
    let text = listening(&front, &[server.address], &tls(&inside, "server_name = \"db.internal\""));
    let instance = Instance::start(&text).await;
    for config in [outside.client(None), outside.client_of(&[&rustls::version::TLS12], None)] {
        let mut client = shake(config, instance.address("web"), "www.example.com").await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        within("the answer", client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "hello");
        assert_eq!(within("the server", asked.recv()).await.unwrap().as_deref(), Some("db.internal"));
    }
    instance.ended(Reason::Done, 2).await;
}

#[tokio::test]
async fn a_session_is_resumed_by_the_next_connection_also_after_a_reload() {
    let pki = Pki::new();
    let own = pki.issue(&["127.0.0.1", "other.internal"]);
    for config in [pki.server(&own), old_server(&own)] {
        let server = Server::secure_echo(config).await;
        let text = balancing(&[server.address], &tls(&pki, ""));
        let instance = Instance::start(&text).await;
        converse(&instance).await;
        assert_eq!(handshakes(&instance, &server), (1.0, 0.0));
        converse(&instance).await;
        assert_eq!(handshakes(&instance, &server), (1.0, 1.0));
        instance.running.reload_text(&format!("drain_timeout = \"1s\"\n{text}")).await.unwrap();
        converse(&instance).await;
        assert_eq!(handshakes(&instance, &server), (1.0, 2.0));
        // A session says whom it was verified for, so it is of no use when another name is asked for.
        let other = balancing(&[server.address], &tls(&pki, "server_name = \"other.internal\""));
        instance.running.reload_text(&other).await.unwrap();
        converse(&instance).await;
        assert_eq!(handshakes(&instance, &server), (2.0, 2.0));
    }
}

/// The only check of a pool that comes to pass while a test lasts.
const ONCE: &str = "check = { interval = \"1h\", fast_interval = \"1h\", timeout = \"5s\" }";

/// Waits until so many checks of a server had a result.
async fn checked(instance: &Instance, server: std::net::SocketAddr, result: &str, count: f64) {
    let label = format!(",result=\"{result}\"");
    eventually(&format!("{count} checks {result}"), || instance.of_server("checks_total", server, &label) == count)
        .await;
}

#[tokio::test]
async fn a_server_that_is_dismissed_amid_a_handshake_is_rid_of_the_connection_too() {
    let pki = Pki::new();
    let (arrived, mut arrivals) = mpsc::channel(1);
    let go = Arc::new(Semaphore::new(0));
    let config = Arc::new(pki.server(&pki.issue(&["127.0.0.1"])));
    let server = Server::start({
        let go = Arc::clone(&go);
        move |stream| {
            let (arrived, go, config) = (arrived.clone(), Arc::clone(&go), Arc::clone(&config));
            async move {
                arrived.send(()).await.unwrap();
                go.acquire().await.unwrap().forget();
                if let Ok(stream) = welcome(config, stream).await {
                    secure_echo(stream).await;
                }
            }
        }
    })
    .await;
    let text = |state: &str| {
        let text = balancing(&[server.address], &format!("{}\ncheck = \"none\"\non_down = \"drain\"", tls(&pki, "")));
        let servers = format!("[{{ address = \"{}\", state = \"{state}\" }}]", server.address);
        format!("drain_timeout = \"500ms\"\n{}", text.replace(&list(&[server.address]), &servers))
    };
    let instance = Instance::start(&text("ready")).await;
    let client = instance.connect().await;
    within("the connection", arrivals.recv()).await.unwrap();
    instance.running.reload_text(&text("maintenance")).await.unwrap();
    go.add_permits(1);
    instance.ended(Reason::Drained, 1).await;
    drop(client);
}
