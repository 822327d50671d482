//! The demo, run as a newcomer runs it.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a client of the program stands outside the house, and a test that cannot go on says so and stops"
)]

use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Many times what the tour takes, for a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(120);
/// What each act opens with.
const ACTS: [&str; 6] = [
    "1. Three servers behind one address",
    "2. Connections spread",
    "3. A server fails",
    "4. It comes back",
    "5. The configuration changes under way",
    "6. The books balance",
];

const SERVERS: [&str; 4] = ["alder", "birch", "cedar", "elm"];

#[tokio::test]
async fn two_tours_at_once_show_every_act_and_find_every_statement_true() {
    let (one, other) = tokio::join!(tour(), tour());
    for Output { status, stdout, stderr } in [one, other] {
        let text = String::from_utf8(stdout).expect("the tour is text");
        assert!(status.success(), "{status}: {text}");
        for act in ACTS {
            assert!(text.contains(act), "{act} is missing from: {text}");
        }
        assert!(text.matches('✓').count() >= 12 && !text.contains('✗'), "{text}");
        assert!(!text.contains('\x1b'), "colours where there is no terminal: {text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "spaces at the end of a line: {text}");
        assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    }
}

#[tokio::test]
async fn after_the_tour_it_serves_what_it_says_until_it_is_interrupted() {
    let mut demo = demo(&[]);
    let commands = commands_to_try(&mut demo).await;
    let address = commands.iter().find_map(|command| command.strip_prefix("nc ")).expect("nc is among them");
    let address = address.replace(' ', ":");

    let mut silent = TcpStream::connect(&address).await.expect("the demo listens");
    let greeting = line(&mut silent).await;
    assert!(SERVERS.contains(&greeting.as_str()), "{greeting}");
    silent.write_all(b"hello\n").await.expect("the demo reads");
    assert_eq!(line(&mut silent).await, greeting, "the same connection is the same server");
    assert!(SERVERS.contains(&answer_over_http(&address, "/").await.trim()));

    for (path, expected) in [("/metrics", "portreeve_server_up{"), ("/api/v1/pools", "\"elm\"")] {
        let url = commands.iter().find(|command| command.ends_with(path)).expect("it is among them");
        let address = url.trim_start_matches("curl http://").trim_end_matches(path);
        assert!(answer_over_http(address, path).await.contains(expected), "{url}");
    }

    assert!(interrupt(demo).await.success());
}

fn demo(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_portreeve"))
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts")
}

async fn tour() -> Output {
    let output = timeout(LIMIT, demo(&["--once"]).wait_with_output()).await;
    output.expect("the tour ends in time").expect("its end can be awaited")
}

/// Reads on until the tour is over, and returns the commands it ends with.
async fn commands_to_try(demo: &mut Child) -> Vec<String> {
    let mut lines = BufReader::new(demo.stdout.take().expect("it is piped")).lines();
    let mut commands = Vec::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("the tour can be read") {
            let words = line.trim();
            if words.starts_with("nc ") || words.starts_with("curl ") {
                commands.push(words.split("   ").next().unwrap_or_default().to_owned());
            }
            if words.starts_with("Ctrl-C") {
                return;
            }
        }
        panic!("the demo ended");
    };
    timeout(LIMIT, reading).await.expect("the tour is over in time");
    demo.stdout = Some(lines.into_inner().into_inner());
    commands
}

async fn line(server: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let byte = timeout(LIMIT, server.read_u8()).await.expect("an answer comes in time");
        line.push(byte.expect("the connection goes on"));
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

async fn answer_over_http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is taken");
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.split_whitespace().nth(1) == Some("200"), "{head}");
    body.to_owned()
}

async fn interrupt(mut demo: Child) -> ExitStatus {
    let id = demo.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?)).expect("it runs");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it can be told");
    timeout(LIMIT, demo.wait()).await.expect("it ends in time").expect("its end can be awaited")
}
