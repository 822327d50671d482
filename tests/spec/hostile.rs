//! Chapter: peers that misbehave, and a machine that runs out. Whatever they do, the program keeps its memory, its
//! descriptors and its other connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portreeve::ending::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::stage::http::{Client, Recorder, Stand, Wire, ok, serving};
use crate::stage::process::Admin;
use crate::stage::{Instance, Program, Server, balancing, eventually, is_reset, listening, metric, reset, within};

const MIB: u64 = 1024 * 1024;
const ADMIN: &str = "admin.http = \"127.0.0.1:0\"\n";
const ACTIVE: &str = "portreeve_listener_connections_active{listener=\"web\"}";
const FULL: &str = "portreeve_listener_refused_total{listener=\"web\",reason=\"refused_full\"}";

/// What a client does to us.
const CLIENTS: usize = 7;
/// How many of each.
const EACH: usize = 1500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_that_go_wrong_at_every_stage_leave_nothing_behind() {
    let servers = [mute_server().await, resetting_server().await, closing_server().await, endless_server().await];
    let timeouts = "timeouts = { idle = \"150ms\", half_close = \"100ms\" }";
    let addresses = servers.each_ref().map(|server| server.address);
    let mut program = Program::start(&format!("{ADMIN}{}", listening(timeouts, &addresses, "")));
    let address = program.listening("web").await;
    let admin = Admin(program.admin().await);
    // What stays for good is there after the first few: pipes in reserve, threads, pages.
    misbehave(address, 100).await;
    admin.eventually(ACTIVE, |active| active == 0.0).await;
    let (sockets, memory) = (program.descriptors("socket:").len(), program.memory());

    misbehave(address, EACH).await;
    admin.eventually(ACTIVE, |active| active == 0.0).await;
    eventually("the sockets are closed", || program.descriptors("socket:").len() <= sockets).await;
    let grown = program.memory().saturating_sub(memory);
    assert!(grown < 16 * MIB, "the program grew by {grown} bytes");
    let metrics = admin.metrics().await;
    let accepted = metric(&metrics, "portreeve_listener_connections_total{listener=\"web\"}").unwrap();
    assert_eq!(accepted, ((EACH + 100) * CLIENTS) as f64);
    assert_eq!(total(&metrics, "portreeve_listener_ended_total{"), accepted, "each ended for one reason");
    assert_eq!(total(&metrics, "portreeve_server_connections_active{"), 0.0);
    assert_eq!(total(&metrics, "portreeve_worker_connections_active{"), 0.0);
    assert_eq!(metric(&metrics, "portreeve_task_panics_total"), Some(0.0));
    let internal = "portreeve_listener_ended_total{listener=\"web\",reason=\"internal\"}";
    assert_eq!(metric(&metrics, internal).unwrap_or(0.0), 0.0, "nothing a peer does is a failure of ours:\n{metrics}");
}

#[tokio::test]
async fn clients_and_servers_that_say_nothing_are_ended_by_the_idle_timeout() {
    let server = mute_server().await;
    let instance = Instance::start(&listening("timeouts = { idle = \"300ms\" }", &[server.address], "")).await;
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let mut client = instance.connect().await;
        clients.spawn(async move { client.read(&mut [0]).await });
    }
    for end in within("the ends", clients.join_all()).await {
        assert!(is_reset(&end), "a client saw {end:?}");
    }
    instance.ended(Reason::IdleTimeout, 200).await;
    assert_eq!(instance.listener("web").active.get(), 0);
}

#[tokio::test]
async fn clients_that_never_read_cost_no_memory_and_are_ended_by_the_idle_timeout() {
    let server = endless_server().await;
    let timeouts = "timeouts = { idle = \"1s\" }";
    let mut program = Program::start(&format!("{ADMIN}{}", listening(timeouts, &[server.address], "")));
    let address = program.listening("web").await;
    let admin = Admin(program.admin().await);
    let memory = program.memory();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    admin
        .eventually("portreeve_listener_ended_total{listener=\"web\",reason=\"idle_timeout\"}", |ended| ended == 50.0)
        .await;
    let grown = program.peak_memory().saturating_sub(memory);
    assert!(grown < 16 * MIB, "the program grew by {grown} bytes for 50 clients");
}

