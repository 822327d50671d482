//! Clients that have to show a certificate, or may, and whom it makes them.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use portreeve::ending::{Handshake, Reason};
use rcgen::date_time_ymd;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls12Resumption,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, NamedGroup};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Fronted, TLS12, TLS13, alert, certificates, echoes, fronting};
use crate::stage::pki::{Pair, Pki, shake};
use crate::stage::{Instance, Server, eventually, within};

/// Sessions that are offered to every server, whatever name they were begun with.
#[derive(Debug)]
struct Forger(ClientSessionMemoryCache);

fn anybody() -> ServerName<'static> {
    ServerName::try_from("anybody").unwrap()
}

impl ClientSessionStore for Forger {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anybody(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anybody())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anybody(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anybody())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anybody());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anybody(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anybody())
    }
}

/// A client that offers its sessions to every server.
pub(super) fn forging(client: &ClientConfig) -> ClientConfig {
    let mut client = client.clone();
    client.resumption = forger();
    client
}

fn forger() -> Resumption {
    Resumption::store(Arc::new(Forger(ClientSessionMemoryCache::new(8))))
}

/// Everybody who may come to a listener that asks for certificates of `clients`, itself shown to be `example.com`.
struct Cast {
    servers: Pki,
    clients: Pki,
    good: Pair,
}

impl Cast {
    fn new() -> Self {
        let (servers, clients) = (Pki::new(), Pki::new());
        servers.issue(&["example.com", "secret.example.com", "deep.secret.example.com"]);
        let good = clients.issue(&["good.client"]);
        Self { servers, clients, good }
    }

    /// What the listener shows.
    fn certificates(&self) -> String {
        let [cert, key] = ["example.com.crt", "example.com.key"].map(|file| self.servers.folder().join(file));
        certificates(&[&Pair { cert, key, serial: 0 }])
    }

    /// The same, and certificates are asked for.
    fn tls(&self, more: &str) -> String {
        format!("{}, client_ca = {:?}{more}", self.certificates(), self.clients.root())
    }

    fn client(&self, own: Option<&Pair>) -> ClientConfig {
        self.servers.client(own)
    }
}

#[tokio::test]
async fn a_client_has_to_show_a_certificate_where_one_is_required() {
    let cast = Cast::new();
    let instance = Fronted::by(&cast.tls("")).await;
    for versions in [TLS12, TLS13] {
        let with = cast.servers.client_of(versions, Some(&cast.good));
        echoes(&mut instance.shake(with).await.unwrap()).await.unwrap();
    }
    for versions in [TLS12, TLS13] {
        let without = instance.shake(cast.servers.client_of(versions, None)).await;
        assert_eq!(alert(without).await, AlertDescription::CertificateRequired);
    }
    instance.shook(Handshake::NoCertificate, 2).await;
    instance.ended(Reason::TlsError, 2).await;
    assert_eq!(instance.server.accepted(), 2, "nobody else came as far as to a server");
}

#[tokio::test]
async fn where_a_certificate_is_optional_one_that_is_shown_has_to_be_good() {
    let cast = Cast::new();
    let instance = Fronted::by(&cast.tls(", client_auth = \"optional\"")).await;
    let chained = cast.clients.issue_chained(&["chained.client"]);
    for own in [None, Some(&cast.good), Some(&chained)] {
        echoes(&mut instance.shake(cast.client(own)).await.unwrap()).await.unwrap();
    }
    let stranger = cast.servers.issue(&["stranger.client"]);
    let refused = instance.shake(cast.client(Some(&stranger))).await;
    assert_eq!(alert(refused).await, AlertDescription::UnknownCA);
    instance.shook(Handshake::BadCertificate, 1).await;
}

