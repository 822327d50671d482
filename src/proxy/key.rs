//! What the algorithm of a pool goes by, found in a connection or a request; nothing is copied for it.

use crate::balance::{Key, KeySource};
use crate::message::head::Known;
use crate::message::request::Request;
use crate::net::address::ClientAddr;
use crate::pool::Pool;
use crate::pool::sticky::cookie_value;
use crate::route::http::pairs;

/// The key of a connection that asked for this server name, if the pool goes by one.
pub(super) fn of_connection(pool: &Pool, client: ClientAddr, server_name: Option<&str>) -> Option<Key> {
    let own = match pool.key()? {
        KeySource::Sni => server_name.map(|name| Key::of(name.as_bytes())),
        KeySource::Source | KeySource::Header(_) | KeySource::Cookie(_) | KeySource::Path | KeySource::Query(_) => None,
    };
    own.or_else(|| Key::of_client(client))
}

/// The key of a request on a connection that asked for this server name, if the pool goes by one. It is made of the request
/// as it came; of what is there twice the first counts.
pub(super) fn of_request(pool: &Pool, client: ClientAddr, server_name: Option<&str>, request: &Request) -> Option<Key> {
    let own = match pool.key()? {
        KeySource::Source => None,
        KeySource::Sni => server_name.map(str::as_bytes),
        // In HTTP/2 it is no field.
        KeySource::Header(name) if **name == *"host" => Some(request.host().as_bytes()).filter(|host| !host.is_empty()),
        KeySource::Header(name) => request.fields.named(name.as_bytes()).next(),
        KeySource::Cookie(name) => request.fields.values(Known::Cookie).find_map(|field| cookie_value(field, name)),
        KeySource::Path => Some(request.path()),
        KeySource::Query(name) => {
            let mut pairs = pairs(request.query().unwrap_or_default());
            pairs.find(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value)
        }
    };
    own.map(Key::of).or_else(|| Key::of_client(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Hashing, Policy};
    use crate::message::line::Limits;
    use crate::message::request::Parsed;
    use crate::pool::{Rules, Settings};
    use crate::units::Name;
    use std::time::Duration;

    fn pool(balance: Policy) -> Pool {
        let (connect_timeout, rules) = (Duration::ZERO, Rules::default());
        let settings = Settings { balance, retries: 0, connect_timeout, sources: Vec::new(), rules };
        Pool::new(Name::new("pool"), settings, Vec::new())
    }

    fn by(key: &str) -> Pool {
        pool(Policy::SourceHash(Hashing { key: KeySource::parse(key).unwrap(), ..Hashing::DEFAULT }))
    }

    fn client() -> ClientAddr {
        ClientAddr::Tcp("192.0.2.7:1".parse().unwrap())
    }

    fn request(target: &str, fields: &str) -> Request {
        let limits = Limits { target: 1000, first_line: 1000, bytes: 4000, fields: 50, underscores: true };
        let mut request = Request::default();
        request.arrived(format!("GET {target} HTTP/1.1\r\nHost: A.example:8080\r\n{fields}\r\n").as_bytes());
        assert!(matches!(request.parse(&limits, &mut Vec::new()), Ok(Parsed::Whole(_))));
        request
    }

    #[test]
    fn each_part_of_a_request_can_be_what_a_pool_goes_by() {
        let fields = "X-User: anna\r\nx-user: otto\r\nCookie: lang=en\r\nCookie: sid=\"42\"; a=b\r\n";
        let request = request("/a/b?id=7&id=8&e", fields);
        for (source, expected) in [
            ("sni", "tls.example"),
            ("header:X-User", "anna"),
            ("header:host", "a.example"),
            ("cookie:sid", "42"),
            ("path", "/a/b"),
            ("query:id", "7"),
            ("query:e", ""),
        ] {
            let key = of_request(&by(source), client(), Some("tls.example"), &request);
            assert_eq!(key, Some(Key::of(expected.as_bytes())), "{source}");
        }
    }

    #[test]
    fn what_is_not_there_leaves_the_address_of_the_client() {
        let request = request("/", "");
        for source in ["source", "sni", "header:x-user", "cookie:sid", "query:id"] {
            assert_eq!(of_request(&by(source), client(), None, &request), Key::of_client(client()), "{source}");
        }
        for source in ["source", "sni", "header:x-user", "cookie:sid", "path", "query:id"] {
            assert_eq!(of_connection(&by(source), client(), None), Key::of_client(client()), "{source}");
        }
        assert_eq!(of_connection(&by("sni"), client(), Some("a")), Some(Key::of(b"a")));
        assert_eq!(of_request(&by("source"), ClientAddr::Unix, None, &request), None);
    }

    #[test]
    fn a_pool_that_goes_by_no_key_is_given_none() {
        for policy in Policy::ALL.iter().filter(|policy| policy.hashing().is_none()) {
            assert_eq!(of_connection(&pool(policy.clone()), client(), Some("a")), None);
            assert_eq!(of_request(&pool(policy.clone()), client(), Some("a"), &request("/", "")), None);
        }
    }
}
