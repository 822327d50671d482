//! What a TLS client says first, read without answering it: the ClientHello.
//!
//! [`Sniffer`] finds the message in the client's first bytes, in whatever segments and records they come, and takes from
//! it the server name and the protocols offered (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301). It consumes
//! nothing: whoever goes on with the connection, a server behind us or TLS of our own, gets the same bytes from the first
//! on. What the rest of the message says is theirs to judge.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

/// A record's type, version and length (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
/// The most a record carries in the clear.
const LONGEST_RECORD: usize = 16 * 1024;
/// The type of a ClientHello among the handshake messages.
const CLIENT_HELLO: u8 = 1;
/// A handshake message's type and length (RFC 8446 section 4).
const MESSAGE_HEADER: usize = 4;
/// The extensions that are read (RFC 6066 section 3, RFC 7301 section 3.1).
const SERVER_NAME: usize = 0;
const ALPN: usize = 16;
/// The only type of server name there is (RFC 6066 section 3).
const HOST_NAME: usize = 0;
/// How many bytes may be received before the ClientHello has to be there: the longest one and 64 headers of records. Who
/// cuts a message finer than that has no honest reason.
const MOST_RECEIVED: usize = Sniffer::MOST + 64 * RECORD_HEADER;

const OVERRUN: &str = "with a field longer than what holds it";
const LEFT_OVER: &str = "with bytes left over";
const TOO_MANY_RECORDS: &str = "in too many records";

/// What is known of a client's first bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sniffed {
    /// More bytes may make it a ClientHello.
    #[default]
    Incomplete,
    /// The client speaks TLS, and this is what it wants.
    Hello(Hello),
    /// The first bytes open no TLS handshake: plain text, or anything else.
    NotTls,
    /// It began as TLS and broke a rule. The phrase says which and continues "a ClientHello".
    Malformed(&'static str),
}

/// What a ClientHello says that matters for choosing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The DNS name of the server wanted, in lower case and without a trailing dot; `None` when the client names none, or
    /// names an IP address, which RFC 6066 forbids and clients do.
    pub server_name: Option<Box<str>>,
    /// The application protocols offered, in the client's order; empty when it does not say.
    pub alpn: Vec<Box<[u8]>>,
    /// Whether it would rather have ChaCha20-Poly1305 than AES, as devices do whose processors compute no AES.
    pub prefers_chacha: bool,
}

impl Hello {
    /// Whether the client offers this application protocol, such as `b"h2"`.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| **offered == *protocol)
    }
}

/// Reads a ClientHello across segments and records.
///
/// It copies nothing of a message that lies in one record, and keeps one copy of any other.
#[derive(Debug, Default)]
pub struct Sniffer {
    /// Once it is not `Incomplete`, it stays.
    verdict: Sniffed,
    /// How many of the bytes were read: whole record headers, and of the bodies what has arrived.
    read: usize,
    /// How many bytes of the record begun last have yet to arrive.
    left: usize,
    /// The message without its record headers. Empty while the first record holds all of it: then it is read in place.
    joined: Vec<u8>,
}

impl Sniffer {
    /// The most bytes a ClientHello may have, its own header included.
    pub const MOST: usize = 16 * 1024;

    /// A reader that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what is known of a client that has sent `bytes`.
    ///
    /// These are all the bytes received so far, from the first one on; between calls they only grow. The work is
    /// proportional to what is new, and the verdict does not depend on how the bytes were divided among the calls.
    pub fn look(&mut self, bytes: &[u8]) -> Sniffed {
        if self.verdict == Sniffed::Incomplete {
            self.verdict = self.read_on(bytes);
        }
        self.verdict.clone()
    }

    fn read_on(&mut self, bytes: &[u8]) -> Sniffed {
        let window = bytes.get(..MOST_RECEIVED).unwrap_or(bytes);
        while let Some(new) = window.get(self.read..).filter(|new| !new.is_empty()) {
            if self.left == 0 {
                if !may_open_a_handshake_record(new) {
                    return match self.read {
                        0 => Sniffed::NotTls,
                        _ => Sniffed::Malformed("interrupted by another record"),
                    };
                }
                let [_, _, _, high, low, ..] = *new else { break };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if !(1..=LONGEST_RECORD).contains(&length) {
                    return Sniffed::Malformed("in a record of a forbidden length");
                }
                if self.joined.is_empty() {
                    let first = window.get(RECORD_HEADER..self.read).unwrap_or_default();
                    self.joined.extend_from_slice(first);
                }
                self.read += RECORD_HEADER;
                self.left = length;
            } else {
                let arrived = new.get(..self.left).unwrap_or(new);
                if !self.joined.is_empty() {
                    self.joined.extend_from_slice(arrived);
                }
                self.read += arrived.len();
                self.left -= arrived.len();
            }
            match self.message(window) {
                Ok(None) => {}
                Ok(Some(hello)) => return Sniffed::Hello(hello),
                Err(why) => return Sniffed::Malformed(why),
            }
        }
        match bytes.len() {
            ..MOST_RECEIVED => Sniffed::Incomplete,
            MOST_RECEIVED.. => Sniffed::Malformed(TOO_MANY_RECORDS),
        }
    }

