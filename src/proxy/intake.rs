//! From an accepted socket to a client that has said who it is and where to: the PROXY header, the ClientHello, TLS.

use tokio::time::{Instant, timeout_at};

use super::ends::ClientEnd;
use super::reasons;
use super::record::Record;
use crate::ending::{Handshake, Reason, TlsVersion};
use crate::net::address::{ClientAddr, Endpoint};
use crate::net::proxy_protocol::{self, Header, Origin, Verdict};
use crate::net::stream::Stream;
use crate::snapshot::{Front, Listener};
use crate::tls::hello::{Hello, Sniffed, Sniffer};
use crate::tls::{Accepted, Failed, Terminator, accept, unknown_name};

/// A client that has said where to.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) end: ClientEnd,
    /// What it has sent for the server so far.
    pub(super) early: Vec<u8>,
    /// The server name that it asked for itself, in its ClientHello: routes go by nothing else.
    pub(super) asked_for: Option<Box<str>>,
    /// What it offered, or agreed on where TLS ends here, by ALPN.
    pub(super) protocols: Vec<Box<[u8]>>,
    /// What it connected to, as the proxy in front says.
    pub(super) destination: Option<Endpoint>,
    /// Whether it must not send a PROXY header and may still be about to.
    pub(super) screened: bool,
}

impl Arrived {
    fn plain(socket: Stream, early: Vec<u8>) -> Self {
        let end = ClientEnd::Plain(socket);
        Self { end, early, asked_for: None, protocols: Vec::new(), destination: None, screened: false }
    }
}

/// Takes a client that has nothing to say of itself first, see [`Listener::hears_out_nobody`], with what it has sent by now.
///
/// # Errors
/// Why it goes no further. The connection is closed with a reset.
pub(super) fn arrive_at_once(record: &Record, mut socket: Stream) -> Result<Arrived, Reason> {
    socket.set_abandoned(true);
    let early = record.desk.scratch.read_early(&socket).map_err(reasons::of_read)?;
    Ok(Arrived::plain(socket, early))
}

/// Lets a client say what it has to, within the listener's handshake timeout. One that has nothing to say first is not
/// waited for.
///
/// # Errors
/// Why it goes no further. The connection is closed.
pub(super) async fn arrive(record: &mut Record, socket: Stream, listener: &Listener) -> Result<Arrived, Reason> {
    let must_announce = listener.proxy_protocol.as_ref().map(|from| from.contain(&record.client()));
    // Most clients speak first and have spoken by now. Nothing is lost if not: the server is not kept waiting either way.
    let early = record.desk.scratch.read_early(&socket).map_err(reasons::of_read)?;
    if matches!(listener.front, Front::Plain) && must_announce != Some(true) {
        let mut arrived = Arrived::plain(socket, early);
        if must_announce == Some(false) {
            arrived.screened = may_yet_announce(&arrived.early)?;
        }
        return Ok(arrived);
    }
    let deadline = record.accepted() + listener.timeouts.handshake;
    // Large, and of no use to plain connections, which would carry the room for it.
    let listening = Box::pin(listen(record, socket, early, listener, must_announce));
    let outcome = timeout_at(deadline, listening).await;
    let terminates = matches!(listener.front, Front::Tls(_));
    let mut failed = match outcome {
        Ok(Ok(arrived)) => return Ok(arrived),
        Ok(Err(Refused::For(reason))) => return Err(reason),
        Ok(Err(Refused::After(failed))) => failed,
        Err(_elapsed) => {
            if terminates {
                record.listener().shook_hands(record.desk.worker, TlsVersion::None, Handshake::Timeout);
            }
            return Err(Reason::HandshakeTimeout);
        }
    };
    record.failed(&failed);
    if terminates {
        record.listener().shook_hands(record.desk.worker, failed.version, failed.outcome);
    }
    Box::pin(failed.take_leave()).await;
    // To a client that TLS does not end for here, a name without a route is no fault of its TLS.
    let no_route = !terminates && failed.outcome == Handshake::UnknownName;
    Err(if no_route { Reason::NoRoute } else { reasons::of_handshake(failed.outcome) })
}

/// Why a client goes no further.
enum Refused {
    For(Reason),
    /// The same for one that is told so first.
    After(Failed),
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::For(reason)
    }
}

async fn listen(
    record: &mut Record,
    socket: Stream,
    mut early: Vec<u8>,
    listener: &Listener,
    must_announce: Option<bool>,
) -> Result<Arrived, Refused> {
    let destination = match must_announce {
        Some(true) => read_header(record, &socket, &mut early).await?,
        Some(false) => {
            while may_yet_announce(&early)? {
                read_more(record, &socket, &mut early).await?;
            }
            None
        }
        None => None,
    };
    let arrived = match &listener.front {
        Front::Plain => Arrived::plain(socket, early),
        Front::Sniff => sniff(record, socket, early, listener).await?,
        Front::Tls(terminator) => terminate(record, socket, early, terminator).await?,
    };
    Ok(Arrived { destination, ..arrived })
}

async fn read_more(record: &Record, socket: &Stream, early: &mut Vec<u8>) -> Result<(), Reason> {
    match record.desk.scratch.read_more(socket, early).await {
        Ok(0) => Err(Reason::ClientClosed),
        Ok(_) => Ok(()),
        Err(errno) => Err(reasons::of_read(errno)),
    }
}