#[tokio::test]
async fn one_flood_of_bytes_does_not_keep_the_other_connections_of_its_worker_waiting() {
    let (endless, echo) = (endless_server().await, Server::echo().await);
    let second = "[listeners.other]\nbind = \"127.0.0.1:0\"\npool = \"other\"\n[pools.other]\ncheck = \"none\"\n";
    let configuration = balancing(&[endless.address], "").replace("workers = 2", "workers = 1");
    let instance = Instance::start(&format!("{configuration}{second}servers = [\"{}\"]\n", echo.address)).await;
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        let mut client = instance.connect().await;
        floods.spawn(async move { while client.read(&mut [0; 16 * 1024]).await.unwrap() > 0 {} });
    }
    eventually("the flood", || instance.listener("web").bytes().1 > 16 * MIB).await;
    let mut client = within("connect", TcpStream::connect(instance.address("other"))).await.unwrap();
    for _ in 0..20 {
        let echoed = async {
            client.write_all(b"x").await?;
            client.read_exact(&mut [0]).await
        };
        tokio::time::timeout(Duration::from_secs(2), echoed).await.expect("an echo beside the flood").unwrap();
    }
}

#[tokio::test]
async fn more_clients_than_descriptors_are_refused_and_checks_and_the_admin_listener_go_on() {
    let server = Server::echo().await;
    let check = "check = { interval = \"100ms\", timeout = \"90ms\" }";
    let mut program = Program::start_with_descriptors(&format!("{ADMIN}{}", balancing(&[server.address], check)), 256);
    let address = program.listening("web").await;
    let admin = Admin(program.admin().await);
    let started: serde_json::Value = serde_json::from_str(&program.says("\"started\"").await).unwrap();
    let room = started["max_connections"].as_u64().unwrap();
    assert!((32..128).contains(&room), "room for {room}");
    let mut served = Vec::new();
    for _ in 0..300 {
        served.extend(echoing(address).await);
    }
    assert_eq!(served.len() as u64, room);
    assert_eq!(metric(&admin.metrics().await, FULL), Some((300 - room) as f64));
    let checks =
        format!("portreeve_server_checks_total{{pool=\"web\",server=\"{}\",result=\"passed\"}}", server.address);
    let before = metric(&admin.metrics().await, &checks).unwrap();
    admin.eventually(&checks, |passed| passed >= before + 3.0).await;
    served.clear();
    admin.eventually(ACTIVE, |active| active == 0.0).await;
    assert!(echoing(address).await.is_some(), "there is room again");
    assert_eq!(program.said("accepting pauses"), 0, "the limit keeps the descriptors from running out");
}

#[tokio::test]
async fn without_descriptors_accepting_pauses_says_so_once_and_goes_on_when_there_are_some() {
    let server = Server::echo().await;
    let mut program = Program::start(&balancing(&[server.address], ""));
    let address = program.listening("web").await;
    program.says("\"started\"").await;
    let mut served = Vec::new();
    for _ in 0..10 {
        served.extend(echoing(address).await);
    }
    // What was open for a moment while they came has left a gap among their descriptors, which the next one fills.
    let full = loop {
        let open = program.descriptors("");
        let top = open.iter().max().unwrap() + 1;
        if open.len() as u64 == top {
            break top;
        }
        served.extend(echoing(address).await);
    };
    program.limit_descriptors(full);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(within("connect", TcpStream::connect(address)).await.unwrap());
    }
    program.says("accepting pauses until connections end").await;
    let before = program.processor_time();
    let quiet = tokio::time::timeout(Duration::from_secs(1), program.exit()).await;
    assert!(quiet.is_err(), "it ended");
    let used = program.processor_time() - before;
    assert!(used < Duration::from_millis(200), "it used {used:?} of a second in which there was nothing to do");
    echo_of(&mut served[0]).await.unwrap();
    assert_eq!(program.said("accepting pauses"), 1);
    served.clear();
    program.says("accepting again").await;
    let again = async { while echoing(address).await.is_none() {} };
    within("a client served again", again).await;
}

