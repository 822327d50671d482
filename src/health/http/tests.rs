//! Probes, against servers that say what they are told to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::health::line::MOST_OF_HEAD;
use crate::health::probe::{Prober, Problem};

use crate::health::{Active, Handshake, Probe, Timing};
use crate::logging::MOST_WORDS;
use crate::net::address::ServerAddr;
use crate::net::proxy_protocol::Version;
use crate::tls::{MinVersion, ServerSettings, ServerVerification, server_name};

const TIMEOUT: Duration = Duration::from_secs(10);

fn plain() -> HttpProbe {
    HttpProbe {
        method: Method::GET,
        target: PathAndQuery::from_static("/healthz"),
        host: None,
        headers: Vec::new(),
        statuses: vec![HttpProbe::STATUSES],
        body: None,
        version: HttpVersion::Http1,
        reuse: false,
    }
}

fn settings() -> ServerSettings {
    let name = server_name("api.internal").unwrap();
    ServerSettings::new(&ServerVerification::None, Some(name), None, MinVersion::default(), Vec::new()).unwrap()
}

fn handshake(settings: ServerSettings) -> Handshake {
    Handshake { settings: Arc::new(settings), upgrades: false }
}

fn speaking(version: HttpVersion) -> HttpProbe {
    HttpProbe { version, ..plain() }
}

async fn listen() -> (TcpListener, ServerAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddr::parse(&listener.local_addr().unwrap().to_string(), Path::new("/")).unwrap();
    (listener, address)
}

/// A probe of a server where the pool speaks TLS, or does not.
struct Asking {
    check: Active,
    address: ServerAddr,
    announce: Option<Version>,
}

impl Asking {
    fn new(probed: HttpProbe, address: &ServerAddr, tls: Option<ServerSettings>) -> Self {
        let probe = Probe::Http(Arc::new(probed));
        let check = Active { probe, timing: Timing::default(), tls: tls.map(handshake), port: None };
        Self { check, address: address.clone(), announce: None }
    }

    fn prober(&self) -> Prober<'_> {
        Prober::new(&self.check, &self.address, None, self.announce)
    }

    async fn outcome(&self, timeout: Duration) -> Result<(), String> {
        outcome_of(&mut self.prober(), timeout).await
    }
}

/// What a probe comes to that has nothing of its own to tell.
async fn outcome_of(prober: &mut Prober<'_>, timeout: Duration) -> Result<(), String> {
    match prober.probe(timeout).await {
        Ok(seen) => {
            assert_eq!(seen, Seen::default());
            Ok(())
        }
        Err(Problem::Server(words)) => Err(words),
        Err(Problem::Ours(words)) => panic!("{words}"),
    }
}

async fn run(probed: HttpProbe, address: &ServerAddr, timeout: Duration) -> Result<(), String> {
    Asking::new(probed, address, None).outcome(timeout).await
}

async fn run_over_tls(version: HttpVersion, address: &ServerAddr, timeout: Duration) -> Result<(), String> {
    Asking::new(speaking(version), address, Some(settings())).outcome(timeout).await
}

/// What is sent up to the empty line.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The outcome of a probe whose request gets this answer and then the end, and that request.
async fn answered(probed: HttpProbe, answer: &[u8]) -> (Result<(), String>, String) {
    let (listener, address) = listen().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_head(&mut stream).await;
        // A probe that has seen enough is gone before all is said.
        let _gone = stream.write_all(answer).await;
        let _gone = stream.shutdown().await;
        let _end = stream.read(&mut [0; 64]).await;
        request
    };
    tokio::join!(run(probed, &address, TIMEOUT), serving)
}

async fn outcome(probed: HttpProbe, answer: &[u8]) -> Result<(), String> {
    answered(probed, answer).await.0
}

fn fails(words: &str) -> Result<(), String> {
    Err(words.to_owned())
}

