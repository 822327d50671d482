//! Chapter: requests that become something else, as those of WebSocket do.

use portreeve::ending::{Class, Reason};

use crate::stage::access::AccessLog;
use crate::stage::http::{Client, Recorder, Stand, Wire, next_request, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, eventually};

const ASK: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://a.example\r\n";
const GRANT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn in_front_of(stand: &Stand, more: &str) -> (Instance, Client) {
    let instance = Instance::start(&serving(&[stand.address], more, "")).await;
    let client = Client::of(&instance).await;
    (instance, client)
}

async fn upgraded(stand: &Stand, client: &mut Client) -> Wire {
    client.get("/chat", ASK).await;
    let (mut server, _) = stand.asked().await;
    server.send(GRANT).await;
    assert_eq!(client.head().await.status(), 101);
    server
}

#[tokio::test]
async fn an_upgrade_is_asked_for_granted_and_then_bytes_are_relayed() {
    let stand = Stand::new().await;
    let (instance, mut client) = in_front_of(&stand, "").await;
    client.get("/chat", ASK).await;
    let (mut server, request) = stand.asked().await;
    assert_eq!((request.field("connection"), request.field("upgrade")), ("Upgrade", "websocket"));
    assert_eq!(request.field("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!((request.field("sec-websocket-version"), request.field("origin")), ("13", "http://a.example"));
    server.send(GRANT).await;
    let granted = client.head().await;
    assert_eq!(granted.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!((granted.field("connection"), granted.field("upgrade")), ("Upgrade", "websocket"));
    assert_eq!(granted.field("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((granted.one("content-length"), granted.one("transfer-encoding")), (None, None));
    for round in 0..5_u8 {
        client.send([round; 1000]).await;
        assert_eq!(server.exactly(1000).await.unwrap(), [round; 1000]);
        server.send([!round; 1000]).await;
        assert_eq!(client.0.exactly(1000).await.unwrap(), [!round; 1000]);
    }
    drop(server);
    client.ends().await;
    drop(client);
    instance.ended(Reason::Done, 1).await;
    assert_eq!(instance.upstream(stand.address), (1, 0), "such a connection is never used again");
    let good = instance.of_server("outcomes_total", stand.address, ",result=\"ok\"");
    assert_eq!(good, 1.0, "the server has answered well");
}

#[tokio::test]
async fn a_tunnel_is_one_of_its_routes_requests_in_flight_until_it_is_over() {
    let stand = Stand::new().await;
    let routes = "routes = [{ path = \"/chat\", pool = \"web\", max_in_flight = 1 }]";
    let (instance, mut client) = in_front_of(&stand, routes).await;
    let server = upgraded(&stand, &mut client).await;
    for version in Version::each() {
        let refused = Speaker::of(version, &instance).await.ask("/chat").await;
        assert_eq!((refused.status(), refused.field("x-portreeve-reason")), (503, "refused_limit"));
    }
    drop(server);
    client.ends().await;
    drop(client);
    instance.ended(Reason::ServerClosed, 1).await;
    let mut client = Client::of(&instance).await;
    upgraded(&stand, &mut client).await;
}

#[tokio::test]
async fn what_both_sides_say_at_once_in_the_new_protocol_is_not_lost() {
    let stand = Stand::new().await;
    let (_instance, mut client) = in_front_of(&stand, "").await;
    client.send([&crate::stage::http::get("/chat", ASK), "early client"].concat()).await;
    let (mut server, _) = stand.asked().await;
    server.send([GRANT, "early server"].concat()).await;
    assert_eq!(server.exactly(12).await.unwrap(), b"early client");
    assert_eq!(client.head().await.status(), 101);
    assert_eq!(client.0.exactly(12).await.unwrap(), b"early server");
    server.send("more").await;
    assert_eq!(client.0.exactly(4).await.unwrap(), b"more");
}

#[tokio::test]
async fn nothing_is_relayed_before_the_server_has_granted_it() {
    let stand = Stand::new().await;
    let (_instance, mut client) = in_front_of(&stand, "").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";
    client.send([&crate::stage::http::get("/chat", ASK), smuggled].concat()).await;
    let (mut server, _) = stand.asked().await;
    // The server is not one for upgrades. What follows is a request like any other then, and is treated as one.
    server.send(ok("no")).await;
    assert_eq!(client.response().await.text(), "no");
    let request = next_request(&mut server).await;
    assert_eq!((request.asked(), request.field("via")), ("GET /smuggled", "1.1 portreeve"));
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_the_connection_stays_with_http() {
    let server = Recorder::answering(
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno",
    )
    .await;
    let instance = Instance::start(&serving(&[server.address()], "", "")).await;
    let mut client = Client::of(&instance).await;
    for _ in 0..2 {
        let response = client.ask_with("/chat", ASK).await;
        assert_eq!((response.status(), response.text()), (426, "no"));
        assert_eq!(response.field("sec-websocket-version"), "13");
    }
    assert_eq!(instance.upstream(server.address()), (1, 1));
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_a_bad_response() {
    let other = GRANT.replace("Upgrade: websocket", "Upgrade: h2c");
    let none = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n";
    let unlisted = ASK.replace("keep-alive, Upgrade", "keep-alive");
    let (unasked, another) = ("it changes the protocol unasked", "it changes to a protocol that was not asked for");
    for (asked, granted, words) in
        [("", GRANT, unasked), (ASK, &other, another), (ASK, none, another), (&unlisted, GRANT, unasked)]
    {
        let (stand, log) = (Stand::new().await, AccessLog::new());
        let instance = Instance::start(&log.of(&serving(&[stand.address], "", ""))).await;
        let mut client = Client::of(&instance).await;
        client.get("/chat", asked).await;
        let (mut server, _) = stand.asked().await;
        server.send([granted, &ok("smuggled")].concat()).await;
        let response = client.response().await;
        assert_eq!(
            (response.status(), response.field("x-portreeve-reason")),
            (502, "bad_response"),
            "{asked} {granted}"
        );
        assert_eq!(log.line(1).await["error"], words);
        client.get("/next", "").await;
        let (mut server, request) = stand.asked().await;
        assert_eq!(request.asked(), "GET /next");
        server.send(ok("next")).await;
        assert_eq!(client.response().await.text(), "next");
        assert_eq!(instance.upstream(stand.address), (2, 0));
        let of = |result| instance.of_server("outcomes_total", stand.address, &format!(",result=\"{result}\""));
        eventually("that the one was none, the next good", || (of("ok"), of("failed")) == (1.0, 1.0)).await;
    }
}

#[tokio::test]
async fn an_upgrade_with_a_body_or_of_http_1_0_is_none() {
    let stand = Stand::new().await;
    for (version, framing) in [("1.1", "Content-Length: 1\r\n"), ("1.0", "")] {
        let (_instance, mut client) = in_front_of(&stand, "").await;
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n{framing}{ASK}\r\nx")).await;
        let (mut server, request) = stand.asked().await;
        assert_eq!((request.one("connection"), request.one("upgrade")), (None, None));
        server.send(GRANT).await;
        let response = client.head().await;
        assert_eq!(response.status(), 502);
    }
}

#[tokio::test]
async fn any_protocol_of_those_asked_for_may_be_granted() {
    let stand = Stand::new().await;
    let (_instance, mut client) = in_front_of(&stand, "").await;
    client.get("/", "Connection: upgrade\r\nUpgrade: foo/2, Bar\r\n").await;
    let (mut server, request) = stand.asked().await;
    assert_eq!(request.field("upgrade"), "foo/2, Bar");
    server.send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: bar\r\n\r\n").await;
    assert_eq!(client.head().await.field("upgrade"), "bar");
    client.send("x").await;
    assert_eq!(server.exactly(1).await.unwrap(), b"x");
}

#[tokio::test]
async fn one_side_may_end_before_the_other() {
    use tokio::io::AsyncWriteExt;
    let stand = Stand::new().await;
    let (instance, mut client) = in_front_of(&stand, "").await;
    let mut server = upgraded(&stand, &mut client).await;
    client.0.stream.shutdown().await.unwrap();
    server.ends().await;
    server.send("last words").await;
    drop(server);
    assert_eq!(client.0.rest().await.unwrap(), b"last words");
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_reset_goes_through_a_tunnel() {
    let stand = Stand::new().await;
    let (_instance, mut client) = in_front_of(&stand, "").await;
    upgraded(&stand, &mut client).await.reset();
    client.0.rest().await.unwrap_err();
    let (_instance, mut client) = in_front_of(&stand, "").await;
    let mut server = upgraded(&stand, &mut client).await;
    client.0.reset();
    server.rest().await.unwrap_err();
}

#[tokio::test]
async fn a_tunnel_in_which_nobody_says_anything_is_ended_by_the_idle_timeout() {
    let stand = Stand::new().await;
    let (instance, mut client) = in_front_of(&stand, "timeouts = { idle = \"200ms\" }").await;
    let _server = upgraded(&stand, &mut client).await;
    client.0.rest().await.unwrap_err();
    instance.ended(Reason::IdleTimeout, 1).await;
}

#[tokio::test]
async fn the_access_log_has_a_line_for_a_tunnel_when_it_is_over() {
    let stand = Stand::new().await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&serving(&[stand.address], "", ""))).await;
    let mut client = Client::of(&instance).await;
    client.get("/chat", ASK).await;
    let (mut server, _) = stand.asked().await;
    server.send([GRANT, "early"].concat()).await;
    assert_eq!(client.head().await.status(), 101);
    client.0.exactly(5).await.unwrap();
    client.send("12345").await;
    server.exactly(5).await.unwrap();
    server.send("123").await;
    client.0.exactly(3).await.unwrap();
    drop(client);
    server.ends().await;
    drop(server);
    let line = log.line(1).await;
    assert_eq!((&line["status"], &line["path"], &line["reason"]), (&101.into(), &"/chat".into(), &"done".into()));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &8.into()), "{line}");
    assert_eq!(instance.of_server("bytes_total", stand.address, ",direction=\"out\""), 8.0);
    assert_eq!(instance.listener("web").requests(Class::Informational), 1);
}
