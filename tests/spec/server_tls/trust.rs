//! Whom a server has to be, and what it is shown and offered.

use std::process::Stdio;
use std::sync::Arc;

use portreeve::ending::Reason;
use rcgen::date_time_ymd;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::{converse, handshakes, old_server, tls};
use crate::stage::access::AccessLog;
use crate::stage::pki::{Pki, provider, welcome};
use crate::stage::secure::secure_echo;
use crate::stage::{Instance, Program, Server, balancing, hear, is_reset, within};

/// A server that tells how each handshake failed, if it did, and does nothing else.
async fn refused(config: ServerConfig) -> (Server, mpsc::Receiver<Option<String>>) {
    let (told, failures) = mpsc::channel(64);
    let config = Arc::new(config);
    let server = Server::start(move |stream| {
        let (told, config) = (told.clone(), Arc::clone(&config));
        async move {
            let failure = welcome(config, stream).await.err().map(|error| error.to_string());
            told.send(failure).await.unwrap();
        }
    });
    (server.await, failures)
}

/// Servers whose certificates are none for `127.0.0.1` by this root, with the words for why.
fn wrong(pki: &Pki) -> [(&'static str, ServerConfig); 4] {
    let expired = pki.issue_with(&["expired", "127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = pki.issue_with(&["early", "127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2199, 1, 1);
        params.not_after = date_time_ymd(2200, 1, 1);
    });
    let other = Pki::new();
    [
        ("UnknownIssuer", other.server(&other.issue(&["127.0.0.1"]))),
        ("not valid for name", pki.server(&pki.issue(&["db.internal"]))),
        ("expired", pki.server(&expired)),
        ("not valid yet", pki.server(&early)),
    ]
}

#[tokio::test]
async fn a_server_that_is_not_whom_it_has_to_be_is_told_nothing() {
    let pki = Pki::new();
    for (words, config) in wrong(&pki) {
        let ((server, mut failures), log) = (refused(config).await, AccessLog::new());
        let text = balancing(&[server.address], &format!("retries = 0\n{}", tls(&pki, "")));
        let instance = Instance::start(&log.of(&text)).await;
        let mut client = instance.connect().await;
        client.write_all(b"secret").await.unwrap();
        let end = hear(client).await;
        assert!(is_reset(&end), "{words}: {end:?}");
        let failure = within("the server", failures.recv()).await.unwrap();
        assert!(failure.is_some(), "{words}: the handshake was completed");
        let line = log.line(1).await;
        assert_eq!((&line["reason"], &line["bytes_in"]), (&"server_tls_error".into(), &0.into()), "{line}");
        assert!(line["error"].as_str().unwrap().contains(words), "{words}: {line}");
        assert_eq!(handshakes(&instance, &server), (0.0, 0.0));
    }
}

#[tokio::test]
async fn the_next_server_is_tried_when_one_is_not_whom_it_has_to_be() {
    let pki = Pki::new();
    let good = Server::secure_echo(pki.server(&pki.issue(&["127.0.0.1", "good"]))).await;
    for (count, (words, config)) in wrong(&pki).into_iter().enumerate() {
        let (bad, mut failures) = refused(config).await;
        let instance = Instance::balancing(&[bad.address, good.address], &tls(&pki, "")).await;
        converse(&instance).await;
        converse(&instance).await;
        let failures_of_bad = instance.of_server("connect_failures_total", bad.address, ",reason=\"server_tls_error\"");
        assert!(failures_of_bad >= 1.0, "{words}");
        assert_eq!(instance.of_server("connections_total", bad.address, ""), 0.0, "{words}");
        assert!(within("the server", failures.recv()).await.unwrap().is_some(), "{words}");
        instance.ended(Reason::Done, 2).await;
        assert_eq!(good.accepted(), 2 * (count + 1));
    }
}

