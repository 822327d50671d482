//! Heads of requests and responses.

use super::*;
use crate::message::framing::Length;
use crate::message::head::{Fields, Known};
use crate::message::request::MOST_TOLD;
use crate::message::version::Version;

#[test]
fn a_request_is_taken_apart_and_what_follows_it_is_left_over() {
    let bytes = "POST /a/b?c=d HTTP/1.1\r\nHost: A.Example:81\r\nX-Y:  z z\t\r\ncontent-length: 3\r\n\r\nabc";
    let (request, rest) = request(&[bytes.as_bytes()], &LIMITS).unwrap().unwrap();
    assert_eq!((request.method(), request.path(), request.query()), (&b"POST"[..], &b"/a/b"[..], Some(&b"c=d"[..])));
    assert_eq!((request.host(), request.port(), request.authority()), ("a.example", Some(81), &b"A.Example:81"[..]));
    assert_eq!((request.version, request.length, request.keeps_alive), (Version::Http11, Length::Exactly(3), true));
    let fields: Vec<_> = request.fields.iter().map(|(_, name, value)| (name, value)).collect();
    assert_eq!(fields[1], (&b"X-Y"[..], &b"z z"[..]));
    assert_eq!((fields.len(), rest.as_slice()), (3, &b"abc"[..]));
}

#[test]
fn a_request_that_is_cleared_reads_the_next_one_as_if_it_were_the_first() {
    let mut used = read("GET http://old.example:1/old?old HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
    used.clear();
    assert!(used.is_blank());
    used.arrived(b"PUT /new HTTP/1.1\r\nHost: new\r\n\r\n");
    assert_eq!(used.parse(&LIMITS, &mut Vec::new()), Ok(Parsed::Whole(32)));
    assert_eq!((used.method(), used.path(), used.query()), (&b"PUT"[..], &b"/new"[..], None));
    assert_eq!((used.host(), used.port(), used.authority(), used.version), ("new", None, &b"new"[..], Version::Http11));
    assert_eq!(used.fields.len(), 1);
}

#[test]
fn connections_are_kept_as_the_version_and_connection_say() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: y , close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let request = read(&format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"));
        assert_eq!(request.keeps_alive, kept, "{version} {connection}");
    }
}

#[test]
fn an_upgrade_counts_if_connection_lists_it_and_there_is_no_body() {
    let upgrade = |version: &str, lines: &str| {
        let request = read(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
        request.upgrade().map(<[u8]>::to_vec)
    };
    assert_eq!(upgrade("1.1", "Connection: x, upgrade\r\nUpgrade: a/1, b\r\n"), Some(b"a/1, b".to_vec()));
    assert_eq!(upgrade("1.1", "Upgrade: a\r\n"), None);
    assert_eq!(upgrade("1.1", "Connection: upgrade\r\n"), None);
    assert_eq!(upgrade("1.0", "Connection: upgrade\r\nUpgrade: a\r\n"), None);
    assert_eq!(upgrade("1.1", "Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n"), None);
    assert_eq!(upgrade("1.1", "Connection: upgrade\r\nUpgrade: a\r\nTransfer-Encoding: chunked\r\n"), None);
}

#[test]
fn a_client_waits_for_100_only_if_it_has_a_body_and_speaks_http_1_1() {
    let expects = |version: &str, length: u8| {
        let head =
            format!("PUT / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n");
        read(&head).expects_continue
    };
    assert_eq!((expects("1.1", 1), expects("1.1", 0), expects("1.0", 1)), (true, false, false));
    assert_eq!(
        refused("PUT / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n"),
        "it expects something else than 100-continue"
    );
}

#[test]
fn what_is_wrong_is_said() {
    for (head, words) in [
        ("GET /\r\n\r\n", "its first line is not a method, a target and a version"),
        ("GET / x HTTP/1.1\r\n\r\n", "its first line is not a method, a target and a version"),
        ("G(T / HTTP/1.1\r\n\r\n", "its method is none"),
        ("GET / HTTP/1.2\r\n\r\n", "its version is not HTTP/1.1 or HTTP/1.0"),
        ("GET x HTTP/1.1\r\n\r\n", "its target is no path"),
        ("GET /{ HTTP/1.1\r\n\r\n", "its path has a character that paths have not"),
        ("GET /?\" HTTP/1.1\r\n\r\n", "its query has a character that queries have not"),
        ("GET /../x HTTP/1.1\r\n\r\n", "its path has a segment `.` or `..`"),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "CONNECT is not served"),
        ("GET / HTTP/1.1\n\r\n", "a line ends without CR"),
        ("\u{1}", "it does not begin like a message"),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "a line is folded"),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", "a space stands before a colon"),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", "a field has no name"),
        ("GET / HTTP/1.1\r\nA\r\n\r\n", "a field has no colon"),
        ("GET / HTTP/1.1\r\n\u{e4}: b\r\n\r\n", "the name of a field has a character that names have not"),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", "the value of a field has a character that values have not"),
        ("GET / HTTP/1.1\r\n\r\n", "it names no host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "it names two hosts"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "its host is not valid"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "it has Content-Length twice"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "its Content-Length is not a number"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "it has Transfer-Encoding in HTTP/1.0"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", "its Transfer-Encoding is not `chunked`"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "it has both Content-Length and Transfer-Encoding",
        ),
    ] {
        assert_eq!(refused(head), words, "{head:?}");
    }
}

