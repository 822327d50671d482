//! What a listener shows its clients: which certificate for which name, what it asks of clients, which sessions it resumes.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{KeyLogFile, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::certificate::Certificate;
use super::provider;
use super::tickets::Tickets;
use crate::route::{HostPattern, Hosts};
use crate::units::Secret;

/// How many sessions of clients that know no tickets a policy remembers, at most.
const SESSIONS: usize = 256;

/// How many tickets a client is given with each handshake of TLS 1.3. A client that connects anew gets another, so more
/// are of use to those alone that open several connections at once.
const TICKETS: usize = 1;

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2
    #[default]
    Tls12,
    /// TLS 1.3
    Tls13,
}

impl MinVersion {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => &FROM_13,
        }
    }
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It may; one that it shows has to be good.
    Optional,
    /// It has to.
    Required,
}

/// What is asked of clients: whether to show a certificate, and whose.
#[derive(Clone)]
pub struct ClientPolicy {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Tells the policy from others, so that a session of one is never resumed in another.
    digest: [u8; 32],
}

impl ClientPolicy {
    /// Nothing is asked.
    #[must_use]
    pub fn open() -> Self {
        Self { verifier: None, digest: digest([b"open".as_slice()]) }
    }

    /// A certificate that one of the roots vouches for and none of the lists revokes. With lists, there has to be a
    /// current one for every certificate of the chain below the root.
    ///
    /// # Errors
    /// What is wrong with roots or lists.
    pub fn certificates(
        auth: ClientAuth,
        roots: &[CertificateDer<'static>],
        lists: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self, String> {
        let store = Arc::new(root_store(roots)?);
        let builder = WebPkiClientVerifier::builder_with_provider(store, Arc::clone(provider()))
            .with_crls(lists.iter().cloned())
            .enforce_revocation_expiration();
        let builder = match auth {
            ClientAuth::Optional => builder.allow_unauthenticated(),
            ClientAuth::Required => builder,
        };
        let verifier = builder.build().map_err(|error| error.to_string())?;
        let word: &[u8] = match auth {
            ClientAuth::Optional => b"optional",
            ClientAuth::Required => b"required",
        };
        let parts = [word].into_iter().chain(roots.iter().map(AsRef::as_ref)).chain(lists.iter().map(AsRef::as_ref));
        Ok(Self { verifier: Some(verifier), digest: digest(parts) })
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth)
    }
}

pub(super) fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| format!("a certificate in it cannot be trusted: {error}"))?;
    }
    Ok(store)
}

/// Whether a root can be used at all: one in a hundred of a system's may be too old for that.
#[must_use]
pub fn is_usable_root(root: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(root.clone()).is_ok()
}

/// Where the keys of session tickets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketSource {
    /// They are made here, rotate, and live as long as the process.
    Own,
    /// From a file, newest first.
    File(Vec<Secret>),
}

/// What a listener is asked to show its clients.
pub struct Settings {
    certificates: Arc<Table>,
    /// The policy of each host that has its own, and at the end that of all others.
    policies: Vec<(Option<HostPattern>, ClientPolicy)>,
    strict_sni: bool,
    tickets: TicketSource,
    version: MinVersion,
    alpn: Vec<Vec<u8>>,
    digest: [u8; 32],
}

impl Settings {
    /// Puts settings together. Of several certificates for a name, a client gets the first that it can verify, those with
    /// short signatures first; the first certificate of all is for clients that name no host, or none of theirs.
    #[must_use]
    pub fn new(
        certificates: Vec<Certificate>,
        strict_sni: bool,
        clients: ClientPolicy,
        hosts: Vec<(HostPattern, ClientPolicy)>,
        tickets: TicketSource,
        version: MinVersion,
        alpn: Vec<Vec<u8>>,
    ) -> Self {
        let flags = vec![u8::from(strict_sni), u8::from(version == MinVersion::Tls13)];
        let mut parts: Vec<Vec<u8>> = vec![flags, clients.digest.to_vec()];
        for certificate in &certificates {
            parts.extend(certificate.bytes().map(<[u8]>::to_vec));
            parts.extend(certificate.names.iter().map(|name| name.to_string().into_bytes()));
        }
        for (host, policy) in &hosts {
            parts.extend([host.to_string().into_bytes(), policy.digest.to_vec()]);
        }
        // What ends one list and begins the next, so that a protocol is never taken for a key.
        parts.push(vec![u8::from(tickets == TicketSource::Own)]);
        parts.extend(alpn.iter().cloned());
        if let TicketSource::File(secrets) = &tickets {
            parts.push(Vec::new());
            parts.extend(secrets.iter().map(|secret| secret.expose().to_vec()));
        }
        let policies = hosts.into_iter().map(|(host, policy)| (Some(host), policy)).chain([(None, clients)]).collect();
        Self {
            certificates: Arc::new(Table::new(certificates)),
            policies,
            strict_sni,
            tickets,
            version,
            alpn,
            digest: digest(parts.iter().map(Vec::as_slice)),
        }
    }

