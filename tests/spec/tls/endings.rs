//! How connections end where TLS does: what is an end, what is none, and what each side sees of it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use portreeve::ending::Reason;
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use super::{TLS12, TLS13, certificates, fronting};
use crate::stage::pki::{Pki, welcome};
use crate::stage::volume::{MIB, most_under_way, pour, swallow};
use crate::stage::{Instance, Server, is_reset, listening, reset, within};

/// An instance in front of a server, and clients of both versions.
struct Ending {
    instance: Instance,
    clients: [Arc<ClientConfig>; 2],
}

impl Ending {
    async fn before(server: &Server) -> Self {
        Self::with("", server).await
    }

    async fn with(listener: &str, server: &Server) -> Self {
        let pki = Pki::new();
        let tls = certificates(&[&pki.issue(&["example.com"])]);
        let client = |versions: &[&'static SupportedProtocolVersion]| Arc::new(pki.client_of(versions, None));
        let instance = Instance::start(&fronting(&tls, listener, server)).await;
        Self { instance, clients: [client(TLS12), client(TLS13)] }
    }

    async fn shake(&self, client: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
        self.instance.shake(Arc::clone(client)).await.unwrap()
    }
}

/// A server that greets, reads to the end, and tells what it read, or how reading failed.
async fn reader() -> (Server, mpsc::Receiver<io::Result<Vec<u8>>>) {
    let (told, heard) = mpsc::channel(16);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            stream.write_all(b"hi").await.unwrap();
            let read = stream.read_to_end(&mut bytes).await;
            let _test_over = told.send(read.map(|_| bytes)).await;
        }
    });
    (server.await, heard)
}

/// Waits for the greeting of [`reader`].
async fn greeted(stream: &mut TlsStream<TcpStream>) {
    within("the greeting", stream.read_exact(&mut [0; 2])).await.unwrap();
}

#[tokio::test]
async fn a_client_that_has_said_its_last_word_still_gets_the_whole_answer() {
    let server = Server::echo().await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        for closes_tcp in [false, true] {
            let mut stream = ending.shake(client).await;
            stream.write_all(b"hello").await.unwrap();
            if closes_tcp {
                stream.shutdown().await.unwrap();
            } else {
                stream.get_mut().1.send_close_notify();
                stream.flush().await.unwrap();
            }
            let mut answer = String::new();
            // Without a close_notify of ours this were an error.
            within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(answer, "hello");
        }
    }
    ending.instance.ended(Reason::Done, 4).await;
}

#[tokio::test]
async fn a_client_can_say_all_it_has_to_say_with_the_end_of_its_handshake() {
    let server = Server::echo().await;
    let ending = Ending::before(&server).await;
    // In TLS 1.2 the last word of a handshake is the server's.
    let client = Arc::clone(&ending.clients[1]);
    let mut connection = ClientConnection::new(client, "example.com".try_into().unwrap()).unwrap();
    let mut stream = ending.instance.connect().await;
    while connection.is_handshaking() {
        stream.write_all(&outgoing(&mut connection)).await.unwrap();
        take_in(&mut connection, &mut stream).await;
    }
    connection.writer().write_all(b"hello").unwrap();
    connection.send_close_notify();
    stream.write_all(&outgoing(&mut connection)).await.unwrap();
    stream.shutdown().await.unwrap();
    while take_in(&mut connection, &mut stream).await > 0 {}
    let mut answer = String::new();
    // Without a close_notify of ours this were an error.
    connection.reader().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
    ending.instance.ended(Reason::Done, 1).await;
}

/// All that a client has to send now.
fn outgoing(connection: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Lets a client have what has arrived, and says how much that was.
async fn take_in(connection: &mut ClientConnection, stream: &mut TcpStream) -> usize {
    let mut buffer = [0; 4096];
    let read = within("something to read", stream.read(&mut buffer)).await.unwrap();
    connection.read_tls(&mut &buffer[..read]).unwrap();
    connection.process_new_packets().unwrap();
    read
}

#[tokio::test]
async fn keys_are_updated_as_often_as_the_client_likes() {
    let server = Server::echo().await;
    let ending = Ending::before(&server).await;
    let mut stream = ending.shake(&ending.clients[1]).await;
    let (bytes, mut answer) = (vec![0x5a; 100_000], vec![0; 100_000]);
    for _ in 0..20 {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let echoed = async { tokio::try_join!(writer.write_all(&bytes), reader.read_exact(&mut answer)) };
        within("the echo", echoed).await.unwrap();
        assert_eq!(bytes, answer);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0);
    ending.instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_server_that_has_finished_answering_still_gets_the_whole_upload() {
    const UPLOAD: usize = 1024 * 1024;
    let (told, mut uploaded) = mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(b"enough").await.unwrap();
            stream.shutdown().await.unwrap();
            told.send(stream.read_to_end(&mut Vec::new()).await).await.unwrap();
        }
    })
    .await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        let mut stream = ending.shake(client).await;
        let mut answer = String::new();
        within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "enough");
        within("the upload", stream.write_all(&vec![7; UPLOAD])).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(within("the upload", uploaded.recv()).await.unwrap().unwrap(), UPLOAD);
    }
    ending.instance.ended(Reason::Done, 2).await;
}

