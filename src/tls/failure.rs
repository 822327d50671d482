//! Why a handshake failed: the class for counting, and words for the one who looks into it.

use std::fmt;
use std::future::poll_fn;
use std::time::Duration;

use rustix::io::Errno;
use rustls::Error;

use crate::ending::{Handshake, TlsVersion};
use crate::net::errno::is_disconnect;
use crate::net::stream::Stream;

/// How long taking leave may last.
const LEAVE: Duration = Duration::from_secs(1);
/// How much is still read meanwhile.
const LAST_WORDS: usize = 64 * 1024;

/// A handshake that failed.
#[derive(Debug)]
pub struct Failed {
    /// The class.
    pub outcome: Handshake,
    /// The version that had been agreed upon by then.
    pub version: TlsVersion,
    /// What happened, in words; text of the other side's is in it only where a library has put it there.
    pub words: String,
    /// What is still to be said to the other side, and where.
    pub(super) parting: Option<Box<Parting>>,
}

/// A last word, and the connection it is for.
#[derive(Debug)]
pub(super) struct Parting {
    pub(super) socket: Stream,
    pub(super) words: Vec<u8>,
}

impl Failed {
    pub(super) fn new(outcome: Handshake, words: &str) -> Self {
        Self { outcome, words: words.to_owned(), version: TlsVersion::None, parting: None }
    }

    /// Something is to be said before the connection is closed.
    pub(super) fn saying(mut self, socket: Stream, words: Vec<u8>) -> Self {
        self.parting = Some(Box::new(Parting { socket, words }));
        self
    }

    /// Tells the other side by an alert, if there is one to send, and closes the connection. Reads on while the other side
    /// sends, within bounds: closing with unread bytes would be a reset, which takes back what was said.
    pub async fn take_leave(&mut self) {
        let Some(parting) = self.parting.take() else { return };
        let Parting { mut socket, words } = *parting;
        socket.set_abandoned(false);
        let leaving = async {
            let mut rest = &*words;
            while !rest.is_empty() {
                match poll_fn(|cx| socket.poll_send(cx, rest, false)).await {
                    Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                    Err(_gone) => return,
                }
            }
            socket.finish();
            socket.discard(LAST_WORDS).await;
        };
        if tokio::time::timeout(LEAVE, leaving).await.is_err() {
            socket.reset();
        }
    }

    /// The other side closed.
    pub(super) fn closed() -> Self {
        Self::new(Handshake::Closed, "it closed the connection during the handshake")
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        let outcome = if is_disconnect(errno) { Handshake::Reset } else { Handshake::Internal };
        Self { outcome, words: errno.to_string(), version: TlsVersion::None, parting: None }
    }
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        let outcome = if matches!(error, Error::NoCertificatesPresented) {
            Handshake::NoCertificate
        } else if matches!(error, Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_)) {
            Handshake::BadCertificate
        } else if matches!(error, Error::AlertReceived(_)) {
            Handshake::RefusedByClient
        } else if matches!(error, Error::PeerIncompatible(_) | Error::NoApplicationProtocol) {
            Handshake::Incompatible
        } else if matches!(error, Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes) {
            Handshake::Internal
        } else {
            Handshake::ProtocolError
        };
        Self { outcome, words: error.to_string(), version: TlsVersion::None, parting: None }
    }
}
