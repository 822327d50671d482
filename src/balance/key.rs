//! What an algorithm that hashes goes by: which part of a connection or request, and the number that is made of it.
//!
//! The hash is XXH3 with 64 bits and a fixed seed, so that instances and releases agree on it and others can compute it; a
//! test holds it. It is no secret: whoever chooses the text chooses the server, and the load factor bounds what comes of it.

use std::fmt;
use std::net::IpAddr;

use twox_hash::XxHash3_64;

use crate::message::token::is_token;
use crate::net::address::ClientAddr;

/// The seed of all hashes: `portreev`, read as a number.
const SEED: u64 = u64::from_be_bytes(*b"portreev");

/// A number by which clients or requests are told apart; those of the same number go to the same server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The key of a text: XXH3-64 of its bytes.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self(hash(text, 0))
    }

    /// The key of a client: that of the bytes of its IP address, 4 or 16 of them. Its port has no part in it, an IPv4 address
    /// in the form of an IPv6 one is the IPv4 address, and over a unix socket there is nothing to go by.
    #[must_use]
    pub fn of_client(client: ClientAddr) -> Option<Self> {
        match client {
            ClientAddr::Tcp(address) => Some(match address.ip().to_canonical() {
                IpAddr::V4(ip) => Self::of(&ip.octets()),
                IpAddr::V6(ip) => Self::of(&ip.octets()),
            }),
            ClientAddr::Unix => None,
        }
    }

    /// One of nobody's.
    pub(super) fn any() -> Self {
        Self(fastrand::u64(..))
    }

    pub(super) const fn get(self) -> u64 {
        self.0
    }

    /// 32 bits that are always the same for a key and tell nothing of where it leads.
    #[must_use]
    pub const fn point(self) -> u32 {
        mix(self.0.rotate_left(32)) as u32
    }

    /// The keys to go by, one after the other, where the servers before were closed: first this one.
    pub(super) fn chain(self) -> impl Iterator<Item = Self> {
        (0u64..).map(move |turn| if turn == 0 { self } else { Self(mix(self.0 ^ mix(turn))) })
    }

    /// A number below `count`, in proportion to the key.
    pub(super) fn below(self, count: u64) -> u64 {
        ((u128::from(self.0) * u128::from(count)) >> 64) as u64
    }
}

/// The hash of a text; each `variant` is another one.
pub(super) fn hash(text: &[u8], variant: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(SEED.wrapping_add(variant), text)
}

/// The finalizer of SplitMix64 (G. Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(super) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Which part of a connection or request is hashed. One that has no such part is told apart by its client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// The address of the client.
    #[default]
    Source,
    /// The server name that it asked for by TLS.
    Sni,
    /// The first header field of this name, in lower case.
    Header(Box<str>),
    /// The cookie of this name.
    Cookie(Box<str>),
    /// The path, without the query.
    Path,
    /// The first parameter of this name in the query.
    Query(Box<str>),
}

impl KeySource {
    /// Reads `source`, `sni`, `path`, `header:NAME`, `cookie:NAME` or `query:NAME`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected `source`, `sni`, `path`, `header:NAME`, `cookie:NAME` or `query:NAME`";
        let named = text.split_once(':');
        match (text, named) {
            ("source", _) => Ok(Self::Source),
            ("sni", _) => Ok(Self::Sni),
            ("path", _) => Ok(Self::Path),
            (_, Some((kind @ ("header" | "cookie"), name))) => {
                if !is_token(name.as_bytes()) {
                    return Err(format!("it names no {kind}; {EXPECTED}"));
                }
                Ok(if kind == "header" {
                    Self::Header(name.to_ascii_lowercase().into())
                } else {
                    Self::Cookie(name.into())
                })
            }
            (_, Some(("query", name))) => {
                if name.is_empty() || name.bytes().any(|byte| matches!(byte, b'&' | b'=' | b'#' | 0..=b' ' | 0x7f..)) {
                    return Err(format!("it names no parameter as a query would; {EXPECTED}"));
                }
                Ok(Self::Query(name.into()))
            }
            _ => Err(EXPECTED.to_owned()),
        }
    }

    /// Whether only requests have it.
    #[must_use]
    pub const fn is_of_requests(&self) -> bool {
        match self {
            Self::Source | Self::Sni => false,
            Self::Header(_) | Self::Cookie(_) | Self::Path | Self::Query(_) => true,
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Sni => f.write_str("sni"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path => f.write_str("path"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_everywhere_and_for_ever() {
        // As the reference implementation computes XXH3-64 with this seed.
        assert_eq!(SEED, 0x706f_7274_7265_6576);
        assert_eq!(Key::of(b"").get(), 0xa0da_6dcf_0a1b_0ca3);
        assert_eq!(Key::of(b"user-42").get(), 0xc738_c571_ae03_99d3);
        assert_eq!(Key::of(&[b'a'; 300]).get(), 0x56bb_1a2b_5e7b_93a1);
        let client = |text: &str| Key::of_client(ClientAddr::Tcp(text.parse().unwrap())).unwrap();
        assert_eq!(client("192.0.2.1:5").get(), 0xfddc_efce_1c3a_4c92);
        assert_eq!(client("[2001:db8::1]:5").get(), 0x1398_6158_d419_e915);
    }

    #[test]
    fn a_client_is_known_by_its_address_and_not_by_its_port_or_how_the_address_is_written() {
        let client = |text: &str| Key::of_client(ClientAddr::Tcp(text.parse().unwrap()));
        assert_eq!(client("192.0.2.1:5"), client("192.0.2.1:6"));
        assert_eq!(client("192.0.2.1:5"), client("[::ffff:192.0.2.1]:5"));
        assert_ne!(client("192.0.2.1:5"), client("192.0.2.2:5"));
        assert_ne!(client("[2001:db8::1]:5"), client("[2001:db8::2]:5"));
        assert_eq!(Key::of_client(ClientAddr::Unix), None);
    }

    #[test]
    fn the_keys_of_a_chain_differ_and_so_do_those_of_two_chains() {
        let chain = |text: &[u8]| Key::of(text).chain().take(64).collect::<Vec<_>>();
        assert_eq!(chain(b"a")[0], Key::of(b"a"));
        let all: std::collections::BTreeSet<_> =
            [chain(b"a"), chain(b"b")].concat().into_iter().map(Key::get).collect();
        assert_eq!(all.len(), 128);
    }

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for text in ["source", "sni", "path", "header:x-user", "cookie:SID", "query:id", "query:a[]", "query:a:b"] {
            assert_eq!(KeySource::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(KeySource::parse("header:X-User").unwrap(), KeySource::Header("x-user".into()));
        let bad = [
            "",
            "Source",
            "header",
            "header:",
            "header:a b",
            "cookie:",
            "cookie:a=b",
            "query:",
            "query:a&b",
            "path:/a",
        ];
        for text in bad {
            assert!(KeySource::parse(text).unwrap_err().contains("expected `source`"), "{text}");
        }
    }
}