#[test]
fn limits_are_exact_however_the_bytes_come() {
    let line = |length: usize| format!("GET /{} HTTP/1.1", "x".repeat(length - 14));
    let head =
        |first: usize, fields: usize| format!("{}\r\nHost: a\r\nX: {}\r\n\r\n", line(first), "y".repeat(fields - 14));
    let at_once = |text: &str| request(&[text.as_bytes()], &LIMITS).map(|read| read.is_some());
    let by_bytes =
        |text: &str| request(&text.as_bytes().chunks(1).collect::<Vec<_>>(), &LIMITS).map(|read| read.is_some());
    for (text, outcome) in [
        (head(200, 400), Ok(true)),
        (head(201, 400), Err(Fault::FirstLineTooLong)),
        (head(200, 401), Err(Fault::TooLarge)),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(9)), Ok(true)),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(10)), Err(Fault::TooMany)),
    ] {
        assert_eq!(at_once(&text), outcome, "{text:?}");
        assert_eq!(by_bytes(&text), outcome, "{text:?}");
    }
}

#[test]
fn a_head_without_end_is_told_before_it_has_grown() {
    let told_at = |begin: &str| {
        let mut request = Request::default();
        request.arrived(begin.as_bytes());
        (0..1000).find(|_| {
            request.arrived(b"x");
            request.parse(&LIMITS, &mut Vec::new()).is_err()
        })
    };
    assert!(told_at("GET /").is_some_and(|at| at <= 200));
    assert!(told_at("GET / HTTP/1.1\r\nA: ").is_some_and(|at| at <= 400));
}

#[test]
fn underscores_are_kept_or_the_field_is_dropped() {
    let bytes: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\n\r\n";
    let fields = |underscores| {
        let limits = Limits { underscores, ..LIMITS };
        request(&[bytes], &limits).unwrap().unwrap().0.fields.len()
    };
    assert_eq!((fields(true), fields(false)), (2, 1));
}

#[test]
fn a_response_is_taken_apart() {
    let bytes = b"HTTP/1.1 404 Not Here\r\nServer: x\r\nContent-Length: 2\r\n\r\nno";
    let (response, rest) = response(&[bytes], false).unwrap().unwrap();
    assert_eq!((response.status, response.reason(), response.length), (404, &b"Not Here"[..], Length::Exactly(2)));
    assert_eq!((response.fields.first(Known::ContentLength), rest.as_slice()), (Some(&b"2"[..]), &b"no"[..]));
}

#[test]
fn the_length_of_a_response_depends_on_what_was_asked() {
    let length = |line: &str, lines: &str, to_head| {
        let bytes = format!("{line}\r\n{lines}\r\n");
        let (response, _) = response(&[bytes.as_bytes()], to_head).unwrap().unwrap();
        (response.length, response.keeps_alive)
    };
    let ok = "HTTP/1.1 200 OK";
    assert_eq!(length(ok, "", false), (Length::UntilClose, false));
    assert_eq!(length(ok, "", true), (Length::None, true));
    assert_eq!(length(ok, "Transfer-Encoding: chunked\r\n", false), (Length::Unknown, true));
    assert_eq!(length(ok, "Transfer-Encoding: chunked\r\n", true), (Length::None, true));
    assert_eq!(length("HTTP/1.1 204", "Content-Length: 5\r\n", false), (Length::None, true));
    assert_eq!(length("HTTP/1.1 304 ", "Content-Length: 5\r\n", false), (Length::None, true));
    assert_eq!(length("HTTP/1.1 103 x", "Link: y\r\n", false), (Length::None, true));
    assert_eq!(length("HTTP/1.0 200 OK", "Content-Length: 5\r\n", false), (Length::Exactly(5), false));
    let kept = length("HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive\r\n", false);
    assert_eq!(kept, (Length::Exactly(5), true));
}

