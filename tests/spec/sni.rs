//! Chapter: routing by the server name that a TLS client asks for, without decrypting.

use std::net::SocketAddr;
use std::sync::Arc;

use portreeve::ending::Reason;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::access::AccessLog;
use crate::stage::pki::{Pki, shake};
use crate::stage::secure::alert_of;
use crate::stage::watch::assert_alive;
use crate::stage::{Instance, Server, hear, is_reset, reader, within};

/// A configuration with a listener `web` on a free port, and unchecked pools of one server each.
fn routing(listener: &str, pools: &[(&str, SocketAddr)]) -> String {
    let pool =
        |(name, server): &(&str, SocketAddr)| format!("[pools.{name}]\nservers = [\"{server}\"]\ncheck = \"none\"\n");
    let pools: String = pools.iter().map(pool).collect();
    format!("workers = 2\n[listeners.web]\nbind = \"127.0.0.1:0\"\n{listener}\n{pools}")
}

/// The one route of most tests here.
const ROUTE: &str = "sni = [{ host = \"db.example.com\", pool = \"db\" }]";

/// A fatal alert `unrecognized_name` in a record of its own (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: &str = "\u{15}\u{3}\u{3}\0\u{2}\u{2}p";

/// The ClientHello of a client that asks for `name`, if for any, and offers these protocols; in one record.
pub fn client_hello(name: Option<&str>, alpn: &[&str]) -> Vec<u8> {
    let mut config = Pki::new().client(None);
    config.enable_sni = name.is_some();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.unwrap_or("example.com").to_owned()).unwrap();
    let mut bytes = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The same message in records of so many bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

