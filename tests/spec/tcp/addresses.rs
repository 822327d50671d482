//! Where clients connect to, and how many may.

use std::net::SocketAddr;

use portreeve::app::{Source, start};
use portreeve::ending::Reason;
use portreeve::net::address::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::stage::{Instance, Server, balancing, hear, is_reset, listening, within};

#[tokio::test]
async fn a_listener_takes_as_many_connections_as_it_may_have_and_refuses_the_rest() {
    let server = Server::echo().await;
    let instance = Instance::start(&listening("max_connections = 2", &[server.address], "")).await;
    let (mut first, mut second) = (instance.connect().await, instance.connect().await);
    echo_of(&mut first).await;
    echo_of(&mut second).await;
    for _ in 0..3 {
        assert!(is_reset(&instance.outcome().await));
    }
    let refused = "portreeve_listener_refused_total{listener=\"web\",reason=\"refused_full\"}";
    assert_eq!(instance.metric(refused), Some(3.0));
    drop(first);
    instance.ended(Reason::Done, 1).await;
    echo_of(&mut instance.connect().await).await;
    echo_of(&mut second).await;
}

#[tokio::test]
async fn a_listener_can_be_a_unix_socket_whose_file_goes_with_it() {
    let server = Server::saying("over a unix socket").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let instance = Instance::start(&bound(&format!("\"unix:{}\"", path.display()), server.address)).await;
    let mut client = UnixStream::connect(&path).await.unwrap();
    let mut answer = String::new();
    within("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "over a unix socket");
    drop(client);
    instance.ended(Reason::Done, 1).await;
    within("stop", instance.running.stop()).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn one_listener_takes_clients_of_ipv4_and_ipv6() {
    let server = Server::saying("both").await;
    let instance = Instance::start(&bound("\"[::]:0\"", server.address)).await;
    let port = instance.address("web").port();
    for ip in ["127.0.0.1", "::1"] {
        assert_eq!(hear(TcpStream::connect((ip, port)).await.unwrap()).await.unwrap(), "both", "{ip}");
    }
}

#[tokio::test]
async fn a_range_of_ports_is_listened_on_as_a_whole() {
    let server = Server::saying("in range").await;
    // A range cannot be the kernel's choice, so one below the ports it gives out is looked for.
    let mut first = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let running = loop {
        first = if first > 31_000 { 10_000 } else { first + 5 };
        let bind = format!("\"127.0.0.1:{first}-{}\"", first + 2);
        if let Ok(running) = start(Source::text(&bound(&bind, server.address))).await {
            break running;
        }
    };
    let expected = [first, first + 1, first + 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(running.endpoints("web"), expected.map(Endpoint::Tcp));
    for address in expected {
        assert_eq!(hear(TcpStream::connect(address).await.unwrap()).await.unwrap(), "in range");
    }
}

#[tokio::test]
async fn a_bind_that_fails_names_the_address_and_the_process_in_the_way() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = start(Source::text(&bound(&format!("\"{address}\""), address))).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("in use by"), "{error}");
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn no_worker_carries_more_than_its_share_and_a_tenth() {
    let server = Server::echo().await;
    let instance = Instance::start(&balancing(&[server.address], "").replace("workers = 2", "workers = 4")).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = instance.connect().await;
        echo_of(&mut client).await;
        clients.push(client);
    }
    let series = |worker| format!("portreeve_worker_connections_active{{worker=\"{worker}\"}}");
    let carried = [0, 1, 2, 3].map(|worker| instance.metric(&series(worker)).unwrap());
    assert_eq!(carried.iter().sum::<f64>(), 200.0);
    assert!(carried.iter().all(|connections| *connections <= 55.0), "{carried:?}");
    // Chance alone keeps to that now and then, but not to this.
    let (least, most) = carried.iter().fold((200.0, 0.0_f64), |(least, most), n| (n.min(least), n.max(most)));
    assert!(most - least <= 5.0, "{carried:?}");
}

/// A listener `web` bound as it says, before a pool of one server.
fn bound(bind: &str, server: SocketAddr) -> String {
    balancing(&[server], "").replace("\"127.0.0.1:0\"", bind)
}

/// Sends a byte and waits for its echo.
async fn echo_of(client: &mut TcpStream) {
    client.write_all(b"x").await.unwrap();
    within("the echo", client.read_exact(&mut [0])).await.unwrap();
}
