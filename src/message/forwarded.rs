//! What a proxy says of the client it speaks for: `Forwarded` (RFC 7239) and the `X-Forwarded-*` it grew out of, and what it
//! makes of what proxies before it have said.
//!
//! What strangers say is never passed on. What trusted proxies say is added to, and of the scheme, the host and the port,
//! which only the first proxy knows, theirs is kept. Those that speak one of the two forms alone are told on in both.

mod told;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::decimal::Decimal;
use super::list;
use super::token::{is_token, is_value};
use crate::net::address::{ClientAddr, Networks};
use told::Told;

/// What is known of a request here.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// From where it came to us: the peer, or whom the peer's PROXY header names.
    pub peer: ClientAddr,
    /// Whether what the peer says of others is believed.
    pub trusted: bool,
    /// `http` or `https`: how it came to us.
    pub scheme: &'static str,
    /// The port it came to; a unix socket has none.
    pub port: Option<u16>,
    /// The host it asks for, as `Host` has it; may be empty.
    pub host: &'a [u8],
}

/// What the request says already: the values of each of the fields, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Said<I> {
    /// Those of `Forwarded`.
    pub forwarded: I,
    /// Those of `X-Forwarded-For`.
    pub for_: I,
    /// Those of `X-Forwarded-Proto`.
    pub proto: I,
    /// Those of `X-Forwarded-Host`.
    pub host: I,
    /// Those of `X-Forwarded-Port`.
    pub port: I,
}

/// The names of the fields that [`Forwarding`] replaces, in its order.
pub const NAMES: [&str; 5] =
    ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];

/// What it takes to say all that is said beside the host, which is said twice.
const ROOM: usize = 256;
/// Enough for a host of the longest name that there is.
const MOST_KEPT: usize = 1024;

/// What is said to the server. The buffer is used again for the next request.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    /// In the form of HTTP/1, with the name before each value.
    lines: Vec<u8>,
    /// Where the value of each name stands.
    values: [Range<usize>; NAMES.len()],
}

impl Forwarding {
    /// Puts together what is said of a request, in place of what was said of the one before.
    pub fn write<'v, I: Iterator<Item = &'v [u8]> + Clone>(&mut self, hop: &Hop<'_>, said: Said<I>) {
        self.lines.clear();
        // No more, as it may be kept for long.
        self.lines.reserve_exact(ROOM + 2 * hop.host.len());
        let out = &mut self.lines;
        // What strangers say counts as nothing said.
        let heard = |values: I| values.map(<[u8]>::trim_ascii).filter(|value| hop.trusted && !value.is_empty());
        let (for_, proto, host) = (heard(said.for_), heard(said.proto), heard(said.host));
        let [forwarded_name, for_name, proto_name, host_name, port_name] = NAMES;

        // A quote that a stranger began, and that a proxy passed on, must not hide what we say.
        let forwarded = heard(said.forwarded).filter(|value| !list::leaves_a_quote_open(value));
        let told = match for_.clone().next() {
            Some(_) => Told::default(),
            None => Told::of(forwarded.clone()),
        };
        let forwarded = line(out, forwarded_name, |out| {
            let behind = join(out, forwarded)
                // Servers that read `Forwarded` read nothing else, and would take the proxy before us for the client.
                || translate(out, for_.clone(), first(proto.clone()), first(host.clone()));
            element(out, behind, Node::of(&hop.peer), Some(hop.scheme.as_bytes()), Some(hop.host));
        });
        let for_ = line(out, for_name, |out| {
            if join(out, for_) || tell(out, &told.for_) {
                out.extend_from_slice(b", ");
            }
            Node::of(&hop.peer).write_bare(out);
        });
        let proto_line = line(out, proto_name, |out| {
            if !join(out, proto.clone()) && !tell(out, &told.proto) {
                out.extend_from_slice(hop.scheme.as_bytes());
            }
        });
        let host = line(out, host_name, |out| {
            if !join(out, host) && !tell(out, &told.host) {
                out.extend_from_slice(hop.host);
            }
        });
        let port = line(out, port_name, |out| {
            if join(out, heard(said.port)) {
                return;
            }
            // The port that goes with the scheme the client used, if that is only known from a proxy.
            let port = match first(proto).or(Some(&told.proto)) {
                Some(b"https" | b"wss") => Some(443),
                Some(b"http" | b"ws") => Some(80),
                Some(_) | None => hop.port,
            };
            if let Some(port) = port {
                out.extend_from_slice(Decimal::new(port.into()).as_bytes());
            }
        });
        self.values = [forwarded, for_, proto_line, host, port];
    }

