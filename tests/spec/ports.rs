//! Chapter: local ports that run out. Each test has a network of its own with few of them, which takes the right to make
//! one; without it the tests say so and pass.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use portreeve::ending::Reason;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{Instance, Program, Server, balancing, eventually, within};

/// Makes a network of its own, with the ports from 40000 to 40019 to choose from.
const MAKE: &str = "ip link set lo up && echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range && \
                    echo made && exec cat";

/// A network of the test's own, or why there can be none.
fn network() -> Result<File, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut maker = Command::new("unshare")
        .args(["-n", "sh", "-c", MAKE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut word = String::new();
    let _read = BufReader::new(maker.stdout.take().unwrap()).read_line(&mut word).map_err(failed)?;
    let network = File::open(format!("/proc/{}/ns/net", maker.id())).map_err(failed);
    drop(maker.stdin.take());
    maker.wait().map_err(failed)?;
    if word == "made\n" { network } else { Err("unshare(1) or ip(8) failed".to_owned()) }
}

#[expect(clippy::print_stdout, reason = "a test that does not run says so")]
fn skip(why: &str) {
    println!("skipped: no network of its own can be made: {why}");
}

/// Runs a test on a thread in a network of its own, and so all that it starts.
fn alone(test: impl Future<Output = ()> + Send + 'static) {
    let network = match network() {
        Ok(network) => network,
        Err(why) => return skip(&why),
    };
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A server at a port that is not among the few.
async fn server() -> Server {
    let address = "127.0.0.1:9000".parse().unwrap();
    Server::start_on(address, |mut stream| async move {
        let from = stream.peer_addr().unwrap().ip().to_string();
        if stream.write_all(from.as_bytes()).await.is_ok() {
            let _ended = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

/// Connects, and says from where the server is reached.
async fn reached_from(path: &std::path::Path) -> std::io::Result<(tokio::net::UnixStream, String)> {
    let mut client = tokio::net::UnixStream::connect(path).await?;
    let mut from = [0; 9];
    within("the address", client.read_exact(&mut from)).await?;
    Ok((client, String::from_utf8_lossy(&from).into_owned()))
}

#[test]
fn where_one_source_has_no_port_left_the_next_is_taken_and_only_when_none_has_one_it_is_said() {
    alone(async {
        let server = server().await;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let with = async |name: &str, source: &str| {
            let text = balancing(&[server.address], &format!("source = {source}\nretries = 0"));
            Instance::start(&text.replace("127.0.0.1:0", &format!("unix:{}", path(name).display()))).await
        };
        let (_other, instance) =
            (with("other", "[\"127.0.0.2\"]").await, with("own", "[\"127.0.0.2\", \"127.0.0.3\"]").await);
        let mut clients = Vec::new();
        for (name, source) in [("other", "127.0.0.2"), ("own", "127.0.0.3")] {
            for _ in 0..20 {
                let (client, from) = reached_from(&path(name)).await.unwrap();
                assert_eq!(from, source);
                clients.push(client);
            }
        }
        let failures = || instance.of_server("connect_failures_total", server.address, ",reason=\"ports_exhausted\"");
        assert_eq!(failures(), 0.0);
        assert!(reached_from(&path("own")).await.is_err());
        instance.ended(Reason::PortsExhausted, 1).await;
        assert_eq!(failures(), 1.0);
        for source in ["127.0.0.2", "127.0.0.3"] {
            let labels = format!("pool=\"web\",server=\"{}\",source=\"{source}\"", server.address);
            let free = format!("portreeve_source_ports_free{{{labels}}}");
            eventually("what is left is shown", || instance.metric(&free) == Some(0.0)).await;
        }
    });
}

#[test]
fn the_log_says_it_once_before_ports_run_out_and_again_when_there_are_enough() {
    alone(async {
        let server = server().await;
        let mut program = Program::start(&balancing(&[server.address], "").replace("127.0.0.1:0", "127.0.0.1:9001"));
        let address = program.listening("web").await;
        let mut clients = Vec::new();
        for number in 0..17 {
            // From ports that are not among the few, which are the program's alone.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 50_000 + number))).unwrap();
            let mut client: TcpStream = socket.connect(address).await.unwrap();
            within("the server", client.read_exact(&mut [0; 9])).await.unwrap();
            clients.push(client);
        }
        let line = program.says("run out").await;
        assert!(line.contains("\"WARN\"") && line.contains("3 of 20 are left"), "{line}");
        assert!(line.contains("local ports towards 127.0.0.1:9000 run out") && line.contains("`source`"), "{line}");
        drop(clients);
        let line = program.says("there are local ports enough towards 127.0.0.1:9000").await;
        assert!(line.contains("\"INFO\""), "{line}");
        assert_eq!(program.seen.iter().filter(|line| line.contains("run out")).count(), 1);
    });
}