#[tokio::test]
async fn a_request_says_whom_it_asks_for_and_that_it_is_the_last() {
    let headers = vec![(HeaderName::from_static("x-probe"), HeaderValue::from_static("1"))];
    let (passed, request) = answered(HttpProbe { headers, ..plain() }, b"HTTP/1.1 204 \r\n\r\n").await;
    assert_eq!(passed, Ok(()));
    let mut lines: Vec<&str> = request.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET /healthz HTTP/1.1");
    assert!(lines.iter().any(|line| line.starts_with("host: 127.0.0.1:")), "{request}");
    assert!(lines.contains(&"x-probe: 1") && lines.contains(&"connection: close"), "{request}");
    let host = Some(Authority::from_static("api.internal"));
    let (_, request) = answered(HttpProbe { host, ..plain() }, b"HTTP/1.1 204 \r\n\r\n").await;
    assert!(request.contains("host: api.internal\r\n"), "{request}");
}

#[tokio::test]
async fn the_status_decides_and_is_told() {
    assert_eq!(outcome(plain(), b"HTTP/1.1 399 Odd\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
    let busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";
    assert_eq!(outcome(plain(), busy).await, fails("status 503, expected 200-399"));
    let statuses = vec![200..=204, 503..=503];
    assert_eq!(outcome(HttpProbe { statuses: statuses.clone(), ..plain() }, busy).await, Ok(()));
    let moved = b"HTTP/1.1 301 Moved\r\nlocation: /\r\n\r\n";
    assert_eq!(outcome(HttpProbe { statuses, ..plain() }, moved).await, fails("status 301, expected 200-204, 503"));
}

#[tokio::test]
async fn the_body_is_looked_through_however_it_comes() {
    let seeking = || HttpProbe { body: Some("all is well".into()), ..plain() };
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{all is well}";
    assert_eq!(outcome(seeking(), whole).await, Ok(()));
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n all\r\n8\r\n is well\r\n0\r\n\r\n";
    assert_eq!(outcome(seeking(), chunked).await, Ok(()));
    let until_the_end = b"HTTP/1.0 200 OK\r\n\r\nsay what? all is well";
    assert_eq!(outcome(seeking(), until_the_end).await, Ok(()));
    let other = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall is we";
    assert_eq!(outcome(seeking(), other).await, fails("the body does not contain \"all is well\""));
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\nall is we";
    assert!(outcome(seeking(), cut).await.unwrap_err().contains("end of file before message length reached"));
}

#[tokio::test]
async fn no_more_than_64_kib_of_a_body_are_looked_through() {
    let seeking = || HttpProbe { body: Some("needle".into()), ..plain() };
    let answer = |before: usize| [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'n'; before], b"needle".to_vec()].concat();
    assert_eq!(outcome(seeking(), &answer(MOST_OF_BODY - 6)).await, Ok(()));
    let words = "the first 64 KiB of the body do not contain \"needle\"";
    assert_eq!(outcome(seeking(), &answer(MOST_OF_BODY - 5)).await, fails(words));
}

#[tokio::test]
async fn what_is_no_answer_fails_the_probe_in_words_of_bearable_length() {
    let long = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 2 * MOST_OF_HEAD], b"\r\n\r\n".to_vec()].concat();
    let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(129), b"\r\n".to_vec()].concat();
    for answer in [&b""[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 2\r\n\r\n", &long, &many] {
        let words = outcome(plain(), answer).await.unwrap_err();
        assert!(words.chars().count() <= MOST_WORDS && !words.is_empty(), "{words}");
    }
    let upgrade = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    assert_eq!(outcome(plain(), upgrade).await, fails("status 101, expected 200-399"));
}

#[tokio::test]
async fn a_server_that_never_answers_fails_the_probe_in_time() {
    let (listener, address) = listen().await;
    let failed = run(plain(), &address, Duration::from_millis(50)).await;
    assert_eq!(failed, fails("no answer in time"));
    let failed = run_over_tls(HttpVersion::Http1, &address, Duration::from_millis(50)).await;
    assert_eq!(failed, fails("handshake: no answer in time"));
    drop(listener);
    assert!(run(plain(), &address, TIMEOUT).await.unwrap_err().starts_with("connect: "));
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_probe_if_that_is_wanted_and_made_anew_if_it_is_gone() {
    let (listener, address) = listen().await;
    let asking = Asking::new(HttpProbe { reuse: true, ..plain() }, &address, None);
    let mut prober = asking.prober();
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            assert!(!read_head(&mut stream).await.contains("connection: close"));
            stream.write_all(ANSWER).await.unwrap();
        }
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let probing = async {
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            outcomes.push(outcome_of(&mut prober, TIMEOUT).await);
        }
        outcomes
    };
    let (outcomes, ()) = tokio::join!(probing, serving);
    assert_eq!(outcomes, [Ok(()), Ok(()), fails("status 500, expected 200-399")]);
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_request() {
    let (listener, address) = listen().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        // The connection comes to its end at once.
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        head
    };
    let asking = Asking { announce: Some(Version::V1), ..Asking::new(plain(), &address, None) };
    let (passed, head) = tokio::join!(asking.outcome(TIMEOUT), serving);
    assert_eq!(passed, Ok(()));
    assert!(head.starts_with("PROXY UNKNOWN\r\nGET /healthz HTTP/1.1\r\n"), "{head}");
}

