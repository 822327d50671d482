//! TLS by rustls: what a listener shows its clients, what a pool asks of its servers, and the streams that come of both.
//!
//! [`Settings`] and [`ServerSettings`] are what a configuration asks for, read and checked; a [`Terminator`] is the first of
//! them in effect. [`accept`] and [`connect`] shake hands and return a [`TlsStream`] that a relay moves bytes through.
//! [`hello`] reads what a client asks for without shaking hands. It reports and neither logs nor counts.

mod accept;
mod certificate;
mod connect;
mod failure;
pub mod hello;
mod stream;
mod terminator;
#[cfg(test)]
mod tests;
mod tickets;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

pub use accept::{Accepted, Turns, accept, unknown_name};
pub use certificate::{Certificate, Facts, Unusable, certificates, revocation_lists};
pub use connect::{ServerNameError, ServerSettings, ServerTls, ServerVerification, connect, server_name};
pub use failure::Failed;
pub use stream::{Engine, TlsStream, ToClient, ToServer};
pub use terminator::{ClientAuth, ClientPolicy, MinVersion, Settings, Terminator, TicketSource, is_usable_root};
pub use tickets::ticket_keys;

/// What computes: AWS-LC, with the key exchange first that a quantum computer does not break (X25519MLKEM768), and of the
/// ciphers those first whose hash is SHA-256: processors compute it, and not SHA-384, in hardware, and a handshake hashes a
/// great deal.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite {
        SupportedCipherSuite::Tls13(_) => (0, suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256),
        SupportedCipherSuite::Tls12(_) => (
            1,
            !matches!(
                suite.suite(),
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            ),
        ),
    });
    Arc::new(provider)
});

fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}
