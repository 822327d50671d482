//! Targets and authorities.

use super::*;
use crate::message::target::{Authority, Target, normal_path};

fn target(target: &str) -> Option<(Option<&str>, &str, Option<&str>)> {
    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }
    let Target { authority, path, query } = Target::parse(target.as_bytes(), b"GET").ok()?;
    Some((authority.map(text), text(path), query.map(text)))
}

#[test]
fn a_target_is_a_path_or_absolute() {
    for (written, parts) in [
        ("/", (None, "/", None)),
        ("/a/b;c?d?e", (None, "/a/b;c", Some("d?e"))),
        ("/?", (None, "/", Some(""))),
        ("//a/b", (None, "//a/b", None)),
        ("http://a", (Some("a"), "/", None)),
        ("HTTPS://a:1/b?c", (Some("a:1"), "/b", Some("c"))),
        ("http://[::1]/", (Some("[::1]"), "/", None)),
    ] {
        assert_eq!(target(written), Some(parts), "{written}");
    }
    for written in [
        "",
        "a",
        "*",
        "?a",
        "a/b",
        "http://",
        "http:///",
        "http://?a",
        "http://a?b",
        "ftp://a/",
        "http:/a",
        "/#",
        "/ä",
        "/\\",
    ] {
        assert_eq!(target(written), None, "{written}");
    }
}

#[test]
fn a_star_is_for_options_alone_and_connect_is_not_served() {
    assert_eq!(Target::parse(b"*", b"OPTIONS").map(|target| target.path), Ok(&b"*"[..]));
    assert!(Target::parse(b"a:443", b"CONNECT").is_err());
    assert!(Target::parse(b"/", b"CONNECT").is_err());
    assert_eq!(read("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path(), b"*");
}

#[test]
fn segments_of_dots_are_found_in_every_spelling() {
    for path in ["/.", "/..", "/a/./b", "/a/../b", "/a/..", "/%2e", "/.%2E/", "/%2E%2e", "/a/%2e./b", "http://a/.."] {
        assert_eq!(target(path), None, "{path}");
    }
    for path in ["/...", "/.a", "/a.", "/a..b", "/%2e%2e%2e", "/%2", "/%", "/..;", "/?/../", "/%252e"] {
        assert!(target(path).is_some(), "{path}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
    for (written, host, port) in [
        ("a.example", "a.example", None),
        ("A_b.~c", "A_b.~c", None),
        ("a:", "a", None),
        ("a:0", "a", Some(0)),
        ("a:65535", "a", Some(65_535)),
        ("[::1]:80", "[::1]", Some(80)),
        ("192.0.2.1:8", "192.0.2.1", Some(8)),
    ] {
        assert_eq!(Authority::parse(written.as_bytes()), Ok(Authority { host: host.as_bytes(), port }), "{written}");
    }
    for written in [
        "", ":", ":80", "a b", "a/b", "u@a", "a:x", "a:65536", "a:-1", "a:1:2", "[::1", "[]", "[a]", "[::1]a", "::1",
        "a\\",
    ] {
        assert!(Authority::parse(written.as_bytes()).is_err(), "{written}");
    }
}

#[test]
fn the_target_wins_over_the_header() {
    let request = read("GET http://B.example:1/x HTTP/1.1\r\nHost: a.example:2\r\n\r\n");
    assert_eq!((request.host(), request.port(), request.authority()), ("b.example", Some(1), &b"B.example:1"[..]));
    assert_eq!(read("GET / HTTP/1.1\r\nHost: A.example.\r\n\r\n").host(), "a.example");
    assert_eq!(read("GET / HTTP/1.0\r\n\r\n").host(), "");
}

#[test]
fn paths_are_compared_by_what_servers_make_of_them() {
    for (path, normal) in [
        ("/a/b", "/a/b"),
        ("//a///b/", "/a/b/"),
        ("/%61%2Db%7E", "/a-b~"),
        ("/%2f%20%e4", "/%2f%20%e4"),
        ("/%", "/%"),
        ("/%6", "/%6"),
        ("/%zz%61", "/%zza"),
        ("/%2561", "/%2561"),
    ] {
        assert_eq!(&*normal_path(path.as_bytes()), normal.as_bytes(), "{path}");
    }
}
