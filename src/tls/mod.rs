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
mod tickets;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use accept::{Accepted, Turns, accept, unknown_name};
pub use certificate::{Certificate, Facts, Unusable, certificates, revocation_lists};
pub use connect::{ServerNameError, ServerSettings, ServerTls, ServerVerification, connect, server_name};
pub use failure::Failed;
pub use stream::{TlsStream, ToClient, ToServer};
pub use terminator::{ClientAuth, ClientPolicy, MinVersion, Settings, Terminator, TicketSource, is_usable_root};
pub use tickets::ticket_keys;

/// What computes: AWS-LC, with the key exchange first that a quantum computer does not break (X25519MLKEM768).
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}
