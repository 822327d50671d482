//! Servers that go up and down in quick succession.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{OFTEN, assert_alive};
use crate::stage::process::Admin;
use crate::stage::watch::ADMIN;
use crate::stage::{ClosedPort, Program, Server, balancing, echo, within};

/// How often a server goes down.
const TIMES: usize = 4;

/// Says which server it is, and echoes.
async fn named(mut stream: TcpStream, name: u8) {
    if stream.write_all(&[name]).await.is_ok() {
        echo(stream).await;
    }
}

/// A new connection that works, and the name of its server.
async fn served(web: std::net::SocketAddr) -> (u8, TcpStream) {
    let mut stream = within("connect", TcpStream::connect(web)).await.unwrap();
    let name = within("the name of a server", stream.read_u8()).await.unwrap();
    assert_alive(&mut stream).await;
    (name, stream)
}

#[tokio::test]
async fn others_lose_nothing_by_a_server_that_flaps_and_each_change_is_logged_counted_and_followed_by_a_slow_start() {
    let port = ClosedPort::shared();
    let start = || Server::start_on(port.address, |stream| named(stream, b'f'));
    let (mut flapping, a, b) = (
        start().await,
        Server::start(|stream| named(stream, b'a')).await,
        Server::start(|stream| named(stream, b'b')).await,
    );
    let servers = [flapping.address, a.address, b.address];
    let more = format!("{}\nslow_start = \"1h\"", OFTEN.replace("retries = 0", "retries = 2"));
    let mut program = Program::start(&format!("{ADMIN}{}", balancing(&servers, &more)));
    let web = program.listening("web").await;
    let admin = Admin(program.admin().await);
    let of_flapping = |family: &str, labels: &str| {
        format!("portreeve_server_{family}{{pool=\"web\",server=\"{}\"{labels}}}", port.address)
    };
    let mut others = Vec::new();
    let mut flapping_had = 0;
    for _ in 0..9 {
        let (name, stream) = served(web).await;
        if name == b'f' { flapping_had += 1 } else { others.push(stream) }
    }
    assert_eq!(flapping_had, 3);
    for time in 1..=TIMES {
        flapping.stop().await;
        for _ in 0..3 {
            assert_ne!(served(web).await.0, b'f');
        }
        program.says("server is down").await;
        assert_ne!(served(web).await.0, b'f');
        flapping = start().await;
        program.says("server is up: tcp check passed 3 times in a row").await;
        let mut shares: HashMap<u8, usize> = HashMap::new();
        for _ in 0..60 {
            *shares.entry(served(web).await.0).or_default() += 1;
        }
        // Its share would be 20, and a tenth of that is 2.
        let taken = shares.get(&b'f').copied().unwrap_or(0);
        assert!(taken <= 12, "{taken}");
        for stream in &mut others {
            assert_alive(stream).await;
        }
        let metrics = admin.metrics().await;
        for (to, line) in [("down", "server is down"), ("up", "server is up")] {
            let series = of_flapping("changes_total", &format!(",to=\"{to}\""));
            assert_eq!(crate::stage::metric(&metrics, &series), Some(time as f64), "{series}");
            assert_eq!(program.said(line), time);
        }
    }
    let lines = program.seen.iter().filter(|line| line.contains("server is down"));
    for line in lines {
        assert!(
            line.contains("tcp check failed: connect: ") || line.contains("traffic failed to connect to it"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_server_that_passes_its_checks_and_fails_its_traffic_is_out_for_longer_each_time_up_to_the_longest() {
    let bad = Server::start(|mut stream: TcpStream| async move {
        let _read = stream.read(&mut [0; 16]).await;
        crate::stage::reset(stream);
    })
    .await;
    let good = Server::echo().await;
    let more = format!(
        "{OFTEN}\noutlier = {{ consecutive_failures = 2, ejection = \"400ms\", max_ejection = \"700ms\", max_ejected = \"50%\" }}"
    );
    let mut program = Program::start(&balancing(&[bad.address, good.address], &more));
    let web = program.listening("web").await;
    let traffic = tokio::spawn(async move {
        loop {
            let Ok(mut stream) = TcpStream::connect(web).await else { return };
            let (mut answer, _sent) = ([0; 5], stream.write_all(b"hello").await);
            let _reset = stream.read_exact(&mut answer).await;
        }
    });
    program.says("server is ejected for 400ms: 2 attempts in a row failed, the last with server_reset").await;
    for _ in 0..2 {
        program.says("server is ejected for 700ms").await;
        program.says("server is no longer ejected: its time is over").await;
    }
    traffic.abort();
    assert_eq!(program.said("server is down"), 0);
    let admitted = ["400ms", "700ms"];
    let ejections = program.seen.iter().filter(|line| line.contains("server is ejected for"));
    for line in ejections {
        assert!(admitted.iter().any(|length| line.contains(&format!("ejected for {length}:"))), "{line}");
    }
}
