//! Heads that are none: lines, first lines, hosts and targets.

use super::requests::{Case, Fate, assert_fates};
use crate::stage::Instance;
use crate::stage::http::{Client, Recorder, serving};

const BAD: Fate = Fate::Refused(400);

fn case(name: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    (name, bytes.as_ref().to_vec(), BAD)
}

fn fine(name: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    (name, bytes.as_ref().to_vec(), Fate::Forwarded(""))
}

/// A GET with these lines behind its host.
fn lines(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n")
}

/// A GET with these lines in place of its host.
fn hosts(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\n{lines}\r\n")
}

fn host(host: &str) -> String {
    hosts(&format!("Host: {host}\r\n"))
}

/// A request with this first line.
fn first(line: &str) -> String {
    format!("{line}\r\nHost: a.example\r\n\r\n")
}

fn target(target: &str) -> String {
    first(&format!("GET {target} HTTP/1.1"))
}

#[tokio::test]
async fn a_line_ends_with_cr_lf_and_is_a_name_a_colon_and_a_value() {
    assert_fates(vec![
        case("LF alone everywhere", "GET /x HTTP/1.1\nHost: a.example\n\n"),
        case("LF alone behind the first line", "GET /x HTTP/1.1\nHost: a.example\r\n\r\n"),
        case("LF alone behind a field", "GET /x HTTP/1.1\r\nHost: a.example\nA: b\r\n\r\n"),
        case("LF alone at the end", "GET /x HTTP/1.1\r\nHost: a.example\r\n\n"),
        case("LF and CR", "GET /x HTTP/1.1\r\nHost: a.example\n\rA: b\r\n\r\n"),
        case("CR twice", "GET /x HTTP/1.1\r\nHost: a.example\r\r\n\r\n"),
        case("CR in a value", lines("A: b\rC: d\r\n")),
        case("CR in a name", lines("A\r: b\r\n")),
        case("NUL in a value", lines("A: b\0c\r\n")),
        case("NUL in a name", lines("A\0: b\r\n")),
        case("an escape in a value", lines("A: \x1b[31m\r\n")),
        case("DEL in a value", lines("A: \x7f\r\n")),
        case("folded with a space", lines("A: b\r\n c\r\n")),
        case("folded with a tab", lines("A: b\r\n\tc\r\n")),
        case("folded right away", "GET /x HTTP/1.1\r\n Host: a.example\r\nHost: a.example\r\n\r\n"),
        case("folded with nothing", lines("A: b\r\n \r\n")),
        case("space before the colon", lines("A : b\r\n")),
        case("tab before the colon", lines("A\t: b\r\n")),
        case("no name", lines(": b\r\n")),
        case("no colon", lines("A\r\n")),
        case("space in a name", lines("A B: c\r\n")),
        case("brackets in a name", lines("(A): b\r\n")),
        case("a slash in a name", lines("A/B: c\r\n")),
        case("a name in another script", lines("\u{c4}: b\r\n")),
        case("a line break in another script", lines("A: b\u{a}C: d\r\n")),
        case("two empty lines in front", format!("\r\n\r\n{}", lines(""))),
        case("a space in front", format!(" {}", lines(""))),
        case("LF in front", format!("\n{}", lines(""))),
        case("a byte order mark in front", format!("\u{feff}{}", lines(""))),
        case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        case("expects something else", lines("Expect: 200-ok\r\nContent-Length: 0\r\n")),
        fine("one empty line in front", format!("\r\n{}", lines(""))),
        fine("an empty value", lines("A:\r\nB: \r\n")),
        fine("bytes of other scripts in a value", lines("A: \u{20ac}\r\n")),
    ])
    .await;
}

