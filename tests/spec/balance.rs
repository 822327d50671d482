//! Chapter: which server gets a connection.

mod keys;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::stage::{Instance, Server, balancing, eventually, hear, say, within};
use portreeve::ending::Reason;

/// Many connections, some of them at once; each must be answered. Returns how often each answer came.
async fn crowd(address: SocketAddr, connections: usize) -> HashMap<String, usize> {
    const AT_ONCE: usize = 32;
    let mut answers = HashMap::new();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        if clients.len() == AT_ONCE {
            *answers.entry(clients.join_next().await.unwrap().unwrap()).or_default() += 1;
        }
        clients.spawn(async move { hear(TcpStream::connect(address).await.unwrap()).await.unwrap() });
    }
    while let Some(answer) = clients.join_next().await {
        *answers.entry(answer.unwrap()).or_default() += 1;
    }
    answers
}

/// Three servers that say `a`, `b` and `c`.
async fn abc() -> [Server; 3] {
    [Server::saying("a").await, Server::saying("b").await, Server::saying("c").await]
}

/// A pool whose servers are tables: their address, and more.
fn tables(servers: &[(&Server, &str)], more: &str) -> String {
    let tables: Vec<_> =
        servers.iter().map(|(server, more)| format!("{{ address = \"{}\", {more} }}", server.address)).collect();
    balancing(&[], more).replace("servers = []", &format!("servers = [{}]", tables.join(", ")))
}

async fn round_robin_is_even_with(workers: usize) {
    let servers = abc().await;
    let addresses = servers.each_ref().map(|server| server.address);
    let text = balancing(&addresses, "").replace("workers = 2", &format!("workers = {workers}"));
    let instance = Instance::start(&text).await;
    crowd(instance.address("web"), 1000).await;
    let counts = servers.each_ref().map(Server::accepted);
    assert_eq!(counts.iter().sum::<usize>(), 1000);
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?} with {workers} workers");
}

#[tokio::test]
async fn a_thousand_connections_over_three_equal_servers_differ_by_one_at_most_with_one_worker() {
    round_robin_is_even_with(1).await;
}

#[tokio::test]
async fn they_differ_by_one_at_most_with_two_workers() {
    round_robin_is_even_with(2).await;
}

#[tokio::test]
async fn they_differ_by_one_at_most_with_four_workers() {
    round_robin_is_even_with(4).await;
}

#[tokio::test]
async fn connections_are_shared_out_by_weight() {
    let [a, b, c] = abc().await;
    let text = tables(&[(&a, "weight = 5"), (&b, "weight = 3"), (&c, "weight = 1")], "");
    let instance = Instance::start(&text).await;
    let answers = crowd(instance.address("web"), 450).await;
    assert_eq!([answers["a"], answers["b"], answers["c"]], [250, 150, 50]);
}

#[tokio::test]
async fn a_server_of_weight_zero_gets_nothing() {
    let [a, b, _] = abc().await;
    let instance = Instance::start(&tables(&[(&a, "weight = 0"), (&b, "")], "")).await;
    assert_eq!(crowd(instance.address("web"), 50).await["b"], 50);
}

#[tokio::test]
async fn least_conn_gives_new_connections_to_the_server_with_fewer_open() {
    let servers = [Server::start(|stream| say(stream, "a")).await, Server::start(|stream| say(stream, "b")).await];
    let addresses = servers.each_ref().map(|server| server.address);
    let instance = Instance::balancing(&addresses, "balance = \"least_conn\"").await;
    let mut held: HashMap<String, Vec<TcpStream>> = HashMap::new();
    for _ in 0..8 {
        let (answer, stream) = hold(&instance).await;
        held.entry(answer).or_default().push(stream);
    }
    assert_eq!([held["a"].len(), held["b"].len()], [4, 4]);
    held.remove("b");
    instance.ended(Reason::Done, 4).await;
    for _ in 0..4 {
        let (answer, stream) = hold(&instance).await;
        assert_eq!(answer, "b");
        held.entry(answer).or_default().push(stream);
    }
}

/// A connection that has heard its answer and stays open.
async fn hold(instance: &Instance) -> (String, TcpStream) {
    let mut stream = instance.connect().await;
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    (answer, stream)
}