    /// Whether it says that this is the host which was asked for. Of a stranger that is all in which what is said of one of its
    /// requests can differ from what is said of another.
    #[must_use]
    pub fn is_for(&self, host: &[u8]) -> bool {
        let [_, _, _, said, _] = &self.values;
        self.lines.get(said.clone()).unwrap_or_default() == host
    }

    /// Whether it is small enough to be kept while nobody needs it: a host may be as long as a head.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.lines.capacity() <= MOST_KEPT
    }

    /// The fields to be sent in place of all that have one of [`NAMES`]; one without a value is left out.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        NAMES.into_iter().zip(&self.values).filter_map(|(name, place)| {
            let value = self.lines.get(place.clone()).unwrap_or_default();
            (!value.is_empty()).then_some((name, value))
        })
    }

    /// The same fields as lines of HTTP/1.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }
}

/// Writes a line, unless there is nothing to its value; where that stands.
fn line(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    let before = out.len();
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    let start = out.len();
    value(out);
    let end = out.len();
    match start == end {
        true => out.truncate(before),
        false => out.extend_from_slice(b"\r\n"),
    }
    start..end
}

/// On whose behalf a request was made: `X-Forwarded-For`, or `Forwarded` if there is none, is read from its end, past those
/// whose word is taken. What is no address ends that, as nobody trusted has written it. An address without a port gets the
/// port 0.
#[must_use]
pub fn real_client<'v>(
    trusted: &Networks,
    peer: ClientAddr,
    x_forwarded_for: impl Iterator<Item = &'v [u8]>,
    forwarded: impl Iterator<Item = &'v [u8]>,
) -> ClientAddr {
    if !trusted.contain(&peer) {
        return peer;
    }
    let mut entries = x_forwarded_for.flat_map(entries).peekable();
    match entries.peek() {
        Some(_) => last_stranger(trusted, entries).unwrap_or(peer),
        None => last_stranger(trusted, self::entries(&Told::of(forwarded).for_)).unwrap_or(peer),
    }
}

/// The last of these that is not trusted, or else the first of those that are.
fn last_stranger<'v>(trusted: &Networks, entries: impl Iterator<Item = &'v [u8]>) -> Option<ClientAddr> {
    // Read from the front, so that nothing has to be remembered: of a run of trusted ones at the end, the stranger before
    // it is the answer, or else its first.
    let mut found = None;
    for entry in entries {
        found = match parse_entry(entry).map(ClientAddr::Tcp) {
            None => None,
            Some(client) if trusted.contain(&client) => found.or(Some(client)),
            stranger => stranger,
        };
    }
    found
}

