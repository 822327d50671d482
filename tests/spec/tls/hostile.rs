//! Clients that mean no good, or do not know what they do: none of them harms the others.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portreeve::ending::{Handshake, Reason};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::{Fronted, TLS12, TLS13, certificates, echoes};
use crate::stage::pki::{Pki, shake_over};
use crate::stage::{endings, eventually, is_reset, within};

/// A stream that sends something else in place of each write: the answer of `bend`, which is no longer than that.
struct Bent<W> {
    stream: TcpStream,
    bend: W,
}

impl<W: FnMut(&[u8]) -> Vec<u8> + Unpin> AsyncWrite for Bent<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.stream.poll_write_ready(cx))?;
        let bent = (self.bend)(bytes);
        Pin::new(&mut self.stream).poll_write(cx, &bent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<W: Unpin> AsyncRead for Bent<W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("connect", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The first message of a client that asks for `example.com`, in its record.
fn hello(config: ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from("example.com").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Sends some bytes and the end, and reads to whatever end there is.
async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let (mut stream, mut answer) = (connect(address).await, Vec::new());
    let _gone = stream.write_all(bytes).await;
    let _gone = stream.shutdown().await;
    let _reset = within("the end", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn plain_text_is_refused_and_named() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    for text in [&b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"[..], b"\x16\x03Z", b"\x80\x2e\x01\x00\x02"] {
        let mut stream = connect(instance.address("web")).await;
        stream.write_all(text).await.unwrap();
        let end = within("the end", stream.read(&mut [0])).await;
        assert!(is_reset(&end), "the client saw {end:?}");
    }
    instance.ended(Reason::TlsError, 3).await;
    instance.shook(Handshake::NotTls, 3).await;
    assert_eq!(instance.server.accepted(), 0);
}

#[tokio::test]
async fn a_handshake_that_stalls_anywhere_is_ended_by_the_handshake_timeout() {
    let pki = Pki::new();
    let tls = certificates(&[&pki.issue(&["example.com"])]);
    let instance = Fronted::with(&tls, "timeouts = { handshake = \"1s\" }").await;
    let (address, mut clients) = (instance.address("web"), JoinSet::new());
    for versions in [TLS12, TLS13] {
        let hello = hello(pki.client_of(versions, None));
        for length in [0, 3, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
            let (part, is_whole) = (hello[..length].to_vec(), length == hello.len());
            clients.spawn(async move {
                let (mut stream, mut answer) = (connect(address).await, Vec::new());
                stream.write_all(&part).await.unwrap();
                let end = within("the end", stream.read_to_end(&mut answer)).await;
                assert!(is_reset(&end), "after {length} bytes the client saw {end:?}");
                assert_eq!(!answer.is_empty(), is_whole, "after {length} bytes the answer was {answer:?}");
            });
        }
    }
    clients.join_all().await;
    instance.ended(Reason::HandshakeTimeout, 14).await;
    instance.shook(Handshake::Timeout, 14).await;
    assert_eq!(instance.server.accepted(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_is_named() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let hello = hello(pki.client(None));
    for sent in [0, 100, hello.len()] {
        send(instance.address("web"), &hello[..sent]).await;
    }
    instance.ended(Reason::ClientClosed, 3).await;
    instance.shook(Handshake::Closed, 3).await;
}

#[tokio::test]
async fn a_client_whose_every_byte_comes_by_itself_is_served() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    for versions in [TLS12, TLS13] {
        let one_by_one = Bent { stream: connect(instance.address("web")).await, bend: |bytes: &[u8]| vec![bytes[0]] };
        let mut stream = shake_over(one_by_one, pki.client_of(versions, None), "example.com").await.unwrap();
        echoes(&mut stream).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_whose_messages_come_in_many_records_is_served() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    for versions in [TLS12, TLS13] {
        let mut client = pki.client_of(versions, None);
        client.max_fragment_size = Some(64);
        let mut stream = instance.shake(client).await.unwrap();
        echoes(&mut stream).await.unwrap();
    }
}

/// A hello with something wrong about it.
fn garbled(hello: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = hello.to_vec();
    match dice.u8(..6) {
        // Too short, with the length it had or the one it has.
        0 => bytes.truncate(dice.usize(..bytes.len())),
        1 => {
            bytes.truncate(dice.usize(10..bytes.len()));
            let left = u16::try_from(bytes.len() - 5).unwrap();
            bytes[3..5].copy_from_slice(&left.to_be_bytes());
            bytes[7..9].copy_from_slice(&(left - 4).to_be_bytes());
        }
        // Of another version, in its record or in its message.
        2 => {
            let place = dice.choice([1, 2, 9, 10]).unwrap();
            bytes[place] = dice.u8(..);
        }
        // Another length somewhere near the start, where lengths are.
        3 => {
            let place = dice.choice([3, 4, 6, 7, 8, 43, 76, 77]).unwrap();
            bytes[place] = dice.u8(..);
        }
        // Longer than it says, with anything at all.
        4 => bytes.extend(std::iter::repeat_with(|| dice.u8(..)).take(70_000).collect::<Vec<_>>()),
        // Wrong in a few places.
        _ => {
            for _ in 0..dice.usize(1..8) {
                let place = dice.usize(..bytes.len());
                bytes[place] = dice.u8(..);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn garbled_hellos_harm_nobody() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let address = instance.address("web");
    let hellos = [TLS12, TLS13].map(|versions| hello(pki.client_of(versions, None)));
    let dice = &mut fastrand::Rng::with_seed(0x5eed);
    for _ in 0..40 {
        let mut clients = JoinSet::new();
        for _ in 0..16 {
            let bytes = garbled(dice.choice(&hellos).unwrap(), dice);
            clients.spawn(async move { send(address, &bytes).await });
        }
        within("the clients", clients.join_all()).await;
    }
    assert_harmless(&instance, &pki, 640).await;
}

#[tokio::test]
async fn handshakes_that_go_wrong_after_the_hello_harm_nobody() {
    let pki = Pki::new();
    let tls = format!("{}, client_ca = {:?}", certificates(&[&pki.issue(&["example.com"])]), pki.root());
    let instance = Fronted::by(&format!("{tls}, client_auth = \"optional\"")).await;
    let own = pki.issue(&["client"]);
    let clients = [TLS12, TLS13].map(|versions| Arc::new(pki.client_of(versions, Some(&own))));
    for seeds in (0..200).collect::<Vec<u64>>().chunks(20) {
        let each = seeds.iter().map(|seed| {
            let client = Arc::clone(&clients[usize::from(seed % 2 == 0)]);
            let (mut dice, mut is_hello, address) = (fastrand::Rng::with_seed(*seed), true, instance.address("web"));
            // The hello is whole, and of what follows a bit of each write is another.
            let bend = move |bytes: &[u8]| {
                let mut bent = bytes.to_vec();
                if !std::mem::take(&mut is_hello) {
                    let place = dice.usize(..bent.len());
                    bent[place] ^= 1 << dice.u8(..8);
                }
                bent
            };
            async move {
                let mut stream =
                    shake_over(Bent { stream: connect(address).await, bend }, client, "example.com").await?;
                echoes(&mut stream).await
            }
        });
        // It gives up when both sides wait for the rest of a record.
        let each = each.map(|client| tokio::time::timeout(Duration::from_millis(300), client));
        within("the clients", each.collect::<JoinSet<_>>().join_all()).await;
    }
    assert_harmless(&instance, &pki, 200).await;
    assert!(instance.handshakes(Handshake::ProtocolError) > 0);
}

/// Waits until so many clients are gone. Nothing has panicked, nothing was our own fault, and the next client is served.
async fn assert_harmless(instance: &Fronted, pki: &Pki, count: u64) {
    let listener = instance.listener("web");
    let ended = || Reason::ALL.iter().map(|reason| listener.endings(*reason)).sum::<u64>();
    eventually("the end of all", || ended() == count).await;
    assert_eq!(instance.metric("portreeve_task_panics_total"), Some(0.0));
    assert_eq!(listener.endings(Reason::Internal), 0, "{}", endings(&listener));
    echoes(&mut instance.shake(pki.client(None)).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_wants_to_renegotiate_is_refused() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let address = instance.address("web").to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &address, "-servername", "example.com"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    instance.shook(Handshake::Full, 1).await;
    let stdin = client.stdin.as_mut().unwrap();
    stdin.write_all(b"R\n").await.unwrap();
    stdin.flush().await.unwrap();
    let mut said = String::new();
    within("its end", client.stderr.take().unwrap().read_to_string(&mut said)).await.unwrap();
    assert!(said.contains("no renegotiation"), "{said}");
    assert_harmless(&instance, &pki, 1).await;
}

#[tokio::test]
async fn a_client_that_does_nothing_but_update_keys_is_refused() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    let mut stream = instance.shake(pki.client_of(TLS13, None)).await.unwrap();
    echoes(&mut stream).await.unwrap();
    for _ in 0..100 {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
    }
    let _gone = stream.flush().await;
    instance.ended(Reason::TlsError, 1).await;
    assert_harmless(&instance, &pki, 1).await;
}

#[tokio::test]
async fn many_clients_that_shake_hands_at_once_do_not_keep_an_established_connection_waiting() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue_rsa(&["example.com"])])).await;
    let address = instance.address("web");
    let mut stream = instance.shake(pki.client(None)).await.unwrap();
    echoes(&mut stream).await.unwrap();
    // Who sends only a hello costs us a signature, and himself next to nothing.
    let hello: Arc<[u8]> = hello(pki.client(None)).into();
    let mut clients = JoinSet::new();
    for _ in 0..400 {
        let hello = Arc::clone(&hello);
        clients.spawn(async move { send(address, &hello).await.len() });
    }
    let mut echoed = 0;
    while !clients.is_empty() {
        tokio::time::timeout(Duration::from_secs(2), echoes(&mut stream)).await.expect("an echo beside them").unwrap();
        echoed += 1;
        while let Some(answer) = clients.try_join_next() {
            assert!(answer.unwrap() > 0);
        }
    }
    assert!(echoed > 0);
    instance.shook(Handshake::Closed, 400).await;
}
