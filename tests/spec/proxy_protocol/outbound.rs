//! Headers that tell servers about clients.

use std::sync::Arc;

use portreeve::ending::Reason;
use portreeve::net::proxy_protocol::{Header, Origin, Verdict, parse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::{ADDRESSES, ALPN, AUTHORITY, CRC32C, PROXY, Received, SSL, TCP4, TCP6, UNIQUE_ID, UNSPEC};
use super::{LOCAL, received, tlv, tlvs, v2, with_checksum};
use crate::stage::access::AccessLog;
use crate::stage::http2::{Answered, BY_HTTP2, Message, Version, fronting, send_answer, serve_http2};
use crate::stage::pki::{Pki, shake, welcome};
use crate::stage::secure::secure_echo;
use crate::stage::speaker::Speaker;
use crate::stage::{ClosedPort, Instance, Server, balancing, hear, listening, reader, within};

const V1: &str = "proxy_protocol = \"v1\"";
const V2: &str = "proxy_protocol = \"v2\"";
/// Every client of these tests is a proxy whose word is taken.
const TRUSTED: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }";

/// Sends `bytes` and an end through the instance, and returns what address that was from.
async fn send(instance: &Instance, bytes: &[u8]) -> std::net::SocketAddr {
    let mut client = instance.connect().await;
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let own = client.local_addr().unwrap();
    hear(client).await.unwrap();
    own
}

async fn next(heard: &mut mpsc::Receiver<std::io::Result<Vec<u8>>>) -> Vec<u8> {
    within("the server", heard.recv()).await.unwrap().unwrap()
}

/// The line of version 1 for a client of an instance.
fn line_of(client: std::net::SocketAddr, instance: &Instance) -> String {
    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.port(), instance.address("web").port())
}

#[tokio::test]
async fn a_server_is_told_of_the_client_in_a_line_of_version_1_before_all_else() {
    let ((server, mut heard), log) = (reader("").await, AccessLog::new());
    let instance = Instance::start(&log.of(&balancing(&[server.address], V1))).await;
    let client = send(&instance, b"hello").await;
    let expected = format!("{}hello", line_of(client, &instance));
    assert_eq!(String::from_utf8(next(&mut heard).await).unwrap(), expected);
    // The header is none of the client's bytes.
    assert_eq!(log.line(1).await["bytes_in"], 5);
    assert_eq!(instance.metric("portreeve_listener_bytes_total{listener=\"web\",direction=\"in\"}"), Some(5.0));
    assert_eq!(instance.of_server("bytes_total", server.address, ",direction=\"in\""), 5.0);
}

#[tokio::test]
async fn a_server_is_told_of_the_client_in_a_header_of_version_2_before_all_else() {
    let ((server, mut heard), log) = (reader("").await, AccessLog::new());
    let instance = Instance::start(&log.of(&balancing(&[server.address], V2))).await;
    let client = send(&instance, b"hello").await;
    let bytes = next(&mut heard).await;
    let Received { source, destination, additions, rest } = received(&bytes);
    assert_eq!((source, destination, &rest[..]), (client, instance.address("web"), &b"hello"[..]));
    let line = log.line(1).await;
    assert_eq!(additions[&UNIQUE_ID], line["unique_id"].as_str().unwrap().as_bytes());
    assert_eq!(additions.len(), 2, "and the checksum: {additions:?}");
    assert_eq!(line["bytes_in"], 5);
    let Verdict::Header { header: Header { origin, .. }, length } = parse(&bytes) else { panic!("{bytes:?}") };
    assert_eq!((origin, length), (Origin::Tcp { source, destination }, bytes.len() - 5));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_told_before_the_client_has_said_anything() {
    let server = Server::start(|mut stream| async move {
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        let _gone = stream.write_all(&line).await;
    })
    .await;
    let instance = Instance::balancing(&[server.address], V1).await;
    let mut client = instance.connect().await;
    let mut answer = [0; 12];
    within("the answer", client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"PROXY TCP4 1");
}

#[tokio::test]
async fn a_client_of_ipv6_is_told_of_as_such() {
    let (server, mut heard) = reader("").await;
    let text = balancing(&[server.address], V1).replace("127.0.0.1:0", "[::]:0");
    let instance = Instance::start(&text).await;
    let port = instance.address("web").port();
    for (ip, family) in [("::1", "TCP6 ::1 ::1"), ("127.0.0.1", "TCP4 127.0.0.1 127.0.0.1")] {
        let mut client = TcpStream::connect((ip, port)).await.unwrap();
        let own = client.local_addr().unwrap().port();
        client.shutdown().await.unwrap();
        hear(client).await.unwrap();
        let line = format!("PROXY {family} {own} {port}\r\n");
        assert_eq!(String::from_utf8(next(&mut heard).await).unwrap(), line);
    }
}

#[tokio::test]
async fn a_client_of_a_unix_socket_is_told_of_as_one_without_an_address() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (version, header)) in
        [(V1, b"PROXY UNKNOWN\r\n".to_vec()), (V2, v2(PROXY, UNSPEC, &[]))].into_iter().enumerate()
    {
        let (server, mut heard) = reader("").await;
        let path = folder.path().join(number.to_string());
        let bind = format!("unix:{}", path.display());
        let _instance = Instance::start(&balancing(&[server.address], version).replace("127.0.0.1:0", &bind)).await;
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(next(&mut heard).await, [&header, &b"hello"[..]].concat());
    }
}

