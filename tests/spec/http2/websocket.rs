//! WebSocket by extended CONNECT (RFC 8441), to servers of HTTP/1.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::stage::access::AccessLog;
use crate::stage::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Verdict, block};
use crate::stage::http::{Client as Http1, Stand, serving};
use crate::stage::http2::{Asked, Client, Version as HttpVersion, fronting, read_body, read_response};
use crate::stage::{Instance, Server, list, within};

/// An extended CONNECT.
pub(super) fn connect(protocol: &'static str) -> Request<()> {
    let mut head = Asked::get("/chat").head();
    *head.method_mut() = Method::CONNECT;
    head.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    head.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    head.extensions_mut().insert(Protocol::from_static(protocol));
    head
}

/// The bytes of a head, which were read one by one so that nothing behind it was.
async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let mut values = head.lines().filter_map(|line| {
        let (own, value) = line.split_once(": ")?;
        own.eq_ignore_ascii_case(name).then_some(value)
    });
    let value = values.next().unwrap_or_else(|| panic!("there is no {name}: {head}"));
    assert_eq!(values.next(), None, "{name} stands twice");
    value
}

/// Tells the head it got, agrees to WebSocket with what `accept` makes of the key, and echoes what comes.
async fn agreeing(accept: fn(&str) -> String) -> (Server, mpsc::Receiver<String>) {
    let (told, heard) = mpsc::channel(8);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let head = head_of(&mut stream).await;
            let accept = accept(field(&head, "sec-websocket-key"));
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nwelcome"
            );
            told.send(head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            crate::stage::echo(stream).await;
        }
    });
    (server.await, heard)
}

fn accept(key: &str) -> String {
    use base64::Engine;
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    base64::prelude::BASE64_STANDARD.encode(hash)
}

/// Reads so many bytes of a tunnel.
pub(super) async fn read(stream: &mut h2::RecvStream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let data: Bytes = within("bytes of the tunnel", stream.data()).await.unwrap().unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all
}

#[tokio::test]
async fn an_extended_connect_becomes_an_upgrade_and_bytes_go_both_ways() {
    let (server, mut heads) = agreeing(accept).await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, mut up) = client.begin(connect("websocket"), false).await;
    let response = within("the answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(name), "{name} is of HTTP/1");
    }
    let mut down = response.into_body();
    assert_eq!(read(&mut down, 7).await, b"welcome");
    up.send_data("to and fro".into(), false).unwrap();
    assert_eq!(read(&mut down, 10).await, b"to and fro");
    up.send_data("the end".into(), true).unwrap();
    assert_eq!(read(&mut down, 7).await, b"the end");
    assert_eq!(read_body(&mut down).await.unwrap().0, "");
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "connection"), "Upgrade");
    assert_eq!(field(&head, "upgrade"), "websocket");
    assert_eq!(field(&head, "host"), "example.com");
    assert_eq!(field(&head, "sec-websocket-version"), "13");
    assert_eq!(field(&head, "sec-websocket-key").len(), 24);
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"), "{head}");
}

#[tokio::test]
async fn a_tunnel_is_logged_as_its_client_saw_it() {
    let ((server, _heads), log) = (agreeing(accept).await, AccessLog::new());
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", ""))).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, mut up) = client.begin(connect("websocket"), false).await;
    let mut down = within("the answer", response).await.unwrap().into_body();
    assert_eq!(read(&mut down, 7).await, b"welcome");
    up.send_data("to and fro".into(), true).unwrap();
    assert_eq!(read_body(&mut down).await.unwrap().0, "to and fro");
    let line = log.line(1).await;
    assert_eq!((&line["method"], &line["status"]), (&"CONNECT".into(), &200.into()), "{line}");
    assert_eq!((&line["path"], &line["reason"]), (&"/chat".into(), &"done".into()), "{line}");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&10.into(), &17.into()), "{line}");
}

