//! Chapter: HTTP/2 on both sides, and between the versions.

mod answers;
mod endings;
mod faults;
mod flow;
mod upstream;
mod tunnels;
mod versions;
mod websocket;

use std::process::Stdio;

use portreeve::ending::Reason;
use tokio::process::Command;

use crate::stage::http2::{Answered, Asked, BY_HTTP2, Message, Version, fronting};
use crate::stage::pki::Pki;
use crate::stage::{Instance, Server, within};

/// Runs a command to its end and returns what it said.
async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the end of the command", command.output()).await.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// Answers with the method, the path and the body.
fn echo(asked: Asked) -> Answered {
    let text = format!("{} {} {}", asked.method, asked.path, String::from_utf8_lossy(&asked.message.body));
    Answered::ok(Message::of(text.trim_end().to_owned()))
}

#[tokio::test]
async fn curl_speaks_it_by_prior_knowledge_and_by_alpn() {
    let server = Server::of_http(Version::Two, echo).await;
    let pki = Pki::new();
    let tls = format!("tls = {{ certificates = [{}] }}", pki.issue(&["example.com"]).entry());
    let plain = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let secure = Instance::start(&fronting(&[server.address], &tls, BY_HTTP2)).await;
    let (port, secure_port, root) = (plain.address("web").port(), secure.address("web").port(), pki.root());
    let quiet = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--write-out", " by %{http_version}"];
    let url = format!("http://127.0.0.1:{port}/page?a=b");
    let said = run("curl", &[&quiet[..], &["--http2-prior-knowledge", "--data", "some words", &url]].concat()).await;
    assert_eq!(said, "POST /page?a=b some words by 2");
    let said = run("curl", &[&quiet[..], &["--http1.1", &url]].concat()).await;
    assert_eq!(said, "GET /page?a=b by 1.1");
    // An upgrade from HTTP/1.1, which nobody offers any more, is answered in HTTP/1.1.
    let said = run("curl", &[&quiet[..], &["--http2", &url]].concat()).await;
    assert_eq!(said, "GET /page?a=b by 1.1");
    let resolve = format!("example.com:{secure_port}:127.0.0.1");
    let url = format!("https://example.com:{secure_port}/secure");
    let trust = ["--cacert", root.to_str().unwrap(), "--resolve", &resolve];
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let said = run("curl", &[&quiet[..], &trust, &[option, &url]].concat()).await;
        assert_eq!(said, format!("GET /secure by {version}"));
    }
}

#[tokio::test]
async fn nghttp_fetches_several_pages_on_one_connection() {
    let server = Server::of_http(Version::One, echo).await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let address = instance.address("web");
    let urls: Vec<String> = ["one", "two", "three"].map(|page| format!("http://{address}/{page}")).into();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let said = run("nghttp", &urls).await;
    for page in ["GET /one", "GET /two", "GET /three"] {
        assert!(said.contains(page), "{said}");
    }
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn h2load_gets_every_answer_it_asks_for() {
    let server = Server::of_http(Version::Two, echo).await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let url = format!("http://{}/", instance.address("web"));
    let said = run("h2load", &["-n", "2000", "-c", "4", "-m", "50", "-d", "/etc/hostname", &url]).await;
    let all = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
    assert!(said.contains(all), "{said}");
}

/// A client by another library still, which says what it sees; the address is its argument.
const PYTHON: &str = r#"
import socket, sys, h2.connection, h2.events
host, port = sys.argv[1].rsplit(":", 1)
wire = socket.create_connection((host, int(port)), timeout=10)
connection = h2.connection.H2Connection()
connection.initiate_connection()
head = [(":method", "POST"), (":scheme", "http"), (":authority", "example.com"), (":path", "/python")]
connection.send_headers(1, head)
connection.send_data(1, b"from python", end_stream=True)
wire.sendall(connection.data_to_send())
over = False
while not over:
    for event in connection.receive_data(wire.recv(65536)):
        if isinstance(event, h2.events.ResponseReceived):
            print(dict(event.headers)[b":status"].decode())
        if isinstance(event, h2.events.DataReceived):
            print(event.data.decode())
            connection.acknowledge_received_data(event.flow_controlled_length, 1)
        over = over or isinstance(event, h2.events.StreamEnded)
    wire.sendall(connection.data_to_send())
"#;

#[tokio::test]
async fn a_client_in_python_is_served() {
    let server = Server::of_http(Version::One, echo).await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let said = run("/usr/bin/python3", &["-c", PYTHON, &instance.address("web").to_string()]).await;
    assert_eq!(said, "200\nPOST /python from python\n");
}