#[tokio::test]
async fn a_client_that_closes_without_a_close_notify_is_a_reset_to_the_server_and_not_an_end() {
    let (server, mut heard) = reader().await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        let mut stream = ending.shake(client).await;
        greeted(&mut stream).await;
        stream.write_all(b"half a requ").await.unwrap();
        stream.flush().await.unwrap();
        stream.get_mut().0.shutdown().await.unwrap();
        let read = within("the server", heard.recv()).await.unwrap();
        assert!(is_reset(&read), "the server saw {read:?}");
        let end = within("the end", stream.read(&mut [0])).await;
        assert!(is_reset(&end), "the client saw {end:?}");
    }
    ending.instance.ended(Reason::ClientTruncated, 2).await;
}

#[tokio::test]
async fn a_client_that_was_told_the_end_may_leave_without_a_word_unless_it_has_gone_on_speaking() {
    let server = Server::saying("all there is").await;
    let ending = Ending::before(&server).await;
    for (count, client) in (1..).zip(&ending.clients) {
        for (word, reason) in [(&b""[..], Reason::Done), (b"more", Reason::ClientTruncated)] {
            let mut stream = ending.shake(client).await;
            let mut answer = String::new();
            within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(answer, "all there is");
            stream.write_all(word).await.unwrap();
            stream.flush().await.unwrap();
            // The end of TCP alone.
            stream.get_mut().0.shutdown().await.unwrap();
            ending.instance.ended(reason, count).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_resets_is_a_reset_to_the_server() {
    let (server, mut heard) = reader().await;
    let ending = Ending::before(&server).await;
    let mut stream = ending.shake(&ending.clients[1]).await;
    greeted(&mut stream).await;
    reset(stream.into_inner().0);
    let read = within("the server", heard.recv()).await.unwrap();
    assert!(is_reset(&read), "the server saw {read:?}");
    ending.instance.ended(Reason::ClientReset, 1).await;
}

#[tokio::test]
async fn what_cannot_be_decrypted_ends_the_connection_with_an_alert_and_is_no_end_to_the_server() {
    let (server, mut heard) = reader().await;
    let ending = Ending::before(&server).await;
    // No TLS at all, and a record of data that nobody has encrypted.
    let garbage = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[&[23, 3, 3, 0, 64][..], &[0xa5; 64]].concat()];
    for client in &ending.clients {
        for bytes in garbage {
            let mut stream = ending.shake(client).await;
            greeted(&mut stream).await;
            stream.get_mut().0.write_all(bytes).await.unwrap();
            let read = within("the server", heard.recv()).await.unwrap();
            assert!(is_reset(&read), "the server saw {read:?}");
            // The alert, unless the reset behind it was faster.
            let end = within("the end", stream.read(&mut [0])).await.unwrap_err();
            assert!([ErrorKind::InvalidData, ErrorKind::ConnectionReset].contains(&end.kind()), "{end:?}");
        }
    }
    ending.instance.ended(Reason::TlsError, 4).await;
}

#[tokio::test]
async fn garbage_of_a_client_that_was_told_the_end_is_an_error_like_any_other() {
    let server = Server::saying("enough").await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        let mut stream = ending.shake(client).await;
        within("the answer", stream.read_to_end(&mut Vec::new())).await.unwrap();
        let record = [&[23, 3, 3, 0, 32][..], &[0xa5; 32]].concat();
        stream.get_mut().0.write_all(&record).await.unwrap();
    }
    ending.instance.ended(Reason::TlsError, 2).await;
    assert_eq!(ending.instance.metric("portreeve_task_panics_total"), Some(0.0));
}

#[tokio::test]
async fn a_server_that_resets_is_a_reset_to_the_client_and_not_an_end() {
    let server = Server::start(|mut stream| async move {
        stream.write_all(b"half an answ").await.unwrap();
        reset(stream);
    })
    .await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        for _ in 0..5 {
            let (mut stream, mut answer) = (ending.shake(client).await, Vec::new());
            let end = within("the end", stream.read_to_end(&mut answer)).await;
            assert!(is_reset(&end), "the client saw {end:?}");
            assert_eq!(String::from_utf8(answer).unwrap(), "half an answ");
        }
    }
    ending.instance.ended(Reason::ServerReset, 10).await;
}