    /// The certificates, in the order of the file.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.all.iter().map(AsRef::as_ref)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Settings {}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("certificates", &self.certificates.all.len()).finish_non_exhaustive()
    }
}

/// Certificates by the names they are for.
#[derive(Debug)]
struct Table {
    all: Vec<Arc<Certificate>>,
    by_name: Hosts<Vec<Arc<Certificate>>>,
    /// For clients that ask for no name, or for none of these: the first, and those of the same name with another key.
    default: Vec<Arc<Certificate>>,
}

impl Table {
    fn new(certificates: Vec<Certificate>) -> Self {
        let all: Vec<Arc<Certificate>> = certificates.into_iter().map(Arc::new).collect();
        let mut by_name: Hosts<Vec<Arc<Certificate>>> = Hosts::default();
        let mut ranked: Vec<&Arc<Certificate>> = all.iter().collect();
        ranked.sort_by_key(|certificate| certificate.rank());
        for certificate in &ranked {
            for name in &certificate.names {
                by_name.entry(name, Vec::new).push(Arc::clone(certificate));
            }
        }
        let default = match all.first().map(|first| first.names.first()) {
            Some(Some(name)) => {
                ranked.into_iter().filter(|certificate| certificate.names.contains(name)).cloned().collect()
            }
            Some(None) | None => all.iter().take(1).cloned().collect(),
        };
        Self { all, by_name, default }
    }

    fn knows(&self, name: &str) -> bool {
        self.by_name.certificate_for(name).is_some()
    }

    /// The certificate for a client that asks for `name` and can verify what `suits` says.
    fn choose(&self, name: Option<&str>, suits: impl Fn(&Certificate) -> bool) -> Option<&Arc<Certificate>> {
        let named = name.and_then(|name| self.by_name.certificate_for(name));
        let candidates = named.unwrap_or(&self.default);
        candidates.iter().find(|certificate| suits(certificate)).or_else(|| candidates.first())
    }
}

/// The settings of a listener in effect, with the sessions that outlive a reload.
pub struct Terminator {
    settings: Arc<Settings>,
    /// In the order of the settings' policies.
    policies: Vec<Policy>,
    hosts: Arc<Hosts<usize>>,
}

struct Policy {
    digest: [u8; 32],
    /// Chooses the cipher that computes fastest here.
    config: Arc<ServerConfig>,
    /// Chooses the cipher that the client likes best.
    clients_choice: Arc<ServerConfig>,
    sessions: Sessions,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What lets clients of one policy resume their sessions.
#[derive(Clone)]
struct Sessions {
    tickets: Arc<Tickets>,
    cache: Arc<ServerSessionMemoryCache>,
}

/// What is done with a client that asks for a name.
pub(super) struct Chosen<'a> {
    pub(super) config: &'a Arc<ServerConfig>,
    /// Looks again at a client that resumes a session it was given before its certificate ran out.
    pub(super) verifier: Option<&'a Arc<dyn ClientCertVerifier>>,
}

impl Terminator {
    /// Puts settings into effect; sessions of policies that were in effect before go on. With `log_keys`, the secrets of
    /// every connection are written to the file that the environment names (`SSLKEYLOGFILE`).
    #[must_use]
    pub fn new(settings: &Arc<Settings>, before: Option<&Self>, log_keys: bool) -> Self {
        let mut hosts = Hosts::default();
        for (number, (host, _)) in settings.policies.iter().enumerate() {
            if let Some(host) = host {
                hosts.entry(host, || number);
            }
        }
        let hosts = Arc::new(hosts);
        let others = settings.policies.len() - 1;
        let policies = settings.policies.iter().enumerate().map(|(number, (_, policy))| {
            let (table, hosts) = (Arc::clone(&settings.certificates), Arc::clone(&hosts));
            let resolver = Resolver { table, hosts, policy: number, others };
            let sessions = Self::sessions(settings, policy, before);
            let config = config(settings, policy, resolver, &sessions, log_keys);
            let mut clients_choice = config.clone();
            clients_choice.ignore_client_order = false;
            Policy {
                digest: policy.digest,
                clients_choice: Arc::new(clients_choice),
                config: Arc::new(config),
                sessions,
                verifier: policy.verifier.clone(),
            }
        });
        Self { policies: policies.collect(), settings: Arc::clone(settings), hosts }
    }

