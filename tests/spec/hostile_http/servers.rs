//! Servers whose responses are none, or break off, or are followed by something.

use crate::stage::Instance;
use crate::stage::http::{Client, Stand, Wire, next_request, ok, serving};

/// How a server goes on after what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stays,
    Closes,
    Resets,
}

async fn stand() -> (Stand, Instance) {
    let stand = Stand::new().await;
    let instance = Instance::start(&serving(&[stand.address], "", "retries = 3\nretry_on = [\"connect\"]")).await;
    (stand, instance)
}

/// Has a client ask for `/x` and a server say this.
async fn say(stand: &Stand, client: &mut Client, request: &str, bytes: &[u8], then: Then) -> Option<Wire> {
    client.send(request).await;
    let (mut server, _) = stand.asked().await;
    server.send(bytes).await;
    match then {
        Then::Stays => return Some(server),
        Then::Closes => drop(server),
        Then::Resets => server.reset(),
    }
    None
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// A response with these lines, and with bytes that some would take for its body.
fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn first(line: &str) -> Vec<u8> {
    format!("{line}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Asserts that the client is answered by us, that its connection is as good as before, and the server's is not.
async fn assert_bad(cases: &[(&str, Vec<u8>)]) {
    let (stand, instance) = stand().await;
    for (name, bytes) in cases {
        let mut client = Client::of(&instance).await;
        let server = say(&stand, &mut client, GET, bytes, Then::Stays).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.one("x-portreeve-reason")), (502, Some("bad_response")), "{name}");
        assert_eq!(response.text(), "502 Bad Gateway: bad_response\n", "{name}");
        client.get("/next", "").await;
        let (mut fresh, request) = stand.asked().await;
        assert_eq!(request.asked(), "GET /next", "{name}");
        fresh.send(ok("next").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), "next", "{name}");
        drop(server);
    }
}

