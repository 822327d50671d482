//! The PROXY protocol, both versions: what a proxy says in front of a connection about where it came from. Pure.
//!
//! The source is HAProxy's proxy-protocol.txt, whose sections are cited in `line`, which is version 1, and in `binary`,
//! which is version 2. Whose word is taken, and how long a header may take to arrive, is decided elsewhere; here bytes
//! become a verdict, and an announcement becomes bytes.

mod binary;
mod line;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most bytes of a header that are read: the fixed part of version 2 and 16 KiB of addresses and additions. The
/// format goes up to 64 KiB, which nobody needs and everybody who may send a header could make us hold.
pub const MOST: usize = binary::FIXED_PART + 16 * 1024;

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may become a header: come back with more.
    NeedMore,
    /// They are no beginning of a header.
    Absent,
    /// They begin with a header.
    Header {
        /// What it says.
        header: Header,
        /// How many bytes it takes; what comes behind them is the connection's.
        length: usize,
    },
    /// They begin like a header and break a rule. More bytes cannot mend that.
    Bad(&'static str),
}

/// A header that was read. Of an addition that stands there several times the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// On whose behalf the connection was made.
    pub origin: Origin,
    /// The name of the host that the client asked for, at most 255 bytes. Nothing more is known of it.
    pub authority: Option<Box<str>>,
    /// The protocol that the client and the proxy agreed on in TLS.
    pub alpn: Option<Box<[u8]>>,
    /// By what the proxies on the way know the connection, at most 128 bytes.
    pub unique_id: Option<Box<[u8]>>,
}

/// On whose behalf a connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody's: it is the proxy's own connection, as a health check.
    Local,
    /// Somebody's whose address is not told (UNKNOWN, UNSPEC), or one that did not come over a stream.
    Unknown,
    /// A TCP client's.
    Tcp {
        /// Where the client connected from. An IPv4 address is never one of IPv6 in disguise, once it was read.
        source: SocketAddr,
        /// What the client connected to, likewise.
        destination: SocketAddr,
    },
    /// That of a client of a unix socket.
    Unix,
}

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One line of text: addresses and nothing else.
    V1,
    /// Bytes: addresses and additions.
    V2,
}

/// What is to be said in a header. Version 1 has room for a TCP origin alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// On whose behalf the connection is made.
    pub origin: Origin,
    /// The name of the host that the client asked for.
    pub authority: Option<&'a str>,
    /// The protocol that the client and we agreed on in TLS.
    pub alpn: Option<&'a [u8]>,
    /// By what the proxies on the way know the connection.
    pub unique_id: Option<&'a [u8]>,
    /// How the client's TLS came out, if it spoke TLS.
    pub tls: Option<TlsFacts<'a>>,
}

/// What is told of a client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// The version, as `TLSv1.3`.
    pub version: &'a str,
    /// The common name in the client's certificate. It is told of a verified certificate only: servers take it for
    /// proven.
    pub common_name: Option<&'a str>,
    /// Whether the client gave a certificate and it was verified.
    pub certificate: bool,
}

/// Reads the header at the beginning of `bytes`, which are all that have come so far or at least [`MOST`] of them.
///
/// Only [`Verdict::NeedMore`] is ever changed by further bytes, and [`MOST`] bytes never give it. A line of version 1
/// is judged word by word as it comes, version 2 field by field up to the length and then as a whole.
#[must_use]
pub fn parse(bytes: &[u8]) -> Verdict {
    let read = if bytes.starts_with(line::GREETING) {
        line::read(bytes)
    } else if bytes.starts_with(binary::SIGNATURE) {
        binary::read(bytes)
    } else if line::GREETING.starts_with(bytes) || binary::SIGNATURE.starts_with(bytes) {
        Ok(None)
    } else {
        return Verdict::Absent;
    };
    match read {
        Ok(Some((header, length))) => Verdict::Header { header, length },
        Ok(None) => Verdict::NeedMore,
        Err(wrong) => Verdict::Bad(wrong),
    }
}

/// Writes the header that says what is announced, as far as the version can say it. What is too long for its field is
/// left out rather than cut: half a name is another name.
#[must_use]
pub fn encode(version: Version, announcement: &Announcement<'_>) -> Vec<u8> {
    match version {
        Version::V1 => line::write(announcement.origin).into_bytes(),
        Version::V2 => binary::write(announcement),
    }
}

impl Header {
    fn of(origin: Origin) -> Self {
        Self { origin, authority: None, alpn: None, unique_id: None }
    }
}

/// A header and its length, nothing yet, or what is wrong.
type Read = Result<Option<(Header, usize)>, &'static str>;

/// Two addresses as a header has them: of one family.
enum Family {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Family {
    /// IPv4 if both are, and else IPv6, which has room for IPv4 (RFC 4291, section 2.5.5.2).
    fn of(source: IpAddr, destination: IpAddr) -> Self {
        let widened = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        match (source.to_canonical(), destination.to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(source, destination),
            (source, destination) => Self::V6(widened(source), widened(destination)),
        }
    }
}
