//! Chapter: TLS that ends at a listener.

mod certificates;
mod clients;
mod endings;
mod hostile;
mod key_log;
mod reload;
mod sessions;

use std::io;
use std::ops::Deref;
use std::process::Stdio;

use portreeve::ending::{Handshake, Reason, TlsVersion};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::client::TlsStream;

use crate::stage::pki::{Pair, Pki, shake};
use crate::stage::{Instance, Program, Server, echo, eventually, listening, within};

/// TLS 1.2 alone.
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
/// TLS 1.3 alone.
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// An instance whose listener `web` ends TLS, with an echo behind it.
struct Fronted {
    instance: Instance,
    server: Server,
}

impl Fronted {
    /// With this in the listener's `tls`.
    async fn by(tls: &str) -> Self {
        Self::with(tls, "").await
    }

    /// The same with more in the listener's table.
    async fn with(tls: &str, listener: &str) -> Self {
        let server = Server::echo().await;
        let instance = Instance::start(&fronting(tls, listener, &server)).await;
        Self { instance, server }
    }
}

impl Deref for Fronted {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

/// The configuration of a listener `web` that ends TLS in front of a server.
fn fronting(tls: &str, listener: &str, server: &Server) -> String {
    listening(&format!("tls = {{ {tls} }}\n{listener}"), &[server.address], "")
}

/// The `certificates` of a listener's `tls`.
fn certificates(pairs: &[&Pair]) -> String {
    format!("certificates = [{}]", pairs.iter().map(|pair| pair.entry()).collect::<Vec<_>>().join(", "))
}

impl Instance {
    /// Shakes hands with the listener `web` as a client that asks for `example.com`.
    async fn shake(&self, config: impl Into<std::sync::Arc<rustls::ClientConfig>>) -> io::Result<TlsStream<TcpStream>> {
        shake(config, self.address("web"), "example.com").await
    }

    /// How many handshakes of the listener `web` went so, whatever the version.
    fn handshakes(&self, outcome: Handshake) -> u64 {
        let listener = self.listener("web");
        TlsVersion::ALL.iter().map(|version| listener.handshakes(*version, outcome)).sum()
    }

    /// Waits until so many handshakes of the listener `web` went so.
    async fn shook(&self, outcome: Handshake, count: u64) {
        eventually(&format!("{count} handshakes {}", outcome.label()), || self.handshakes(outcome) == count).await;
    }
}

/// Says something through a connection to an echo and hears it again.
async fn echoes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut answer = [0; 5];
    let echoed = async {
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    within("the echo", echoed).await?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

/// The certificate that a client was shown.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// The alert that a client was refused with.
async fn alert(shaken: io::Result<TlsStream<TcpStream>>) -> AlertDescription {
    let error = match shaken {
        // In TLS 1.3 a client is done before its certificate is looked at: it hears of that when it reads.
        Ok(mut stream) => within("the alert", stream.read(&mut [0])).await.unwrap_err(),
        Err(error) => error,
    };
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert but {error:?}"),
    }
}

/// Runs a command to its end, with nothing to read, and returns what it said.
async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the end of the command", command.output()).await.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[tokio::test]
async fn a_client_speaks_tls_and_its_server_does_not() {
    let pki = Pki::new();
    let instance = Fronted::by(&certificates(&[&pki.issue(&["example.com"])])).await;
    for (versions, count) in [(TLS12, TlsVersion::Tls12), (TLS13, TlsVersion::Tls13)] {
        let mut client = instance.shake(pki.client_of(versions, None)).await.unwrap();
        echoes(&mut client).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(within("the end", client.read(&mut [0])).await.unwrap(), 0);
        assert_eq!(instance.listener("web").handshakes(count, Handshake::Full), 1);
    }
    instance.ended(Reason::Done, 2).await;
    let series = "portreeve_tls_handshakes_total{listener=\"web\",version=\"1.3\",result=\"full\"}";
    assert_eq!(instance.metric(series), Some(1.0));
}

#[tokio::test]
async fn openssl_speaks_with_it_in_both_versions() {
    let (pki, server) = (Pki::new(), Server::saying("hello from behind").await);
    let pair = pki.issue(&["example.com"]);
    let instance = Instance::start(&fronting(&certificates(&[&pair]), "", &server)).await;
    let (address, root) = (instance.address("web").to_string(), pki.root());
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let client = ["s_client", "-connect", &address, "-servername", "example.com", version, "-ign_eof"];
        let trust = ["-CAfile", root.to_str().unwrap(), "-verify_return_error", "-verify_hostname", "example.com"];
        let said = run("openssl", &[&client[..], &trust].concat()).await;
        assert!(said.contains("hello from behind") && said.contains(name), "{said}");
        assert!(said.contains("Verification: OK"), "{said}");
    }
    instance.ended(Reason::Done, 2).await;
}

#[tokio::test]
async fn curl_fetches_a_page_through_it() {
    let server = Server::start(|mut stream| async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\na page").await.unwrap();
        stream.shutdown().await.unwrap();
        let _end = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let pki = Pki::new();
    let pair = pki.issue(&["example.com"]);
    let instance = Instance::start(&fronting(&certificates(&[&pair]), "", &server)).await;
    let (port, root) = (instance.address("web").port(), pki.root());
    let (resolve, url) = (format!("example.com:{port}:127.0.0.1"), format!("https://example.com:{port}/"));
    let trust = ["--cacert", root.to_str().unwrap(), "--resolve", &resolve, "--noproxy", "*"];
    let said = run("curl", &[&["--silent", "--show-error", "--fail"][..], &trust, &[&url]].concat()).await;
    assert_eq!(said, "a page");
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn idle_connections_cost_little_memory() {
    const MANY: u64 = 500;
    let pki = Pki::new();
    let server = Server::start(|stream| async move {
        stream.set_nodelay(true).unwrap();
        echo(stream).await;
    });
    let server = server.await;
    let mut program = Program::start(&fronting(&certificates(&[&pki.issue(&["example.com"])]), "", &server));
    let address = program.listening("web").await;
    let (mut idle, mut before) = (Vec::new(), 0);
    for number in 0..MANY + 20 {
        // What the first ones take is for all.
        if number == 20 {
            before = program.memory();
        }
        let mut stream = shake(pki.client(None), address, "example.com").await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let (bytes, room) = (vec![1; 64 * 1024], &mut vec![0; 64 * 1024]);
        let echoed = async { tokio::try_join!(writer.write_all(&bytes), reader.read_exact(room)) };
        within("the echo", echoed).await.unwrap();
        idle.push(stream);
    }
    let each = program.memory().saturating_sub(before) / MANY;
    assert!(each < 24 * 1024, "an idle connection takes {each} bytes");
}
