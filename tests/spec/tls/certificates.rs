//! Which certificate a client is shown, and what is agreed on with it.

use std::sync::{Arc, Mutex};

use portreeve::ending::{Handshake, Reason};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, SignatureScheme,
};

use super::{Fronted, TLS12, TLS13, alert, certificates, echoes, run, shown};
use crate::stage::Instance;
use crate::stage::pki::{Pair, Pki, provider, shake};

/// Takes whatever certificate it is shown, and remembers the staple.
#[derive(Debug, Default)]
struct Credulous(Mutex<Vec<u8>>);

impl Credulous {
    fn client(self: &Arc<Self>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS);
        let verifier = Arc::clone(self);
        builder.unwrap().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap() = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a client that asks for `name` is shown the certificate of `pair`; an IP address stands for no name.
async fn shows(instance: &Instance, name: &str, pair: &Pair) -> bool {
    let mut client = shake(Arc::<Credulous>::default().client(), instance.address("web"), name).await.unwrap();
    echoes(&mut client).await.unwrap();
    shown(&client) == pair.chain()[0]
}

#[tokio::test]
async fn a_name_has_its_own_certificate_before_a_wildcard_and_that_before_the_first() {
    let pki = Pki::new();
    let (first, exact, any) =
        (pki.issue(&["first.org"]), pki.issue(&["www.example.com"]), pki.issue(&["*.example.com"]));
    let instance = Fronted::by(&certificates(&[&first, &any, &exact])).await;
    for (name, expected) in [
        ("www.example.com", &exact),
        ("WWW.Example.COM", &exact),
        ("api.example.com", &any),
        ("deep.api.example.com", &first),
        ("example.com", &first),
        ("first.org", &first),
        ("elsewhere.net", &first),
        ("127.0.0.1", &first),
    ] {
        assert!(shows(&instance, name, expected).await, "{name} was shown another");
    }
}

#[tokio::test]
async fn a_certificate_can_be_chosen_for_other_names_than_its_own() {
    let pki = Pki::new();
    let (first, other) = (pki.issue(&["example.com"]), pki.issue(&["other.org"]));
    let named = other.entry().replace(" }", ", names = [\"alias.net\"] }");
    let instance = Fronted::by(&format!("certificates = [{}, {named}]", first.entry())).await;
    assert!(shows(&instance, "alias.net", &other).await);
    assert!(shows(&instance, "other.org", &first).await);
}

#[tokio::test]
async fn with_strict_sni_a_client_has_to_ask_for_a_name_there_is_a_certificate_for() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com", "*.example.com"]);
    let instance = Fronted::by(&format!("{}, strict_sni = true", certificates(&[&pair]))).await;
    let address = instance.address("web");
    for name in ["example.com", "www.example.com"] {
        echoes(&mut shake(pki.client(None), address, name).await.unwrap()).await.unwrap();
    }
    for name in ["example.org", "deep.www.example.com", "127.0.0.1"] {
        let refused = shake(pki.client(None), address, name).await;
        assert_eq!(alert(refused).await, AlertDescription::UnrecognisedName, "{name}");
    }
    instance.ended(Reason::TlsError, 3).await;
    instance.shook(Handshake::UnknownName, 3).await;
    assert_eq!(instance.server.accepted(), 2);
}

/// A client that verifies signatures by these schemes only.
fn verifying(pki: &Pki, schemes: &[SignatureScheme]) -> ClientConfig {
    let mut provider = (*provider()).clone();
    let WebPkiSupportedAlgorithms { all, mapping } = provider.signature_verification_algorithms;
    let mapping: Vec<_> = mapping.iter().copied().filter(|(scheme, _)| schemes.contains(scheme)).collect();
    // It has to live as long as the process; a test makes few.
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms { all, mapping: mapping.leak() };
    pki.client_by(Arc::new(provider), rustls::ALL_VERSIONS, None)
}

