//! Certificates: a chain with its key as a server shows them, and what a certificate says of itself.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::provider;
use crate::route::HostPattern;

/// What a PEM block starts with; a file without one is taken for DER where that is possible.
const PEM: &[u8] = b"-----BEGIN";

/// A chain and its key.
#[derive(Debug)]
pub struct Certificate {
    pub(super) signer: Arc<CertifiedKey>,
    /// What it says of itself.
    pub facts: Facts,
    /// The names it is chosen for.
    pub names: Vec<HostPattern>,
}

/// What is wrong with a chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The chain, and why.
    Chain(String),
    /// The key, and why.
    Key(String),
    /// The key is another certificate's.
    Pair,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The first second it is valid in, since 1970.
    pub not_before: i64,
    /// The last second it is valid in, since 1970.
    pub not_after: i64,
    /// The host names it is for.
    pub hosts: Vec<HostPattern>,
    /// Whom it is about, as a line such as `C=DE, O=Example, CN=client`.
    pub subject: String,
    /// The common name among that.
    pub common_name: Option<String>,
    /// Every alternative name: host names, addresses, mail addresses, URIs.
    pub alternative_names: Vec<String>,
}

impl Certificate {
    /// Reads a chain in PEM, its own certificate first, with the key to that in PEM (PKCS#1, PKCS#8 or SEC1), and an OCSP
    /// response to staple if there is one. It is chosen for the names it says itself until [`Certificate::names`] are set.
    ///
    /// # Errors
    /// Which of them is unusable and why. The words hold nothing of the key.
    pub fn read(chain: &[u8], key: &[u8], ocsp: Option<Vec<u8>>) -> Result<Self, Unusable> {
        let chain = certificates(chain).map_err(Unusable::Chain)?;
        let own = chain.first().ok_or_else(|| Unusable::Chain("there is no certificate in it".to_owned()))?;
        let facts = Facts::of(own).map_err(Unusable::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_words_may_hold_the_key| Unusable::Key("there is no private key in PEM in it".to_owned()))?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| Unusable::Key("the private key is of no kind that can be used".to_owned()))?;
        let mut signer = CertifiedKey::new(chain, key);
        match signer.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(Unusable::Pair),
            Err(error) => return Err(Unusable::Chain(format!("the certificate cannot be used: {error}"))),
        }
        signer.ocsp = ocsp;
        let names = facts.hosts.clone();
        Ok(Self { signer: Arc::new(signer), facts, names })
    }

    /// The names it is known by in metrics and logs: those it is chosen for, or else what it says of itself.
    #[must_use]
    pub fn known_by(&self) -> Vec<String> {
        if self.names.is_empty() {
            let Facts { alternative_names, subject, .. } = &self.facts;
            return vec![alternative_names.first().unwrap_or(subject).clone()];
        }
        self.names.iter().map(ToString::to_string).collect()
    }

    /// Its bytes, so that it can be told from another.
    pub(super) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        // The key has the certificate's public half, so it needs no mention.
        self.signer.cert.iter().map(AsRef::as_ref).chain(self.signer.ocsp.as_deref())
    }

    /// Whether it comes before the others of its name that a client can verify: the shorter signatures first.
    pub(super) fn rank(&self) -> u8 {
        u8::from(self.signer.key.algorithm() == SignatureAlgorithm::RSA)
    }
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let alternative = parsed
            .subject_alternative_name()
            .map_err(|error| format!("the names of the certificate cannot be read: {error}"))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let common_name =
            parsed.subject().iter_common_name().find_map(|name| name.as_str().ok()).map(ToOwned::to_owned);
        let named = |name: &GeneralName<'_>| {
            let GeneralName::DNSName(host) = name else { return None };
            HostPattern::parse(host).ok()
        };
        let mut hosts: Vec<HostPattern> = alternative.iter().filter_map(named).collect();
        // Certificates from before alternative names say their host there.
        if alternative.is_empty() {
            hosts.extend(common_name.as_deref().and_then(|name| HostPattern::parse(name).ok()));
        }
        Ok(Self {
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            hosts,
            subject: parsed.subject().to_string(),
            common_name,
            alternative_names: alternative.iter().filter_map(alternative_name).collect(),
        })
    }

    /// Whether it is for hosts of this pattern.
    #[must_use]
    pub fn covers(&self, name: &HostPattern) -> bool {
        self.hosts.iter().any(|own| own.covers(name))
    }
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) = name {
        return Some((*text).to_owned());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).map(|ip| ip.to_string()).ok()
}

/// The certificates of a PEM file, in its order.
///
/// # Errors
/// What is wrong with it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("there is no certificate in PEM in it".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it is no valid PEM: {error}")),
    }
}

/// The revocation lists of a PEM file, or the one that is the whole file in DER, each with the second it is to be
/// replaced by, if it says so.
///
/// # Errors
/// What is wrong with it.
pub fn revocation_lists(file: &[u8]) -> Result<Vec<(CertificateRevocationListDer<'static>, Option<i64>)>, String> {
    let lists = if file.windows(PEM.len()).any(|window| window == PEM) {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(file).collect();
        lists.map_err(|error| format!("it is no valid PEM: {error}"))?
    } else {
        vec![CertificateRevocationListDer::from(file.to_vec())]
    };
    if lists.is_empty() {
        return Err("there is no certificate revocation list in it".to_owned());
    }
    let dated = lists.into_iter().map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(&list)
            .map_err(|error| format!("the certificate revocation list cannot be read: {error}"))?;
        let until = parsed.next_update().map(|time| time.timestamp());
        Ok((list.clone(), until))
    });
    dated.collect()
}