#[tokio::test]
async fn a_server_that_closes_without_a_word_is_an_end_to_the_client() {
    let server = Server::start(|stream| async move { drop(stream) }).await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        let mut stream = ending.shake(client).await;
        assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0);
        stream.shutdown().await.unwrap();
    }
    ending.instance.ended(Reason::ServerClosed, 2).await;
}

#[tokio::test]
async fn a_connection_without_a_byte_for_the_idle_timeout_is_reset_on_both_sides() {
    let (server, mut heard) = reader().await;
    let ending = Ending::with("timeouts = { idle = \"200ms\" }", &server).await;
    let mut stream = ending.shake(&ending.clients[1]).await;
    let end = within("the end", stream.read_to_end(&mut Vec::new())).await;
    assert!(is_reset(&end), "the client saw {end:?}");
    let read = within("the server", heard.recv()).await.unwrap();
    assert!(is_reset(&read), "the server saw {read:?}");
    ending.instance.ended(Reason::IdleTimeout, 1).await;
}

#[tokio::test]
async fn megabytes_arrive_both_ways_at_once_whoever_reads_slowly() {
    const MEBIBYTES: u64 = 4;
    let (told, mut hashes) = mpsc::channel(1);
    let server = Server::start(move |stream| {
        let told = told.clone();
        async move {
            let (reader, writer) = stream.into_split();
            told.send(tokio::join!(pour(writer, MEBIBYTES, 1), swallow(reader, 256 * 1024))).await.unwrap();
        }
    })
    .await;
    let ending = Ending::before(&server).await;
    for client in &ending.clients {
        for at_once in [2 * 1024, 256 * 1024] {
            let (reader, writer) = tokio::io::split(ending.shake(client).await);
            let (sent_up, got_down) = tokio::join!(pour(writer, MEBIBYTES, 2), swallow(reader, at_once));
            let (sent_down, got_up) = within("the server", hashes.recv()).await.unwrap();
            assert_eq!((got_up, got_down), (sent_up, sent_down));
        }
    }
    ending.instance.ended(Reason::Done, 4).await;
}

#[tokio::test]
async fn a_server_is_held_back_by_a_client_that_does_not_read() {
    const ALL: usize = 256 * MIB;
    let (told, mut stalled) = mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let (piece, mut pushed) = (vec![0; 64 * 1024], 0);
            while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.write(&piece)).await {
                pushed += written.unwrap();
                assert!(pushed < ALL, "nothing holds it back");
            }
            told.send(pushed as u64).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        }
    })
    .await;
    let ending = Ending::before(&server).await;
    let stream = ending.shake(&ending.clients[1]).await;
    let (taken, most) = (within("the stall", stalled.recv()).await.unwrap(), most_under_way());
    assert!(taken < most, "{taken} bytes were taken in for a client that reads nothing, more than {most}");
    reset(stream.into_inner().0);
    ending.instance.ended(Reason::ClientReset, 1).await;
}

#[tokio::test]
async fn with_tls_on_both_sides_each_end_is_passed_on() {
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    let config = Arc::new(pki.server(&pair));
    let server = Server::start(move |stream| {
        let config = Arc::clone(&config);
        async move {
            let mut stream = welcome(config, stream).await.unwrap();
            let mut request = String::new();
            stream.read_to_string(&mut request).await.unwrap();
            stream.write_all(request.to_uppercase().as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let pool = format!("tls = {{ ca = {:?}, server_name = \"example.com\" }}", pki.root());
    let front = format!("tls = {{ {} }}", certificates(&[&pair]));
    let instance = Instance::start(&listening(&front, &[server.address], &pool)).await;
    for versions in [TLS12, TLS13] {
        let mut stream = instance.shake(pki.client_of(versions, None)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "HELLO");
    }
    instance.ended(Reason::Done, 2).await;
}
