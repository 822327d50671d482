//! From a host name to whatever it is for: exact names and wildcards, the most specific first; and, in [`http`], from a
//! request. It knows no pools.

pub mod http;

use std::fmt;
use std::net::IpAddr;

use rustc_hash::FxHashMap;

/// The longest name, in bytes and without a closing dot (RFC 1035 §2.3.4).
const LONGEST: usize = 253;
/// The longest part of a name between two dots (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;

/// A host name, or all names below one; in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This name.
    Exact(Box<str>),
    /// Every name that ends with a dot and this one: written `*.example.com`.
    Below(Box<str>),
}

impl HostPattern {
    /// Reads `example.com` or `*.example.com`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(wrong) = what_is_wrong(&name) {
            return Err(format!("{wrong}; expected a host name such as \"example.com\" or \"*.example.com\""));
        }
        let name = name.into_boxed_str();
        Ok(if wildcard { Self::Below(name) } else { Self::Exact(name) })
    }

    /// The same, or an IP address, which a request may name as well: `10.0.0.1`, `[::1]`. An address is one of itself alone.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse_host(text: &str) -> Result<Self, String> {
        let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (in_brackets.unwrap_or(text).parse::<IpAddr>(), in_brackets) {
            (Ok(IpAddr::V4(address)), None) => Ok(Self::Exact(address.to_string().into())),
            // As `Authority::write_host` writes it.
            (Ok(IpAddr::V6(address)), _) => Ok(Self::Exact(format!("[{address}]").into())),
            (Ok(IpAddr::V4(_)), Some(_)) | (Err(_), _) => Self::parse(text),
        }
    }

    /// Whether a certificate for this pattern is one for `name`: a wildcard stands for one label (RFC 9525 §6.3).
    #[must_use]
    pub fn covers(&self, name: &Self) -> bool {
        match (self, name) {
            (Self::Below(own), Self::Exact(name)) => name.split_once('.').is_some_and(|(_, rest)| rest == &**own),
            (Self::Exact(own), Self::Exact(name)) | (Self::Below(own), Self::Below(name)) => own == name,
            (Self::Exact(_), Self::Below(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

fn what_is_wrong(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name is missing".to_owned());
    }
    if name.len() > LONGEST {
        return Some(format!("a host name has at most {LONGEST} bytes"));
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Some("it is an IP address".to_owned());
    }
    if !name.is_ascii() {
        return Some("a name with other letters than ASCII is written in its \"xn--\" form".to_owned());
    }
    name.split('.').find_map(|label| {
        if label.is_empty() || label.len() > LONGEST_LABEL {
            return Some(format!("a part of a host name has 1 to {LONGEST_LABEL} letters"));
        }
        let odd = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'))?;
        Some(format!("a host name has no {odd:?}"))
    })
}

/// What host names lead to.
#[derive(Clone, Debug)]
pub struct Hosts<T> {
    exact: FxHashMap<Box<str>, T>,
    below: FxHashMap<Box<str>, T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: FxHashMap::default(), below: FxHashMap::default() }
    }
}

impl<T> Hosts<T> {
    /// Where this very pattern leads, made by `make` if it leads nowhere yet.
    pub fn entry(&mut self, pattern: &HostPattern, make: impl FnOnce() -> T) -> &mut T {
        let (map, name) = match pattern {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Below(name) => (&mut self.below, name),
        };
        map.entry(name.clone()).or_insert_with(make)
    }

    /// All that patterns lead to.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.below.values_mut())
    }

    /// Where a name in lower case leads, the most specific first: by itself, then by each wildcard above it. As many
    /// look-ups as it has dots at most, however many names there are.
    pub fn find<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a T> + use<'a, 'n, T> {
        // Where there is no wildcard, a name is not taken apart.
        let name_above = Some(name).filter(|_| !self.below.is_empty());
        let above = name_above.into_iter().flat_map(parents).filter_map(|parent| self.below.get(parent));
        self.exact.get(name).into_iter().chain(above)
    }

    /// The same for certificates, whose wildcards stand for one label.
    #[must_use]
    pub fn certificate_for(&self, name: &str) -> Option<&T> {
        self.exact.get(name).or_else(|| self.below.get(parents(name).next()?))
    }
}

/// What server names and the protocols offered with them lead to (SNI and ALPN).
#[derive(Clone, Debug)]
pub struct SniRoutes<T> {
    hosts: Hosts<Vec<Offer<T>>>,
    any: Vec<Offer<T>>,
}

/// Where it goes for those who offer one of these protocols, or for all if there are none.
#[derive(Clone, Debug)]
struct Offer<T> {
    alpn: Vec<Vec<u8>>,
    target: T,
}

