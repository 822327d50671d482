//! Steps of what is sent and expected, at Redis and at a server that speaks first.

use std::process::Stdio;

use tokio::process::{Child, Command};

use super::{checked, checking, often, reason, saying};
use crate::stage::watch::Port;
use crate::stage::{Server, eventually};

const PING: &str = "type = \"send_expect\", steps = [{ send = \"PING\\r\\n\" }, { expect = \"+PONG\" }]";

/// A Redis of the test's own, in memory alone.
struct Redis {
    port: Port,
    _child: Child,
}

impl Redis {
    async fn start(more: &[&str]) -> Self {
        let port = Port::claim();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir", "/tmp"]).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let started = Self { port, _child: child };
        eventually("it listens", || std::net::TcpStream::connect(started.address()).is_ok()).await;
        started
    }

    fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], *self.port).into()
    }
}

#[tokio::test]
async fn redis_answers_a_ping_and_one_that_wants_a_password_first_does_not() {
    let (open, closed) = (Redis::start(&[]).await, Redis::start(&["--requirepass", "secret"]).await);
    let instance = checking(&[open.address(), closed.address()], &often(PING)).await;
    checked(&instance, open.address(), "passed", 1.0).await;
    let words = "send_expect check failed: step 2: no answer in time; expected \"+PONG\", \
                 got \"-NOAUTH Authentication required.\\r\\n\"";
    assert_eq!(reason(&instance, closed.address()).await, words);
    assert!(instance.is_up(open.address()));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_first_and_each_step_goes_on_after_the_last() {
    let steps = "type = \"send_expect\", steps = [{ expect = \"220 \" }, { send = \"EHLO a\\r\\n\" }, \
                 { expect_hex = \"32 35 30\" }, { expect = \"250\" }]";
    let (twice, once) = (saying("220 mail\r\n250-a\r\n250 b\r\n").await, saying("220 mail\r\n250 a\r\n").await);
    let instance = checking(&[twice.address, once.address], &often(steps)).await;
    let words = "step 4: no answer in time; expected \"250\", got \" a\\r\\n\"";
    assert_eq!(reason(&instance, once.address).await, format!("send_expect check failed: {words}"));
    checked(&instance, twice.address, "passed", 2.0).await;
    assert!(instance.is_up(twice.address));
}

#[tokio::test]
async fn a_server_that_goes_or_says_something_else_fails_with_what_it_said() {
    let gone = Server::saying("-ERR\x1b[0m go away").await;
    let instance = checking(&[gone.address], &often(PING)).await;
    assert_eq!(
        reason(&instance, gone.address).await,
        "send_expect check failed: step 2: the server closed the connection; expected \"+PONG\", got \"-ERR\\x1b[0m go away\""
    );
}