#[tokio::test]
async fn connections_that_only_wait_make_room_when_descriptors_run_out() {
    let (stand, other) = (Stand::new().await, Recorder::ok().await);
    let routes = "routes = [{ path = \"/other\", pool = \"other\" }, { path = \"/here\", respond = 200 }]";
    let web = serving(&[stand.address], routes, "").replace("workers = 1", "workers = 2");
    let pool = format!("[pools.other]\nservers = [\"{}\"]\ncheck = \"none\"\n", other.address());
    let mut program = Program::start(&format!("{web}{pool}"));
    let address = program.listening("web").await;
    program.says("\"started\"").await;
    let another = async || Client(Wire::new(within("connect", TcpStream::connect(address)).await.unwrap()));
    let (mut clients, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..16 {
        let mut client = another().await;
        client.get("/", "").await;
        waiting.push(stand.asked().await.0);
        clients.push(client);
    }
    for (server, client) in waiting.iter_mut().zip(&mut clients) {
        server.send(ok("1")).await;
        client.response().await;
    }
    // Others fill the gaps among its descriptors.
    let full = loop {
        let open = program.descriptors("");
        let top = open.iter().max().unwrap() + 1;
        if open.len() as u64 == top {
            break top;
        }
        clients.push(another().await);
        assert_eq!(clients.last_mut().unwrap().ask("/here").await.status(), 200);
    };
    program.limit_descriptors(full);

    // One is missing for a server, and then one for a client.
    assert_eq!(clients[0].ask("/other").await.text(), "ok");
    for server in &mut waiting {
        server.ends().await;
    }
    for _ in &waiting {
        clients.push(another().await);
        assert_eq!(clients.last_mut().unwrap().ask("/here").await.status(), 200);
    }
    assert_eq!(program.descriptors("").len() as u64, full);
}

#[tokio::test]
async fn connections_that_only_wait_are_closed_before_descriptors_run_out() {
    let stand = Stand::new().await;
    let mut program = Program::start(&serving(&[stand.address], "", ""));
    let address = program.listening("web").await;
    program.says("\"started\"").await;
    let mut client = Client(Wire::new(within("connect", TcpStream::connect(address)).await.unwrap()));
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send(ok("1")).await;
    client.response().await;
    let open = program.descriptors("").len() as u64;
    program.limit_descriptors(open);
    // Nobody asks for one.
    server.ends().await;
    client.get("/", "").await;
    stand.asked().await;
}

/// Lets so many clients of every kind loose, 200 at once.
async fn misbehave(address: SocketAddr, of_each: usize) {
    let room = Arc::new(Semaphore::new(200));
    let mut clients = JoinSet::new();
    for number in 0..of_each * CLIENTS {
        let permit = Arc::clone(&room).acquire_owned().await.unwrap();
        clients.spawn(async move {
            client(number % CLIENTS, address).await;
            drop(permit);
        });
    }
    within("the clients", clients.join_all()).await;
}

/// One misbehaviour. What the other side makes of it is its business, so results of calls are not looked at.
async fn client(kind: usize, address: SocketAddr) {
    let Ok(mut stream) = within("connect", TcpStream::connect(address)).await else {
        return;
    };
    let garbage = [0xa5; 4096];
    match kind {
        // Leaves at once, in one way or the other.
        0 => {}
        1 => reset(stream),
        // Sends garbage and leaves, in one way or the other.
        2 => drop(stream.write_all(&garbage).await),
        3 => {
            let _gone = within("garbage", stream.write_all(&garbage.repeat(32))).await;
            reset(stream);
        }
        // Leaves in the middle of an answer.
        4 => {
            let _gone = within("an answer or an end", stream.read(&mut [0])).await;
            reset(stream);
        }
        // Says nothing until it is ended.
        5 => drop(within("the end", stream.ready(Interest::ERROR | Interest::READABLE)).await),
        // Has finished and does not leave.
        _ => {
            let _gone = stream.shutdown().await;
            let _end = within("the end", stream.take(100_000).read_to_end(&mut Vec::new())).await;
        }
    }
}

/// Never says a word and never leaves by itself.
async fn mute_server() -> Server {
    Server::start(|stream| async move {
        let _error = stream.ready(Interest::ERROR).await;
    })
    .await
}

/// Sends half an answer and a reset.
async fn resetting_server() -> Server {
    Server::start(|mut stream| async move {
        let _gone = stream.write_all(&[0x5a; 10_000]).await;
        reset(stream);
    })
    .await
}

/// Closes at once.
async fn closing_server() -> Server {
    Server::start(|stream| async move { drop(stream) }).await
}

/// Sends as long as anyone takes it.
async fn endless_server() -> Server {
    Server::start(|mut stream| async move { while stream.write_all(&[0x5a; 16 * 1024]).await.is_ok() {} }).await
}

/// A client that is served by an echo; none when it is reset instead.
async fn echoing(address: SocketAddr) -> Option<TcpStream> {
    let served = async {
        let mut stream = TcpStream::connect(address).await?;
        echo_of(&mut stream).await?;
        Ok::<_, std::io::Error>(stream)
    };
    match within("an echo or a reset", served).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            let refusals = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(refusals.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// Sends a byte and waits for its echo.
async fn echo_of(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    within("the echo", stream.read_exact(&mut [0])).await.map(|_| ())
}

/// The sum of all series that start so.
fn total(metrics: &str, start: &str) -> f64 {
    let values = metrics.lines().filter(|line| line.starts_with(start)).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn servers_that_cannot_be_checked_for_want_of_a_descriptor_stay_what_they_are() {
    let server = Recorder::ok().await;
    let check = "check = { interval = \"20ms\", fast_interval = \"20ms\", fall = 2 }";
    let mut program = Program::start(&format!("{ADMIN}{}", balancing(&[server.address()], check)));
    let admin = program.admin().await;
    let series = |name: &str, more: &str| {
        format!("portreeve_server_{name}{{pool=\"web\",server=\"{}\"{more}}}", server.address())
    };
    let checks = |result: &str| series("checks_total", &format!(",result=\"{result}\""));
    Admin(admin).eventually(&checks("passed"), |passed| passed > 0.0).await;
    // A connection that stands needs no further descriptor.
    let mut kept = Client::from([127, 0, 0, 1], admin).await;
    let read = async |kept: &mut Client| {
        kept.send("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        kept.response().await
    };
    read(&mut kept).await;
    let limit = program.lower_descriptors(3);
    let skipping = async {
        let mut skipped = 0.0;
        while skipped < 5.0 {
            let metrics = read(&mut kept).await;
            skipped = metric(metrics.text(), &checks("skipped")).unwrap();
            assert_eq!(metric(metrics.text(), &series("up", "")), Some(1.0));
            assert_eq!(metric(metrics.text(), &checks("failed")), Some(0.0));
        }
    };
    within("five checks that are skipped", skipping).await;
    program.raise_descriptors(limit);
    let passed = metric(read(&mut kept).await.text(), &checks("passed")).unwrap();
    Admin(admin).eventually(&checks("passed"), |now| now > passed).await;
    assert_eq!(program.said("the server cannot be checked, and stays what it is: connect: Too many open files"), 1);
}
