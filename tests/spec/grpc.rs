//! Chapter: gRPC, by clients and servers of its own implementation.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::stage::access::AccessLog;
use crate::stage::http2::{BY_HTTP2, fronting};
use crate::stage::{ClosedPort, Instance, within};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/grpc");

/// A script in Python, and what it says.
struct Script {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        // Proxies of the surroundings are not for connections within this machine.
        command.arg(format!("{FOLDER}/{name}")).args(arguments).env("no_grpc_proxy", "*").env_remove("http_proxy");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn says(&mut self) -> String {
        within("a line", self.lines.next_line()).await.unwrap().expect("it has ended")
    }

    /// Everything it says to its end, which is to be a good one.
    async fn ends(mut self) -> String {
        let mut said = String::new();
        while let Some(line) = within("a line or the end", self.lines.next_line()).await.unwrap() {
            said += &line;
            said.push('\n');
        }
        assert!(within("its end", self.child.wait()).await.unwrap().success(), "{said}");
        said
    }
}

/// A server of gRPC and an instance in front of it.
struct Fronted {
    server: Script,
    instance: Instance,
    address: SocketAddr,
}

impl Fronted {
    async fn start() -> Self {
        Self::with(|text| text).await
    }

    async fn with(change: impl FnOnce(String) -> String) -> Self {
        let mut server = Script::start("server.py", &[]);
        let port: u16 = server.says().await.parse().unwrap();
        let text = change(fronting(&[([127, 0, 0, 1], port).into()], "", BY_HTTP2));
        let instance = Instance::start(&text).await;
        let address = instance.address("web");
        Self { server, instance, address }
    }

    fn client(&self, kind: &str) -> Script {
        Script::start("client.py", &[&self.address.to_string(), kind])
    }

    async fn call(&self, kind: &str) -> String {
        self.client(kind).ends().await
    }
}

#[tokio::test]
async fn calls_of_all_four_kinds_pass() {
    let fronted = Fronted::start().await;
    assert_eq!(fronted.call("unary").await, "unary hello | a word | last 00ff\nOK\n");
    assert_eq!(fronted.call("client-stream").await, "0+1+2+3+4\n");
    assert_eq!(fronted.call("server-stream").await, "0 1 2 3 4\n");
    assert_eq!(fronted.call("bidirectional").await, "echo 0\necho 1\necho 2\necho 3\necho 4\n0 more\n");
    assert_eq!(fronted.call("large").await, "True\n");
}

#[tokio::test]
async fn a_failed_call_has_the_status_and_the_words_of_the_server() {
    let fronted = Fronted::start().await;
    assert_eq!(fronted.call("fail").await, "FAILED_PRECONDITION | not today: no ä\n");
    assert_eq!(fronted.call("unknown").await, "UNIMPLEMENTED | Method not found!\n");
}

#[tokio::test]
async fn a_deadline_of_the_client_reaches_the_server_and_ends_the_call() {
    let mut fronted = Fronted::start().await;
    let client = fronted.client("deadline");
    assert_eq!(fronted.server.says().await, "waiting 1");
    assert!(client.ends().await.starts_with("DEADLINE_EXCEEDED | "));
    assert_eq!(fronted.server.says().await, "over");
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_cancelled_at_the_server() {
    let mut fronted = Fronted::start().await;
    let mut client = fronted.client("cancel");
    assert_eq!(fronted.server.says().await, "waiting 0");
    client.child.stdin.take().unwrap().write_all(b"now\n").await.unwrap();
    assert_eq!(client.ends().await, "cancelled True\n");
    assert_eq!(fronted.server.says().await, "over");
}

#[tokio::test]
async fn a_call_that_finds_no_server_is_unavailable_and_one_without_a_route_unimplemented() {
    let closed = ClosedPort::new();
    let text = fronting(&[closed.address], "", BY_HTTP2);
    let client = async |text: &str| {
        let instance = Instance::start(text).await;
        Script::start("client.py", &[&instance.address("web").to_string(), "fail"]).ends().await
    };
    let said = client(&text).await;
    assert!(said.starts_with("UNAVAILABLE | "), "{said}");
    let routes = "routes = [{ path = \"/elsewhere/\", pool = \"web\" }]";
    let said = client(&text.replacen("pool = \"web\"\n", &format!("{routes}\n"), 1)).await;
    assert!(said.starts_with("UNIMPLEMENTED | "), "{said}");
}

#[tokio::test]
async fn calls_are_written_down_as_what_they_are() {
    let log = AccessLog::new();
    let fronted = Fronted::with(|text| log.of(&text)).await;
    fronted.call("unary").await;
    let line = log.line(1).await;
    assert_eq!((&line["protocol"], &line["status"], &line["method"]), (&"h2".into(), &200.into(), &"POST".into()));
    assert_eq!((&line["path"], &line["reason"]), (&"/portreeve.Test/Unary".into(), &"done".into()), "{line}");
    assert_eq!(line["grpc_status"], "ok", "{line}");
    fronted.call("fail").await;
    let line = log.line(2).await;
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"done".into()), "{line}");
    assert_eq!(line["grpc_status"], "failed_precondition", "{line}");
    drop(fronted.instance);
}
