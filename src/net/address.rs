//! Addresses, each with a type that says whose it is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::units::parse_port;

/// A place a stream socket can be bound to or connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// A unix socket by its path.
    Unix(Arc<Path>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl serde::Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddr(pub Endpoint);

impl ServerAddr {
    /// Reads `10.0.0.1:8080`, `[2001:db8::1]:8080`, `10.0.0.1:http` or `unix:/path`; a relative path is relative to `base`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str, base: &Path) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self(Endpoint::Unix(unix_path(path, base)?)));
        }
        const EXPECTED: &str =
            "expected an IP address and a port such as \"10.0.0.1:8080\" or \"[2001:db8::1]:8080\", or \"unix:/path\"";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{EXPECTED}; the port is missing"))?;
        let ip = parse_ip(host).ok_or_else(|| match host {
            "" => format!("{EXPECTED}; the IP address is missing"),
            _ => format!("{EXPECTED}; \"{host}\" is not an IP address"),
        })?;
        match parse_port(port)? {
            0 => Err("a server cannot listen on port 0".to_owned()),
            port => Ok(Self(Endpoint::Tcp(SocketAddr::new(ip, port)))),
        }
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a client connected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddr {
    /// Over TCP, with its address and port.
    Tcp(SocketAddr),
    /// Over a unix socket, which has no address worth naming.
    Unix,
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The networks that somebody may be from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    networks: Vec<IpNet>,
    unix: bool,
}

impl Networks {
    /// Adds what is written as `10.0.0.0/8`, `2001:db8::/32`, `10.0.0.1`, or `unix` for whoever connects to a unix socket.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text == "unix" {
            self.unix = true;
            return Ok(());
        }
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            "expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", an IP address, or \"unix\"".to_owned()
        })?;
        if network.trunc() != network {
            return Err(format!("it has bits beyond its prefix: did you mean \"{}\"?", network.trunc()));
        }
        self.networks.push(network);
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// How many bits the most specific of them that a client is from has; `None` if it is from none.
    #[must_use]
    pub fn closest(&self, client: &ClientAddr) -> Option<u8> {
        match client {
            ClientAddr::Tcp(address) => {
                let of = self.networks.iter().filter(|network| network.contains(&address.ip()));
                of.map(IpNet::prefix_len).max()
            }
            ClientAddr::Unix => self.unix.then_some(0),
        }
    }

    /// Whether a client is from one of them.
    #[must_use]
    pub fn contain(&self, client: &ClientAddr) -> bool {
        match client {
            ClientAddr::Tcp(address) => self.networks.iter().any(|network| network.contains(&address.ip())),
            ClientAddr::Unix => self.unix,
        }
    }
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BindAddr {
    /// One IP address and port; an IPv6 address takes IPv6 clients only.
    Tcp(SocketAddr),
    /// Every address of the machine, IPv4 and IPv6, through one socket (or IPv4 alone where the machine has no IPv6).
    Dual(u16),
    /// A unix socket at this path.
    Unix(Arc<Path>),
}