#[tokio::test]
async fn a_bad_certificate_is_refused_by_the_alert_that_says_why_and_nobody_else_is_harmed() {
    let cast = Cast::new();
    let revoked = cast.clients.issue(&["revoked.client"]);
    let list = cast.clients.revoke(&[&revoked]);
    let expired = cast.clients.issue_with(&["expired.client"], |params| params.not_after = date_time_ymd(2021, 1, 1));
    let early = cast.clients.issue_with(&["early.client"], |params| params.not_before = date_time_ymd(2120, 1, 1));
    let stranger = cast.servers.issue(&["stranger.client"]);
    let instance = Fronted::by(&cast.tls(&format!(", client_crl = {list:?}"))).await;
    let mut established = instance.shake(cast.client(Some(&cast.good))).await.unwrap();
    echoes(&mut established).await.unwrap();
    for (pair, expected) in [
        (&revoked, AlertDescription::CertificateRevoked),
        (&expired, AlertDescription::CertificateExpired),
        (&early, AlertDescription::CertificateExpired),
        (&stranger, AlertDescription::UnknownCA),
    ] {
        for versions in [TLS12, TLS13] {
            let refused = instance.shake(cast.servers.client_of(versions, Some(pair))).await;
            assert_eq!(alert(refused).await, expected, "{:?}", pair.cert);
        }
        echoes(&mut established).await.unwrap();
    }
    instance.shook(Handshake::BadCertificate, 8).await;
    instance.ended(Reason::TlsError, 8).await;
    echoes(&mut instance.shake(cast.client(Some(&cast.good))).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_host_can_ask_for_certificates_where_others_do_not() {
    let cast = Cast::new();
    let hosts = format!("hosts = [{{ host = \"secret.example.com\", client_ca = {:?} }}]", cast.clients.root());
    let instance = Fronted::by(&format!("{}, {hosts}", cast.certificates())).await;
    let address = instance.address("web");
    echoes(&mut shake(cast.client(None), address, "example.com").await.unwrap()).await.unwrap();
    echoes(&mut shake(cast.client(Some(&cast.good)), address, "secret.example.com").await.unwrap()).await.unwrap();
    for name in ["secret.example.com", "SECRET.example.com"] {
        let refused = shake(cast.client(None), address, name).await;
        assert_eq!(alert(refused).await, AlertDescription::CertificateRequired, "{name}");
    }
    instance.shook(Handshake::NoCertificate, 2).await;
}

#[tokio::test]
async fn no_other_spelling_of_a_name_gets_past_its_policy() {
    let (cast, server) = (Cast::new(), Server::saying("a secret").await);
    let hosts = format!("hosts = [{{ host = \"secret.example.com\", client_ca = {:?} }}]", cast.clients.root());
    let instance = Instance::start(&fronting(&format!("{}, {hosts}", cast.certificates()), "", &server)).await;
    let address = instance.address("web").to_string();
    let said = async |name: &str, version: &str| {
        let arguments = ["s_client", "-connect", &address, "-servername", name, version, "-ign_eof"];
        let mut command = Command::new("openssl");
        let output = within("openssl", command.args(arguments).stdin(Stdio::null()).output()).await.unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    };
    assert!(said("example.com", "-tls1_3").await.contains("a secret"), "it is open to others");
    for name in ["secret.example.com", "secret.example.com.", "Secret.EXAMPLE.com", "secret.example.com.."] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = said(name, version).await;
            assert!(!said.contains("a secret") && said.contains("alert"), "{name} {version}: {said}");
        }
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_list_that_should_have_been_replaced_vouches_for_nobody() {
    let cast = Cast::new();
    let list = cast.clients.revoke_until(&[], 2025);
    let instance = Fronted::by(&cast.tls(&format!(", client_crl = {list:?}"))).await;
    alert(instance.shake(cast.client(Some(&cast.good))).await).await;
    instance.shook(Handshake::BadCertificate, 1).await;
}

#[tokio::test]
async fn a_wildcard_asks_all_below_it_for_certificates_but_for_what_is_more_specific() {
    let cast = Cast::new();
    let below = format!("{{ host = \"*.example.com\", client_ca = {:?} }}", cast.clients.root());
    let tls = format!("{}, hosts = [{below}, {{ host = \"secret.example.com\" }}]", cast.certificates());
    let instance = Fronted::by(&tls).await;
    let address = instance.address("web");
    for open in ["example.com", "secret.example.com"] {
        echoes(&mut shake(cast.client(None), address, open).await.unwrap()).await.unwrap();
    }
    let refused = shake(cast.client(None), address, "deep.secret.example.com").await;
    assert_eq!(alert(refused).await, AlertDescription::CertificateRequired);
}

#[tokio::test]
async fn a_host_can_be_open_where_others_ask_for_certificates() {
    let cast = Cast::new();
    let instance = Fronted::by(&cast.tls(", hosts = [{ host = \"example.com\" }]")).await;
    let address = instance.address("web");
    echoes(&mut shake(cast.client(None), address, "example.com").await.unwrap()).await.unwrap();
    for name in ["secret.example.com", "127.0.0.1"] {
        let mut client = cast.client(None);
        client.enable_sni = name != "127.0.0.1";
        let refused = shake(client, address, "secret.example.com").await;
        assert_eq!(alert(refused).await, AlertDescription::CertificateRequired, "{name}");
    }
}

/// A client without a certificate that has a session with somebody who asks for none.
async fn with_session(client: ClientConfig, open: &Instance) -> Arc<ClientConfig> {
    let client = Arc::new(client);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = open.shake(Arc::clone(&client)).await.unwrap();
        echoes(&mut stream).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "it has no session that is worth anything");
    }
    client
}

