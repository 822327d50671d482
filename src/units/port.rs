//! Port numbers, or the names they are registered under.

/// Registered names that are understood even where the machine has no `/etc/services` (a distroless image has none).
/// Source: the IANA Service Name and Transport Protocol Port Number Registry.
const WELL_KNOWN: &[(&str, u16)] = &[
    ("amqp", 5672),
    ("amqps", 5671),
    ("domain", 53),
    ("ftp", 21),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("imap", 143),
    ("imaps", 993),
    ("ldap", 389),
    ("ldaps", 636),
    ("mqtt", 1883),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nfs", 2049),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgresql", 5432),
    ("redis", 6379),
    ("secure-mqtt", 8883),
    ("smtp", 25),
    ("ssh", 22),
    ("submission", 587),
    ("submissions", 465),
    ("telnet", 23),
];

/// Reads a port: a number from 0 to 65535, or a registered TCP service name such as `https`.
///
/// # Errors
/// Says what is wrong, and names the nearest service name where one is near.
pub fn parse_port(text: &str) -> Result<u16, String> {
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
        let digits_only = text.bytes().all(|b| b.is_ascii_digit());
        return digits_only
            .then(|| text.parse().ok())
            .flatten()
            .ok_or_else(|| format!("a port is a number from 0 to 65535, not {text}"));
    }
    if let Some((_, port)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
        return Ok(*port);
    }
    registered(&std::fs::read_to_string("/etc/services").unwrap_or_default(), text).ok_or_else(|| {
        let near = WELL_KNOWN
            .iter()
            .map(|(name, _)| (strsim::damerau_levenshtein(name, text), name))
            .min()
            .filter(|(distance, _)| *distance <= 2);
        match near {
            Some((_, name)) => format!("no service is registered as \"{text}\": did you mean \"{name}\"?"),
            None => format!("expected a port number or a registered service name, not \"{text}\""),
        }
    })
}

/// Looks a TCP service name or alias up in the text of an `/etc/services` file (services(5)).
fn registered(services: &str, wanted: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let name = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?.parse().ok()?;
        (name == wanted || words.any(|alias| alias == wanted)).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_registered_names_are_ports() {
        assert_eq!(parse_port("0"), Ok(0));
        assert_eq!(parse_port("65535"), Ok(65535));
        assert_eq!(parse_port("https"), Ok(443));
    }

    #[test]
    fn numbers_out_of_range_and_unknown_names_are_refused() {
        for text in ["65536", "-1", "+80", "80x", "", "99999999999", "8 0"] {
            assert!(parse_port(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse_port("htps").is_err_and(|e| e.contains("did you mean")));
    }

    #[test]
    fn aliases_and_comments_of_the_services_file_are_understood() {
        let file = "# comment\ngopher 70/tcp # Internet Gopher\nfinger 79/udp\nwww-x 81/tcp webby other\n";
        assert_eq!(registered(file, "gopher"), Some(70));
        assert_eq!(registered(file, "finger"), None);
        assert_eq!(registered(file, "other"), Some(81));
        assert_eq!(registered(file, "Internet"), None);
    }
}