/// The scheme that a client used, as the first proxy tells it in `X-Forwarded-Proto`, or in `Forwarded` if it is not there.
#[must_use]
pub fn told_scheme<'v>(
    x_forwarded_proto: impl Iterator<Item = &'v [u8]>,
    forwarded: impl Iterator<Item = &'v [u8]>,
) -> Option<&'static str> {
    let told = first(x_forwarded_proto).map_or_else(|| Told::of(forwarded).proto, <[u8]>::to_vec);
    ["http", "https"].into_iter().find(|scheme| told.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// What stands between commas, be there quotes or not: `X-Forwarded-For` has none, and one that a stranger began must not hide
/// what comes behind it.
fn entries(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// The first of what a field lists.
fn first<'v>(values: impl Iterator<Item = &'v [u8]>) -> Option<&'v [u8]> {
    values.flat_map(entries).next()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_entry(entry: &[u8]) -> Option<SocketAddr> {
    let entry = std::str::from_utf8(entry).ok()?;
    let address = match entry.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => match entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => SocketAddr::new(inner.parse::<Ipv6Addr>().ok()?.into(), 0),
            None => entry.parse().ok()?,
        },
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Somebody on the way of a request, as far as that is told.
#[derive(Clone, Copy, Debug)]
enum Node {
    Ip(IpAddr),
    Unix,
    Unknown,
}

impl Node {
    fn of(client: &ClientAddr) -> Self {
        match client {
            ClientAddr::Tcp(address) => Self::Ip(address.ip().to_canonical()),
            ClientAddr::Unix => Self::Unix,
        }
    }

    /// As `Forwarded` has it (RFC 7239 §6).
    fn write_identifier(self, out: &mut Vec<u8>) {
        match self {
            Self::Ip(IpAddr::V4(ip)) => dotted(out, ip),
            Self::Ip(IpAddr::V6(ip)) => text(out, format_args!("\"[{ip}]\"")),
            Self::Unix => out.extend_from_slice(b"_unix"),
            Self::Unknown => out.extend_from_slice(b"unknown"),
        }
    }

    /// As `X-Forwarded-For` has it.
    fn write_bare(self, out: &mut Vec<u8>) {
        match self {
            Self::Ip(IpAddr::V4(ip)) => dotted(out, ip),
            Self::Ip(IpAddr::V6(ip)) => text(out, format_args!("{ip}")),
            Self::Unix | Self::Unknown => out.extend_from_slice(b"unknown"),
        }
    }
}

/// Puts values behind each other as one list; whether there was any.
fn join<'v>(out: &mut Vec<u8>, values: impl Iterator<Item = &'v [u8]>) -> bool {
    let mut any = false;
    for value in values {
        if any {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
        any = true;
    }
    any
}

/// Writes what was told in other words; whether that is anything.
fn tell(out: &mut Vec<u8>, told: &[u8]) -> bool {
    out.extend_from_slice(told);
    !told.is_empty()
}

/// Says in the words of `Forwarded` what was said in `X-Forwarded-*` (RFC 7239 §7.4): the scheme and the host are of the first
/// of those whom it was forwarded for. Without any of them nothing is said; whether there was any.
fn translate<'v>(
    out: &mut Vec<u8>,
    for_: impl Iterator<Item = &'v [u8]>,
    mut proto: Option<&[u8]>,
    mut host: Option<&[u8]>,
) -> bool {
    let mut any = false;
    for entry in for_.flat_map(entries) {
        let node = parse_entry(entry).map_or(Node::Unknown, |address| Node::Ip(address.ip()));
        element(out, any, node, proto.take(), host.take());
        any = true;
    }
    any
}

/// One element of `Forwarded`; `behind` others, if there are any.
fn element(out: &mut Vec<u8>, behind: bool, node: Node, proto: Option<&[u8]>, host: Option<&[u8]>) {
    if behind {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(b"for=");
    node.write_identifier(out);
    for (name, value) in [("host=", host), ("proto=", proto)] {
        let Some(value) = value.filter(|value| !value.is_empty() && is_value(value)) else {
            continue;
        };
        out.push(b';');
        out.extend_from_slice(name.as_bytes());
        quote(out, value);
    }
}

/// Writes a value as a token if it is one, and else as a quoted string (RFC 9110 §5.6.4).
fn quote(out: &mut Vec<u8>, value: &[u8]) {
    if is_token(value) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    let mut rest = value;
    while let Some((before, from)) = memchr::memchr2(b'"', b'\\', rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(before);
        out.push(b'\\');
        // The one that is escaped, at the least.
        let (escaped, behind) = from.split_at(1);
        out.extend_from_slice(escaped);
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// An IPv4 address: every request has one or two, so that it is worth not going through a formatter.
fn dotted(out: &mut Vec<u8>, ip: Ipv4Addr) {
    let mut text = [0; "255.255.255.255".len()];
    let mut length = 0;
    let mut places = text.iter_mut();
    let mut write = |byte| {
        if let Some(place) = places.next() {
            *place = byte;
            length += 1;
        }
    };
    for (place, octet) in ip.octets().into_iter().enumerate() {
        if place > 0 {
            write(b'.');
        }
        if octet >= 100 {
            write(b'0' + octet / 100);
        }
        if octet >= 10 {
            write(b'0' + octet / 10 % 10);
        }
        write(b'0' + octet % 10);
    }
    out.extend_from_slice(text.get(..length).unwrap_or_default());
}

/// Writing to a buffer in memory cannot fail.
fn text(out: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
}

#[cfg(test)]
mod tests;
