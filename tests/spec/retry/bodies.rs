//! Bodies of requests that are sent again: what was read of one is kept as long as it is short, and nobody has answered.

use super::{over, with_a_waiting_connection};
use crate::stage::access::AccessLog;
use crate::stage::http::{Client, Message, Recorder, Stand, Wire, next_request, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, eventually};

/// The head of a PUT with a body of this length.
fn put(length: usize) -> String {
    format!("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

const CHUNKED: &str = "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
/// Of a body that is still kept.
const MOST: usize = 16 * 1024;

/// Of two servers, the one that was asked, what for, and the other one.
async fn first_of<'s>(one: &'s Stand, two: &'s Stand) -> (Wire, Message, &'s Stand) {
    tokio::select! {
        (server, request) = one.asked() => (server, request, two),
        (server, request) = two.asked() => (server, request, one),
    }
}

/// The same of one that has sent its head and the beginning of its body: of two servers, the one that it came to, and the other.
async fn begun_at<'s>(one: &'s Stand, two: &'s Stand) -> (Wire, &'s Stand) {
    let (mut server, other) = tokio::select! {
        server = one.visit() => (server, two),
        server = two.visit() => (server, one),
    };
    server.head().await.unwrap();
    (server, other)
}

/// The next request goes to the same server, on the same connection: both sides agree on where the last one ended.
async fn is_served_again(client: &mut Speaker, server: &mut Wire) {
    client.get("/next", "").await;
    assert_eq!(next_request(server).await.asked(), "GET /next");
    server.send(ok("next")).await;
    assert_eq!(client.response().await.text(), "next");
}

#[tokio::test]
async fn a_short_body_goes_again_with_its_request() {
    for version in Version::each() {
        for (body, text, trailers) in [
            (format!("{}body", put(4)), "body", 0),
            (format!("{CHUNKED}1\r\nx\r\n2\r\nyz\r\n0\r\n\r\n"), "xyz", 0),
            (format!("{CHUNKED}0\r\n\r\n"), "", 0),
            (format!("{CHUNKED}1\r\nx\r\n0\r\nX-T: 1\r\n\r\n"), "x", 1),
            (format!("{CHUNKED}0\r\nX-T: 1\r\n\r\n"), "", 1),
        ] {
            let stand = Stand::new().await;
            let (_instance, mut client, mut server) =
                with_a_waiting_connection(version, &stand, "retries = 0\nretry_on = []").await;
            client.send(&body).await;
            let first = next_request(&mut server).await;
            drop(server);
            let (mut server, second) = stand.asked().await;
            for request in [&first, &second] {
                assert_eq!((request.text(), request.trailers.len()), (text, trailers), "{body}");
            }
            server.send(ok("second")).await;
            assert_eq!(client.response().await.text(), "second");
            is_served_again(&mut client, &mut server).await;
        }
    }
}

#[tokio::test]
async fn a_short_body_goes_elsewhere_after_a_reset_or_a_status() {
    for version in Version::each() {
        for is_reset in [true, false] {
            let (one, two) = (Stand::new().await, Stand::new().await);
            let (_instance, mut client) =
                over(version, &[one.address, two.address], "retry_on = [\"reset\", 503]").await;
            client.send(put(4) + "body").await;
            let (mut server, _, other) = first_of(&one, &two).await;
            if is_reset {
                server.reset();
            } else {
                server.send(BUSY).await;
            }
            let (mut server, request) = other.asked().await;
            assert_eq!(request.text(), "body");
            server.send(ok("elsewhere")).await;
            assert_eq!(client.response().await.text(), "elsewhere");
        }
    }
}

/// A client that has sent four of eight bytes, `some`, to a server that has reset the connection, and the one to the next.
async fn half_sent_again(version: Version) -> (Instance, Speaker, Wire) {
    let (one, two) = (Stand::new().await, Stand::new().await);
    let (instance, mut client) = over(version, &[one.address, two.address], "retry_on = [\"reset\"]").await;
    client.send(put(8) + "some").await;
    let (mut server, other) = begun_at(&one, &two).await;
    assert_eq!(server.exactly(4).await.unwrap(), b"some");
    server.reset();
    (instance, client, other.visit().await)
}

#[tokio::test]
async fn a_body_that_is_still_coming_goes_on_where_it_was_sent_again() {
    for version in Version::each() {
        let (_instance, mut client, mut server) = half_sent_again(version).await;
        server.head().await.unwrap();
        assert_eq!(server.exactly(4).await.unwrap(), b"some");
        client.send("more").await;
        assert_eq!(server.exactly(4).await.unwrap(), b"more");
        server.send(ok("elsewhere")).await;
        assert_eq!(client.response().await.text(), "elsewhere");
    }
}