impl<T> Default for SniRoutes<T> {
    fn default() -> Self {
        Self { hosts: Hosts::default(), any: Vec::new() }
    }
}

impl<T> SniRoutes<T> {
    /// Adds a route for a host, or for any and none, and for one of these protocols, or for any and none.
    pub fn add(&mut self, host: Option<&HostPattern>, alpn: Vec<Vec<u8>>, target: T) {
        let offers = match host {
            Some(host) => self.hosts.entry(host, Vec::new),
            None => &mut self.any,
        };
        // Those that ask for more come first, else in the order of the file.
        let place = if alpn.is_empty() { offers.len() } else { offers.partition_point(|offer| !offer.alpn.is_empty()) };
        offers.insert(place, Offer { alpn, target });
    }

    /// Where a client goes: by the most specific host that has a route for what it offers.
    pub fn find(&self, name: Option<&str>, offers: impl Fn(&[u8]) -> bool) -> Option<&T> {
        let suits = |offer: &&Offer<T>| offer.alpn.is_empty() || offer.alpn.iter().any(|protocol| offers(protocol));
        let named = name.into_iter().flat_map(|name| self.hosts.find(name)).find_map(|all| all.iter().find(suits));
        named.or_else(|| self.any.iter().find(suits)).map(|offer| &offer.target)
    }
}

/// The names above this one, the longest first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let mut hosts = Hosts::default();
        for text in ["*.com", "*.example.com", "api.example.com", "*.api.example.com"] {
            hosts.entry(&pattern(text), || text);
        }
        let found = |name: &'static str| hosts.find(name).copied().collect::<Vec<_>>();
        assert_eq!(found("api.example.com"), ["api.example.com", "*.example.com", "*.com"]);
        assert_eq!(found("v1.api.example.com"), ["*.api.example.com", "*.example.com", "*.com"]);
        assert_eq!(found("example.com"), ["*.com"]);
        assert!(found("example.org").is_empty() && found("com").is_empty());
    }

    #[test]
    fn a_wildcard_of_a_certificate_stands_for_one_label() {
        let mut hosts = Hosts::default();
        hosts.entry(&pattern("*.example.com"), || ());
        assert!(hosts.certificate_for("a.example.com").is_some());
        assert!(hosts.certificate_for("a.b.example.com").is_none() && hosts.certificate_for("example.com").is_none());
        assert!(pattern("*.example.com").covers(&pattern("a.example.com")));
        assert!(!pattern("*.example.com").covers(&pattern("a.b.example.com")));
        assert!(pattern("*.example.com").covers(&pattern("*.example.com")));
        assert!(!pattern("a.example.com").covers(&pattern("*.example.com")));
    }

    #[test]
    fn a_protocol_offered_decides_among_the_routes_of_a_host_and_else_the_next_host_does() {
        let mut routes = SniRoutes::default();
        let alpn = |protocol: &str| vec![protocol.as_bytes().to_vec()];
        routes.add(Some(&pattern("*.example.com")), Vec::new(), "wildcard");
        routes.add(Some(&pattern("a.example.com")), alpn("h2"), "h2");
        routes.add(None, alpn("ssh"), "ssh");
        let find = |name, offered: &'static str| routes.find(name, |protocol| protocol == offered.as_bytes()).copied();
        assert_eq!(find(Some("a.example.com"), "h2"), Some("h2"));
        assert_eq!(find(Some("a.example.com"), "http/1.1"), Some("wildcard"));
        assert_eq!(find(Some("example.org"), "ssh"), Some("ssh"));
        assert_eq!(find(None, "ssh"), Some("ssh"));
        assert_eq!(find(None, "h2"), None);
    }

    #[test]
    fn a_request_may_be_for_an_address_in_whatever_way_that_is_written() {
        let exact = |text: &str| HostPattern::Exact(text.into());
        for (text, pattern) in
            [("10.0.0.1", "10.0.0.1"), ("[::1]", "[::1]"), ("2001:DB8:0::1", "[2001:db8::1]"), ("a.b.", "a.b")]
        {
            assert_eq!(HostPattern::parse_host(text), Ok(exact(pattern)), "{text}");
        }
        for text in ["[10.0.0.1]", "[::1", "::1]", "*.10.0.0.1", "10.0.0.1:80", "[::1]:80", "*.[::1]"] {
            assert!(HostPattern::parse_host(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn names_are_read_in_lower_case_and_nonsense_is_refused() {
        assert_eq!(pattern("Example.COM."), HostPattern::Exact("example.com".into()));
        assert_eq!(pattern("*.Example.com").to_string(), "*.example.com");
        for text in
            ["", "*", "*.", "a..b", "10.0.0.1", "a b", "ä.example", "*.*.com", "a.*.com", &"a".repeat(64), "::1"]
        {
            assert!(HostPattern::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
