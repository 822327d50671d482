//! Certificates of the tests' own: roots, what they sign, lists of what they take back, and clients and servers that use
//! them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::within;

/// A root and the folder that all it signs is written to.
pub struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// A certificate and its key, in the folder of its root.
#[derive(Clone)]
pub struct Pair {
    /// The chain in PEM.
    pub cert: PathBuf,
    /// The key in PEM.
    pub key: PathBuf,
    /// Its serial number, which is unique within its root.
    pub serial: u64,
}

impl Pair {
    /// As an entry of `certificates`.
    pub fn entry(&self) -> String {
        format!("{{ cert = {:?}, key = {:?} }}", self.cert, self.key)
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect()
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }
}

impl Pki {
    /// A new root; its certificate is `root.crt` in its folder.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // A name of its own: certificates say by name whom they are from.
        params.distinguished_name.push(DnType::CommonName, format!("Root {:016x} of the tests", fastrand::u64(..)));
        let root = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("root.crt"), root.pem()).unwrap();
        Self { folder, root: root.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its own certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.crt")
    }

    /// A certificate for these names, the first of which names its files.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    /// The same with an RSA key.
    pub fn issue_rsa(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        self.sign(&format!("{}-rsa", names[0]), names, key, |_| {})
    }

    /// The same with something else about it.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.sign(names[0], names, KeyPair::generate().unwrap(), change)
    }

    /// The same, vouched for by somebody that the root vouches for; both certificates are in its file.
    pub fn issue_chained(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "Between the root and the rest");
        let between = params.signed_by(&key, &self.issuer).unwrap().pem();
        let pair = self.sign_by(&Issuer::new(params, key), names[0], names, KeyPair::generate().unwrap(), |_| {});
        let own = fs::read_to_string(&pair.cert).unwrap();
        fs::write(&pair.cert, own + &between).unwrap();
        pair
    }

    fn sign(&self, file: &str, names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.sign_by(&self.issuer, file, names, key, change)
    }

    fn sign_by(
        &self,
        issuer: &Issuer<'static, KeyPair>,
        file: &str,
        names: &[&str],
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let serial = fastrand::u64(1..u64::MAX / 2);
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, issuer).unwrap();
        let file = file.replace('*', "any");
        let (cert, secret) =
            (self.folder.path().join(format!("{file}.crt")), self.folder.path().join(format!("{file}.key")));
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        Pair { cert, key: secret, serial }
    }

    /// Writes a list that takes these certificates back, and returns where.
    pub fn revoke(&self, pairs: &[&Pair]) -> PathBuf {
        let revoked = |pair: &&Pair| RevokedCertParams {
            serial_number: SerialNumber::from(pair.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: pairs.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.path().join("revoked.crl");
        fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    /// What a client needs that trusts this root, and may show a certificate.
    pub fn client(&self, own: Option<&Pair>) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, own)
    }

    /// The same for one that speaks these versions only.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion], own: Option<&Pair>) -> ClientConfig {
        self.client_by(provider(), versions, own)
    }

    /// The same for one that computes by this.
    pub fn client_by(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match own {
            Some(own) => builder.with_client_auth_cert(own.chain(), own.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }

    /// What a server needs that shows this certificate.
    pub fn server(&self, own: &Pair) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(own.chain(), own.private_key())
            .unwrap()
    }
}

/// What clients and servers compute by unless a test has its own.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Shakes hands with whoever listens there, as a client that asks for `name`.
pub async fn shake(
    config: impl Into<Arc<ClientConfig>>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let stream = within("connect", TcpStream::connect(address)).await?;
    shake_over(stream, config, name).await
}

/// The same over a connection there is.
pub async fn shake_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: impl Into<Arc<ClientConfig>>,
    name: &str,
) -> std::io::Result<client::TlsStream<S>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("a handshake", TlsConnector::from(config.into()).connect(name, stream)).await
}

/// Shakes hands with a client that has connected to a server of the test's.
pub async fn welcome(config: Arc<ServerConfig>, stream: TcpStream) -> std::io::Result<server::TlsStream<TcpStream>> {
    within("a handshake", TlsAcceptor::from(config).accept(stream)).await
}