#[tokio::test]
async fn backup_servers_are_used_only_while_every_other_one_is_down() {
    const CHECK: &str = "check = { interval = \"200ms\", timeout = \"190ms\", rise = 1, fall = 1 }\nretries = 0";
    let [mut a, mut b, spare] = abc().await;
    let instance = Instance::start(&tables(&[(&a, ""), (&b, ""), (&spare, "backup = true")], CHECK)).await;
    let web = instance.address("web");
    let answers = crowd(web, 20).await;
    assert_eq!([answers["a"], answers["b"]], [10, 10]);
    a.stop().await;
    instance.becomes(a.address, false).await;
    assert_eq!(crowd(web, 20).await["b"], 20);
    b.stop().await;
    instance.becomes(b.address, false).await;
    assert_eq!(crowd(web, 20).await["c"], 20);
    let again = Server::start_on(a.address, |stream| say(stream, "a")).await;
    instance.becomes(again.address, true).await;
    assert_eq!(crowd(web, 20).await["a"], 20);
}

/// A server that keeps each connection until it has read a byte, and how many it had at once at most. What it counts is
/// exact: it counts a connection off before it ends it.
async fn counting() -> (Server, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let server = Server::start(move |mut stream| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let asked = stream.read_u8().await;
            now.fetch_sub(1, Ordering::SeqCst);
            if asked.is_ok() {
                say(stream, "served").await;
            }
        }
    })
    .await;
    (server, seen)
}

#[tokio::test]
async fn a_server_never_has_more_connections_than_its_limit() {
    let ((a, most_a), (b, most_b)) = (counting().await, counting().await);
    let text = tables(&[(&a, "max_connections = 3"), (&b, "max_connections = 5")], "queue = { max = 0 }");
    let instance = Instance::start(&text.replace("workers = 2", "workers = 4")).await;
    let web = instance.address("web");
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        clients.spawn(async move {
            let mut served = 0;
            for _ in 0..40 {
                // One that finds every server full is reset, perhaps before it knows that it is connected.
                let Ok(mut stream) = TcpStream::connect(web).await else { continue };
                let _refused = stream.write_all(b"x").await;
                served += usize::from(hear(stream).await.is_ok_and(|answer| answer == "served"));
            }
            served
        });
    }
    let served: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(served, a.accepted() + b.accepted());
    instance.ended(Reason::NoServer, (32 * 40 - served) as u64).await;
    eventually("rest", || {
        [&a, &b].iter().all(|server| instance.of_server("connections_active", server.address, "") == 0.0)
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..3 + 5 {
        held.push(instance.connect().await);
    }
    eventually("both full", || a.accepted() + b.accepted() == served + held.len()).await;
    instance.refuses().await;
    assert_eq!([most_a.load(Ordering::SeqCst), most_b.load(Ordering::SeqCst)], [3, 5]);
}

#[tokio::test]
async fn a_server_that_accepts_at_once_and_answers_late_gets_nothing_while_another_is_quick() {
    let (release, released) = tokio::sync::watch::channel(false);
    let late = Server::start(move |mut stream: TcpStream| {
        let mut released = released.clone();
        async move {
            let _asked = stream.read_u8().await;
            let _told = released.wait_for(|released| *released).await.is_ok();
            say(stream, "late").await;
        }
    })
    .await;
    let quick = Server::start(|mut stream: TcpStream| async move {
        let _asked = stream.read_u8().await;
        say(stream, "quick").await;
    })
    .await;
    let instance = Instance::balancing(&[late.address, quick.address], "balance = \"peak_ewma\"").await;
    let web = instance.address("web");
    let ask = move || async move {
        let mut stream = TcpStream::connect(web).await.unwrap();
        stream.write_all(b"?").await.unwrap();
        hear(stream).await.unwrap()
    };
    // Each is asked, since nobody knows how long it takes.
    let mut first: JoinSet<_> = (0..8).map(|_| ask()).collect();
    eventually("the late one is asked", || late.accepted() > 0).await;
    let asked = Instant::now();
    eventually("a second of waiting", || asked.elapsed() > Duration::from_secs(1)).await;
    release.send(true).unwrap();
    let mut late_answers = 0;
    while let Some(answer) = within("an answer", first.join_next()).await {
        late_answers += usize::from(answer.unwrap() == "late");
    }
    assert_eq!(late_answers, late.accepted());
    for _ in 0..200 {
        assert_eq!(ask().await, "quick");
    }
}

#[tokio::test]
async fn every_algorithm_that_goes_by_no_key_reaches_every_server() {
    for algorithm in ["round_robin", "least_conn", "random", "p2c", "peak_ewma"] {
        let servers = abc().await;
        let addresses = servers.each_ref().map(|server| server.address);
        let instance = Instance::balancing(&addresses, &format!("balance = \"{algorithm}\"")).await;
        crowd(instance.address("web"), 200).await;
        assert!(servers.iter().all(|server| server.accepted() > 0), "{algorithm} left one out");
    }
}
