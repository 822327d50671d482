//! Programs beside servers that tell how those do.

use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{checked, checking, often, reason, shows};
use crate::stage::watch::ADMIN;
use crate::stage::{Program, Server, balancing, eventually};

/// An agent that says what it is told to.
async fn agent(line: &Arc<Mutex<&'static str>>) -> Server {
    let line = Arc::clone(line);
    Server::start(move |mut stream: TcpStream| {
        let line = *line.lock().unwrap();
        async move {
            let _gone = stream.write_all(line.as_bytes()).await;
            let _end = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

fn asking(agent: &Server) -> String {
    often(&format!("type = \"agent\", port = {}", agent.address.port()))
}

#[tokio::test]
async fn an_agent_tells_how_much_its_server_wants_to_be_given_and_that_it_is_down() {
    let line = Arc::new(Mutex::new("up 75%\n"));
    let (agent, server) = (agent(&line).await, Server::echo().await);
    let instance = checking(&[server.address], &asking(&agent)).await;
    let share = |wanted: u64| shows(&instance, server.address, "share", wanted);
    checked(&instance, server.address, "passed", 1.0).await;
    share(75).await;
    *line.lock().unwrap() = "drain\r\n";
    share(0).await;
    assert!(instance.is_up(server.address), "it keeps what it has");
    *line.lock().unwrap() = "down # disk full\n";
    assert_eq!(reason(&instance, server.address).await, "agent check failed: the agent says \"down # disk full\"");
    *line.lock().unwrap() = "ready\n";
    instance.becomes(server.address, true).await;
    share(100).await;
    assert_eq!(server.accepted(), 0, "nobody connects to the server itself");
    // Nobody tells of it any more.
    *line.lock().unwrap() = "5%\n";
    share(5).await;
    let other = format!("{ADMIN}{}", balancing(&[server.address], "check = \"tcp\""));
    instance.running.reload_text(&other).await.unwrap();
    share(100).await;
}

#[tokio::test]
async fn what_an_agent_says_is_logged_when_it_changes() {
    let line = Arc::new(Mutex::new("50% # busy\n"));
    let (agent, server) = (agent(&line).await, Server::echo().await);
    let mut program = Program::start(&balancing(&[server.address], &asking(&agent)));
    let said = program.says("server takes").await;
    assert!(said.contains("server takes 50% of its weight: the agent says \\\"50% # busy\\\""), "{said}");
    *line.lock().unwrap() = "stopped\n";
    let said = program.says("server is down").await;
    assert!(said.contains("agent check failed: the agent says \\\"stopped\\\""), "{said}");
    *line.lock().unwrap() = "up\n";
    let said = program.says("server is up").await;
    assert!(said.contains("agent check passed 2 times in a row, the agent says \\\"up\\\""), "{said}");
    program.signal(Signal::TERM);
    program.exit().await;
}

#[tokio::test]
async fn an_agent_is_asked_first_if_it_wants_to_be() {
    let server = Server::echo().await;
    let agent = Server::start(|mut stream: TcpStream| async move {
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"web\n");
        // No end of a line, but an end.
        stream.write_all(b"up 10%").await.unwrap();
    })
    .await;
    let check = asking(&agent).replacen(" }", ", send = \"web\\n\" }", 1);
    let instance = checking(&[server.address], &check).await;
    checked(&instance, server.address, "passed", 2.0).await;
    eventually("checks", || agent.accepted() >= 2).await;
    assert_eq!(instance.server(server.address).await["share"], 10);
}
