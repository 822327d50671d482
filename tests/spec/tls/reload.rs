//! Certificates that are replaced, and those that run out.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use portreeve::ending::{Handshake, Reason};
use rcgen::date_time_ymd;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::{Fronted, certificates, echoes, fronting, shown};
use crate::stage::pki::{Pair, Pki, shake};
use crate::stage::process::Admin;
use crate::stage::watch::ADMIN;
use crate::stage::{Program, Server, metric, within};

/// The program in front of an echo, with one certificate, and who can tell what it shows.
struct Watched {
    program: Program,
    address: SocketAddr,
    admin: Admin,
    client: ClientConfig,
    _server: Server,
}

impl Watched {
    async fn start(pki: &Pki, pair: &Pair) -> Self {
        let server = Server::echo().await;
        let mut program = Program::start(&format!("{ADMIN}{}", fronting(&certificates(&[pair]), "", &server)));
        let address = program.listening("web").await;
        let admin = Admin(program.admin().await);
        Self { program, address, admin, client: forgetful(pki), _server: server }
    }

    async fn shown(&self) -> CertificateDer<'static> {
        let mut stream = shake(self.client.clone(), self.address, "example.com").await.unwrap();
        echoes(&mut stream).await.unwrap();
        shown(&stream)
    }

    /// Waits until the certificate of a pair is shown.
    async fn shows(&self, pair: &Pair) {
        let wanted = pair.chain()[0].clone();
        within("the new certificate", async { while self.shown().await != wanted {} }).await;
    }
}

/// A client that looks at the certificate each time, since it resumes no sessions.
fn forgetful(pki: &Pki) -> ClientConfig {
    let mut client = pki.client(None);
    client.resumption = Resumption::disabled();
    client
}

/// Puts what is in the first file into the second, at once.
fn put(from: &Path, to: &Path) {
    let aside = to.with_extension("next");
    fs::copy(from, &aside).unwrap();
    fs::rename(aside, to).unwrap();
}

#[tokio::test]
async fn a_pair_that_is_replaced_is_shown_to_new_clients_without_a_signal() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    let watched = Watched::start(&pki, &pair).await;
    let old = pair.chain()[0].clone();
    assert_eq!(watched.shown().await, old);
    let mut established = shake(watched.client.clone(), watched.address, "example.com").await.unwrap();
    echoes(&mut established).await.unwrap();
    for _ in 0..2 {
        let pair = pki.issue(&["example.com"]);
        watched.shows(&pair).await;
        echoes(&mut established).await.unwrap();
        assert_eq!(shown(&established), old);
    }
}

#[tokio::test]
async fn a_pair_that_does_not_match_changes_nothing_until_the_right_key_arrives() {
    const FAILED: &str = "portreeve_config_reloads_total{result=\"failed\"}";
    let pki = Pki::new();
    let (pair, next) = (pki.issue(&["example.com"]), pki.issue(&["next", "example.com"]));
    let mut watched = Watched::start(&pki, &pair).await;
    let old = watched.shown().await;
    assert_eq!(metric(&watched.admin.metrics().await, FAILED), Some(0.0));
    put(&next.cert, &pair.cert);
    let said = watched.program.says("the reload failed and changed nothing").await;
    assert!(said.contains("is not the key to the certificate") && said.contains("portreeve.toml:"), "{said}");
    assert_eq!(metric(&watched.admin.metrics().await, FAILED), Some(1.0));
    assert_eq!(watched.shown().await, old);
    put(&next.key, &pair.key);
    watched.shows(&next).await;
    assert_eq!(watched.program.said("the reload failed"), 1);
}

#[tokio::test]
async fn certificates_change_places_under_load_and_not_one_connection_is_lost() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let pki = Pki::new();
    let (pair, one, other) =
        (pki.issue(&["example.com"]), pki.issue(&["one", "example.com"]), pki.issue(&["other", "example.com"]));
    let tls = certificates(&[&pair]);
    let instance = Fronted::by(&tls).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (config, address) = (forgetful(&pki), instance.address("web"));
        clients.spawn(async move {
            for _ in 0..EACH {
                let mut stream = shake(config.clone(), address, "example.com").await.unwrap();
                echoes(&mut stream).await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            }
        });
    }
    let text = fronting(&tls, "", &instance.server);
    let mut swaps = 0;
    while !clients.is_empty() || swaps < 10 {
        let next = [&one, &other][swaps % 2];
        put(&next.cert, &pair.cert);
        put(&next.key, &pair.key);
        assert!(!instance.running.reload_text(&text).await.unwrap().changes.is_empty());
        swaps += 1;
        while let Some(client) = clients.try_join_next() {
            client.unwrap();
        }
    }
    instance.ended(Reason::Done, (CLIENTS * EACH) as u64).await;
    assert_eq!(instance.handshakes(Handshake::Full), (CLIENTS * EACH) as u64);
}

/// Checks the configuration of a listener with this certificate.
async fn check(pair: &Pair) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let (file, server) = (folder.path().join("portreeve.toml"), Server::silent().await);
    fs::write(&file, fronting(&certificates(&[pair]), "", &server)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
    let output = within("the check", command.arg("check").arg("-c").arg(&file).output()).await.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), said)
}

#[tokio::test]
async fn a_check_warns_of_a_certificate_that_has_run_out_and_refuses_a_pair_that_does_not_match() {
    let pki = Pki::new();
    let expired = pki.issue_with(&["expired.org"], |params| params.not_after = date_time_ymd(2021, 1, 1));
    let (code, said) = check(&expired).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning") && said.contains("ran out") && said.contains("portreeve.toml:5:"), "{said}");
    let mixed = Pair { key: pki.issue(&["other.org"]).key, ..pki.issue(&["example.com"]) };
    let (code, said) = check(&mixed).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is not the key to the certificate") && said.contains("portreeve.toml:5:"), "{said}");
}

#[tokio::test]
async fn how_long_certificates_are_still_valid_is_shown_in_the_metrics() {
    let pki = Pki::new();
    let (good, expired) = (
        pki.issue(&["example.com", "*.example.com"]),
        pki.issue_with(&["expired.org"], |params| params.not_after = date_time_ymd(2021, 1, 1)),
    );
    let nameless = pki.issue(&["127.0.0.1"]);
    let instance = Fronted::by(&certificates(&[&good, &expired, &nameless])).await;
    let left = |name| {
        let series = format!("portreeve_tls_certificate_expiry_seconds{{listener=\"web\",name=\"{name}\"}}");
        instance.metric(&series).unwrap_or_else(|| panic!("no {series}"))
    };
    assert!(left("example.com") > 1e8 && left("*.example.com") > 1e8);
    assert!(left("127.0.0.1") > 1e8, "one without a host name is known by what else it says");
    assert!(left("expired.org") < -1e8);
    // A client that does not look is served all the same: the listener has nothing better to show.
    let refused = shake(pki.client(None), instance.address("web"), "expired.org").await.unwrap_err();
    assert!(refused.to_string().contains("expired"), "{refused}");
    instance.shook(Handshake::RefusedByClient, 1).await;
}
