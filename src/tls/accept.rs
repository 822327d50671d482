//! The handshake with a client, and taking leave of one that it fails with.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::Semaphore;

use super::certificate::Facts;
use super::failure::Failed;
use super::hello::{Hello, Sniffed};
use super::stream::{TlsStream, ToClient};
use super::terminator::Terminator;
use crate::ending::{Handshake, TlsVersion};
use crate::net::stream::Stream;

/// A fatal alert `unrecognized_name` in a record of its own (RFC 8446 §6, RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// A fatal alert `decode_error`.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// How long the handshakes of a worker may compute before whatever else is due has its turn.
const STRETCH: Duration = Duration::from_millis(1);
/// A pause after which a stretch is over by itself: other work was done meanwhile.
const PAUSE: Duration = Duration::from_micros(100);

/// Lets the handshakes of a worker compute one after another, a stretch at a time with everything else that is due in
/// between: however many clients shake hands at once, an established connection does not wait for all of them.
#[derive(Debug)]
pub struct Turns {
    one: Semaphore,
    /// When the last step ended, and how long those of its stretch have taken.
    stretch: Cell<(Instant, Duration)>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { one: Semaphore::new(1), stretch: Cell::new((Instant::now(), Duration::ZERO)) }
    }
}

impl Turns {
    /// Computes a step when its turn has come.
    async fn take<T>(&self, step: impl FnOnce() -> T) -> T {
        // The semaphore is never closed; were it, the step would go ahead.
        let _turn = self.one.acquire().await;
        let (ended, spent) = self.stretch.get();
        let (mut began, mut spent) = (Instant::now(), spent);
        if began.duration_since(ended) > PAUSE {
            spent = Duration::ZERO;
        } else if spent > STRETCH {
            // Whoever wants a turn meanwhile waits for it behind this one.
            tokio::task::yield_now().await;
            (began, spent) = (Instant::now(), Duration::ZERO);
        }
        let result = step();
        let ended = Instant::now();
        self.stretch.set((ended, spent + ended.duration_since(began)));
        result
    }
}

/// A client that shook hands.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: Box<TlsStream<ToClient>>,
    /// The name it asked for.
    pub server_name: Option<Box<str>>,
    /// The protocol that was agreed upon by ALPN.
    pub alpn: Option<Box<[u8]>>,
    /// Whether it resumed an earlier session.
    pub resumed: bool,
    /// Whom its certificate is about, if it showed one; it was verified.
    pub identity: Option<Box<Facts>>,
}

/// Shakes hands with a client of which `received` was read, and `sniffed` made out, so far.
///
/// There is no deadline here; dropping the future ends the attempt and resets the connection.
///
/// # Errors
/// Why it failed. [`Failed::take_leave`] tells the client.
pub async fn accept(
    mut socket: Stream,
    received: Vec<u8>,
    sniffed: Sniffed,
    terminator: &Terminator,
    turns: &Turns,
) -> Result<Accepted, Failed> {
    socket.set_abandoned(true);
    let (server_name, prefers_chacha) = match sniffed {
        Sniffed::Hello(Hello { server_name, prefers_chacha, .. }) => (server_name, prefers_chacha),
        Sniffed::NotTls => return Err(Failed::new(Handshake::NotTls, "it does not speak TLS")),
        Sniffed::Incomplete => return Err(Failed::closed()),
        Sniffed::Malformed(why) => {
            let failed = Failed::new(Handshake::ProtocolError, &format!("it sent a ClientHello {why}"));
            return Err(failed.saying(socket, DECODE_ERROR.to_vec()));
        }
    };
    let Some(chosen) = terminator.choose(server_name.as_deref(), prefers_chacha) else {
        return Err(unknown_name(socket, "there is no certificate for the name it asked for"));
    };
    let engine = ToClient::new(Arc::clone(chosen.config)).map_err(|error| Failed::from(&error))?;
    let mut stream = Box::new(TlsStream::new(socket, engine, received, Vec::new()));
    let shaken = shake_hands(&mut stream, turns).await.and_then(|()| is_resumed(&stream, chosen.verifier));
    match shaken {
        Ok(resumed) => {
            stream.set_abandoned(false);
            Ok(Accepted {
                alpn: stream.state().alpn_protocol().map(Into::into),
                identity: identity(&stream),
                server_name,
                resumed,
                stream,
            })
        }
        Err(failed) if matches!(failed.outcome, Handshake::Closed | Handshake::Reset) => Err(failed),
        Err(failed) => {
            let version = stream.version();
            let (socket, alert) = stream.into_parts();
            Err(Failed { version, ..failed }.saying(socket, alert))
        }
    }
}

/// Refuses a client for the name it asks for.
#[must_use]
pub fn unknown_name(socket: Stream, words: &str) -> Failed {
    Failed::new(Handshake::UnknownName, words).saying(socket, UNRECOGNIZED_NAME.to_vec())
}

async fn shake_hands(stream: &mut TlsStream<ToClient>, turns: &Turns) -> Result<(), Failed> {
    loop {
        turns.take(|| stream.step()).await.map_err(|error| Failed::from(&error))?;
        let done = !stream.is_handshaking();
        // What is left to say then are tickets; but in TLS 1.2 it is also our Finished, which the client waits for.
        if done && stream.version() == TlsVersion::Tls13 {
            stream.let_it_wait();
            return Ok(());
        }
        poll_fn(|cx| stream.poll_send_all(cx)).await?;
        if done {
            return Ok(());
        }
        poll_fn(|cx| stream.poll_fill(cx)).await?;
    }
}

/// Whether the client has resumed a session. Its certificate was verified when the session began and is verified again:
/// it may have run out since.
fn is_resumed(stream: &TlsStream<ToClient>, verifier: Option<&Arc<dyn ClientCertVerifier>>) -> Result<bool, Failed> {
    if stream.state().handshake_kind() != Some(HandshakeKind::Resumed) {
        return Ok(false);
    }
    if let (Some(verifier), Some((own, chain))) =
        (verifier, stream.state().peer_certificates().and_then(<[_]>::split_first))
    {
        verifier.verify_client_cert(own, chain, UnixTime::now()).map_err(|error| Failed::from(&error))?;
    }
    Ok(true)
}

fn identity(stream: &TlsStream<ToClient>) -> Option<Box<Facts>> {
    // It was verified, so it can be read; were it not, nobody would be named.
    Facts::of(stream.state().peer_certificates()?.first()?).ok().map(Box::new)
}
