//! Version 1: one line of text. Section 2.1 of the specification.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Family, Header, Origin, Read};

/// What a line starts with.
pub(super) const GREETING: &[u8] = b"PROXY ";
/// The longest line, with its CRLF.
const LONGEST: usize = 107;

/// What may stand behind the greeting. Of the last one the rest of the line is to be ignored, whatever it is.
const TCP4: &[u8] = b"TCP4 ";
const TCP6: &[u8] = b"TCP6 ";
const UNKNOWN: &[u8] = b"UNKNOWN";

/// Reads a line that starts with the greeting. It goes from left to right and stops at the first thing that is wrong,
/// so that this stays the same when more of the line comes.
pub(super) fn read(bytes: &[u8]) -> Read {
    let line = bytes.get(..LONGEST).unwrap_or(bytes);
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).unwrap_or(line.len());
    let (text, ending) = line.split_at(end);
    let origin = read_text(text.strip_prefix(GREETING).unwrap_or_default(), !ending.is_empty())?;
    match ending {
        [b'\r', b'\n', ..] => Ok(origin.map(|origin| (Header::of(origin), end + 2))),
        [] | [b'\r'] if line.len() < LONGEST => Ok(None),
        [] | [b'\r'] => Err("a line of over 107 bytes"),
        [0, ..] => Err("a NUL in the line"),
        _ => Err("a line that does not end in CRLF"),
    }
}

/// Reads what stands between the greeting and the end of the line, as far as it has come.
fn read_text(text: &[u8], ended: bool) -> Result<Option<Origin>, &'static str> {
    let (rest, is_ipv6) = if let Some(rest) = text.strip_prefix(TCP4) {
        (rest, false)
    } else if let Some(rest) = text.strip_prefix(TCP6) {
        (rest, true)
    } else if text.starts_with(UNKNOWN) {
        return Ok(Some(Origin::Unknown));
    } else if !ended && [TCP4, TCP6, UNKNOWN].iter().any(|family| family.starts_with(text)) {
        return Ok(None);
    } else {
        return Err("a family that is not TCP4, TCP6 or UNKNOWN");
    };
    let mut words = Words { rest: Some(rest), ended };
    let mut address = || if is_ipv6 { words.ipv6() } else { words.ipv4() };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (words.port()?, words.port()?);
    if words.rest.is_some() {
        return Err("more than two addresses and two ports");
    }
    let place = |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?.to_canonical(), port?));
    Ok(place(source, source_port)
        .zip(place(destination, destination_port))
        .map(|(source, destination)| Origin::Tcp { source, destination }))
}

/// The words that are left of a line, one space between them. A word is judged when what ends it is there, and until
/// then by its length and its alphabet: each reader below gives nothing for one that may still become right.
struct Words<'a> {
    rest: Option<&'a [u8]>,
    ended: bool,
}

impl Words<'_> {
    /// IPv4 as the standard library reads it: four decimal numbers without leading zeros.
    fn ipv4(&mut self) -> Result<Option<IpAddr>, &'static str> {
        let longest = "255.255.255.255".len();
        let value = |text: &str| text.parse().ok().map(IpAddr::V4);
        self.next("an address that is not one of IPv4", longest, |byte| byte.is_ascii_digit() || byte == b'.', value)
    }

    /// IPv6 as the standard library reads it: the last two groups may be written like IPv4.
    fn ipv6(&mut self) -> Result<Option<IpAddr>, &'static str> {
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();
        let alphabet = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let value = |text: &str| text.parse().ok().map(IpAddr::V6);
        self.next("an address that is not one of IPv6", longest, alphabet, value)
    }

    /// A number up to 65535 without a sign or leading zeros, which could be taken for octal.
    fn port(&mut self) -> Result<Option<u16>, &'static str> {
        let value = |text: &str| text.parse().ok().filter(|_| text == "0" || !text.starts_with('0'));
        self.next("a port that is not a number up to 65535", "65535".len(), |byte| byte.is_ascii_digit(), value)
    }

    fn next<T>(
        &mut self,
        wrong: &'static str,
        longest: usize,
        alphabet: impl Fn(u8) -> bool,
        value: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, &'static str> {
        let Some(rest) = self.rest else {
            return if self.ended { Err("an address or a port is missing") } else { Ok(None) };
        };
        let space = rest.iter().position(|byte| *byte == b' ');
        let (word, rest) = rest.split_at(space.unwrap_or(rest.len()));
        self.rest = space.and(rest.get(1..));
        if word.len() > longest || !word.iter().all(|byte| alphabet(*byte)) {
            return Err(wrong);
        }
        if space.is_none() && !self.ended {
            return Ok(None);
        }
        std::str::from_utf8(word).ok().and_then(value).map(Some).ok_or(wrong)
    }
}

/// Writes a line. It has words for a TCP origin and for nothing else.
pub(super) fn write(origin: Origin) -> String {
    let (source, destination) = match origin {
        Origin::Local | Origin::Unknown | Origin::Unix => return "PROXY UNKNOWN\r\n".to_owned(),
        Origin::Tcp { source, destination } => (source, destination),
    };
    let ports = format!("{} {}", source.port(), destination.port());
    match Family::of(source.ip(), destination.ip()) {
        Family::V4(source, destination) => format!("PROXY TCP4 {source} {destination} {ports}\r\n"),
        Family::V6(source, destination) => {
            format!("PROXY TCP6 {} {} {ports}\r\n", in_groups(source), in_groups(destination))
        }
    }
}

/// IPv6 as the specification writes it, in groups of hexadecimal digits alone: the standard library would write the end
/// of a mapped address like IPv4, which not every receiver reads.
fn in_groups(ip: Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => ip.to_string(),
    }
}