#[tokio::test]
async fn a_body_that_was_sent_again_in_part_counts_once_for_the_limit_of_bodies() {
    for version in Version::each() {
        let (one, two) = (Stand::new().await, Stand::new().await);
        let limited = serving(&[one.address, two.address], "http = { max_body = \"6B\" }", "retry_on = [\"reset\"]");
        for (rest, status) in [("2\r\nyz\r\n0\r\n\r\n", 200), ("3\r\nyz!\r\n0\r\n\r\n", 413)] {
            let instance = Instance::start(&limited).await;
            let mut client = Speaker::of(version, &instance).await;
            client.send(format!("{CHUNKED}4\r\nsome\r\n")).await;
            let (mut server, other) = begun_at(&one, &two).await;
            assert_eq!(server.chunk().await.unwrap(), b"some");
            server.reset();
            let mut server = other.visit().await;
            server.head().await.unwrap();
            assert_eq!(server.chunk().await.unwrap(), b"some");
            client.send(rest).await;
            if status == 200 {
                assert_eq!(server.chunk().await.unwrap(), b"yz");
                server.send(ok("whole")).await;
            }
            assert_eq!(client.response().await.status(), status);
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_not_sent_twice() {
    for version in Version::each() {
        for (length, may_go_again) in [(MOST, true), (MOST + 1, false)] {
            let stand = Stand::new().await;
            let (_instance, mut client, mut server) =
                with_a_waiting_connection(version, &stand, "retries = 3\nretry_on = [\"reset\", 503]").await;
            let request = put(length) + &"x".repeat(length);
            client.send(&request).await;
            assert_eq!(next_request(&mut server).await.body.len(), length);
            drop(server);
            if may_go_again {
                let (mut server, again) = stand.asked().await;
                assert_eq!(again.body.len(), length);
                server.send(ok("again")).await;
                assert_eq!(client.response().await.text(), "again");
            } else {
                assert_eq!(client.response().await.field("x-portreeve-reason"), "server_closed");
            }
        }
    }
}

#[tokio::test]
async fn what_answers_before_a_body_was_sent_again_gets_all_of_it() {
    // The second server answers at once; what is left of the body goes to it all the same.
    for version in Version::each() {
        let (_instance, mut client, mut server) = half_sent_again(version).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nea").await;
        client.send("more").await;
        let mut request = server.head().await.unwrap().unwrap();
        server.body(&mut request).await.unwrap();
        assert_eq!(request.text(), "somemore");
        server.send("rly").await;
        assert_eq!(client.response().await.text(), "early");
    }
}

#[tokio::test]
async fn bytes_that_went_twice_count_once_for_the_client_and_twice_for_the_servers() {
    for version in Version::each() {
        let (one, two) = (Stand::new().await, Stand::new().await);
        let log = AccessLog::new();
        let text = serving(&[one.address, two.address], "", "retry_on = [\"reset\"]");
        let instance = Instance::start(&log.of(&text)).await;
        let mut client = Speaker::of(version, &instance).await;
        client.send(put(4) + "body").await;
        let (server, _, other) = first_of(&one, &two).await;
        server.reset();
        let (mut server, _) = other.asked().await;
        server.send(ok("elsewhere")).await;
        client.response().await;
        let line = log.line(1).await;
        assert_eq!((&line["bytes_in"], &line["retries"]), (&4.into(), &1.into()), "{line:#}");
        for stand in [one, two] {
            let sent = || instance.of_server("bytes_total", stand.address, ",direction=\"in\"");
            eventually("that each was sent it", || sent() == 4.0).await;
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_request_that_was_sent_again_has_its_body_once() {
    let (one, two) = (Stand::new().await, Stand::new().await);
    let shadow = Recorder::ok().await;
    let mut text = serving(
        &[one.address, two.address],
        "routes = [{ path = \"/\", pool = \"web\", mirror = \"shadow\" }]",
        "retry_on = [\"reset\"]",
    );
    text += &format!("\n[pools.shadow]\nservers = [\"{}\"]\ncheck = \"none\"\n", shadow.address());
    let instance = Instance::start(&text).await;
    let mut client = Client::of(&instance).await;
    client.send(put(4) + "body").await;
    let (server, _, other) = first_of(&one, &two).await;
    server.reset();
    let (mut server, _) = other.asked().await;
    server.send(ok("elsewhere")).await;
    assert_eq!(client.response().await.text(), "elsewhere");
    let mut copies = Vec::new();
    eventually("the copy", || {
        copies.extend(shadow.seen());
        !copies.is_empty()
    })
    .await;
    assert_eq!(copies[0].text(), "body");
}