/// What opens no TLS, each with a name for it.
fn no_tls() -> [(&'static str, Vec<u8>); 5] {
    let mut too_long = in_records(&[&[0; 5][..], &[1, 0, 0x40, 0], &[0; 0x4000]].concat(), 0x4000);
    too_long.truncate(16_000);
    let mut interrupted = in_records(&client_hello(Some("db.example.com"), &[]), 100);
    interrupted[105] = 23;
    [
        ("plain text", b"GET / HTTP/1.1\r\nHost: db.example.com\r\n\r\n".to_vec()),
        ("a byte", vec![0]),
        ("garbage", (0..=255).rev().collect()),
        ("a ClientHello of over 16 KiB", too_long),
        ("a ClientHello that another record interrupts", interrupted),
    ]
}

/// Sends `bytes` and reads what comes back, to the end.
async fn ask(instance: &Instance, bytes: &[u8]) -> std::io::Result<String> {
    let mut client = instance.connect().await;
    client.write_all(bytes).await?;
    hear(client).await
}

#[tokio::test]
async fn a_client_goes_to_the_pool_of_the_most_specific_host() {
    let words = ["exact", "wildcard", "deeper", "fallback"];
    let mut servers = Vec::new();
    for word in words {
        servers.push(Server::saying(word).await);
    }
    let pools: Vec<_> = words.into_iter().zip(servers.iter().map(|server| server.address)).collect();
    let routes = "pool = \"fallback\"\nsni = [
        { host = \"*.example.com\", pool = \"wildcard\" },
        { host = \"db.example.com\", pool = \"exact\" },
        { host = \"*.eu.example.com\", pool = \"deeper\" },
    ]";
    let instance = Instance::start(&routing(routes, &pools)).await;
    for (name, pool) in [
        ("db.example.com", "exact"),
        ("a.example.com", "wildcard"),
        ("a.db.example.com", "wildcard"),
        ("eu.example.com", "wildcard"),
        ("db.eu.example.com", "deeper"),
        ("example.com", "fallback"),
        ("db.example.org", "fallback"),
        ("127.0.0.1", "fallback"),
    ] {
        assert_eq!(ask(&instance, &client_hello(Some(name), &[])).await.unwrap(), pool, "{name}");
    }
    assert_eq!(ask(&instance, &client_hello(None, &[])).await.unwrap(), "fallback", "a client that names none");
    instance.ended(Reason::Done, 9).await;
}

#[tokio::test]
async fn a_name_is_the_same_in_upper_case() {
    let server = Server::saying("db").await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&routing(ROUTE, &[("db", server.address)]))).await;
    let mut hello = client_hello(Some("db.example.com"), &[]);
    let place = hello.windows(14).position(|window| window == b"db.example.com").unwrap();
    hello[place..place + 14].copy_from_slice(b"Db.EXAMPLE.coM");
    assert_eq!(ask(&instance, &hello).await.unwrap(), "db");
    assert_eq!(log.line(1).await["server_name"], "db.example.com");
}

#[tokio::test]
async fn a_protocol_that_the_client_offers_decides_among_the_routes_of_a_host() {
    let (h2, any, ssh) = (Server::saying("h2").await, Server::saying("any").await, Server::saying("ssh").await);
    let routes = "sni = [
        { host = \"example.com\", pool = \"any\" },
        { host = \"example.com\", alpn = [\"h2\", \"h3\"], pool = \"h2\" },
        { alpn = [\"ssh\"], pool = \"ssh\" },
    ]";
    let pools = [("h2", h2.address), ("any", any.address), ("ssh", ssh.address)];
    let instance = Instance::start(&routing(routes, &pools)).await;
    for (name, alpn, pool) in [
        (Some("example.com"), &["http/1.1", "h2"][..], "h2"),
        (Some("example.com"), &["http/1.1", "ssh"], "any"),
        (Some("example.com"), &[], "any"),
        (Some("example.org"), &["h2", "ssh"], "ssh"),
        (None, &["ssh"], "ssh"),
    ] {
        assert_eq!(ask(&instance, &client_hello(name, alpn)).await.unwrap(), pool, "{name:?} {alpn:?}");
    }
    assert_eq!(ask(&instance, &client_hello(Some("example.org"), &["h2"])).await.unwrap(), UNRECOGNIZED_NAME);
    instance.ended(Reason::NoRoute, 1).await;
}

#[tokio::test]
async fn the_handshake_is_between_the_client_and_the_server() {
    let pki = Pki::new();
    let own = pki.issue(&["db.example.com"]);
    let (server, log) = (Server::secure_echo(pki.server(&own)).await, AccessLog::new());
    let instance = Instance::start(&log.of(&routing(ROUTE, &[("db", server.address)]))).await;
    let mut client = shake(pki.client(None), instance.address("web"), "db.example.com").await.unwrap();
    assert_eq!(client.get_ref().1.peer_certificates().unwrap(), own.chain());
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    within("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "hello");
    let line = log.line(1).await;
    assert_eq!((&line["server_name"], &line["pool"]), (&"db.example.com".into(), &"db".into()), "{line}");
    assert_eq!((&line["reason"], line.get("tls")), (&"done".into(), None), "{line}");
    assert!(line["bytes_in"].as_u64() > Some(500), "the ClientHello counts: {line}");
}

#[tokio::test]
async fn the_server_gets_the_client_hello_byte_for_byte_however_it_is_cut() {
    let (server, mut heard) = reader("").await;
    let instance = Instance::start(&routing(ROUTE, &[("db", server.address)])).await;
    let hello = client_hello(Some("db.example.com"), &["h2", "http/1.1"]);
    let whole = hello.len();
    let cuts = [(whole, whole + 100), (whole, 1), (1, 16_384), (3, 5), (100, 16_384), (whole, 700), (99, 101)];
    for (record, segment) in cuts {
        let sent = [in_records(&hello, record), b"and what comes behind it".to_vec()].concat();
        let mut client = instance.connect().await;
        client.set_nodelay(true).unwrap();
        for segment in sent.chunks(segment) {
            client.write_all(segment).await.unwrap();
        }
        client.shutdown().await.unwrap();
        let read = within("the server", heard.recv()).await.unwrap().unwrap();
        assert!(read == sent, "records of {record} bytes in segments of {segment}: {read:?}");
    }
    instance.ended(Reason::Done, cuts.len() as u64).await;
}

#[tokio::test]
async fn what_is_no_tls_goes_to_the_default_pool_as_it_is() {
    let ((server, mut heard), db) = (reader("").await, Server::silent().await);
    let text = routing(&format!("pool = \"web\"\n{ROUTE}"), &[("web", server.address), ("db", db.address)]);
    let instance = Instance::start(&text).await;
    for (what, bytes) in no_tls() {
        let mut client = instance.connect().await;
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let read = within("the server", heard.recv()).await.unwrap().unwrap();
        assert!(read == bytes, "{what}: {read:?}");
    }
    assert_eq!(db.accepted(), 0);
}

#[tokio::test]
async fn what_is_no_tls_is_refused_when_there_is_no_default_pool() {
    let (server, log) = (Server::silent().await, AccessLog::new());
    let instance = Instance::start(&log.of(&routing(ROUTE, &[("db", server.address)]))).await;
    for (count, (what, bytes)) in no_tls().into_iter().enumerate() {
        let refused = ask(&instance, &bytes).await;
        assert!(is_reset(&refused), "{what}: {refused:?}");
        let line = log.line(count + 1).await;
        assert_eq!((&line["reason"], line.get("pool")), (&"tls_error".into(), None), "{what}: {line}");
        assert_eq!(line["error"], "it did not begin with a ClientHello", "{what}");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_client_whose_name_has_no_route_is_told_so_by_an_alert() {
    let (server, log, pki) = (Server::silent().await, AccessLog::new(), Pki::new());
    let instance = Instance::start(&log.of(&routing(ROUTE, &[("db", server.address)]))).await;
    let refused = shake(pki.client(None), instance.address("web"), "other.example.com").await;
    assert_eq!(alert_of(&refused), Some(AlertDescription::UnrecognisedName), "{refused:?}");
    let line = log.line(1).await;
    assert_eq!((&line["reason"], &line["server_name"]), (&"no_route".into(), &"other.example.com".into()), "{line}");
    // One that names none is told the same, in a record of its own, with an orderly end.
    assert_eq!(ask(&instance, &client_hello(None, &[])).await.unwrap(), UNRECOGNIZED_NAME);
    instance.ended(Reason::NoRoute, 2).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_client_hello_that_does_not_come_to_its_end_ends_as_handshake_timeout() {
    let server = Server::silent().await;
    let text = format!("timeouts = {{ handshake = \"300ms\" }}\npool = \"db\"\n{ROUTE}");
    let instance = Instance::start(&routing(&text, &[("db", server.address)])).await;
    let hello = client_hello(Some("db.example.com"), &[]);
    assert!(is_reset(&ask(&instance, b"").await), "one that says nothing");
    assert!(is_reset(&ask(&instance, &hello[..hello.len() - 1]).await), "one that lacks a byte");
    instance.ended(Reason::HandshakeTimeout, 2).await;
    let mut client = instance.connect().await;
    let mut now_and_then = tokio::time::interval(std::time::Duration::from_millis(20));
    let drip = async {
        for byte in &hello {
            now_and_then.tick().await;
            if client.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
        panic!("it was waited for");
    };
    within("the end of one that drips", drip).await;
    instance.ended(Reason::HandshakeTimeout, 3).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_client_hello_is_named() {
    let server = Server::silent().await;
    let instance = Instance::start(&routing(ROUTE, &[("db", server.address)])).await;
    let mut client = instance.connect().await;
    client.write_all(&client_hello(Some("db.example.com"), &[])[..100]).await.unwrap();
    client.shutdown().await.unwrap();
    hear(client).await.unwrap_err();
    instance.ended(Reason::ClientClosed, 1).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_listener_that_ends_tls_routes_by_the_name_as_well() {
    let pki = Pki::new();
    let (db, web, log) = (Server::saying("db").await, Server::saying("web").await, AccessLog::new());
    let own = pki.issue(&["*.example.com"]);
    let listener = format!("tls = {{ certificates = [{}] }}\npool = \"web\"\n{ROUTE}", own.entry());
    let text = routing(&listener, &[("db", db.address), ("web", web.address)]);
    let instance = Instance::start(&log.of(&text)).await;
    for (count, (name, pool)) in [("db.example.com", "db"), ("www.example.com", "web")].into_iter().enumerate() {
        let mut client = shake(pki.client(None), instance.address("web"), name).await.unwrap();
        let mut answer = String::new();
        within("the answer", client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, pool);
        client.shutdown().await.unwrap();
        let line = log.line(count + 1).await;
        assert_eq!((&line["server_name"], &line["pool"], &line["tls"]), (&name.into(), &pool.into(), &"1.3".into()));
    }
}

#[tokio::test]
async fn a_listener_that_ends_tls_resets_a_client_whose_name_has_no_route() {
    let (server, pki) = (Server::saying("db").await, Pki::new());
    let own = pki.issue(&["*.example.com"]);
    let listener = format!("tls = {{ certificates = [{}] }}\n{ROUTE}", own.entry());
    let instance = Instance::start(&routing(&listener, &[("db", server.address)])).await;
    let mut client = shake(pki.client(None), instance.address("web"), "www.example.com").await.unwrap();
    let end = within("the end", client.read_to_end(&mut Vec::new())).await;
    assert!(is_reset(&end), "{end:?}");
    instance.ended(Reason::NoRoute, 1).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_route_that_a_reload_changes_applies_to_the_next_connection_and_to_no_other() {
    let (old, new) = (Server::echo().await, Server::saying("new").await);
    let pools = [("old", old.address), ("new", new.address)];
    let to = |pool: &str, other: &str| {
        let route = format!("{}\npool = \"{other}\"", ROUTE.replace("\"db\"", &format!("{pool:?}")));
        routing(&route, &pools)
    };
    let instance = Instance::start(&to("old", "new")).await;
    let hello = client_hello(Some("db.example.com"), &[]);
    let mut established: TcpStream = instance.connect().await;
    established.write_all(&hello).await.unwrap();
    within("the echo", established.read_exact(&mut vec![0; hello.len()])).await.unwrap();
    instance.running.reload_text(&to("new", "old")).await.unwrap();
    assert_eq!(ask(&instance, &hello).await.unwrap(), "new");
    assert_alive(&mut established).await;
    established.shutdown().await.unwrap();
    hear(established).await.unwrap();
    instance.ended(Reason::Done, 2).await;
    assert_eq!(old.accepted(), 1);
}
