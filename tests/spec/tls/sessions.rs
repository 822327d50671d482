//! Sessions: who resumes them, where, for how long, and what is never resumed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portreeve::ending::{Handshake, Reason};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::clients::forging;
use super::{Fronted, TLS12, TLS13, certificates, echoes, fronting};
use crate::stage::pki::{Pair, Pki, shake, welcome};
use crate::stage::{Instance, Server, within};

/// Whether a client that asks for `example.com` resumes a session. It ends with one that it can resume.
async fn resumes(client: &Arc<ClientConfig>, instance: &Instance) -> bool {
    let mut stream = instance.shake(Arc::clone(client)).await.unwrap();
    // Tickets come with the first answer.
    echoes(&mut stream).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0);
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// A client of each version.
fn clients(pki: &Pki) -> [Arc<ClientConfig>; 2] {
    [TLS12, TLS13].map(|versions| Arc::new(pki.client_of(versions, None)))
}

/// A file of ticket keys, each made of one byte.
fn keys(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let line = |byte: &u8| STANDARD.encode([*byte; 48]) + "\n";
    let file = folder.join(name);
    std::fs::write(&file, bytes.iter().map(line).collect::<String>()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[tokio::test]
async fn a_client_that_comes_back_resumes_its_session() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    for client in &clients(&pki) {
        assert!(!resumes(client, &instance).await);
        assert!(resumes(client, &instance).await && resumes(client, &instance).await);
    }
    assert_eq!((instance.handshakes(Handshake::Full), instance.handshakes(Handshake::Resumed)), (2, 4));
    instance.ended(Reason::Done, 6).await;
}

#[tokio::test]
async fn a_client_that_knows_no_tickets_resumes_its_session_as_well() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let mut client = pki.client_of(TLS12, None);
    client.resumption = Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
    let client = Arc::new(client);
    assert!(!resumes(&client, &instance).await);
    assert!(resumes(&client, &instance).await && resumes(&client, &instance).await);
}

#[tokio::test]
async fn sessions_outlive_a_reload_and_a_new_certificate() {
    let pki = Pki::new();
    let tls = certificates(&[&pki.issue(&["example.com"])]);
    let instance = Fronted::by(&tls).await;
    let clients = clients(&pki);
    for client in &clients {
        assert!(!resumes(client, &instance).await);
    }
    let other = fronting(&tls, "max_connections = 77", &instance.server);
    assert!(!instance.running.reload_text(&other).await.unwrap().changes.is_empty());
    for client in &clients {
        assert!(resumes(client, &instance).await);
    }
    pki.issue(&["example.com"]);
    assert!(!instance.running.reload_text(&other).await.unwrap().changes.is_empty(), "the certificate is another");
    for client in &clients {
        assert!(resumes(client, &instance).await);
    }
}

#[tokio::test]
async fn instances_that_share_a_file_of_keys_resume_each_others_sessions_and_others_do_not() {
    let pki = Pki::new();
    let tls = certificates(&[&pki.issue(&["example.com"])]);
    let keyed = |bytes| format!("{tls}, ticket_keys = {:?}", keys(pki.folder(), &format!("{bytes:?}"), bytes));
    let (one, two) = (Fronted::by(&keyed(&[1])).await, Fronted::by(&keyed(&[1])).await);
    let (other, own) = (Fronted::by(&keyed(&[2])).await, Fronted::by(&tls).await);
    for client in &clients(&pki) {
        assert!(!resumes(client, &one).await);
        assert!(resumes(client, &two).await && resumes(client, &one).await);
        assert!(!resumes(client, &other).await);
        assert!(!resumes(client, &own).await);
        assert!(!resumes(client, &one).await, "that session was another's");
    }
}

#[tokio::test]
async fn keys_can_be_replaced_while_the_old_ones_still_open() {
    let pki = Pki::new();
    let file = keys(pki.folder(), "tickets.keys", &[1]);
    let tls = format!("{}, ticket_keys = {file:?}", certificates(&[&pki.issue(&["example.com"])]));
    let instance = Fronted::by(&tls).await;
    let text = fronting(&tls, "", &instance.server);
    let clients = clients(&pki);
    for client in &clients {
        assert!(!resumes(client, &instance).await);
    }
    keys(pki.folder(), "tickets.keys", &[2, 1]);
    instance.running.reload_text(&text).await.unwrap();
    for client in &clients {
        assert!(resumes(client, &instance).await, "the old key opens");
    }
    keys(pki.folder(), "tickets.keys", &[2]);
    instance.running.reload_text(&text).await.unwrap();
    // In TLS 1.2 a session may go on with the ticket it began with; in TLS 1.3 every connection brings new ones.
    assert!(resumes(&clients[1], &instance).await, "the new key seals");
    keys(pki.folder(), "tickets.keys", &[3]);
    instance.running.reload_text(&text).await.unwrap();
    for client in &clients {
        assert!(!resumes(client, &instance).await, "a key that is gone opens nothing");
    }
}

#[tokio::test]
async fn a_session_that_was_begun_with_another_name_is_not_resumed() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com", "www.example.com"]);
    let instance = Fronted::by(&certificates(&[&pair])).await;
    for client in clients(&pki) {
        assert!(!resumes(&client, &instance).await);
        let forged = Arc::new(forging(&client));
        assert!(!resumes(&forged, &instance).await);
        let mut stream = shake(forged, instance.address("web"), "www.example.com").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        echoes(&mut stream).await.unwrap();
    }
}

/// A client that has a session with somebody else in which it may send early data.
async fn eager_client(pki: &Pki, pair: &Pair) -> Arc<ClientConfig> {
    let mut config = pki.server(pair);
    config.max_early_data_size = 16 * 1024;
    let config = Arc::new(config);
    let server = Server::start(move |stream| {
        let config = Arc::clone(&config);
        async move {
            let mut stream = welcome(config, stream).await.unwrap();
            stream.write_all(b"a ticket goes before it").await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
    })
    .await;
    let mut client = pki.client_of(TLS13, None);
    client.enable_early_data = true;
    let client = Arc::new(client);
    let mut stream = shake(Arc::clone(&client), server.address, "example.com").await.unwrap();
    within("the ticket", stream.read_to_end(&mut Vec::new())).await.unwrap();
    stream.shutdown().await.unwrap();
    client
}

#[tokio::test]
async fn early_data_is_not_accepted_and_does_no_harm() {
    let (pki, (told, mut heard)) = (Pki::new(), mpsc::channel(1));
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            told.send(request).await.unwrap();
        }
    })
    .await;
    let pair = pki.issue(&["example.com"]);
    let instance = Instance::start(&fronting(&certificates(&[&pair]), "", &server)).await;
    let client = eager_client(&pki, &pair).await;
    let (stream, name) = (within("connect", TcpStream::connect(instance.address("web"))).await.unwrap(), "example.com");
    let shaken = TlsConnector::from(client).connect_with(name.try_into().unwrap(), stream, |connection| {
        connection.early_data().expect("a session with room for it").write_all(b"too early").unwrap();
    });
    let mut stream = within("a handshake", shaken).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind();
    assert_eq!((kind, stream.get_ref().1.is_early_data_accepted()), (Some(HandshakeKind::Full), false));
    stream.write_all(b"in time").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(within("the request", heard.recv()).await.unwrap(), b"in time");
}