#[tokio::test]
async fn of_two_certificates_for_a_name_a_client_gets_the_one_it_can_verify_and_rather_the_short_one() {
    let pki = Pki::new();
    let (rsa, ecdsa) = (pki.issue_rsa(&["example.com"]), pki.issue(&["example.com"]));
    let instance = Fronted::by(&certificates(&[&rsa, &ecdsa])).await;
    const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;
    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    for (schemes, expected) in [(&[RSA][..], &rsa), (&[ECDSA], &ecdsa), (&[RSA, ECDSA], &ecdsa)] {
        let mut client = instance.shake(verifying(&pki, schemes)).await.unwrap();
        echoes(&mut client).await.unwrap();
        assert_eq!(shown(&client), expected.chain()[0], "{schemes:?}");
    }
}

#[tokio::test]
async fn a_client_that_asks_for_none_of_the_names_gets_that_of_the_first_which_it_can_verify() {
    let pki = Pki::new();
    let names = ["*.example.com", "elsewhere.net"];
    let pairs = [pki.issue_rsa(&names), pki.issue(&names)];
    // Nobody who asks for the other name is meant by these.
    let entries = pairs.each_ref().map(|pair| pair.entry().replace(" }", ", names = [\"*.example.com\"] }"));
    let instance = Fronted::by(&format!("certificates = [{}]", entries.join(", "))).await;
    let schemes = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
    for (scheme, expected) in schemes.into_iter().zip(&pairs) {
        let config = verifying(&pki, &[scheme]);
        let mut client = shake(config, instance.address("web"), "elsewhere.net").await.unwrap();
        echoes(&mut client).await.unwrap();
        assert_eq!(shown(&client), expected.chain()[0], "{scheme:?}");
    }
}

#[tokio::test]
async fn the_whole_chain_of_the_file_is_shown() {
    let pki = Pki::new();
    let pair = pki.issue_chained(&["example.com"]);
    assert_eq!(pair.chain().len(), 2);
    let instance = Fronted::by(&certificates(&[&pair])).await;
    // It knows the root only, so it needs what lies between.
    let mut client = instance.shake(pki.client(None)).await.unwrap();
    echoes(&mut client).await.unwrap();
    assert_eq!(client.get_ref().1.peer_certificates().unwrap(), pair.chain());
}

#[tokio::test]
async fn a_key_can_be_pkcs1_pkcs8_or_sec1() {
    let pki = Pki::new();
    let (rsa, ecdsa) = (pki.issue_rsa(&["rsa.org"]), pki.issue(&["ecdsa.org"]));
    let [from, pkcs1] = [rsa.key.to_str().unwrap(), &format!("{}.pkcs1", rsa.key.display())];
    run("openssl", &["rsa", "-traditional", "-in", from, "-out", pkcs1]).await;
    let [from, sec1] = [ecdsa.key.to_str().unwrap(), &format!("{}.sec1", ecdsa.key.display())];
    run("openssl", &["ec", "-in", from, "-out", sec1]).await;
    let forms = [
        ("BEGIN RSA PRIVATE KEY", Pair { key: pkcs1.into(), ..rsa.clone() }),
        ("BEGIN EC PRIVATE KEY", Pair { key: sec1.into(), ..ecdsa.clone() }),
        ("BEGIN PRIVATE KEY", rsa),
        ("BEGIN PRIVATE KEY", ecdsa),
    ];
    for (form, pair) in forms {
        assert!(std::fs::read_to_string(&pair.key).unwrap().contains(form), "{form}");
        let instance = Fronted::by(&certificates(&[&pair])).await;
        assert!(shows(&instance, "any.org", &pair).await, "{form}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_too_old_a_version_is_refused() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    let instance = Fronted::by(&format!("{}, min_version = \"1.3\"", certificates(&[&pair]))).await;
    let refused = instance.shake(pki.client_of(TLS12, None)).await;
    assert_eq!(alert(refused).await, AlertDescription::ProtocolVersion);
    instance.ended(Reason::TlsError, 1).await;
    instance.shook(Handshake::Incompatible, 1).await;
    echoes(&mut instance.shake(pki.client_of(TLS13, None)).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn of_the_protocols_a_client_offers_the_first_of_the_listener_is_agreed_on() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    let instance = Fronted::by(&format!("{}, alpn = [\"h2\", \"http/1.1\"]", certificates(&[&pair]))).await;
    let offering = |protocols: &[&str]| {
        let mut client = pki.client(None);
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        client
    };
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], Some(&b"h2"[..])),
        (&["imap", "http/1.1"], Some(b"http/1.1")),
        // Who offers none has none, and is welcome.
        (&[], None),
    ] {
        let mut client = instance.shake(offering(offered)).await.unwrap();
        assert_eq!(client.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        echoes(&mut client).await.unwrap();
    }
    let refused = instance.shake(offering(&["imap", "pop3"])).await;
    assert_eq!(alert(refused).await, AlertDescription::NoApplicationProtocol);
    instance.ended(Reason::TlsError, 1).await;
    instance.shook(Handshake::Incompatible, 1).await;
}

