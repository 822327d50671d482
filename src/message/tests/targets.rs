//! Targets and authorities.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::message::target::{Authority, Target, below, has_dots, normal_path};

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
        ("http://a?b/c?d", (Some("a"), "/", Some("b/c?d"))),
        ("http://a:1?", (Some("a:1"), "/", Some(""))),
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
        "http://a?b#c",
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
    for (target, path, query) in [
        ("*", "*", None),
        ("http://a", "*", None),
        ("http://a/", "/", None),
        ("http://a?b", "/", Some("b")),
        ("http://a?", "/", Some("")),
    ] {
        let request = read(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((request.path(), request.query()), (path.as_bytes(), query.map(str::as_bytes)), "{target}");
    }
    let get = read("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((get.path(), get.query()), (&b"/"[..], Some(&b"b"[..])));
}

#[test]
fn segments_of_dots_are_found_in_every_spelling() {
    for path in [
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/a/..",
        "/%2e",
        "/.%2E/",
        "/%2E%2e",
        "/a/%2e./b",
        "http://a/..",
        "/x/..%2fadmin",
        "/x%2F..%2Fadmin",
        "/x%2f%2e%2E",
        "/x/%2e%2e%5cadmin",
        "/x%5C../admin",
        "/x/..;/admin",
        "/x/.;a=b/admin",
        "/x/..%3B",
        "/..;",
    ] {
        assert_eq!(target(path), None, "{path}");
    }
    for path in [
        "/...",
        "/.a",
        "/a.",
        "/a..b",
        "/%2e%2e%2e",
        "/%2",
        "/%",
        "/a;..",
        "/;..",
        "/;/",
        "/a..;",
        "/?/../",
        "/%252e",
        "/..%2",
        "/%2f%2f",
        "/a%2fb..",
        "/",
    ] {
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
        ("/%20%e4", "/%20%E4"),
        ("/%2fa%2F%2fb/%2F", "/a/b/"),
        ("/a%2fb", "/a/b"),
        ("/%40%3a%2b", "/@:+"),
        ("/a;x=1;y/b;z", "/a/b"),
        ("/a%3Bx/b", "/a/b"),
        ("/;x/a", "/a"),
        ("/a;x//;%2F/b", "/a/b"),
        ("/a/;", "/a/"),
        ("/%3f%23%5c%25%00", "/%3F%23%5C%25%00"),
        ("/%", "/%"),
        ("/%6", "/%6"),
        ("/%zz%61", "/%zza"),
        ("/%2561", "/%2561"),
        ("*", "*"),
    ] {
        assert_eq!(&*normal_path(path.as_bytes()), normal.as_bytes(), "{path}");
    }
}

#[test]
fn a_path_in_which_nothing_is_to_be_changed_is_not_copied() {
    assert!(matches!(normal_path(b"/a/b.c,d/"), Cow::Borrowed(_)));
}

#[test]
fn what_is_below_a_part_of_a_path_is_as_it_was_sent() {
    for (path, matched, rest) in [
        ("/api/a", "/api", Some("a")),
        ("/api", "/api", None),
        ("/api/", "/api", Some("")),
        ("//%61pi//a//%2fb%41", "/api", Some("a//%2fb%41")),
        ("/api/%2fa", "/api", Some("%2fa")),
        ("/api%2Fa%2Fb", "/api", Some("a%2Fb")),
        ("/a%2f%2fb%20c/d", "/a/b%20c", Some("d")),
        ("/a", "", Some("a")),
        ("//", "", Some("")),
        ("/api;x=1/a;y", "/api", Some("a;y")),
        ("/a;x/%62;%79//c", "/a/b", Some("c")),
        ("/api;x", "/api", None),
        ("/;x/a", "", Some(";x/a")),
    ] {
        assert_eq!(below(path.as_bytes(), matched.len()), rest.map(str::as_bytes), "{path} below {matched}");
    }
}

/// A path letter by letter: each as it is written, and what byte that is to a server that decodes.
fn letters() -> impl Strategy<Value = Vec<(&'static str, u8)>> {
    let letters = [
        ("/", b'/'),
        ("%2f", b'/'),
        ("%2F", b'/'),
        (".", b'.'),
        ("%2e", b'.'),
        (";", b';'),
        ("%3b", b';'),
        ("%5c", b'\\'),
        ("%5C", b'\\'),
        ("a", b'a'),
        ("%41", b'A'),
        ("%25", b'%'),
        ("%e4", 0xe4),
    ];
    prop::collection::vec(prop::sample::select(letters.to_vec()), 0..12).prop_map(|mut letters| {
        letters.insert(0, ("/", b'/'));
        letters
    })
}

proptest! {
    #[test]
    fn dots_are_segments_to_those_who_decode_and_then_split(letters in letters()) {
        let written: String = letters.iter().map(|(written, _)| *written).collect();
        let decoded: Vec<u8> = letters.iter().map(|(_, byte)| *byte).collect();
        let has = decoded.split(|byte| b"/\\".contains(byte)).any(|segment| {
            let segment = segment.split(|byte| *byte == b';').next().unwrap();
            segment == b"." || segment == b".."
        });
        prop_assert_eq!(has_dots(written.as_bytes()), has, "{}", written);
        prop_assert_eq!(target(&written).is_none(), has, "{}", written);
    }

    #[test]
    fn a_normal_path_is_the_decoded_one_without_parameters_but_for_what_no_path_has(letters in letters()) {
        let written: String = letters.iter().map(|(written, _)| *written).collect();
        let mut is_in_parameters = false;
        let is_compared = |(_, byte): &&(&str, u8)| {
            is_in_parameters = *byte == b';' || is_in_parameters && *byte != b'/';
            !is_in_parameters
        };
        let normal: String = letters
            .iter()
            .filter(is_compared)
            .map(|(written, byte)| match byte {
                b'/' | b'.' | b'a' | b'A' => char::from(*byte).to_string(),
                _ => written.to_uppercase(),
            })
            .collect();
        let normal = (0..12).fold(normal, |normal, _| normal.replace("//", "/"));
        prop_assert_eq!(&*normal_path(written.as_bytes()), normal.as_bytes(), "{}", written);
        prop_assert_eq!(&*normal_path(normal.as_bytes()), normal.as_bytes(), "{}", normal);
        // Wherever a part of it ends, what is below that is the end of what was written.
        let whole = Some((normal.len(), "")).filter(|_| !normal.ends_with('/'));
        for (at, _) in normal.match_indices('/').chain(whole) {
            let rest = below(written.as_bytes(), at).map(|rest| std::str::from_utf8(rest).unwrap());
            prop_assert_eq!(rest.is_some(), at < normal.len());
            let rest = rest.unwrap_or_default();
            prop_assert!(written.ends_with(rest) && !rest.starts_with('/'));
            let again = format!("/{rest}");
            prop_assert!(at == normal.len() || *normal_path(again.as_bytes()) == normal.as_bytes()[at..]);
        }
    }
}