#[tokio::test]
async fn a_session_of_an_open_host_does_not_get_past_the_policy_of_another() {
    let cast = Cast::new();
    let hosts = format!("hosts = [{{ host = \"secret.example.com\", client_ca = {:?} }}]", cast.clients.root());
    let instance = Fronted::by(&format!("{}, {hosts}", cast.certificates())).await;
    let [ticket, session] = [TLS12, TLS13].map(|versions| forging(&cast.servers.client_of(versions, None)));
    let mut id = ticket.clone();
    id.resumption = forger().tls12_resumption(Tls12Resumption::SessionIdOnly);
    for client in [ticket, session, id] {
        let client = with_session(client, &instance).await;
        let refused = shake(client, instance.address("web"), "secret.example.com").await;
        assert_eq!(alert(refused).await, AlertDescription::CertificateRequired);
    }
    instance.shook(Handshake::NoCertificate, 3).await;
}

#[tokio::test]
async fn a_session_of_an_open_listener_does_not_get_past_another_that_has_the_same_ticket_keys() {
    let cast = Cast::new();
    let keys = cast.servers.folder().join("tickets.keys");
    std::fs::write(&keys, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").unwrap();
    let keys = format!(", ticket_keys = {keys:?}");
    let open = Fronted::by(&format!("{}{keys}", cast.certificates())).await;
    let optional = Fronted::by(&cast.tls(&format!(", client_auth = \"optional\"{keys}"))).await;
    let required = Fronted::by(&cast.tls(&keys)).await;
    for versions in [TLS12, TLS13] {
        for other in [&open, &optional] {
            let client = with_session(cast.servers.client_of(versions, None), other).await;
            assert_eq!(alert(required.shake(client).await).await, AlertDescription::CertificateRequired);
        }
    }
    required.shook(Handshake::NoCertificate, 4).await;
    assert_eq!(required.server.accepted(), 0);
}

#[tokio::test]
async fn a_session_from_before_a_listener_asked_for_certificates_is_not_resumed() {
    let cast = Cast::new();
    let instance = Fronted::by(&cast.certificates()).await;
    let mut clients = Vec::new();
    for versions in [TLS12, TLS13] {
        clients.push(with_session(cast.servers.client_of(versions, None), &instance).await);
    }
    instance.running.reload_text(&fronting(&cast.tls(""), "", &instance.server)).await.unwrap();
    for client in clients {
        assert_eq!(alert(instance.shake(client).await).await, AlertDescription::CertificateRequired);
    }
}

#[tokio::test]
async fn a_client_that_was_revoked_does_not_resume_its_session() {
    let cast = Cast::new();
    let instance = Fronted::by(&cast.tls("")).await;
    let mut clients = Vec::new();
    for versions in [TLS12, TLS13] {
        clients.push(with_session(cast.servers.client_of(versions, Some(&cast.good)), &instance).await);
    }
    let list = cast.clients.revoke(&[&cast.good]);
    let stricter = fronting(&cast.tls(&format!(", client_crl = {list:?}")), "", &instance.server);
    instance.running.reload_text(&stricter).await.unwrap();
    for client in clients {
        assert_eq!(alert(instance.shake(client).await).await, AlertDescription::CertificateRevoked);
    }
    instance.shook(Handshake::BadCertificate, 2).await;
}

#[tokio::test]
async fn the_access_log_says_who_a_client_is_and_what_it_spoke() {
    let (cast, server) = (Cast::new(), Server::echo().await);
    let file = cast.clients.folder().join("access.log");
    let log = format!("\n[log]\nformat = \"json\"\naccess = {file:?}\n");
    let instance = Instance::start(&(fronting(&cast.tls(""), "", &server) + &log)).await;
    let pair = cast.clients.issue(&["alice.client", "127.0.0.9"]);
    with_session(cast.client(Some(&pair)), &instance).await;
    let mut stream = instance.shake(cast.servers.client_of(TLS12, Some(&pair))).await.unwrap();
    echoes(&mut stream).await.unwrap();
    stream.shutdown().await.unwrap();
    let refused = cast.client(Some(&cast.servers.issue(&["stranger.client"])));
    assert_eq!(alert(instance.shake(refused).await).await, AlertDescription::UnknownCA);
    drop(stream);
    let lines = lines(&file, 4).await;
    for (version, count) in [("1.3", 2), ("1.2", 1)] {
        assert_eq!(lines.iter().filter(|line| line["tls"] == version).count(), count, "{lines:?}");
    }
    for line in lines.iter().filter(|line| line["pool"] == "web") {
        assert_eq!(line["server_name"], "example.com");
        assert_eq!(line["client_names"], serde_json::json!(["alice.client", "127.0.0.9"]), "{line}");
        assert!(line["client_subject"].as_str().unwrap().contains("CN=alice.client"), "{line}");
    }
    let refused = lines.iter().find(|line| line["reason"] == "tls_error").unwrap();
    assert_eq!(refused["server_name"], "example.com");
    assert!(refused["error"].as_str().unwrap().contains("UnknownIssuer"), "{refused}");
    assert!(refused["client_subject"].is_null(), "nobody vouches for it: {refused}");
}

/// The lines of an access log, once there are so many.
async fn lines(file: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    eventually("lines in the access log", || read().lines().count() == count).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
