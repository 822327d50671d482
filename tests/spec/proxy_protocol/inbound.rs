//! Headers that proxies in front of a listener send, and those that nobody may send.

use std::net::SocketAddr;

use portreeve::ending::Reason;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::{ADDRESSES, AUTHORITY, CRC32C, LOCAL, PROXY, TCP4, TCP6, UNIQUE_ID, UNIX, UNSPEC};
use super::{SIGNATURE, tlv, v2, with_checksum};
use crate::stage::access::AccessLog;
use crate::stage::pki::{Pki, shake, shake_over};
use crate::stage::{Instance, Server, hear, is_reset, listening, reader, within};

/// Every client of these tests is a proxy whose word is taken.
const TRUSTED: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }";
/// None is.
const STRANGERS: &str = "proxy_protocol = { from = [\"10.0.0.0/8\"] }";
/// The client that most headers here tell of.
const CLIENT: &str = "203.0.113.7:12345";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 12345 443\r\n";

/// Good headers, each with the client it tells of, if it does.
fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let addresses_of_ipv6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0xfe; 16], &[0x30, 0x39, 1, 0xbb]].concat();
    let unknown = [tlv(0x04, b"no-op"), tlv(0xe7, &[0; 300]), tlv(0xee, b"")].concat();
    let known = [tlv(AUTHORITY, b"example.com"), tlv(UNIQUE_ID, b"id")].concat();
    vec![
        (LINE.to_vec(), Some(CLIENT)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n".to_vec(), Some("[2001:db8::7]:12345")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN and whatever else there is\r\n".to_vec(), None),
        (v2(PROXY, TCP4, &[ADDRESSES]), Some(CLIENT)),
        (v2(PROXY, TCP6, &[&addresses_of_ipv6]), Some("[2001:db8::7]:12345")),
        (v2(PROXY, TCP4, &[ADDRESSES, &unknown]), Some(CLIENT)),
        (with_checksum(PROXY, TCP4, &[ADDRESSES, &known]), Some(CLIENT)),
        (v2(PROXY, UNIX, &[&[b'x'; 216]]), Some("unix")),
        (v2(PROXY, UNSPEC, &[b"what nobody knows"]), None),
        (v2(LOCAL, UNSPEC, &[]), None),
        (v2(LOCAL, TCP4, &[ADDRESSES]), None),
    ]
}

/// What must not stand where a header has to, each with what is wrong with it.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let mut wrong_checksum = with_checksum(PROXY, TCP4, &[ADDRESSES]);
    *wrong_checksum.last_mut().unwrap() ^= 1;
    let wrong_command = v2(0x22, TCP4, &[ADDRESSES]);
    vec![
        ("no header", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a TLS handshake", vec![22, 3, 1, 2, 0, 1, 0, 1, 252]),
        ("almost a greeting", b"PROXIES".to_vec()),
        ("another family", b"PROXY UDP4 203.0.113.7 192.0.2.1 12345 443\r\n".to_vec()),
        ("no address", b"PROXY TCP4 203.0.113.700 192.0.2.1 12345 443\r\n".to_vec()),
        ("no port", b"PROXY TCP4 203.0.113.7 192.0.2.1 12345 65536\r\n".to_vec()),
        ("too few words", b"PROXY TCP4 203.0.113.7 192.0.2.1 12345\r\n".to_vec()),
        ("too many words", b"PROXY TCP4 203.0.113.7 192.0.2.1 12345 443 1\r\n".to_vec()),
        ("no carriage return", b"PROXY TCP4 203.0.113.7 192.0.2.1 12345 443\n".to_vec()),
        ("a line of 108 bytes", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\n".to_vec()].concat()),
        ("a line without an end", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat()),
        ("another version", v2(0x11, TCP4, &[ADDRESSES])),
        ("another command", wrong_command),
        ("a family that does not exist", v2(PROXY, 0x41, &[ADDRESSES])),
        ("no room for addresses", v2(PROXY, TCP4, &[&ADDRESSES[1..]])),
        ("half an addition", v2(PROXY, TCP4, &[ADDRESSES, &[4, 0]])),
        ("an addition beyond the end", v2(PROXY, TCP4, &[ADDRESSES, &[4, 0, 2, 0]])),
        ("a wrong checksum", wrong_checksum),
        ("a checksum of three bytes", v2(PROXY, TCP4, &[ADDRESSES, &tlv(CRC32C, &[0; 3])])),
        ("over 16 KiB", [SIGNATURE, &[PROXY, TCP4, 0x40, 1]].concat()),
    ]
}

/// Sends bytes in one segment, or each in its own; whoever is reset meanwhile stops.
async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], whole: bool) -> std::io::Result<()> {
    for segment in bytes.chunks(if whole { bytes.len().max(1) } else { 1 }) {
        stream.write_all(segment).await?;
    }
    Ok(())
}

