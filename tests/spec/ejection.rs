//! Chapter: servers that are ejected for what they do to traffic.

mod requests;

use std::net::SocketAddr;

use portreeve::ending::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::stage::{Instance, Server, balancing, eventually, hear, listening, reset, within};

/// Two failures in a row are too many, for an hour.
fn strict(more: &str) -> String {
    format!(
        "check = \"none\"\noutlier = {{ consecutive_failures = 2, ejection = \"1h\", max_ejection = \"1h\", {more} }}"
    )
}

/// A server that reads a little and ends so.
async fn reading(end: fn(TcpStream)) -> Server {
    Server::start(move |mut stream: TcpStream| async move {
        let _read = stream.read(&mut [0; 16]).await;
        end(stream);
    })
    .await
}

/// A server that says nothing, and keeps what it is sent to itself.
async fn mute() -> Server {
    Server::silent().await
}

/// Says something to whichever server comes, and what came back.
async fn ask(instance: &Instance) -> std::io::Result<String> {
    let mut client = instance.connect().await;
    client.write_all(b"hello").await?;
    let mut answer = [0; 5];
    within("the answer", client.read_exact(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Waits until a server is ejected, and says why.
async fn why(instance: &Instance, server: SocketAddr) -> String {
    eventually("the ejection", || instance.of_server("ejected", server, "") == 1.0).await;
    instance.server(server).await["reason"].as_str().unwrap().to_owned()
}

/// How many connections to a server came to something, and to nothing.
fn outcomes(instance: &Instance, server: SocketAddr) -> (f64, f64) {
    let count = |result| instance.of_server("outcomes_total", server, &format!(",result=\"{result}\""));
    (count("ok"), count("failed"))
}

#[tokio::test]
async fn a_server_that_resets_before_it_has_answered_is_ejected() {
    let (bad, good) = (reading(reset).await, Server::echo().await);
    let instance = Instance::watched(&balancing(&[bad.address, good.address], &strict(""))).await;
    let mut answers = 0;
    for _ in 0..4 {
        answers += usize::from(ask(&instance).await.is_ok());
    }
    assert_eq!(why(&instance, bad.address).await, "2 attempts in a row failed, the last with server_reset");
    assert_eq!((answers, outcomes(&instance, bad.address)), (2, (0.0, 2.0)));
    for _ in 0..4 {
        assert_eq!(ask(&instance).await.unwrap(), "hello");
    }
    assert_eq!(outcomes(&instance, good.address).1, 0.0);
}

#[tokio::test]
async fn a_server_that_is_let_back_in_starts_slowly() {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let bad = Server::start(move |mut stream: TcpStream| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let _read = stream.read(&mut [0; 16]).await;
            if number < 2 {
                reset(stream)
            } else {
                let _gone = stream.write_all(b"hello").await;
            }
        }
    })
    .await;
    let good = Server::echo().await;
    let more = "check = \"none\"\nslow_start = \"1h\"\noutlier = { consecutive_failures = 2, ejection = \"20ms\" }";
    let instance = Instance::watched(&balancing(&[bad.address, good.address], more)).await;
    for _ in 0..4 {
        let _answer = ask(&instance).await;
    }
    let is = |series, value| instance.of_server(series, bad.address, "") == value;
    eventually("its return", || is("ejections_total", 1.0) && is("ejected", 0.0)).await;
    let before = bad.accepted();
    for _ in 0..60 {
        assert_eq!(ask(&instance).await.unwrap(), "hello");
    }
    // Its share would be 30, and a tenth of that is 3.
    let taken = bad.accepted() - before;
    assert!(taken <= 15, "{taken}");
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_ejected() {
    let (bad, good) = (reading(drop).await, Server::echo().await);
    let instance = Instance::watched(&balancing(&[bad.address, good.address], &strict(""))).await;
    for _ in 0..4 {
        let _answer = ask(&instance).await;
    }
    assert_eq!(why(&instance, bad.address).await, "2 attempts in a row failed, the last with server_closed");
}

#[tokio::test]
async fn whoever_closes_a_connection_that_nothing_was_sent_on_has_done_nothing_wrong_unless_it_speaks_first() {
    let closing = Server::start(|stream| async move { drop(stream) }).await;
    for (more, failures) in [("", 0.0), ("server_speaks_first = true", 2.0)] {
        let instance = Instance::balancing(&[closing.address], &strict(more)).await;
        for _ in 0..2 {
            assert_eq!(instance.hear().await, "");
        }
        instance.ended(Reason::ServerClosed, 2).await;
        assert_eq!(outcomes(&instance, closing.address), (0.0, failures), "{more}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_ejected_and_its_connections_go_on() {
    let (slow, good) = (mute().await, Server::echo().await);
    let more = strict("first_byte = \"50ms\"");
    let instance = Instance::watched(&balancing(&[slow.address, good.address], &more)).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut client = instance.connect().await;
        client.write_all(b"hello").await.unwrap();
        waiting.push(client);
    }
    assert_eq!(why(&instance, slow.address).await, "2 attempts in a row failed, the last with a late first byte");
    assert_eq!(instance.of_server("connections_active", slow.address, ""), 2.0);
    drop(waiting);
    eventually("their end", || instance.of_server("connections_active", slow.address, "") == 0.0).await;
    assert_eq!(outcomes(&instance, slow.address), (0.0, 2.0), "each is counted once");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_the_servers_fault() {
    let (server, other) = (mute().await, mute().await);
    let text = balancing(&[server.address, other.address], &strict("first_byte = \"20ms\""));
    let text = text.replacen("[pools.web]", "timeouts = { idle = \"200ms\" }\n[pools.web]", 1);
    let instance = Instance::start(&text).await;
    for client in [instance.connect().await, instance.connect().await] {
        assert!(hear(client).await.is_err(), "it is idle");
    }
    for server in [server, other] {
        assert_eq!(outcomes(&instance, server.address), (0.0, 0.0));
    }
}

#[tokio::test]
async fn an_answer_is_good_at_its_first_byte_and_so_is_a_client_that_wants_none() {
    let (server, quiet) = (Server::echo().await, mute().await);
    let instance = Instance::balancing(&[server.address], &strict("")).await;
    let mut client = instance.connect().await;
    client.write_all(b"hello").await.unwrap();
    within("the answer", client.read_exact(&mut [0; 5])).await.unwrap();
    eventually("what it came to", || outcomes(&instance, server.address) == (1.0, 0.0)).await;
    let instance = Instance::balancing(&[quiet.address], &strict("")).await;
    let mut writer = instance.connect().await;
    writer.write_all(b"a line of a log").await.unwrap();
    writer.shutdown().await.unwrap();
    hear(writer).await.unwrap();
    eventually("what it came to", || outcomes(&instance, quiet.address) == (1.0, 0.0)).await;
}

#[tokio::test]
async fn a_response_that_begins_too_late_counts_as_none_though_it_is_delivered() {
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = Server::start(move |mut stream: TcpStream| {
        let mut released = released.clone();
        async move {
            let _read = stream.read(&mut [0; 1024]).await;
            let _told = released.wait_for(|released| *released).await.is_ok();
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let other = mute().await;
    let servers = [slow.address, other.address];
    let pool = strict("first_byte = \"20ms\", max_ejected = \"50%\"");
    let instance = Instance::watched(&listening("protocol = \"http\"", &servers, &pool)).await;
    // Which of the two is found out first is up to the clock; the last one that is fit stays.
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let mut client = instance.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        clients.spawn(async move {
            let mut head = [0; 12];
            client.read_exact(&mut head).await.map(|_| head)
        });
    }
    eventually("each counts once", || servers.map(|server| outcomes(&instance, server)) == [(0.0, 2.0); 2]).await;
    let is_ejected = |server| instance.of_server("ejected", server, "") == 1.0;
    eventually("one ejection", || servers.into_iter().any(is_ejected)).await;
    let out = servers.into_iter().find(|server| is_ejected(*server)).unwrap();
    assert_eq!(why(&instance, out).await, "2 attempts in a row failed, the last with a late first byte");
    release.send(true).unwrap();
    for _ in 0..2 {
        let head = within("a response", clients.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    assert_eq!(outcomes(&instance, slow.address), (0.0, 2.0));
}

#[tokio::test]
async fn a_server_that_fails_more_often_than_the_others_is_ejected_though_it_never_fails_often_in_a_row() {
    let flaky = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let bad = Server::start(move |mut stream: TcpStream| {
        let number = flaky.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let _read = stream.read(&mut [0; 16]).await;
            if number.is_multiple_of(2) {
                reset(stream)
            } else {
                let _gone = stream.write_all(b"hello").await;
            }
        }
    })
    .await;
    let good = [Server::echo().await, Server::echo().await, Server::echo().await];
    let servers = [bad.address, good[0].address, good[1].address, good[2].address];
    let more = strict(
        "success_rate_min_servers = 3, success_rate_min_requests = 5, success_rate_factor = 1000, interval = \"400ms\"",
    );
    let instance = Instance::watched(&balancing(&servers, &more)).await;
    let asked = async {
        while instance.of_server("ejected", bad.address, "") != 1.0 {
            let _answer = ask(&instance).await;
        }
    };
    within("the ejection", asked).await;
    let reason = why(&instance, bad.address).await;
    assert!(reason.contains("attempts went well, against") && reason.ends_with("in the pool"), "{reason}");
    for server in good {
        assert_eq!(instance.of_server("ejections_total", server.address, ""), 0.0);
    }
}