// HTTP/2, and TLS.

/// Answers a request by HTTP/2 and returns its URI.
async fn serve_h2(stream: impl AsyncRead + AsyncWrite + Unpin, body: &'static str) -> String {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let response = ::http::Response::builder().status(StatusCode::OK).body(()).unwrap();
    let mut sending = respond.send_response(response, false).unwrap();
    sending.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    while connection.accept().await.is_some() {}
    request.uri().to_string()
}

fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["api.internal".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

#[tokio::test]
async fn http_2_is_spoken_by_prior_knowledge_where_there_is_no_tls() {
    let (listener, address) = listen().await;
    let probed = HttpProbe { version: HttpVersion::Http2, body: Some("fine".into()), ..plain() };
    let serving = async { serve_h2(accept(&listener).await, "I am fine").await };
    let (passed, uri) = tokio::join!(run(probed, &address, TIMEOUT), serving);
    assert_eq!((passed, uri), (Ok(()), format!("http://{address}/healthz")));
    let probed = HttpProbe { version: HttpVersion::Http2, ..plain() };
    let (failed, _) = tokio::join!(run(probed, &address, TIMEOUT), async {
        let mut stream = accept(&listener).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _end = stream.read(&mut [0; 1024]).await;
    });
    assert!(failed.is_err());
}

#[tokio::test]
async fn over_tls_the_version_is_agreed_upon_and_the_host_is_the_name_in_the_certificate() {
    let (listener, address) = listen().await;
    for version in [HttpVersion::Http2, HttpVersion::Auto] {
        let serving = async {
            let stream = acceptor(&[H2, HTTP_1_1]).accept(accept(&listener).await).await.unwrap();
            serve_h2(stream, "").await
        };
        let (passed, uri) = tokio::join!(run_over_tls(version, &address, TIMEOUT), serving);
        assert_eq!((passed, uri.as_str()), (Ok(()), "https://api.internal/healthz"));
    }
    for (version, protocols) in [(HttpVersion::Http1, &[H2, HTTP_1_1][..]), (HttpVersion::Auto, &[HTTP_1_1])] {
        let serving = async {
            let mut stream = acceptor(protocols).accept(accept(&listener).await).await.unwrap();
            let head = read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            // Whoever goes away says so.
            assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
            head
        };
        let (passed, head) = tokio::join!(run_over_tls(version, &address, TIMEOUT), serving);
        assert_eq!(passed, Ok(()));
        assert!(head.contains("host: api.internal\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_agree_to_http_2_fails_the_probe() {
    let (listener, address) = listen().await;
    let serving = async {
        let mut stream = acceptor(&[]).accept(accept(&listener).await).await.unwrap();
        let _end = stream.read(&mut [0; 64]).await;
    };
    let (failed, ()) = tokio::join!(run_over_tls(HttpVersion::Http2, &address, TIMEOUT), serving);
    assert_eq!(failed, fails("handshake: the server does not offer HTTP/2"));
}

#[test]
fn a_request_that_could_have_a_body_says_that_it_has_none() {
    let lengths = |probe: &HttpProbe| {
        let request = probe.request_h1(None).unwrap();
        request
            .headers()
            .get_all(CONTENT_LENGTH)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for (method, said) in
        [(Method::GET, None), (Method::HEAD, None), (Method::POST, Some("0")), (Method::PUT, Some("0"))]
    {
        assert_eq!(lengths(&HttpProbe { method, ..plain() }), Vec::from_iter(said.map(str::to_owned)));
    }
    let own = vec![(CONTENT_LENGTH, HeaderValue::from_static("00"))];
    assert_eq!(lengths(&HttpProbe { method: Method::POST, headers: own, ..plain() }), ["00"]);
}