async fn client_of(instance: &Instance) -> TcpStream {
    let client = instance.connect().await;
    client.set_nodelay(true).unwrap();
    client
}

/// Says something to an echo through the instance, after `header`.
async fn converse(mut client: TcpStream, header: &[u8], whole: bool) {
    send(&mut client, &[header, b"hello"].concat(), whole).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear(client).await.unwrap(), "hello");
}

/// Sends bytes for which the instance resets the connection.
async fn assert_reset(instance: &Instance, what: &str, bytes: &[u8], whole: bool) {
    let mut client = client_of(instance).await;
    if send(&mut client, bytes, whole).await.is_ok() {
        let end = hear(client).await;
        assert!(is_reset(&end), "{what}: {end:?}");
    }
}

#[tokio::test]
async fn the_client_that_a_header_tells_of_is_the_client() {
    let (server, log) = (Server::echo().await, AccessLog::new());
    let instance = Instance::start(&log.of(&listening(TRUSTED, &[server.address], ""))).await;
    let mut count = 0;
    for (header, told) in good() {
        for whole in [true, false] {
            let client = client_of(&instance).await;
            let own = client.local_addr().unwrap().to_string();
            converse(client, &header, whole).await;
            count += 1;
            let line = log.line(count).await;
            assert_eq!(line["client"], told.unwrap_or(&own), "{header:?}");
            assert_eq!((&line["reason"], &line["bytes_in"]), (&"done".into(), &5.into()), "{header:?} {line}");
        }
    }
    assert_eq!(count, 24);
}

#[tokio::test]
async fn the_server_name_and_the_id_that_a_header_tells_are_those_of_the_connection() {
    let (server, log) = (Server::echo().await, AccessLog::new());
    let instance = Instance::start(&log.of(&listening(TRUSTED, &[server.address], ""))).await;
    let told = [tlv(AUTHORITY, b"example.com"), tlv(UNIQUE_ID, b"one of many")].concat();
    converse(client_of(&instance).await, &v2(PROXY, TCP4, &[ADDRESSES, &told]), true).await;
    let line = log.line(1).await;
    assert_eq!((&line["server_name"], &line["unique_id"]), (&"example.com".into(), &"one of many".into()), "{line}");
}

#[tokio::test]
async fn a_proxy_that_sends_no_header_or_a_broken_one_is_refused() {
    let (server, log) = (Server::echo().await, AccessLog::new());
    let instance = Instance::start(&log.of(&listening(TRUSTED, &[server.address], ""))).await;
    let mut count = 0;
    for (what, bytes) in bad() {
        for whole in [true, false] {
            assert_reset(&instance, what, &bytes, whole).await;
            count += 1;
            let line = log.line(count).await;
            assert_eq!(line["reason"], "bad_proxy_header", "{what}: {line}");
            assert!(line["error"].as_str().unwrap().contains("PROXY header"), "{what}: {line}");
        }
    }
    assert_eq!((count, server.accepted()), (40, 0));
}

