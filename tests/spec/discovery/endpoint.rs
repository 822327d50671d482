//! Servers that an endpoint over HTTP tells.

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Fleet, finding};
use crate::stage::pki::Pki;
use crate::stage::{Instance, Server, eventually};

/// What an endpoint does next, and what it was asked.
#[derive(Default)]
struct Script {
    /// What it answers; nothing lets clients wait.
    answer: Option<Vec<u8>>,
    asked: Vec<String>,
}

/// An endpoint that answers as it is told.
struct Endpoint {
    server: Server,
    script: Arc<Mutex<Script>>,
}

impl Endpoint {
    async fn start() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        let server = Server::start(move |stream| serve(stream, Arc::clone(&shared))).await;
        Self { server, script }
    }

    /// One over HTTPS.
    async fn secure(config: ServerConfig) -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        let serve = move |stream| serve(stream, Arc::clone(&shared));
        Self { server: Server::secure(config, serve).await, script }
    }

    fn answers(&self, head: &str, body: &str) {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.script.lock().unwrap().answer = Some(answer.into_bytes());
    }

    /// How many requests so far have this line.
    fn asked(&self, line: &str) -> usize {
        self.script.lock().unwrap().asked.iter().filter(|head| head.lines().any(|own| own == line)).count()
    }

    fn asking(&self) -> String {
        format!(
            "discover = {{ type = \"http\", url = \"http://{}/list?pool=web\", interval = \"20ms\", timeout = \"400ms\" }}",
            self.server.address
        )
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Arc<Mutex<Script>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let answer = {
        let mut script = script.lock().unwrap();
        script.asked.push(String::from_utf8(head).unwrap());
        script.answer.clone()
    };
    match answer {
        Some(answer) => {
            let _gone = stream.write_all(&answer).await;
            let _gone = stream.shutdown().await;
        }
        None => {
            let _gone = stream.read_u8().await;
        }
    }
}

#[tokio::test]
async fn an_endpoint_is_asked_with_what_its_last_list_is_known_by() {
    let fleet = Fleet::on(&["127.3.1.1", "127.3.1.2"]).await;
    let endpoint = Endpoint::start().await;
    endpoint.answers("200 OK\r\nETag: \"one\"", &format!("[\"{}\"]", fleet.name("127.3.1.1")));
    let instance = Instance::start(&finding(&endpoint.asking())).await;
    assert_eq!(instance.hear().await, "127.3.1.1");
    assert!(endpoint.asked("GET /list?pool=web HTTP/1.1") >= 1);
    assert!(endpoint.asked(&format!("host: {}", endpoint.server.address)) >= 1);
    endpoint.script.lock().unwrap().answer = Some(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec());
    eventually("it is asked again", || endpoint.asked("if-none-match: \"one\"") >= 3).await;
    assert!(instance.source().await["error"].is_null());
    assert_eq!(instance.hear().await, "127.3.1.1");
    endpoint.answers("200 OK\r\nETag: \"two\"", &format!("{{\"servers\": [\"{}\"]}}", fleet.name("127.3.1.2")));
    instance.has(&[fleet.name("127.3.1.2")]).await;
    eventually("it is asked with the new one", || endpoint.asked("if-none-match: \"two\"") >= 1).await;
    // A secret that may stand in a query is not shown.
    assert_eq!(instance.source().await["source"], format!("http http://{}/list", endpoint.server.address));
}

#[tokio::test]
async fn an_endpoint_that_fails_hangs_or_answers_with_megabytes_leaves_what_was_found() {
    let fleet = Fleet::on(&["127.3.2.1"]).await;
    let endpoint = Endpoint::start().await;
    let list = format!("[\"{}\"]", fleet.name("127.3.2.1"));
    endpoint.answers("200 OK", &list);
    let instance = Instance::start(&finding(&endpoint.asking())).await;
    assert_eq!(instance.hear().await, "127.3.2.1");
    let megabytes = format!("[\"{}\"]", "x".repeat(6 * 1024 * 1024));
    for (head, body, error) in [
        ("500 Internal Server Error", "no", "status 500, expected 200"),
        ("302 Found\r\nLocation: http://127.0.0.1/", "", "status 302, expected 200"),
        ("304 Not Modified", "", "status 304, expected 200"),
        ("200 OK", "<html>", "the list is not JSON"),
        ("200 OK", "{\"server\": 1}", "the list needs the key `servers`"),
        ("200 OK", &megabytes, "the list is larger than 4 MiB"),
        ("200 OK", "[]", "the answer has no servers"),
    ] {
        endpoint.answers(head, body);
        crate::stage::within(error, async {
            while !instance.source().await["error"].as_str().is_some_and(|own| own.contains(error)) {}
        })
        .await;
        assert_eq!(instance.hear().await, "127.3.2.1");
    }
    for answer in
        [None, Some(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_vec()), Some(b"SSH-2.0-x\r\n".to_vec())]
    {
        endpoint.answers("200 OK", &list);
        crate::stage::within("no error", async { while instance.source().await["error"].is_string() {} }).await;
        endpoint.script.lock().unwrap().answer = answer;
        crate::stage::within("an error", async { while instance.source().await["error"].is_null() {} }).await;
        assert_eq!(instance.hear().await, "127.3.2.1");
    }
}

#[tokio::test]
async fn an_endpoint_over_https_is_heard_if_its_certificate_is_for_its_name_and_by_whom_is_trusted() {
    let fleet = Fleet::on(&["127.3.3.1", "127.3.3.2"]).await;
    let (pki, strangers) = (Pki::new(), Pki::new());
    for (names, trusted, error) in [
        (["127.0.0.1"], &pki, None),
        (["127.0.0.1"], &strangers, Some("UnknownIssuer")),
        (["registry.internal"], &pki, Some("not valid for")),
    ] {
        let endpoint = Endpoint::secure(pki.server(&pki.issue(&names))).await;
        endpoint.answers("200 OK\r\nETag: \"one\"", &format!("[\"{}\"]", fleet.name("127.3.3.1")));
        let asking = endpoint.asking().replace("http://", "https://");
        let asking = asking.replace(", interval", &format!(", ca = {:?}, interval", trusted.root()));
        let instance = Instance::start(&finding(&asking)).await;
        match error {
            None => {
                assert_eq!(instance.hear().await, "127.3.3.1");
                eventually("it is asked again", || endpoint.asked("if-none-match: \"one\"") >= 1).await;
                endpoint.answers("200 OK", &format!("[\"{}\"]", fleet.name("127.3.3.2")));
                instance.has(&[fleet.name("127.3.3.2")]).await;
            }
            Some(error) => {
                instance.refuses().await;
                let said = instance.source().await["error"].as_str().unwrap().to_owned();
                assert!(said.starts_with("handshake: ") && said.contains(error), "{said}");
                assert_eq!(endpoint.asked("GET /list?pool=web HTTP/1.1"), 0);
            }
        }
    }
}