#[tokio::test]
async fn the_next_server_is_told_the_same_when_the_first_cannot_be_reached() {
    let (dead, (server, mut heard)) = (ClosedPort::new(), reader("").await);
    let instance = Instance::balancing(&[dead.address, server.address], V1).await;
    for _ in 0..2 {
        let client = send(&instance, b"hello").await;
        let expected = format!("{}hello", line_of(client, &instance));
        assert_eq!(String::from_utf8(next(&mut heard).await).unwrap(), expected);
    }
    assert!(instance.of_server("connect_failures_total", dead.address, ",reason=\"connect_refused\"") >= 1.0);
}

#[tokio::test]
async fn a_server_is_told_how_the_tls_that_ends_here_came_out() {
    let (pki, (server, mut heard), log) = (Pki::new(), reader("").await, AccessLog::new());
    let own = pki.issue(&["www.example.com"]).entry();
    let tls = format!(
        "tls = {{ certificates = [{own}], alpn = [\"h2\"], client_ca = {:?}, client_auth = \"optional\" }}",
        pki.root()
    );
    let instance = Instance::start(&log.of(&listening(&tls, &[server.address], V2))).await;
    let person = pki.issue(&["somebody"]);
    for (count, shown) in [Some(&person), None].into_iter().enumerate() {
        let mut config = pki.client(shown);
        config.alpn_protocols = vec![b"spdy/3".to_vec(), b"h2".to_vec()];
        let mut client = shake(config, instance.address("web"), "www.example.com").await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let Received { source, additions, rest, .. } = received(&next(&mut heard).await);
        assert_eq!((source, &rest[..]), (client.get_ref().0.local_addr().unwrap(), &b"hello"[..]));
        assert_eq!((&additions[&ALPN][..], &additions[&AUTHORITY][..]), (&b"h2"[..], &b"www.example.com"[..]));
        assert_eq!(additions[&UNIQUE_ID], log.line(count + 1).await["unique_id"].as_str().unwrap().as_bytes());
        // A bit for TLS and one for a certificate, zero for one that is good; then the version and the name.
        let (facts, more) = additions[&SSL].split_at(5);
        let (more, named) = (tlvs(more), shown.is_some());
        assert_eq!((facts[0], facts[1..] == [0; 4]), (if named { 3 } else { 1 }, named));
        assert_eq!(more[&0x21], b"TLSv1.3");
        assert_eq!(more.get(&0x22).map(Vec::as_slice), named.then_some(&b"somebody"[..]));
        assert_eq!((additions.len(), more.len()), (5, if named { 2 } else { 1 }));
    }
}

#[tokio::test]
async fn what_a_proxy_in_front_has_told_is_passed_on() {
    const LINE: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\nhello";
    let (server, mut heard) = reader("").await;
    let instance = Instance::start(&listening(TRUSTED, &[server.address], V1)).await;
    send(&instance, LINE).await;
    assert_eq!(next(&mut heard).await, LINE);
    let ((server, mut heard), log) = (reader("").await, AccessLog::new());
    let instance = Instance::start(&log.of(&listening(TRUSTED, &[server.address], V2))).await;
    // An id may be of any bytes.
    let id = [0xff, 0, 0x80, 0x7f];
    let told = [tlv(AUTHORITY, b"example.com"), tlv(UNIQUE_ID, &id)].concat();
    let header = with_checksum(PROXY, TCP4, &[ADDRESSES, &told]);
    send(&instance, &[&header, &b"hello"[..]].concat()).await;
    let Received { source, destination, additions, rest } = received(&next(&mut heard).await);
    assert_eq!((source.to_string(), destination.to_string()), ("203.0.113.7:12345".into(), "192.0.2.1:443".into()));
    assert_eq!(additions[&UNIQUE_ID], id);
    assert_eq!((&additions[&AUTHORITY][..], &rest[..]), (&b"example.com"[..], &b"hello"[..]));
    assert_eq!((additions.len(), &log.line(1).await["unique_id"]), (3, &"ff00807f".into()));
}

#[tokio::test]
async fn the_own_connection_of_a_proxy_in_front_is_one_of_that_proxy() {
    let (server, mut heard) = reader("").await;
    let instance = Instance::start(&listening(TRUSTED, &[server.address], V1)).await;
    let client = send(&instance, &[&v2(LOCAL, TCP6, &[]), &b"hello"[..]].concat()).await;
    let expected = format!("{}hello", line_of(client, &instance));
    assert_eq!(String::from_utf8(next(&mut heard).await).unwrap(), expected);
}