#[tokio::test]
async fn a_server_has_to_have_a_certificate_for_the_name_if_one_is_set_and_else_for_its_address() {
    let pki = Pki::new();
    let (by_name, by_address) = (pki.issue(&["db.internal"]), pki.issue(&["127.0.0.1"]));
    for (own, more, good) in [
        (&by_name, "server_name = \"db.internal\"", true),
        (&by_name, "server_name = \"DB.internal\"", true),
        (&by_name, "server_name = \"other.internal\"", false),
        (&by_name, "", false),
        (&by_address, "", true),
        (&by_address, "server_name = \"127.0.0.1\"", true),
        (&by_address, "server_name = \"db.internal\"", false),
    ] {
        let server = Server::secure_echo(pki.server(own)).await;
        let instance = Instance::balancing(&[server.address], &tls(&pki, more)).await;
        if good {
            converse(&instance).await;
        } else {
            let end = instance.outcome().await;
            assert!(is_reset(&end), "{more}: {end:?}");
            instance.ended(Reason::ServerTlsError, 1).await;
        }
    }
}

#[tokio::test]
async fn without_verification_whoever_answers_is_believed_and_everybody_is_warned() {
    let pki = Pki::new();
    for (words, config) in wrong(&pki) {
        let server = Server::secure_echo(config).await;
        let instance = Instance::balancing(&[server.address], "tls = { verify = false }").await;
        converse(&instance).await;
        assert_eq!(handshakes(&instance, &server), (1.0, 0.0), "{words}");
    }
    let server = Server::silent().await;
    let text = balancing(&[server.address], "tls = { verify = false }");
    const WARNING: &str = "the servers of this pool are not verified";
    let mut program = Program::start(&text);
    assert!(program.says(WARNING).await.contains("WARN"));
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_portreeve"));
    command.arg("check").arg("-c").arg(program.file()).stdin(Stdio::null()).kill_on_drop(true);
    let checked = within("the check", command.output()).await.unwrap();
    assert_eq!(checked.status.code(), Some(0));
    let told = [checked.stdout, checked.stderr].concat();
    assert!(String::from_utf8(told).unwrap().contains(WARNING));
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let (own, ours) = (pki.issue(&["127.0.0.1"]), clients.issue(&["portreeve"]));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(clients.root()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain(), own.private_key())
        .unwrap();
    let (told, mut shown) = mpsc::channel(1);
    let server = Server::secure(config, move |stream| {
        let told = told.clone();
        async move {
            told.send(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()).await.unwrap();
            secure_echo(stream).await;
        }
    })
    .await;
    let certificate = format!("cert = {:?}, key = {:?}", ours.cert, ours.key);
    let instance = Instance::balancing(&[server.address], &tls(&pki, &certificate)).await;
    converse(&instance).await;
    assert_eq!(within("the server", shown.recv()).await.unwrap(), ours.chain()[0]);
    // Without one there is no connection that carries anything.
    let instance = Instance::balancing(&[server.address], &tls(&pki, "")).await;
    assert!(is_reset(&instance.outcome().await));
    instance.ended(Reason::ServerTlsError, 1).await;
}

#[tokio::test]
async fn a_server_is_offered_the_protocols_of_the_pool() {
    let pki = Pki::new();
    for (offered, agreed) in
        [("alpn = [\"postgresql\", \"h2\"]", Some("h2")), ("", None), ("alpn = [\"http/1.1\"]", Some("http/1.1"))]
    {
        let mut config = pki.server(&pki.issue(&["127.0.0.1"]));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (told, mut seen) = mpsc::channel(1);
        let server = Server::secure(config, move |stream| {
            let told = told.clone();
            async move {
                told.send(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)).await.unwrap();
                secure_echo(stream).await;
            }
        })
        .await;
        let instance = Instance::balancing(&[server.address], &tls(&pki, offered)).await;
        converse(&instance).await;
        assert_eq!(within("the server", seen.recv()).await.unwrap().as_deref(), agreed.map(str::as_bytes));
    }
}

#[tokio::test]
async fn a_server_that_speaks_older_versions_only_is_refused() {
    let pki = Pki::new();
    let server = Server::secure_echo(old_server(&pki.issue(&["127.0.0.1"]))).await;
    let instance = Instance::balancing(&[server.address], &tls(&pki, "min_version = \"1.3\"")).await;
    let end = instance.outcome().await;
    assert!(is_reset(&end), "{end:?}");
    instance.ended(Reason::ServerTlsError, 1).await;
}