#[tokio::test]
async fn a_tunnel_to_a_server_that_goes_ends_as_its_pool_says_and_its_connection_stays() {
    for on_down in ["reset", "drain"] {
        let ((server, _heads), log) = (agreeing(accept).await, AccessLog::new());
        let text = |state: &str| {
            let text = fronting(&[server.address], "", &format!("on_down = \"{on_down}\""));
            let servers = format!("[{{ address = \"{}\", state = \"{state}\" }}]", server.address);
            log.of(&format!("drain_timeout = \"200ms\"\n{}", text.replace(&list(&[server.address]), &servers)))
        };
        let instance = Instance::start(&text("ready")).await;
        let client = Client::connect(instance.address("web")).await;
        let tunnel = async || {
            let (response, up) = client.begin(connect("websocket"), false).await;
            let mut down = within("the answer", response).await.unwrap().into_body();
            assert_eq!(read(&mut down, 7).await, b"welcome");
            (up, down)
        };
        let (_up, mut down) = tunnel().await;
        instance.running.reload_text(&text("maintenance")).await.unwrap();
        let cut = within("the end of the tunnel", read_body(&mut down)).await.unwrap_err();
        assert_eq!(cut.reason(), Some(h2::Reason::CANCEL));
        assert_eq!(log.line(1).await["reason"], "drained");
        // What began later is not meant.
        instance.running.reload_text(&text("ready")).await.unwrap();
        let (mut up, mut down) = tunnel().await;
        up.send_data("still there".into(), true).unwrap();
        assert_eq!(read(&mut down, 11).await, b"still there");
    }
}

#[tokio::test]
async fn a_tunnel_that_is_granted_after_its_server_was_dismissed_ends_as_those_before_it() {
    for version in HttpVersion::each() {
        let (stand, log) = (Stand::new().await, AccessLog::new());
        let text = |state: &str| {
            let text = serving(&[stand.address], "", "on_down = \"drain\"");
            let servers = format!("[{{ address = \"{}\", state = \"{state}\" }}]", stand.address);
            log.of(&format!("drain_timeout = \"500ms\"\n{}", text.replace(&list(&[stand.address]), &servers)))
        };
        let instance = Instance::start(&text("ready")).await;
        let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (mut one, mut two) = (None, None);
        match version {
            HttpVersion::One => {
                let mut client = Http1::of(&instance).await;
                client.get("/chat", ask).await;
                one = Some(client);
            }
            HttpVersion::Two => {
                let client = Client::connect(instance.address("web")).await;
                two = Some((client.begin(connect("websocket"), false).await, client));
            }
        }
        let (mut server, request) = stand.asked().await;
        instance.running.reload_text(&text("maintenance")).await.unwrap();
        let accept = accept(request.field("sec-websocket-key"));
        server
            .send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\nwelcome"
            ))
            .await;
        // Neither side ends it.
        let line = log.line(1).await;
        assert_eq!(line["reason"], "drained", "{line}");
        drop((one, two, server));
    }
}

#[tokio::test]
async fn nobody_changes_to_http2_by_an_extended_connect() {
    let (server, record) = Server::recorder().await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", ""))).await;
    let client = Client::connect(instance.address("web")).await;
    for (count, protocol) in ["h2c", "H2C"].into_iter().enumerate() {
        let (response, _up) = client.begin(connect(protocol), false).await;
        assert_eq!(within("the answer", response).await.unwrap().status(), 400);
        let line = log.line(count + 1).await;
        assert_eq!((&line["method"], &line["reason"]), (&"CONNECT".into(), &"bad_request".into()), "{line}");
    }
    assert_eq!(record.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_did_not_understand_the_key_is_not_believed() {
    let (server, _heads) = agreeing(|_| "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()).await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", ""))).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, _up) = client.begin(connect("websocket"), false).await;
    let answered = read_response(response).await.unwrap();
    assert_eq!((answered.status, answered.message.field("x-portreeve-reason")), (502, "bad_response"));
    assert_eq!(log.line(1).await["error"], "its Sec-WebSocket-Accept is not that of the key");
}

#[tokio::test]
async fn a_plain_response_to_an_extended_connect_is_no_tunnel() {
    let (server, record) = Server::recorder().await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", ""))).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, _up) = client.begin(connect("websocket"), false).await;
    let answered = read_response(response).await.unwrap();
    // With the server's own 200, the client would begin to speak another protocol.
    assert_eq!((answered.status, answered.message.field("x-portreeve-reason")), (502, "bad_response"));
    assert_eq!(record.requests(), ["GET /chat HTTP/1.1"]);
    assert_eq!(log.line(1).await["error"], "a success answers what only 101 grants");
}