    fn sessions(settings: &Settings, policy: &ClientPolicy, before: Option<&Self>) -> Sessions {
        let kept = before.and_then(|before| {
            let same_source = before.settings.tickets == settings.tickets;
            before.policies.iter().find(|before| same_source && before.digest == policy.digest)
        });
        let new = || Sessions {
            tickets: Arc::new(match &settings.tickets {
                TicketSource::Own => Tickets::rotating(),
                TicketSource::File(secrets) => Tickets::shared(secrets, &policy.digest),
            }),
            cache: ServerSessionMemoryCache::new(SESSIONS),
        };
        kept.map_or_else(new, |policy| policy.sessions.clone())
    }

    /// Whether clients that ask for one name are held to the same as those that ask for the other, in lower case. A request
    /// for a host may come on a connection that was made for another only if they are (RFC 9110 §7.4).
    #[must_use]
    pub fn same_policy(&self, one: Option<&str>, other: Option<&str>) -> bool {
        let digest =
            |name| self.policies.get(policy_of(&self.hosts, name, self.policies.len() - 1)).map(|policy| policy.digest);
        self.policies.len() == 1 || digest(one) == digest(other)
    }

    /// What is done with a client that asks for `name`, in lower case; nothing if there is no certificate for it and
    /// others are not shown in its place.
    ///
    /// Clients whose processors compute AES leave the cipher to us; the others would pay dearly for it.
    pub(super) fn choose(&self, name: Option<&str>, prefers_chacha: bool) -> Option<Chosen<'_>> {
        if self.settings.strict_sni && !name.is_some_and(|name| self.settings.certificates.knows(name)) {
            return None;
        }
        let policy = self.policies.get(policy_of(&self.hosts, name, self.policies.len() - 1))?;
        let config = if prefers_chacha { &policy.clients_choice } else { &policy.config };
        Some(Chosen { config, verifier: policy.verifier.as_ref() })
    }
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminator").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The number of the policy for a name: that of its host, or `others`.
fn policy_of(hosts: &Hosts<usize>, name: Option<&str>, others: usize) -> usize {
    name.and_then(|name| hosts.find(name).next().copied()).unwrap_or(others)
}

#[expect(clippy::expect_used, reason = "the provider is a constant, and a test has it speak both versions")]
fn config(
    settings: &Settings,
    policy: &ClientPolicy,
    resolver: Resolver,
    sessions: &Sessions,
    log_keys: bool,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(settings.version.versions())
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_client_cert_verifier(policy.verifier())
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols.clone_from(&settings.alpn);
    config.ticketer = sessions.tickets.clone();
    config.session_storage = sessions.cache.clone();
    config.ignore_client_order = true;
    config.send_tls13_tickets = TICKETS;
    if log_keys {
        config.key_log = Arc::new(KeyLogFile::new());
    }
    config
}

/// Chooses the certificate once rustls has read the client's hello.
#[derive(Debug)]
struct Resolver {
    table: Arc<Table>,
    hosts: Arc<Hosts<usize>>,
    /// The policy whose configuration this is part of.
    policy: usize,
    /// The policy of all names that have none of their own.
    others: usize,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        // The policy was chosen by our own reading of the hello. Should rustls read another name, nobody gets past the
        // policy of that name by it.
        if policy_of(&self.hosts, name, self.others) != self.policy {
            return None;
        }
        let suits =
            |certificate: &Certificate| certificate.signer.key.choose_scheme(hello.signature_schemes()).is_some();
        self.table.choose(name, suits).map(|certificate| Arc::clone(&certificate.signer))
    }
}

/// A digest of these parts, in which none can be taken for a part of another.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(byte, digest)| *byte = *digest);
    bytes
}