#[tokio::test]
async fn a_header_that_does_not_come_to_its_end_ends_as_handshake_timeout() {
    let server = Server::saying("hello").await;
    let text = listening(&format!("{TRUSTED}\ntimeouts = {{ handshake = \"300ms\" }}"), &[server.address], "");
    let instance = Instance::start(&text).await;
    let v2 = v2(PROXY, TCP4, &[ADDRESSES]);
    for bytes in [b"", &LINE[..LINE.len() - 1], &v2[..v2.len() - 1], &v2[..5]] {
        assert_reset(&instance, "half a header", bytes, true).await;
    }
    instance.ended(Reason::HandshakeTimeout, 4).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_proxy_that_leaves_in_the_middle_of_its_header_is_named() {
    let server = Server::echo().await;
    let instance = Instance::start(&listening(TRUSTED, &[server.address], "")).await;
    let mut client = instance.connect().await;
    client.write_all(b"PROXY TCP4 203.").await.unwrap();
    client.shutdown().await.unwrap();
    hear(client).await.unwrap_err();
    instance.ended(Reason::ClientClosed, 1).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_header_from_anybody_else_is_refused_and_never_reaches_a_server() {
    let (server, mut heard) = reader("").await;
    let instance = Instance::start(&listening(STRANGERS, &[server.address], "")).await;
    let mut count = 0;
    for (header, _) in good() {
        for whole in [true, false] {
            assert_reset(&instance, "a stranger", &[&header, &b"hello"[..]].concat(), whole).await;
            count += 1;
        }
    }
    instance.ended(Reason::BadProxyHeader, count).await;
    // Connections are accepted in turn, so that this one is the last of them.
    let mut last = instance.connect().await;
    last.write_all(b"last").await.unwrap();
    last.shutdown().await.unwrap();
    hear(last).await.unwrap();
    for _ in 0..server.accepted() {
        match within("the server", heard.recv()).await.unwrap() {
            Ok(read) => assert!(read.is_empty() || read == b"last", "{read:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[tokio::test]
async fn a_header_from_anybody_else_is_refused_where_tls_is_expected_too() {
    let (pki, server) = (Pki::new(), Server::echo().await);
    let certificates = pki.issue(&["example.com"]).entry();
    for front in [
        format!("tls = {{ certificates = [{certificates}] }}"),
        "sni = [{ alpn = [\"h2\"], pool = \"web\" }]".to_owned(),
    ] {
        let instance = Instance::start(&listening(&format!("{STRANGERS}\n{front}"), &[server.address], "")).await;
        for whole in [true, false] {
            assert_reset(&instance, &front, &[LINE, &[22, 3, 1, 2, 0, 1, 0, 1, 252]].concat(), whole).await;
            assert_reset(&instance, &front, &v2(PROXY, TCP4, &[ADDRESSES]), whole).await;
        }
        instance.ended(Reason::BadProxyHeader, 4).await;
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn anybody_else_is_served_without_a_header() {
    let (server, log) = (Server::echo().await, AccessLog::new());
    let instance = Instance::start(&log.of(&listening(STRANGERS, &[server.address], ""))).await;
    // Some begin as a header does.
    let beginnings = ["", "PROXY", "PROXYING ", "PRO", "P", "\r\n\r\n", "\r\n\r\n\0\r\nQUIET"];
    let mut count = 0;
    for beginning in beginnings {
        for whole in [true, false] {
            let mut client = client_of(&instance).await;
            let own = client.local_addr().unwrap().to_string();
            send(&mut client, beginning.as_bytes(), whole).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(hear(client).await.unwrap(), beginning);
            count += 1;
            assert_eq!(log.line(count).await["client"], own);
        }
    }
}

#[tokio::test]
async fn anybody_else_is_not_waited_for_when_the_server_speaks_first() {
    let server = Server::saying("hello").await;
    let instance = Instance::start(&listening(STRANGERS, &[server.address], "")).await;
    for beginning in ["", "PROX"] {
        let mut client = instance.connect().await;
        client.write_all(beginning.as_bytes()).await.unwrap();
        assert_eq!(hear(client).await.unwrap(), "hello");
    }
    instance.ended(Reason::Done, 2).await;
}

#[tokio::test]
async fn anybody_else_is_not_waited_for_when_a_server_behind_tls_speaks_first() {
    let pki = Pki::new();
    let server = Server::secure(pki.server(&pki.issue(&["127.0.0.1"])), |mut stream| async move {
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let tls = format!("tls = {{ ca = {:?} }}", pki.root());
    let instance = Instance::start(&listening(STRANGERS, &[server.address], &tls)).await;
    assert_eq!(instance.hear().await, "hello");
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn one_who_stops_where_a_header_could_still_follow_has_the_idle_timeout() {
    let (server, mut heard) = reader("").await;
    let text = listening(&format!("{STRANGERS}\ntimeouts = {{ idle = \"300ms\" }}"), &[server.address], "");
    let instance = Instance::start(&text).await;
    assert_reset(&instance, "a silent client", b"PROXY", true).await;
    instance.ended(Reason::IdleTimeout, 1).await;
    let read = within("the server", heard.recv()).await.unwrap();
    assert!(read.as_ref().map_or_else(|_| is_reset(&read), Vec::is_empty), "{read:?}");
}

#[tokio::test]
async fn the_header_comes_before_the_tls_that_ends_at_the_listener() {
    let (pki, server, log) = (Pki::new(), Server::echo().await, AccessLog::new());
    let tls = format!("tls = {{ certificates = [{}] }}", pki.issue(&["example.com"]).entry());
    let text = listening(&format!("{TRUSTED}\n{tls}"), &[server.address], "");
    let instance = Instance::start(&log.of(&text)).await;
    let mut stream = instance.connect().await;
    stream.write_all(LINE).await.unwrap();
    let mut client = shake_over(stream, pki.client(None), "example.com").await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    within("the echo", client.read_to_string(&mut answer)).await.unwrap();
    let line = log.line(1).await;
    assert_eq!((&line["client"], &line["server_name"]), (&CLIENT.into(), &"example.com".into()), "{line}");
    // Without a header it is none of its proxies.
    assert!(shake(pki.client(None), instance.address("web"), "example.com").await.is_err());
    instance.ended(Reason::BadProxyHeader, 1).await;
}

/// A configuration whose listener `web` is a unix socket in a folder.
fn on_unix(folder: &tempfile::TempDir, from: &str, server: SocketAddr) -> (String, std::path::PathBuf) {
    let path = folder.path().join("web.sock");
    let text = listening(&format!("proxy_protocol = {{ from = [{from:?}] }}"), &[server], "");
    (text.replace("127.0.0.1:0", &format!("unix:{}", path.display())), path)
}

#[tokio::test]
async fn clients_of_a_unix_socket_are_proxies_if_it_says_so() {
    let (server, log, folder) = (Server::echo().await, AccessLog::new(), tempfile::tempdir().unwrap());
    let (text, path) = on_unix(&folder, "unix", server.address);
    let _instance = Instance::start(&log.of(&text)).await;
    for (count, (header, client)) in
        [(LINE.to_vec(), CLIENT), (v2(PROXY, TCP4, &[ADDRESSES]), CLIENT), (v2(LOCAL, UNSPEC, &[]), "unix")]
            .into_iter()
            .enumerate()
    {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(&[&header, &b"hello"[..]].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within("the echo", stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!((answer.as_str(), &log.line(count + 1).await["client"]), ("hello", &client.into()));
    }
}

#[tokio::test]
async fn clients_of_a_unix_socket_are_no_proxies_unless_it_says_so() {
    let (server, folder) = (Server::echo().await, tempfile::tempdir().unwrap());
    let (text, path) = on_unix(&folder, "0.0.0.0/0", server.address);
    let instance = Instance::start(&text).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&[LINE, b"hello"].concat()).await.unwrap();
    let mut answer = Vec::new();
    let _end = within("the end", stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{answer:?}");
    instance.ended(Reason::BadProxyHeader, 1).await;
}