#[tokio::test]
async fn a_refusal_of_an_extended_connect_reaches_the_client() {
    let server = Server::start(|mut stream| async move {
        head_of(&mut stream).await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever").await.unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0, "what comes behind is of no request");
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, mut up) = client.begin(connect("websocket"), false).await;
    up.send_data("GET /next HTTP/1.1\r\nHost: example.com\r\n\r\n".into(), false).unwrap();
    let answered = read_response(response).await.unwrap();
    assert_eq!((answered.status, answered.text()), (403, "never"));
}

#[tokio::test]
async fn what_is_sent_behind_an_extended_connect_is_no_request() {
    const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let (server, record) = Server::recorder().await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let pseudo = |protocol: &'static [u8]| -> [(&str, &[u8]); 5] {
        [
            (":method", b"CONNECT"),
            (":protocol", protocol),
            (":scheme", b"http"),
            (":authority", b"example.com"),
            (":path", b"/chat"),
        ]
    };
    let mut frames = Frames::connect(instance.address("web")).await;
    frames.send(HEADERS, END_HEADERS, 1, &block(&pseudo(b"websocket"))).await;
    frames.send(DATA, END_STREAM, 1, SMUGGLED).await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(502));
    // The same with a length, and with a protocol that is more than a word.
    let mut frames = Frames::connect(instance.address("web")).await;
    let length = SMUGGLED.len().to_string();
    let fields = [&pseudo(b"websocket")[..], &[("content-length", length.as_bytes())]].concat();
    frames.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    frames.send(DATA, END_STREAM, 1, SMUGGLED).await;
    assert!(frames.verdict(1).await.is_refusal());
    for protocol in
        [&b"websocket\r\n\r\nGET /smuggled HTTP/1.1"[..], b"websocket\r\nTransfer-Encoding: chunked", b"a b", b""]
    {
        let mut frames = Frames::connect(instance.address("web")).await;
        frames.send(HEADERS, END_HEADERS, 1, &block(&pseudo(protocol))).await;
        assert!(frames.verdict(1).await.is_refusal(), "{protocol:?}");
    }
    let client = Client::connect(instance.address("web")).await;
    assert_eq!(client.ask(Asked::get("/after")).await.unwrap().text(), "/after");
    assert_eq!(record.requests(), ["GET /chat HTTP/1.1", "GET /after HTTP/1.1"]);
}

#[tokio::test]
async fn a_connect_without_a_protocol_is_refused() {
    let (server, record) = Server::recorder().await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let mut frames = Frames::connect(instance.address("web")).await;
    let fields: [(&str, &[u8]); 2] = [(":method", b"CONNECT"), (":authority", b"example.com:443")];
    frames.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    assert!(frames.verdict(1).await.is_refusal());
    assert_eq!(record.requests(), Vec::<String>::new());
}

/// A server by a library of another language: says its port, then echoes messages.
const PYTHON: &str = r#"
import asyncio, websockets
async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

#[tokio::test]
async fn a_real_websocket_server_takes_the_handshake() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", PYTHON]).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut python = python.spawn().unwrap();
    let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
    let port: u16 = within("its port", lines.next_line()).await.unwrap().unwrap().parse().unwrap();
    let instance = Instance::start(&fronting(&[([127, 0, 0, 1], port).into()], "", "")).await;
    let client = Client::connect(instance.address("web")).await;
    let mut head = connect("websocket");
    head.headers_mut().remove("sec-websocket-protocol");
    let (response, mut up) = client.begin(head, false).await;
    let response = within("the answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut down = response.into_body();
    // A text of five letters, masked with zeros as clients have to (RFC 6455 §5.2), and the same without a mask back.
    up.send_data(Bytes::from_static(b"\x81\x85\0\0\0\0hello"), false).unwrap();
    assert_eq!(read(&mut down, 7).await, b"\x81\x05hello");
    // A close is answered by one.
    up.send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8"), false).unwrap();
    assert_eq!(read(&mut down, 4).await, b"\x88\x02\x03\xe8");
}