#[test]
fn first_lines_of_responses_are_read_strictly() {
    for line in [
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20",
        "HTTP/1.1 2000",
        "HTTP/1.1 099 x",
        "HTTP/1.1  200",
        "HTTP/1.1\t200",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 \u{1}",
        "HTTP/2 200 OK",
        "HTTP/1.1 2x0 OK",
    ] {
        let bytes = format!("{line}\r\n\r\n");
        assert!(response(&[bytes.as_bytes()], false).is_err(), "{line:?}");
    }
    for (line, reason) in [("HTTP/1.1 200", ""), ("HTTP/1.1 200 ", ""), ("HTTP/1.0 999 \u{e4} b", "\u{e4} b")] {
        let bytes = format!("{line}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(response(&[bytes.as_bytes()], false).unwrap().unwrap().0.reason(), reason.as_bytes());
    }
}

#[test]
fn a_line_is_passed_on_as_it_came_if_it_is_as_it_would_be_written() {
    let lines = "A: b\r\nC:d\r\nE:  f\r\nG: h \r\nI:\tj\r\nK: \r\nL: \u{fc} m\r\n";
    let first = |line: &str| {
        let bytes = format!("\r\n{line}\r\n{lines}\r\n");
        let (response, _) = response(&[bytes.as_bytes()], false).unwrap().unwrap();
        let lines: Vec<_> = response.fields.entries().map(|entry| entry.line().map(<[u8]>::to_vec)).collect();
        let whole = |line: &str| Some(line.as_bytes().to_vec());
        assert_eq!(lines, [whole("A: b\r\n"), None, None, None, None, whole("K: \r\n"), whole("L: \u{fc} m\r\n")]);
        response.first_line().map(|line| String::from_utf8(line.to_vec()).unwrap())
    };
    assert_eq!(first("HTTP/1.1 200 All right"), Some("HTTP/1.1 200 All right\r\n".to_owned()));
    for line in ["HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 OK"] {
        assert_eq!(first(line), None, "{line}");
    }
    let mut fields = Fields::default();
    fields.push(b"name", b"value");
    fields.append(b"\r\n");
    assert_eq!(fields.entries().next().unwrap().line(), None, "it came in another form");
}

#[test]
fn what_was_read_of_what_came_to_no_request_is_told_and_what_was_not_is_left_out() {
    let long = "x".repeat(300);
    for (bytes, method, target, host) in [
        ("GET /a/../b?c HTTP/1.1\r\nHost: A.example:80\r\n\r\n", "GET", "/a/../b?c", "a.example"),
        ("HEAD /.. HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD", "/..", "a"),
        ("GET /{ HTTP/1.1\r\nA: b\r\nHost: a\r\n", "GET", "/{", "a"),
        ("GET /a?\" HTTP/1.1\r\n", "GET", "/a?\"", ""),
        ("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT", "b:443", "a"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "*", "a"),
        ("\r\nGET /x\r\nHost: a\r\n\r\n", "GET", "/x", "a"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/a", "a"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "GET", "/", "a"),
        ("GET /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: z\r\n\r\n", "GET", "/x?y", "a"),
        ("GET /x HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", "GET", "/x", "a"),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET", "/x", ""),
        ("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", "GET", "/x", ""),
        ("GET http://b/../x HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "http://b/../x", "a"),
        (&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n"), "GET", &format!("/{long}"), "a"),
        ("GET /begun", "GET", "/begun", ""),
        ("GET /begun HTTP/1.1\r\nHost: a\r\nB", "GET", "/begun", "a"),
        ("GET", "", "", ""),
        (&format!("GET /{long}"), "GET", &format!("/{long}"), ""),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "", "", "a"),
        ("\u{16}\u{3}\u{1} \u{2}\n", "", "", ""),
        ("\u{16}\u{3}\u{1}", "", "", ""),
    ] {
        let mut request = Request::default();
        request.arrived(bytes.as_bytes());
        let told = |request: &Request| {
            let method = String::from_utf8(request.method_sent().to_vec()).unwrap();
            (method, request.target_told(), request.host().to_owned())
        };
        let _begun_or_wrong = request.parse(&LIMITS, &mut Vec::new());
        request.glean(&LIMITS);
        assert_eq!(told(&request), (method.to_owned(), target.to_owned(), host.to_owned()), "{bytes:?}");
        // Nothing of it is left for the next.
        request.clear();
        assert_eq!(told(&request), Default::default(), "{bytes:?}");
    }
}

#[test]
fn no_more_is_told_of_a_long_target_than_its_beginning() {
    let mut request = Request::default();
    let target = format!("/{}", "x".repeat(70_000));
    request.arrived(format!("GET {target}").as_bytes());
    assert_eq!(request.parse(&LIMITS, &mut Vec::new()), Err(Fault::FirstLineTooLong));
    request.glean(&LIMITS);
    assert_eq!(request.target_told(), target[..MOST_TOLD]);
}