/// Whether a client that must not send a PROXY header may still be about to.
pub(super) fn may_yet_announce(early: &[u8]) -> Result<bool, Reason> {
    match proxy_protocol::parse(early) {
        Verdict::NeedMore if is_signature(early) => Err(Reason::BadProxyHeader),
        Verdict::NeedMore => Ok(true),
        Verdict::Absent => Ok(false),
        Verdict::Header { .. } | Verdict::Bad(_) => Err(Reason::BadProxyHeader),
    }
}

/// Whether these bytes, which may become a header, can become nothing else any more.
fn is_signature(early: &[u8]) -> bool {
    early.len() >= 12 || early.len() >= 6 && early.starts_with(b"PROXY ")
}

/// Reads the header that a proxy in front has to send, and takes over whom it speaks for. What comes behind it stays in
/// `early`. Returns what the client connected to.
async fn read_header(record: &mut Record, socket: &Stream, early: &mut Vec<u8>) -> Result<Option<Endpoint>, Reason> {
    let (header, length) = loop {
        match proxy_protocol::parse(early) {
            Verdict::Header { header, length } => break (header, length),
            Verdict::NeedMore => read_more(record, socket, early).await?,
            Verdict::Absent => {
                record.failed("it began without a PROXY header");
                return Err(Reason::BadProxyHeader);
            }
            Verdict::Bad(why) => {
                record.failed(format_args!("its PROXY header is broken: {why}"));
                return Err(Reason::BadProxyHeader);
            }
        }
    };
    early.drain(..length);
    let Header { origin, authority, alpn: _, unique_id } = header;
    if authority.is_some() {
        record.more().server_name = authority;
    }
    if unique_id.is_some() {
        record.more().unique_id = unique_id;
    }
    Ok(match origin {
        Origin::Local | Origin::Unknown => None,
        Origin::Unix => {
            record.set_client(ClientAddr::Unix);
            None
        }
        Origin::Tcp { source, destination } => {
            record.set_client(ClientAddr::Tcp(source));
            Some(Endpoint::Tcp(destination))
        }
    })
}

/// Reads on until it is clear what the client says first.
async fn make_out(record: &Record, socket: &Stream, early: &mut Vec<u8>) -> Result<Sniffed, Reason> {
    let mut sniffer = Sniffer::new();
    let mut sniffed = sniffer.look(early);
    while sniffed == Sniffed::Incomplete {
        read_more(record, socket, early).await?;
        sniffed = sniffer.look(early);
    }
    Ok(sniffed)
}

async fn sniff(
    record: &mut Record,
    socket: Stream,
    mut early: Vec<u8>,
    listener: &Listener,
) -> Result<Arrived, Refused> {
    let sniffed = make_out(record, &socket, &mut early).await?;
    let Sniffed::Hello(hello) = sniffed else {
        if listener.leads_on(None, |_| false) {
            return Ok(Arrived::plain(socket, early));
        }
        record.failed("it did not begin with a ClientHello");
        return Err(Reason::TlsError.into());
    };
    let leads_on = listener.leads_on(hello.server_name.as_deref(), |protocol| hello.offers(protocol));
    let Hello { server_name, alpn, .. } = hello;
    if server_name.is_some() {
        record.more().server_name.clone_from(&server_name);
    }
    if !leads_on {
        let failed = unknown_name(socket, "there is no route for the name and protocols it asked for");
        return Err(Refused::After(failed));
    }
    Ok(Arrived { asked_for: server_name, protocols: alpn, ..Arrived::plain(socket, early) })
}

async fn terminate(
    record: &mut Record,
    socket: Stream,
    mut early: Vec<u8>,
    terminator: &Terminator,
) -> Result<Arrived, Refused> {
    let sniffed = match make_out(record, &socket, &mut early).await {
        Ok(sniffed) => sniffed,
        Err(reason) => {
            let outcome = if reason == Reason::ClientClosed { Handshake::Closed } else { Handshake::Reset };
            record.listener().shook_hands(record.desk.worker, TlsVersion::None, outcome);
            return Err(reason.into());
        }
    };
    if let Sniffed::Hello(Hello { server_name: Some(name), .. }) = &sniffed {
        record.more().server_name = Some(name.clone());
    }
    let shaken = accept(socket, early, sniffed, terminator, &record.desk.turns).await;
    let Accepted { mut stream, server_name, alpn, resumed, identity } = shaken.map_err(Refused::After)?;
    let outcome = if resumed { Handshake::Resumed } else { Handshake::Full };
    record.listener().shook_hands(record.desk.worker, stream.version(), outcome);
    let more = record.more();
    if server_name.is_some() {
        more.server_name.clone_from(&server_name);
    }
    more.tls = Some(stream.version());
    more.identity = identity;
    Ok(Arrived {
        early: stream.take_early(),
        end: ClientEnd::Tls(stream),
        asked_for: server_name,
        protocols: alpn.into_iter().collect(),
        destination: None,
        screened: false,
    })
}

/// Until when somebody who has said nothing yet may go on so.
pub(super) async fn no_longer_than<T>(
    until: Instant,
    work: impl Future<Output = Result<T, Reason>>,
) -> Result<T, Reason> {
    timeout_at(until, work).await.unwrap_or(Err(Reason::IdleTimeout))
}