#[tokio::test]
async fn a_first_line_is_a_method_a_target_and_a_version_with_one_space_between() {
    assert_fates(vec![
        case("HTTP/0.9", "GET /x\r\n\r\n"),
        case("HTTP/0.9 with fields", first("GET /x")),
        case("HTTP/1.2", first("GET /x HTTP/1.2")),
        case("HTTP/2.0", first("GET /x HTTP/2.0")),
        case("HTTP/2", first("GET /x HTTP/2")),
        case("HTTP/3.0", first("GET /x HTTP/3.0")),
        case("HTTP/0.9 by name", first("GET /x HTTP/0.9")),
        case("HTTP/1", first("GET /x HTTP/1")),
        case("HTTP/1.", first("GET /x HTTP/1.")),
        case("HTTP/1.10", first("GET /x HTTP/1.10")),
        case("HTTP/01.1", first("GET /x HTTP/01.1")),
        case("HTTP/1,1", first("GET /x HTTP/1,1")),
        case("lower case", first("GET /x http/1.1")),
        case("another protocol", first("GET /x ICAP/1.0")),
        case("a space behind", first("GET /x HTTP/1.1 ")),
        case("words behind", first("GET /x HTTP/1.1 HTTP/1.0")),
        case("two spaces before the target", first("GET  /x HTTP/1.1")),
        case("two spaces behind the target", first("GET /x  HTTP/1.1")),
        case("tabs", first("GET\t/x\tHTTP/1.1")),
        case("a space in the target", first("GET /x y HTTP/1.1")),
        case("no method", first(" /x HTTP/1.1")),
        case("no target", first("GET  HTTP/1.1")),
        case("brackets in the method", first("G(T /x HTTP/1.1")),
        case("a colon in the method", first("GET: /x HTTP/1.1")),
        case("NUL in the method", first("GE\0T /x HTTP/1.1")),
        case("a method without end", first(&format!("{} /x HTTP/1.1", "A".repeat(65)))),
        case("a field for a first line", "Host: a.example\r\n\r\n"),
        case("a response for a request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        fine("a method of one's own", first("M-SEARCH /x HTTP/1.1")),
        fine("HTTP/1.0", first("GET /x HTTP/1.0")),
    ])
    .await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    assert_fates(vec![
        case("none", hosts("")),
        case("none in the header but in the target", first("GET http://a.example/ HTTP/1.1").replace("Host", "Hots")),
        case("the same twice", hosts("Host: a.example\r\nHost: a.example\r\n")),
        case("another twice", hosts("Host: a.example\r\nHost: b.example\r\n")),
        case("twice in HTTP/1.0", hosts("Host: a\r\nHost: b\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        case("twice, one with a space before the colon", hosts("Host: a.example\r\nHost : b.example\r\n")),
        case("empty", host("")),
        case("with a space", host("a b")),
        case("a list", host("a,b c")),
        case("with a path", host("a.example/x")),
        case("with a query", host("a.example?x")),
        case("with a fragment", host("a.example#x")),
        case("with a user", host("user@a.example")),
        case("with a backslash", host("a.example\\b")),
        case("with a scheme", host("http://a.example")),
        case("with a port that is none", host("a.example:http")),
        case("with a port that is too large", host("a.example:65536")),
        case("with a port that is signed", host("a.example:+80")),
        case("with two ports", host("a.example:80:81")),
        case("only a port", host(":80")),
        case("brackets that stay open", host("[::1")),
        case("brackets with no address", host("[zz]")),
        case("brackets and more", host("[::1]x")),
        case("an address without brackets", host("::1")),
        case("in another script", host("\u{e4}.example")),
        case(
            "a bad one beside an absolute target",
            first("GET http://a.example/x HTTP/1.1").replace("Host: a", "Host: b c"),
        ),
        case("two beside an absolute target", first("GET http://a.example/x HTTP/1.1\r\nHost: b")),
        fine("with a port", host("a.example:8080")),
        fine("an address", host("[2001:db8::1]:80")),
        fine("another one than an absolute target", first("GET http://b.example/x HTTP/1.1")),
    ])
    .await;
}

#[tokio::test]
async fn a_target_is_a_path_or_absolute_and_has_no_segments_of_dots() {
    assert_fates(vec![
        case("no slash", target("x")),
        case("a host and a path", target("a.example/x")),
        case("a star with GET", target("*")),
        case("a star and more", first("OPTIONS *x HTTP/1.1")),
        case("a fragment", target("/x#y")),
        case("a backslash", target("/x\\y")),
        case("a quote", target("/x\"y")),
        case("angle brackets", target("/<x>")),
        case("braces in the path", target("/{x}")),
        case("NUL", target("/x\0")),
        case("an escape", target("/\x1b")),
        case("DEL", target("/\x7f")),
        case("another script", target("/\u{e4}")),
        case("another script in the query", target("/?\u{e4}")),
        case("a fragment in the query", target("/?x#y")),
        case("another scheme", target("ftp://a.example/x")),
        case("a scheme without slashes", target("http:a.example/x")),
        case("one slash", target("http:/a.example/x")),
        case("no host", target("http:///x")),
        case("only a port", target("http://:80/x")),
        case("a user", target("http://user@a.example/x")),
        case("a user and a password", target("http://user:secret@a.example/x")),
        case("a host with a space", target("http://a%20b/ x")),
        case("a fragment without a path", target("http://a.example#x")),
        case("a backslash in the host", target("http://a.example\\@b/x")),
        case("CONNECT", first("CONNECT a.example:443 HTTP/1.1")),
        case("CONNECT of a path", first("CONNECT /x HTTP/1.1")),
        case(
            "CONNECT with a body",
            first("CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 5").replace("\r\n\r\n", "\r\n\r\nabcde"),
        ),
        case("up", target("/../x")),
        case("up at the end", target("/x/..")),
        case("up alone", target("/..")),
        case("here", target("/x/./y")),
        case("here at the end", target("/x/.")),
        case("up, encoded", target("/x/%2e%2E/y")),
        case("up, half encoded", target("/x/.%2e/y")),
        case("here, encoded", target("/%2e/x")),
        case("up in an absolute target", target("http://a.example/x/../y")),
        fine("a query without a path", target("http://a.example?x")),
        fine("dots that are none", target("/.../..x/x../.x")),
        fine("dots in a query", target("/x?a=/../b")),
        fine("a star with OPTIONS", first("OPTIONS * HTTP/1.1")),
    ])
    .await;
}

#[tokio::test]
async fn what_would_hide_a_request_in_a_refused_upgrade_does_not() {
    let server = Recorder::ok().await;
    let instance = Instance::start(&serving(&[server.address()], "", "")).await;
    let mut client = Client::of(&instance).await;
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    client.send([lines(upgrade), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()].concat()).await;
    assert_eq!(client.response().await.text(), "ok");
    let response = client.response().await;
    assert_eq!((response.status(), response.field("x-portreeve-reason")), (400, "bad_request"));
    client.ends().await;
    assert_eq!(server.saw().all("http2-settings").len(), 0);
}