    /// Judges the message as far as it has arrived, and reads it when all of it has.
    fn message(&self, bytes: &[u8]) -> Result<Option<Hello>, &'static str> {
        let arrived = match self.joined.is_empty() {
            true => bytes.get(RECORD_HEADER..self.read).unwrap_or_default(),
            false => &self.joined,
        };
        if arrived.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err("replaced by another handshake message");
        }
        let Some((header, body)) = arrived.split_at_checked(MESSAGE_HEADER) else { return Ok(None) };
        let length = number(header.get(1..).unwrap_or_default());
        if MESSAGE_HEADER + length > Self::MOST {
            return Err("too long");
        }
        // The keys change behind a ClientHello, so its last record must end with it (RFC 8446 section 5.1).
        if body.len() + self.left > length {
            return Err("followed by other data in its record");
        }
        if body.len() == length { client_hello(body).map(Some) } else { Ok(None) }
    }
}

/// Whether these bytes, as far as they go, are the header of a handshake record of SSL 3.0 or any TLS.
fn may_open_a_handshake_record(bytes: &[u8]) -> bool {
    matches!(bytes, [] | [22] | [22, 3] | [22, 3, 0..=4, ..])
}

/// Reads the body of a ClientHello (RFC 8446 section 4.1.2).
fn client_hello(body: &[u8]) -> Result<Hello, &'static str> {
    let mut fields = Fields(body);
    let (_version, _random) = (fields.take(2)?, fields.take(32)?);
    if fields.vector(1)?.len() > 32 {
        return Err("with a session id of more than 32 bytes");
    }
    let cipher_suites = fields.vector(2)?;
    if cipher_suites.is_empty() || cipher_suites.len() % 2 != 0 {
        return Err("with an ill-formed list of cipher suites");
    }
    let prefers_chacha = prefers_chacha(cipher_suites);
    if fields.vector(1)?.is_empty() {
        return Err("without a compression method");
    }
    let (mut server_names, mut protocols) = (None, None);
    // Before TLS 1.3 a client without extensions may end here (RFC 5246 section 7.4.1.2).
    if !fields.is_empty() {
        let mut extensions = fields.last_vector()?;
        while !extensions.is_empty() {
            let kind = extensions.number(2)?;
            let extension = extensions.vector(2)?;
            let place = match kind {
                SERVER_NAME => &mut server_names,
                ALPN => &mut protocols,
                _ => continue,
            };
            if place.replace(extension).is_some() {
                return Err("with the same extension twice");
            }
        }
    }
    Ok(Hello {
        server_name: server_names.map_or(Ok(None), server_name)?,
        alpn: protocols.map_or(Ok(Vec::new()), alpn)?,
        prefers_chacha,
    })
}

/// Whether the first cipher suite with authenticated encryption that a server would choose has ChaCha20-Poly1305
/// (RFC 8446 section B.4, RFC 5289, RFC 7905).
fn prefers_chacha(cipher_suites: &[u8]) -> bool {
    let known = cipher_suites.chunks_exact(2).map(number).find_map(|suite| match suite {
        0x1303 | 0xcca8 | 0xcca9 => Some(true),
        0x1301 | 0x1302 | 0xc02b | 0xc02c | 0xc02f | 0xc030 => Some(false),
        _ => None,
    });
    known.unwrap_or(false)
}

/// Reads the server_name extension (RFC 6066 section 3).
fn server_name(extension: &[u8]) -> Result<Option<Box<str>>, &'static str> {
    let mut list = Fields(extension).last_vector()?;
    if list.is_empty() {
        return Err("with an empty list of server names");
    }
    let mut found = None;
    while !list.is_empty() {
        let kind = list.number(1)?;
        // Types to come are framed the same way, says the RFC.
        let name = list.vector(2)?;
        if kind == HOST_NAME && found.replace(name).is_some() {
            return Err("with two server names");
        }
    }
    found.map_or(Ok(None), host_name)
}

/// Reads a host name; `None` if it is an IP address.
fn host_name(name: &[u8]) -> Result<Option<Box<str>>, &'static str> {
    const NO_NAME: &str = "with a server name that is no DNS name";
    let name = str::from_utf8(name.strip_suffix(b".").unwrap_or(name)).map_err(|_| NO_NAME)?;
    // Asked first, for an IPv4 address has the form of a name.
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let is_label = |label: &str| {
        matches!(label.len(), 1..=63) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(NO_NAME);
    }
    Ok(Some(name.to_ascii_lowercase().into_boxed_str()))
}

/// Reads the application_layer_protocol_negotiation extension (RFC 7301 section 3.1).
fn alpn(extension: &[u8]) -> Result<Vec<Box<[u8]>>, &'static str> {
    let mut list = Fields(extension).last_vector()?;
    if list.is_empty() {
        return Err("with an empty list of protocols");
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        match list.vector(1)? {
            [] => return Err("with a protocol without a name"),
            protocol => protocols.push(Box::from(protocol)),
        }
    }
    Ok(protocols)
}

/// What is left to read of the fields of a message, in the presentation of RFC 8446 section 3.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(OVERRUN)?;
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self, width: usize) -> Result<usize, &'static str> {
        self.take(width).map(number)
    }

    /// A vector whose length is written in `width` bytes.
    fn vector(&mut self, width: usize) -> Result<&'a [u8], &'static str> {
        let length = self.number(width)?;
        self.take(length)
    }

    /// A vector whose length is written in two bytes and behind which nothing may follow.
    fn last_vector(mut self) -> Result<Self, &'static str> {
        let vector = self.vector(2)?;
        if self.is_empty() { Ok(Self(vector)) } else { Err(LEFT_OVER) }
    }
}

/// At most three bytes as the number they write, the highest first.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