#[tokio::test]
async fn without_protocols_of_its_own_a_listener_agrees_on_none_and_refuses_none() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let mut config = pki.client(None);
    config.alpn_protocols = vec![b"imap".to_vec()];
    let mut client = instance.shake(config).await.unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), None);
    echoes(&mut client).await.unwrap();
}

#[tokio::test]
async fn keys_are_exchanged_so_that_a_quantum_computer_does_not_learn_them() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let group_of = async |client: ClientConfig| {
        let mut client = instance.shake(client).await.unwrap();
        echoes(&mut client).await.unwrap();
        client.get_ref().1.negotiated_key_exchange_group().unwrap().name()
    };
    assert_eq!(group_of(pki.client(None)).await, NamedGroup::X25519MLKEM768);
    // One that has decided for another, or knows no other, is not held up.
    let mut classical = (*provider()).clone();
    classical.kx_groups.sort_by_key(|group| group.name() == NamedGroup::X25519MLKEM768);
    let other = pki.client_by(Arc::new(classical.clone()), rustls::ALL_VERSIONS, None);
    assert_eq!(group_of(other).await, NamedGroup::X25519);
    classical.kx_groups.retain(|group| group.name() == NamedGroup::secp256r1);
    let another = pki.client_by(Arc::new(classical), rustls::ALL_VERSIONS, None);
    assert_eq!(group_of(another).await, NamedGroup::secp256r1);
}

#[tokio::test]
async fn a_client_that_begins_with_keys_of_a_kind_unknown_here_is_asked_for_others() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let mut unusual = (*provider()).clone();
    unusual.kx_groups.insert(0, rustls::crypto::aws_lc_rs::kx_group::MLKEM1024);
    let client = Arc::new(pki.client_by(Arc::new(unusual), rustls::ALL_VERSIONS, None));
    for kind in [HandshakeKind::FullWithHelloRetryRequest, HandshakeKind::Resumed] {
        let mut stream = instance.shake(Arc::clone(&client)).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        echoes(&mut stream).await.unwrap();
    }
}

#[tokio::test]
async fn an_ocsp_response_is_stapled_to_the_certificate_it_is_for() {
    let pki = Pki::new();
    let (with, without) = (pki.issue(&["example.com"]), pki.issue(&["other.org"]));
    let file = pki.folder().join("example.ocsp");
    std::fs::write(&file, "good, says somebody").unwrap();
    let stapled = with.entry().replace(" }", &format!(", ocsp = {file:?} }}"));
    let instance = Fronted::by(&format!("certificates = [{stapled}, {}]", without.entry())).await;
    for (name, staple) in [("example.com", &b"good, says somebody"[..]), ("other.org", b"")] {
        let verifier = Arc::<Credulous>::default();
        echoes(&mut shake(verifier.client(), instance.address("web"), name).await.unwrap()).await.unwrap();
        assert_eq!(*verifier.0.lock().unwrap(), staple, "{name}");
    }
}