#[tokio::test]
async fn a_response_that_could_be_read_in_two_ways_is_no_response() {
    let cases = [
        ("both lengths", head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        ("both lengths the other way around", head("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
        ("a length twice", head("Content-Length: 5\r\nContent-Length: 5\r\n")),
        ("two lengths", head("Content-Length: 5\r\nContent-Length: 6\r\n")),
        ("a list of lengths", head("Content-Length: 5, 5\r\n")),
        ("a negative length", head("Content-Length: -5\r\n")),
        ("a signed length", head("Content-Length: +5\r\n")),
        ("a hexadecimal length", head("Content-Length: 0x5\r\n")),
        ("an empty length", head("Content-Length:\r\n")),
        ("a length that is too large", head("Content-Length: 99999999999999999999\r\n")),
        ("an unknown coding", head("Transfer-Encoding: x\r\n")),
        ("gzip and chunked", head("Transfer-Encoding: gzip, chunked\r\n")),
        ("chunked and gzip", head("Transfer-Encoding: chunked, gzip\r\n")),
        ("chunked twice", head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        ("a line that ends with LF", head("A: b\nContent-Length: 5\r\n")),
        ("only LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n".to_vec()),
        ("CR in a value", head("A: b\rC: d\r\n")),
        ("NUL in a value", head("A: \0\r\n")),
        ("a folded line", head("A: b\r\n c\r\n")),
        ("a space before a colon", head("Content-Length : 5\r\n")),
        ("a space before a name", head(" Content-Length: 5\r\n")),
        ("no colon", head("Content-Length\r\n")),
        ("no name", head(": 5\r\n")),
        ("two empty lines in front", b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        (
            "both lengths where there is no body",
            b"HTTP/1.1 304 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
    ];
    assert_bad(&cases).await;
}

#[tokio::test]
async fn what_is_no_response_at_all_is_a_bad_gateway() {
    let cases = [
        ("HTTP/0.9", b"<html>hello</html>\r\n".to_vec()),
        ("garbage", [0xa5; 1000].to_vec()),
        ("garbage with a line", [[0xa5; 100].to_vec(), b"\r\n\r\n".to_vec()].concat()),
        ("TLS", b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("HTTP/2", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00".to_vec()),
        ("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("another version", first("HTTP/2.0 200 OK")),
        ("HTTP/1.2", first("HTTP/1.2 200 OK")),
        ("lower case", first("http/1.1 200 OK")),
        ("two digits", first("HTTP/1.1 20 OK")),
        ("four digits", first("HTTP/1.1 2000 OK")),
        ("no digits", first("HTTP/1.1 OK")),
        ("a status that begins with 0", first("HTTP/1.1 099 OK")),
        ("a negative status", first("HTTP/1.1 -200 OK")),
        ("two spaces", first("HTTP/1.1  200 OK")),
        ("a tab", first("HTTP/1.1\t200\tOK")),
        ("NUL in the phrase", first("HTTP/1.1 200 O\0K")),
        ("a phrase without end", first(&format!("HTTP/1.1 200 {}", "x".repeat(10_000)))),
        ("a header without end", format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(70_000)).into_bytes()),
        ("too many fields", format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(600)).into_bytes()),
        (
            "a change of protocol",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_vec(),
        ),
    ];
    assert_bad(&cases).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_reaches_the_client_as_one() {
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhalf";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let with = |tail: &str| format!("{chunked}{tail}");
    let cases = [
        ("a length and the end", length.to_owned(), Then::Closes),
        ("a length and a reset", length.to_owned(), Then::Resets),
        ("a length and nothing of it", length.replace("half", ""), Then::Closes),
        ("chunks and the end", chunked.to_owned(), Then::Closes),
        ("chunks and a reset", chunked.to_owned(), Then::Resets),
        ("half a chunk", with("9\r\nhalf"), Then::Closes),
        ("half a size", with("1"), Then::Closes),
        ("no end behind the last chunk", with("0\r\n"), Then::Closes),
        ("half a trailer", with("0\r\nA: b"), Then::Closes),
        ("a bad size", with("zz\r\n"), Then::Stays),
        ("a signed size", with("-1\r\n"), Then::Stays),
        ("a size with a space", with("4 \r\nhalf\r\n0\r\n\r\n"), Then::Stays),
        ("a size that is too large", with("fffffffffffffffff\r\n"), Then::Stays),
        ("LF alone behind a size", with("4\nhalf\r\n0\r\n\r\n"), Then::Stays),
        ("LF alone behind data", with("4\r\nhalf\n0\r\n\r\n"), Then::Stays),
        ("more data than its size says", with("2\r\nhalf\r\n0\r\n\r\n"), Then::Stays),
        ("a bad trailer", with("0\r\nA : b\r\n\r\n"), Then::Stays),
        ("a response for a trailer", with("0\r\nHTTP/1.1 200 OK\r\n\r\n"), Then::Stays),
        ("a reset for an end", until_close.to_owned(), Then::Resets),
    ];
    let (stand, instance) = stand().await;
    for (name, bytes, then) in &cases {
        for version in ["1.1", "1.0"] {
            let mut client = Client::of(&instance).await;
            let request = GET.replace("1.1", version);
            // What a server says and takes back with a reset may be lost with it, and what is wrong from the beginning is
            // passed on to nobody; then the answer is ours.
            let _server = say(&stand, &mut client, &request, bytes.as_bytes(), *then).await;
            match client.try_response().await {
                Err(_broken_off) => {}
                Ok(response) => assert_eq!(response.status(), 502, "{name}, HTTP/{version}: {response:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_response_that_goes_wrong_before_any_of_it_was_passed_on_is_answered_by_us() {
    let cases = ["zz\r\n", "4 \r\nhalf\r\n0\r\n\r\n", "2\r\nhalf\r\n0\r\n\r\n", "0\r\nA : b\r\n\r\n"];
    let with_head = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    assert_bad(&cases.map(|body| (body, with_head(body)))).await;
}

#[tokio::test]
async fn what_comes_behind_a_response_is_not_the_response_to_the_next_request() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let cases = [
        ("more than the length", GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (
            "more than the last chunk",
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
        ("a body behind 204", GET, "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("a body behind 304", GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 54\r\n\r\n", ""),
        ("a body behind nothing", GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ];
    let (stand, instance) = stand().await;
    for (name, request, response, body) in cases {
        let mut client = Client::of(&instance).await;
        let _server = say(&stand, &mut client, request, [response, evil].concat().as_bytes(), Then::Stays).await;
        assert_eq!(client.response().await.text(), body, "{name}");
        client.get("/next", "").await;
        let (mut fresh, request) = stand.asked().await;
        assert_eq!(request.asked(), "GET /next", "{name}");
        fresh.send(ok("next").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), "next", "{name}");
    }
    let mut client = Client::of(&instance).await;
    let head = GET.replace("GET", "HEAD");
    let _server = say(&stand, &mut client, &head, ok("body").as_bytes(), Then::Stays).await;
    assert_eq!(client.head().await.field("content-length"), "4");
    client.get("/next", "").await;
    let (mut fresh, _) = stand.asked().await;
    fresh.send(ok("next")).await;
    assert_eq!(client.response().await.text(), "next", "a body behind the response to HEAD");
}

#[tokio::test]
async fn a_server_may_say_a_hundred_times_that_an_answer_follows() {
    let (stand, instance) = stand().await;
    for (count, status) in [(100, 200), (101, 502), (100_000, 502)] {
        let mut client = Client::of(&instance).await;
        client.send(GET).await;
        let (mut server, _) = stand.asked().await;
        let saying = async {
            let words = "HTTP/1.1 102 Processing\r\n\r\n".repeat(count);
            // It may be cut short.
            let all = tokio::io::AsyncWriteExt::write_all(&mut server.stream, words.as_bytes()).await;
            if all.is_ok() && status == 200 {
                server.send(ok("at last").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            }
        };
        let listening = async {
            for _ in 0..100 {
                assert_eq!(client.response().await.status(), 102);
            }
            client.response().await
        };
        let (response, ()) = tokio::join!(listening, saying);
        assert_eq!(response.status(), status, "{count}");
    }
}

#[tokio::test]
async fn a_head_that_comes_in_pieces_is_read_as_one() {
    let (stand, instance) = stand().await;
    let mut client = Client::of(&instance).await;
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nok";
    client.send(GET).await;
    let (mut server, _) = stand.asked().await;
    for byte in response.bytes() {
        server.send([byte]).await;
    }
    assert_eq!(client.response().await.text(), "ok");
    client.get("/next", "").await;
    assert_eq!(next_request(&mut server).await.asked(), "GET /next");
}