#[tokio::test]
async fn checks_say_that_they_are_nobodys_and_end_in_good_order() {
    const CHECK: &str = "check = { interval = \"1h\", fast_interval = \"1h\", timeout = \"5s\" }";
    for (version, header) in [(V1, b"PROXY UNKNOWN\r\n".to_vec()), (V2, v2(LOCAL, UNSPEC, &[]))] {
        let (server, mut heard) = reader("").await;
        let instance = Instance::balancing(&[server.address], &format!("{version}\n{CHECK}")).await;
        assert_eq!(next(&mut heard).await, header);
        let passed = || instance.of_server("checks_total", server.address, ",result=\"passed\"") == 1.0;
        crate::stage::eventually("the check", passed).await;
    }
}

/// Reads a header of version 2 off a connection.
async fn read_header(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await.unwrap();
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await.unwrap();
    header
}

#[tokio::test]
async fn a_server_of_http2_is_told_of_each_client_before_all_else() {
    let pki = Pki::new();
    let mut config = pki.server(&pki.issue(&["127.0.0.1"]));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    for tls in [String::new(), format!("tls = {{ ca = {:?} }}", pki.root())] {
        let (told, mut headers) = mpsc::channel(16);
        let is_secure = !tls.is_empty();
        let server = Server::start({
            let config = Arc::clone(&config);
            move |mut stream| {
                let (told, config) = (told.clone(), Arc::clone(&config));
                async move {
                    told.send(read_header(&mut stream).await).await.unwrap();
                    let script = |_request, mut respond| async move {
                        send_answer(&mut respond, Answered::ok(Message::of("told")));
                    };
                    let builder = h2::server::Builder::new();
                    match is_secure {
                        true => serve_http2(welcome(config, stream).await.unwrap(), builder, script).await,
                        false => serve_http2(stream, builder, script).await,
                    }
                }
            }
        })
        .await;
        let pool = format!("{V2}\n{tls}\n{BY_HTTP2}");
        let instance = Instance::start(&fronting(&[server.address], "", &pool)).await;
        for version in Version::each() {
            for number in 1..=2 {
                let stream = within("connect", TcpStream::connect(instance.address("web"))).await.unwrap();
                let own = stream.local_addr().unwrap();
                let mut client = Speaker::over(version, stream).await;
                assert_eq!(client.ask("/").await.text(), "told", "{number}");
                let header = within("the header", headers.recv()).await.unwrap();
                assert_eq!(received(&header).source, own, "{number}");
            }
        }
        assert_eq!(server.accepted(), 4, "no connection serves two clients");
    }
}

/// A server that reads a header of version 2 off the connection, tells it, and shakes hands behind it; it speaks first.
async fn behind_a_header(pki: &Pki) -> (Server, mpsc::Receiver<Vec<u8>>) {
    let (told, headers) = mpsc::channel(16);
    let config = Arc::new(pki.server(&pki.issue(&["127.0.0.1"])));
    let server = Server::start(move |mut stream| {
        let (told, config) = (told.clone(), Arc::clone(&config));
        async move {
            let header = read_header(&mut stream).await;
            let Ok(mut stream) = welcome(config, stream).await else { return };
            told.send(header).await.unwrap();
            if stream.write_all(b"welcome").await.is_ok() {
                secure_echo(stream).await;
            }
        }
    });
    (server.await, headers)
}

#[tokio::test]
async fn the_header_goes_before_the_handshake_with_a_server() {
    let pki = Pki::new();
    let (server, mut headers) = behind_a_header(&pki).await;
    let tls = format!("{V2}\ntls = {{ ca = {:?} }}", pki.root());
    let instance = Instance::balancing(&[server.address], &tls).await;
    // Nobody waits for the client to speak.
    let mut client = instance.connect().await;
    within("the greeting", client.read_exact(&mut [0; 7])).await.unwrap();
    let header = within("the header", headers.recv()).await.unwrap();
    assert_eq!(received(&header).source, client.local_addr().unwrap());
    assert!(received(&header).additions.contains_key(&CRC32C));
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear(client).await.unwrap(), "hello");
    instance.ended(Reason::Done, 1).await;
    assert_eq!(instance.metric("portreeve_listener_bytes_total{listener=\"web\",direction=\"in\"}"), Some(5.0));
}

#[tokio::test]
async fn the_header_of_a_check_goes_before_its_handshake() {
    let pki = Pki::new();
    let (server, mut headers) = behind_a_header(&pki).await;
    let check = "check = { interval = \"1h\", fast_interval = \"1h\", timeout = \"5s\" }";
    let tls = format!("{V2}\n{check}\ntls = {{ ca = {:?} }}", pki.root());
    let instance = Instance::balancing(&[server.address], &tls).await;
    assert_eq!(within("the header", headers.recv()).await.unwrap(), v2(LOCAL, UNSPEC, &[]));
    let passed = || instance.of_server("checks_total", server.address, ",result=\"passed\"") == 1.0;
    crate::stage::eventually("the check", passed).await;
}
