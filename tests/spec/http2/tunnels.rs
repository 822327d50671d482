//! WebSocket to servers of HTTP/2: by extended CONNECT (RFC 8441), whichever version the client speaks.

use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use h2::ext::Protocol;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::websocket::{connect, read};
use crate::stage::access::AccessLog;
use crate::stage::http2::{Answered, Asked, BY_HTTP2, Client, Message, fronting, read_body, send_answer};
use crate::stage::{Instance, Server, http, within};

/// What a server was asked for: the method, the protocol and the fields.
type Head = (Method, Option<String>, HeaderMap);

/// A server of HTTP/2 that tells the heads it got, agrees to WebSocket with `status` and echoes what comes; it answers anything
/// else with its path.
async fn tunnelling(status: u16, enabled: bool) -> (Server, mpsc::Receiver<Head>) {
    let (told, heard) = mpsc::channel(8);
    let mut builder = h2::server::Builder::new();
    if enabled {
        builder.enable_connect_protocol();
    }
    let server = Server::of_http2(builder, move |mut request: Request<h2::RecvStream>, mut respond| {
        let told = told.clone();
        async move {
            let protocol = request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
            told.send((request.method().clone(), protocol.clone(), request.headers().clone())).await.unwrap();
            if protocol.is_none() || status != 200 {
                let path = request.uri().path().to_owned();
                let status = if protocol.is_none() { 200 } else { status };
                return send_answer(&mut respond, Answered { status, ..Answered::ok(Message::of(path)) });
            }
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::OK;
            head.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
            let mut down = respond.send_response(head, false).unwrap();
            while let Some(data) = request.body_mut().data().await {
                let Ok(data) = data else { return };
                request.body_mut().flow_control().release_capacity(data.len()).unwrap();
                down.send_data(data, false).unwrap();
            }
            down.send_data(Bytes::from_static(b"goodbye"), true).unwrap();
        }
    });
    (server.await, heard)
}

const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn an_upgrade_becomes_an_extended_connect_on_a_connection_that_others_use() {
    let ((server, mut heads), log) = (tunnelling(200, true).await, AccessLog::new());
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", BY_HTTP2))).await;
    let mut client = http::Client::of(&instance).await;
    client.get("/chat", ASK).await;
    let granted = client.head().await;
    assert_eq!(granted.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!((granted.field("connection"), granted.field("upgrade")), ("Upgrade", "websocket"));
    assert_eq!(granted.field("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(granted.field("sec-websocket-protocol"), "chat");
    let (method, protocol, fields) = heads.recv().await.unwrap();
    assert_eq!((method, protocol.as_deref()), (Method::CONNECT, Some("websocket")));
    assert_eq!(fields["sec-websocket-version"], "13");
    for name in ["sec-websocket-key", "upgrade", "connection", "host"] {
        assert!(!fields.contains_key(name), "{name} is of HTTP/1");
    }
    for round in 0..5_u8 {
        client.send(vec![round; 10_000]).await;
        assert_eq!(client.0.exactly(10_000).await.unwrap(), [round; 10_000]);
    }
    // Others have the same connection meanwhile.
    let mut other = http::Client::of(&instance).await;
    other.get("/page", "").await;
    assert_eq!(other.response().await.text(), "/page");
    assert_eq!(server.accepted(), 1);
    client.0.stream.shutdown().await.unwrap();
    assert_eq!(client.0.rest().await.unwrap(), b"goodbye");
    instance.ended(portreeve::ending::Reason::Done, 1).await;
    let good = instance.of_server("outcomes_total", server.address, ",result=\"ok\"");
    assert_eq!(good, 2.0);
    let line = log.line(2).await;
    assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &101.into()), "{line}");
}

#[tokio::test]
async fn an_extended_connect_goes_on_as_one() {
    let (server, mut heads) = tunnelling(200, true).await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, mut up) = client.begin(connect("websocket"), false).await;
    let response = within("the answer", response).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["sec-websocket-protocol"]),
        (StatusCode::OK, &"chat".parse().unwrap())
    );
    assert_eq!(heads.recv().await.unwrap().1.as_deref(), Some("websocket"));
    let mut down = response.into_body();
    up.send_data("to and fro".into(), false).unwrap();
    assert_eq!(read(&mut down, 10).await, b"to and fro");
    up.send_data("the end".into(), true).unwrap();
    assert_eq!(read_body(&mut down).await.unwrap().0, "the endgoodbye");
}

#[tokio::test]
async fn a_refusal_by_a_server_of_http2_is_passed_on_and_the_connection_stays_with_http() {
    let (server, _heads) = tunnelling(403, true).await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let mut client = http::Client::of(&instance).await;
    client.get("/chat", ASK).await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.text()), (403, "/chat"));
    client.get("/next", "").await;
    assert_eq!(client.response().await.text(), "/next");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_takes_no_extended_connect_is_never_sent_one() {
    let (server, mut heads) = tunnelling(200, false).await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let mut client = http::Client::of(&instance).await;
    client.get("/chat", ASK).await;
    // It is asked in HTTP/1, which this one does not understand.
    assert_eq!(client.response().await.status(), 502);
    let client = Client::connect(instance.address("web")).await;
    assert_eq!(client.ask(Asked::get("/page")).await.unwrap().text(), "/page");
    assert_eq!(heads.recv().await.unwrap().0, Method::GET);
}
