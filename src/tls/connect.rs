//! Towards servers: what a pool asks of them, and the handshake.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, HandshakeKind, KeyLogFile, SignatureScheme};

use super::certificate::Certificate;
use super::failure::Failed;
use super::provider;
use super::stream::{TlsStream, ToServer};
use super::terminator::{MinVersion, digest, root_store};
use crate::net::address::{Endpoint, ServerAddr};
use crate::net::dial::First;
use crate::net::stream::Stream;

/// How many sessions are kept to be resumed with one server: as many as rustls keeps for one name.
const SESSIONS: usize = 8;

/// Whose certificates a server may show.
#[derive(Clone, Debug)]
pub enum ServerVerification {
    /// Those one of these roots vouches for.
    Roots(Vec<CertificateDer<'static>>),
    /// Any at all, for any name: the connection is encrypted, and nobody knows to whom.
    None,
}

/// What a pool asks of its servers.
#[derive(Clone)]
pub struct ServerSettings {
    config: ClientConfig,
    name: Option<ServerName<'static>>,
    verifies: bool,
    digest: [u8; 32],
}

/// Why there is no name to ask a server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerNameError;

/// Reads the name a server is asked for, and has to have a certificate for: a host name or an IP address.
///
/// # Errors
/// When it is neither.
pub fn server_name(text: &str) -> Result<ServerName<'static>, ServerNameError> {
    ServerName::try_from(text).map(|name| name.to_owned()).map_err(|_| ServerNameError)
}

impl ServerSettings {
    /// Puts settings together. Without `name`, a server has to have a certificate for its IP address, and is asked for no
    /// name. `own` is the certificate shown to servers that want one.
    ///
    /// # Errors
    /// What is wrong with the roots or the certificate.
    pub fn new(
        verification: &ServerVerification,
        name: Option<ServerName<'static>>,
        own: Option<&Certificate>,
        version: MinVersion,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(version.versions())
            .map_err(|error| error.to_string())?;
        let verifier: Arc<dyn ServerCertVerifier> = match verification {
            ServerVerification::Roots(roots) => {
                let store = Arc::new(root_store(roots)?);
                WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider()))
                    .build()
                    .map_err(|error| error.to_string())?
            }
            ServerVerification::None => Arc::new(Anybody(Arc::clone(provider()))),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some(own) => builder
                .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&own.signer)))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&alpn);
        let mut parts: Vec<Vec<u8>> = vec![vec![u8::from(version == MinVersion::Tls13)]];
        match verification {
            ServerVerification::Roots(roots) => parts.extend(roots.iter().map(|root| root.to_vec())),
            ServerVerification::None => parts.push(Vec::new()),
        }
        parts.push(format!("{name:?}").into_bytes());
        parts.extend(own.into_iter().flat_map(Certificate::bytes).map(<[u8]>::to_vec));
        parts.push(Vec::new());
        parts.extend(alpn);
        let verifies = match verification {
            ServerVerification::Roots(_) => true,
            ServerVerification::None => false,
        };
        Ok(Self { config, name, verifies, digest: digest(parts.iter().map(Vec::as_slice)) })
    }

    /// The same, asking for another name.
    #[must_use]
    pub fn named(&self, name: ServerName<'static>) -> Self {
        let digest = digest([self.digest.as_slice(), format!("{name:?}").as_bytes()]);
        Self { name: Some(name), digest, ..self.clone() }
    }

    /// The same, offering these protocols by ALPN in place of any others.
    #[must_use]
    pub fn offering(&self, protocols: &[&[u8]]) -> Self {
        let digest = digest([self.digest.as_slice(), b"alpn"].into_iter().chain(protocols.iter().copied()));
        let mut offering = Self { digest, ..self.clone() };
        offering.config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        offering
    }

    /// Whether it is known who answers.
    #[must_use]
    pub const fn verifies(&self) -> bool {
        self.verifies
    }

    /// The name that servers are asked for, unless that is their address.
    #[must_use]
    pub fn name(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.name.as_ref().map(ServerName::to_str)
    }

    /// Puts the settings into effect for one server. Sessions of `before` go on if that was the same server and asked for
    /// the same. With `log_keys`, as for [`super::Terminator::new`].
    #[must_use]
    pub fn for_server(&self, address: &ServerAddr, before: Option<&Arc<ServerTls>>, log_keys: bool) -> Arc<ServerTls> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(ip(address)));
        if let Some(before) =
            before.filter(|before| before.digest == self.digest && before.name == name && before.address == *address)
        {
            return Arc::clone(before);
        }
        let mut config = self.config.clone();
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
        if log_keys {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Arc::new(ServerTls { config: Arc::new(config), name, address: address.clone(), digest: self.digest })
    }
}

/// The address as a name; a unix socket has none, and is checked to have been given one.
fn ip(address: &ServerAddr) -> IpAddr {
    match &address.0 {
        Endpoint::Tcp(address) => address.ip(),
        Endpoint::Unix(_) => IpAddr::from([0, 0, 0, 0]),
    }
}

impl PartialEq for ServerSettings {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ServerSettings {}

impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSettings").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The settings in effect for one server, with the sessions it can resume.
pub struct ServerTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    address: ServerAddr,
    digest: [u8; 32],
}

impl ServerTls {
    /// The same, offering these protocols by ALPN. It resumes the same sessions.
    #[must_use]
    pub fn offering(&self, protocols: &[&[u8]]) -> Arc<Self> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let digest = digest([self.digest.as_slice(), b"alpn"].into_iter().chain(protocols.iter().copied()));
        Arc::new(Self { config: Arc::new(config), name: self.name.clone(), address: self.address.clone(), digest })
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.name == other.name && self.address == other.address
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Shakes hands with a server; `prefix` goes out first, in one segment with the beginning of the handshake. Says whether an
/// earlier session was resumed. There is no deadline here; dropping the future ends the attempt and resets the connection.
///
/// # Errors
/// Why it failed. The connection is closed.
pub async fn connect(
    mut socket: Stream,
    prefix: Vec<u8>,
    settings: &ServerTls,
    first: First,
) -> Result<(Box<TlsStream<ToServer>>, bool), Failed> {
    socket.set_abandoned(true);
    // A handshake is several small writes, none of which may wait for the acknowledgement of the one before.
    socket.set_nodelay();
    let engine =
        ToServer::new(Arc::clone(&settings.config), settings.name.clone()).map_err(|error| Failed::from(&error))?;
    let mut stream = Box::new(TlsStream::new(socket, engine, Vec::new(), prefix));
    loop {
        let stepped = stream.step();
        if let Err(error) = stepped {
            // The alert is a courtesy: as much of it as goes out at once.
            poll_fn(|cx| Poll::Ready(stream.poll_send_all(cx).is_ready())).await;
            return Err(Failed::from(&error));
        }
        if !stream.is_handshaking() {
            // Our last message travels with our first bytes, unless the server may be waiting for it to speak.
            match first {
                First::Us => stream.let_it_wait(),
                First::PerhapsServer => poll_fn(|cx| stream.poll_send_all(cx)).await?,
            }
            let resumed = stream.state().handshake_kind() == Some(HandshakeKind::Resumed);
            stream.set_abandoned(false);
            return Ok((stream, resumed));
        }
        poll_fn(|cx| stream.poll_send_all(cx)).await?;
        poll_fn(|cx| stream.poll_fill(cx)).await?;
    }
}

/// Takes every certificate for good. What is signed with it is still verified, so that the other end has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
