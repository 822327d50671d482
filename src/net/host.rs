//! Names of hosts, and where to find a server by one.

use std::fmt;
use std::sync::Arc;

use crate::units::parse_port;

/// The longest name, in bytes, without a dot at its end (RFC 1035 §2.3.4).
const LONGEST: usize = 253;
/// The longest label.
const LONGEST_LABEL: usize = 63;

/// A name that DNS can be asked for; one that ends with a dot is complete. It is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Reads a name of letters, digits, hyphens and underscores, in labels.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a host name such as \"api.internal\"";
        let labels = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if labels.len() > LONGEST || !labels.split('.').all(is_label) {
            return Err(EXPECTED.to_owned());
        }
        // No such name ends in a number (RFC 1123 §2.1), so this is an address with a slip of the pen.
        if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(format!("{EXPECTED}; \"{text}\" is not an IP address"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without the dot at its end, as a certificate has it.
    #[must_use]
    pub fn bare(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }

    /// Whether it means this machine, whatever DNS says (RFC 6761 §6.3).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.bare() == "localhost" || self.bare().ends_with(".localhost")
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host by its name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostAddr {
    /// The name.
    pub host: HostName,
    /// The port; not 0.
    pub port: u16,
}

impl HostAddr {
    /// Reads `api.internal:8080` or `api.internal:http`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a host name and a port such as \"api.internal:8080\"";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{EXPECTED}; the port is missing"))?;
        let host = HostName::parse(host).map_err(|_| EXPECTED.to_owned())?;
        match parse_port(port)? {
            0 => Err("a server cannot listen on port 0".to_owned()),
            port => Ok(Self { host, port }),
        }
    }
}

impl fmt::Display for HostAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_ports_are_numbers_or_services() {
        for (text, shown) in [
            ("api.internal:8080", "api.internal:8080"),
            ("API.Internal.:http", "api.internal.:80"),
            ("web:1", "web:1"),
            ("_http._tcp.web_1:80", "_http._tcp.web_1:80"),
        ] {
            assert_eq!(HostAddr::parse(text).map(|host| host.to_string()), Ok(shown.to_owned()));
        }
        let long = format!("{}:1", "a.".repeat(128));
        for text in ["", ":1", "a", "a:", "a:0", "a..b:1", "-a:1", "a-:1", "ü:1", "10.0.0.256:1", "a b:1", ".:1", &long]
        {
            assert!(HostAddr::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn localhost_is_this_machine() {
        let is = |text: &str| HostName::parse(text).unwrap().is_localhost();
        assert!(is("localhost") && is("LOCALHOST.") && is("a.localhost"));
        assert!(!is("localhost.example") && !is("notlocalhost"));
    }
}
