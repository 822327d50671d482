//! Where servers are found: names in DNS, files, endpoints over HTTP.
//!
//! A [`Source`] says what is asked; the enum is the registration, with one file per kind. An [`Asker`] asks, one question
//! at a time, and remembers what it takes to tell whether anything changed. Whether an answer is put into effect, and what
//! is kept when there is none, is for others to decide: nothing here is logged or counted.

mod dns;
mod file;
mod http;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::net::host::HostName;
pub use dns::{Lookup, Record, Resolvers};
pub use http::{Endpoint, Host};

/// What is asked for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A name in DNS.
    Dns(Lookup),
    /// A file with a list of servers.
    File(PathBuf),
    /// An endpoint that answers with a list of servers.
    Http(Endpoint),
}

impl Source {
    /// The name of the servers' own that they are found by, if there is one.
    #[must_use]
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Dns(Lookup { name, record: Record::Address { .. }, .. }) => Some(name),
            Self::Dns(_) | Self::File(_) | Self::Http(_) => None,
        }
    }
}

impl fmt::Display for Source {
    /// By this a source is known when some of its settings change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(lookup) => write!(f, "dns {lookup}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Http(endpoint) => write!(f, "http {endpoint}"),
        }
    }
}

/// When a source is asked, and what of its answers is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// From one answer to the next question; without it, as long as the answer says it holds, within these bounds.
    pub interval: Option<Duration>,
    /// The shortest time that an answer is taken to hold.
    pub min_ttl: Duration,
    /// The longest.
    pub max_ttl: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whether an answer without servers leaves none, rather than being passed over.
    pub allow_empty: bool,
    /// Whether servers may be on this machine, on its links, or nowhere.
    pub allow_loopback: bool,
    /// The most servers that are taken from an answer.
    pub max_servers: usize,
}

impl Terms {
    /// The default of `interval` for what does not say how long its answers hold.
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// The most servers an answer can be allowed to have.
    pub const MOST_SERVERS: usize = 10_000;
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            interval: None,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
            allow_empty: false,
            allow_loopback: false,
            max_servers: 1000,
        }
    }
}

impl Terms {
    /// How long an answer is good for that says it holds for `ttl`, or says nothing.
    #[must_use]
    pub fn pause(&self, ttl: Option<Duration>) -> Duration {
        let within = || ttl.map_or(Self::INTERVAL, |ttl| ttl.clamp(self.min_ttl, self.max_ttl));
        self.interval.unwrap_or_else(within)
    }

    /// How long to wait after so many failures in a row: twice as long after each, up to half a minute, and no longer than
    /// an answer may hold.
    #[must_use]
    pub fn pause_after_failures(&self, failures: u32) -> Duration {
        const LONGEST: Duration = Duration::from_secs(30);
        let first = self.interval.unwrap_or(self.min_ttl);
        let longest = self.interval.unwrap_or(self.max_ttl).min(LONGEST);
        first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest)
    }

    /// Whether a server may be at this address. What comes from elsewhere must not lead traffic to what only this machine can
    /// reach.
    #[must_use]
    pub fn allow(&self, ip: IpAddr) -> bool {
        self.allow_loopback || is_elsewhere(ip)
    }
}

/// Whether an address may be that of another machine: it is not loopback, link-local, unspecified, multicast or broadcast.
fn is_elsewhere(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // All of 0.0.0.0/8 means this machine (RFC 1122 §3.2.1.3).
            let is_nowhere = ip.octets().first() == Some(&0);
            !(ip.is_loopback() || ip.is_link_local() || is_nowhere || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast()),
    }
}

/// What a source answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub content: Content,
    /// How long it holds, if it says so.
    pub ttl: Option<Duration>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The same as the one before.
    Same,
    /// Where servers are.
    Servers(Vec<Found>),
    /// A list of servers, as a pool has it.
    List(Vec<u8>, Format),
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A document with the key `servers`.
    Toml,
    /// The list, or an object with the key `servers`.
    Json,
}

/// A server that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where it is.
    pub address: SocketAddr,
    /// How many kinds of servers are to be preferred to it.
    pub level: u16,
    /// Its share relative to others of its level, from 1 to [`crate::units::Weight::HEAVIEST`], if it has one of its own.
    pub weight: Option<u16>,
}

/// Asks a source.
#[derive(Debug)]
pub enum Asker {
    /// A name in DNS.
    Dns(Box<dns::Asker>),
    /// A file.
    File(file::Asker),
    /// An endpoint.
    Http(Box<http::Asker>),
}

impl Asker {
    /// Makes ready to ask; nothing is asked yet.
    #[must_use]
    pub fn new(source: &Source, terms: &Terms) -> Self {
        match source {
            Source::Dns(lookup) => Self::Dns(Box::new(dns::Asker::new(lookup.clone(), *terms))),
            Source::File(path) => Self::File(file::Asker::new(path.clone())),
            Source::Http(endpoint) => Self::Http(Box::new(http::Asker::new(endpoint.clone(), *terms))),
        }
    }

    /// Asks once. It is over within the timeout of the terms.
    ///
    /// # Errors
    /// Why there is no answer, in a few words: nothing is known then.
    pub async fn ask(&mut self) -> Result<Answer, String> {
        match self {
            Self::Dns(asker) => asker.ask().await,
            Self::File(asker) => asker.ask().await,
            Self::Http(asker) => asker.ask().await,
        }
    }
}

/// What is said of a source that takes too long.
const LATE: &str = "no answer in time";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_as_long_as_it_says_within_bounds_or_as_long_as_the_interval() {
        let terms = Terms::default();
        let seconds = Duration::from_secs;
        assert_eq!(terms.pause(Some(seconds(0))), seconds(1));
        assert_eq!(terms.pause(Some(seconds(20))), seconds(20));
        assert_eq!(terms.pause(Some(seconds(86_400))), seconds(300));
        assert_eq!(terms.pause(None), Terms::INTERVAL);
        let fixed = Terms { interval: Some(seconds(7)), ..terms };
        assert_eq!([fixed.pause(Some(seconds(0))), fixed.pause(None)], [seconds(7); 2]);
    }

    #[test]
    fn failures_are_followed_by_longer_pauses_up_to_a_bound() {
        let terms = Terms::default();
        let pauses = [1, 2, 3, 6, 40, u32::MAX].map(|failures| terms.pause_after_failures(failures).as_secs());
        assert_eq!(pauses, [1, 2, 4, 30, 30, 30]);
        let often = Terms { interval: Some(Duration::from_millis(50)), ..terms };
        assert_eq!(often.pause_after_failures(9), Duration::from_millis(50));
    }

    #[test]
    fn only_addresses_of_other_machines_are_taken_unless_told_otherwise() {
        let here = ["127.0.0.1", "127.9.9.9", "169.254.169.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255"];
        let here_v6 = ["::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.1.1"];
        let (terms, all) = (Terms::default(), Terms { allow_loopback: true, ..Terms::default() });
        for text in here.iter().chain(&here_v6) {
            let ip = text.parse().unwrap();
            assert!(!terms.allow(ip) && all.allow(ip), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "203.0.113.9", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(terms.allow(text.parse().unwrap()), "{text}");
        }
    }
}
