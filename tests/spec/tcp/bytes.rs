//! Bytes: all of them, in order, within bounds of memory, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::stage::volume::{MIB, most_under_way, pour, swallow};
use crate::stage::{Instance, Program, Server, balancing, eventually, reset, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_arrives_both_ways_at_once_whoever_reads_slowly() {
    const FAST: usize = 256 * 1024;
    const SLOW: usize = 4 * 1024;
    let (told, mut hashes) = mpsc::channel(1);
    let server = Server::start(move |stream| {
        let told = told.clone();
        async move {
            let (reader, writer) = stream.into_split();
            let both = tokio::join!(pour(writer, 1024, 1), swallow(reader, FAST));
            told.send(both).await.unwrap();
        }
    })
    .await;
    let mut program = Program::start(&balancing(&[server.address], ""));
    let client = TcpStream::connect(program.listening("web").await).await.unwrap();
    let (reader, writer) = client.into_split();
    let (sent_up, got_down) = tokio::join!(pour(writer, 1024, 2), swallow(reader, SLOW));
    let (sent_down, got_up) = within("the server", hashes.recv()).await.unwrap();
    assert_eq!(got_up, sent_up, "up");
    assert_eq!(got_down, sent_down, "down");
    assert_ne!(got_up, got_down);
    let peak = program.peak_memory();
    assert!(peak < 64 * MIB as u64, "the program grew to {peak} bytes");
}

#[tokio::test]
async fn a_server_is_held_back_by_a_client_that_does_not_read() {
    const ALL: usize = 256 * MIB;
    let pushed = Arc::new(AtomicU64::new(0));
    let (told, mut stalled) = mpsc::channel(1);
    let count = Arc::clone(&pushed);
    let server = Server::start(move |mut stream| {
        let (told, pushed) = (told.clone(), Arc::clone(&count));
        async move {
            let piece = vec![0; 64 * 1024];
            while pushed.load(Ordering::SeqCst) < ALL as u64 {
                let written = match tokio::time::timeout(Duration::from_millis(500), stream.write(&piece)).await {
                    Ok(written) => written,
                    Err(_stalled) => {
                        told.send(pushed.load(Ordering::SeqCst)).await.unwrap();
                        stream.write(&piece).await
                    }
                };
                pushed.fetch_add(written.unwrap() as u64, Ordering::SeqCst);
            }
        }
    })
    .await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    let taken = within("the stall", stalled.recv()).await.unwrap();
    let most = most_under_way();
    assert!(taken < most, "{taken} bytes were taken in for a client that reads nothing, more than {most}");
    stalled.close();
    let mut bytes = vec![0; MIB];
    let mut arrived = 0;
    while let read @ 1.. = within("more", client.read(&mut bytes)).await.unwrap() {
        arrived += read as u64;
    }
    assert_eq!(arrived, pushed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn an_idle_connection_holds_two_sockets_and_nothing_else_however_much_it_moved() {
    let server = Server::echo().await;
    let mut program = Program::start(&balancing(&[server.address], "").replace("workers = 2", "workers = 1"));
    let address = program.listening("web").await;
    let (sockets, pipes) = (program.descriptors("socket:").len(), program.descriptors("pipe:").len());
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = client.split();
        let (bytes, room) = (vec![1; 8 * MIB], &mut vec![0; 8 * MIB]);
        let echoed = async { tokio::try_join!(writer.write_all(&bytes), reader.read_exact(room)) };
        within("the echo", echoed).await.unwrap();
        idle.push(client);
    }
    assert_eq!(program.descriptors("socket:").len(), sockets + 20);
    let kept = program.descriptors("pipe:").len() - pipes;
    assert!(kept > 0, "nothing was spliced");
    assert!(kept <= 4, "{kept} descriptors of pipes are held; one pipe each way serves all in turn");
}

#[tokio::test]
async fn idle_connections_cost_little_memory() {
    const MANY: u64 = 1000;
    let server = Server::echo().await;
    let mut program = Program::start(&balancing(&[server.address], ""));
    let address = program.listening("web").await;
    let mut idle = vec![chatted(address, 64 * 1024).await];
    let before = program.memory();
    for _ in 0..MANY {
        idle.push(chatted(address, 64 * 1024).await);
    }
    let each = program.memory().saturating_sub(before) / MANY;
    assert!(each < 16 * 1024, "an idle connection takes {each} bytes");
}

#[tokio::test]
async fn bytes_are_counted_for_listener_and_server_while_the_connection_lasts() {
    let server = Server::start(|mut stream| async move {
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(b"and back").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    })
    .await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    client.write_all(b"there").await.unwrap();
    within("the answer", client.read_exact(&mut [0; 8])).await.unwrap();
    let of_server = format!("pool=\"web\",server=\"{}\"", server.address);
    for (direction, bytes) in [("in", 5.0), ("out", 8.0)] {
        for series in [
            format!("portreeve_listener_bytes_total{{listener=\"web\",direction=\"{direction}\"}}"),
            format!("portreeve_server_bytes_total{{{of_server},direction=\"{direction}\"}}"),
        ] {
            eventually(&series, || instance.metric(&series) == Some(bytes)).await;
        }
    }
    assert_eq!(instance.listener("web").active.get(), 1, "the connection is still open");
}

#[tokio::test]
async fn the_access_log_has_one_object_a_connection_with_what_is_ours_escaped() {
    let server = Server::echo().await;
    let configuration = format!(
        "[log]\naccess = \"access.log\"\nformat = \"json\"\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [pools.web]\ncheck = \"none\"\nservers = [{{ name = 'a\"b\\c', address = \"{}\" }}]\n",
        server.address
    );
    let mut program = Program::start(&configuration);
    let address = program.listening("web").await;
    drop(chatted(address, 5).await);
    let lines = access_log(&program, 1).await;
    let expected = serde_json::json!({
        "listener": "web", "protocol": "tcp", "pool": "web", "server": "a\"b\\c",
        "bytes_in": 5, "bytes_out": 5, "retries": 0, "reason": "done",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&lines[0][field], value, "{field} in {}", lines[0]);
    }
    assert!(lines[0]["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(lines[0]["connect_ms"].is_number() && lines[0]["duration_ms"].is_number());
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    let client = chatted(address, 7).await;
    reset(client);
    let lines = access_log(&program, 2).await;
    assert_eq!((&lines[1]["reason"], &lines[1]["bytes_in"]), (&"client_reset".into(), &7.into()));
}

/// The lines of the access log, once there are so many.
async fn access_log(program: &Program, count: usize) -> Vec<serde_json::Value> {
    let file = program.folder().join("access.log");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("lines in the access log", || read().lines().count() == count).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A client that has sent so many bytes and received their echo.
async fn chatted(address: std::net::SocketAddr, bytes: usize) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&vec![b'x'; bytes]).await.unwrap();
    within("the echo", client.read_exact(&mut vec![0; bytes])).await.unwrap();
    client
}