impl BindAddr {
    /// Reads one `bind` entry, which a port range turns into several addresses: `0.0.0.0:8080`, `[::]:8080`, `8080`, `:8080`,
    /// `:https`, `10.0.0.1:20000-20010`, `unix:/path`. `[::]` alone is dual-stack, as is a bare port.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str, base: &Path) -> Result<Vec<Self>, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(vec![Self::Unix(unix_path(path, base)?)]);
        }
        const EXPECTED: &str = "expected \"8080\", \":https\", \"0.0.0.0:8080\", \"[::]:8080\", \"10.0.0.1:20000-20010\" or \"unix:/path\"";
        let (host, ports) = match text.rsplit_once(':') {
            Some((host, ports)) => (host, ports),
            None => ("", text),
        };
        let ip = match host {
            "" | "*" => None,
            _ => Some(parse_ip(host).ok_or_else(|| format!("{EXPECTED}; \"{host}\" is not an IP address"))?)
                .filter(|ip| *ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        if ports.is_empty() {
            return Err(format!("{EXPECTED}; the port is missing"));
        }
        let numeric = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty();
        let (first, last) = match ports.split_once('-') {
            Some((first, last)) if numeric(first) && numeric(last) => (parse_port(first)?, parse_port(last)?),
            _ => {
                let port = parse_port(ports).map_err(|problem| format!("{problem}; {EXPECTED}"))?;
                (port, port)
            }
        };
        if first > last {
            return Err(format!("a port range runs upwards: did you mean \"{last}-{first}\"?"));
        }
        if first == 0 && last != 0 {
            return Err("a port range cannot start at 0".to_owned());
        }
        Ok((first..=last)
            .map(|port| match ip {
                None => Self::Dual(port),
                Some(ip) => Self::Tcp(SocketAddr::new(ip, port)),
            })
            .collect())
    }
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Dual(port) => write!(f, "[::]:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An IP address, with or without the brackets IPv6 wears beside a port.
fn parse_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

/// The path of a unix socket, checked against what `sockaddr_un` holds (108 bytes with its closing NUL, unix(7)).
fn unix_path(path: &str, base: &Path) -> Result<Arc<Path>, String> {
    if path.is_empty() {
        return Err("expected \"unix:/path\"; the path is missing".to_owned());
    }
    let full: PathBuf = base.join(path);
    match full.as_os_str().len() {
        0..108 => Ok(Arc::from(full)),
        length => Err(format!("the path of a unix socket has at most 107 bytes, this one has {length}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> Result<Vec<String>, String> {
        BindAddr::parse(text, Path::new("/base")).map(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_form_of_bind_is_understood() {
        assert_eq!(bind("0.0.0.0:8080"), Ok(vec!["0.0.0.0:8080".to_owned()]));
        assert_eq!(bind("8080"), Ok(vec!["[::]:8080".to_owned()]));
        assert_eq!(bind(":8080"), bind("[::]:8080"));
        assert_eq!(bind(":https"), Ok(vec!["[::]:443".to_owned()]));
        assert_eq!(bind("[::1]:80"), Ok(vec!["[::1]:80".to_owned()]));
        assert_eq!(bind("10.0.0.1:20000-20010").map(|all| all.len()), Ok(11));
        assert_eq!(bind("unix:run/p.sock"), Ok(vec!["unix:/base/run/p.sock".to_owned()]));
        assert_eq!(bind("127.0.0.1:0"), Ok(vec!["127.0.0.1:0".to_owned()]));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", ":", "host:80", "1.2.3.4", "1.2.3.4:", "::1:80", "1.2.3.4:70000", ":20-10", ":0-5", "unix:", ":1-x"]
        {
            assert!(bind(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_server_is_an_address_and_a_port_that_is_not_zero() {
        let parse = |text: &str| ServerAddr::parse(text, Path::new("/")).map(|a| a.to_string());
        assert_eq!(parse("10.0.0.1:http"), Ok("10.0.0.1:80".to_owned()));
        assert_eq!(parse("[::1]:8080"), Ok("[::1]:8080".to_owned()));
        for text in ["10.0.0.1:0", "10.0.0.1", ":80", "example.com:80", "10.0.0.1:65536", "::1:80"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_client_is_from_a_network_or_is_not() {
        let mut networks = Networks::default();
        for text in ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"] {
            networks.add(text).unwrap();
        }
        let contain = |text: &str| networks.contain(&ClientAddr::Tcp(text.parse().unwrap()));
        assert!(contain("10.1.2.3:1") && contain("[2001:db8::9]:1") && contain("192.0.2.7:1"));
        assert!(!contain("11.0.0.1:1") && !contain("[2001:db9::9]:1") && !contain("192.0.2.8:1"));
        assert!(!networks.contain(&ClientAddr::Unix));
        networks.add("unix").unwrap();
        assert!(networks.contain(&ClientAddr::Unix));
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0"] {
            assert!(Networks::default().add(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_closest_network_of_a_client_is_the_one_with_the_most_bits() {
        let mut networks = Networks::default();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3", "10.1.0.0/16", "2001:db8::/32"] {
            networks.add(text).unwrap();
        }
        let closest = |text: &str| networks.closest(&ClientAddr::Tcp(text.parse().unwrap()));
        assert_eq!(closest("10.1.2.3:1"), Some(32));
        assert_eq!(closest("10.1.2.4:1"), Some(16));
        assert_eq!(closest("10.2.0.1:1"), Some(8));
        assert_eq!(closest("192.0.2.1:1"), Some(0));
        assert_eq!(closest("[2001:db8::1]:1"), Some(32));
        assert_eq!(closest("[2001:db9::1]:1"), None);
        assert_eq!(networks.closest(&ClientAddr::Unix), None);
        networks.add("unix").unwrap();
        assert_eq!(networks.closest(&ClientAddr::Unix), Some(0));
    }
}
