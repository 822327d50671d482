//! What relaying costs, spliced and copied: the processor time of the relay's own thread for each unit of work.
//!
//! Run with `cargo bench --bench relay`; without `--bench` (as `cargo test --benches` does) each case runs only briefly.
//!
//! - `bulk`: one direction, as fast as it goes; milliseconds a GiB.
//! - `16 KiB`, `64 B`: a message there and the same back, over and over; microseconds a message each way and back.
//!
//! Client and server are threads of their own, so that the relay's clock (`CLOCK_THREAD_CPUTIME_ID`, clock_gettime(2))
//! shows the relay and what the kernel does on its behalf. `pipes` gives the relay pipes, and it decides by itself when to
//! use them; `copy` gives it none. Each figure is the median of several rounds, in which each of the two goes first in
//! turn. Messages like these are never worth a pipe, so how far their ratio is from 1 tells how noisy the machine is.

#![allow(clippy::print_stdout, reason = "a benchmark is there to print")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on stops loudly")]
#![allow(
    clippy::disallowed_methods,
    reason = "the peers are no part of the program: they connect and run as they like"
)]

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use portreeve::net::stream::Stream;
use portreeve::relay::{Direction, Early, End, FirstByte, Limits, Meter, Recall, Report, Scratch, relay};
use rustix::time::{ClockId, clock_gettime};

/// What the client sends, and what it expects.
#[derive(Clone, Copy)]
enum Work {
    /// So many bytes to the server.
    Up(u64),
    /// So many bytes from the server.
    Down(u64),
    /// So many messages of this size to the server, each of which comes back before the next leaves.
    PingPong { messages: u64, size: usize },
}

/// How much a peer reads or writes with one call.
const CHUNK: usize = 256 * 1024;
const GIB: u64 = 1 << 30;
const ROUNDS: usize = 9;

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let of = |all: u64| if whole { all } else { all / 1000 };
    let cases = [
        ("bulk up, ms a GiB", Work::Up(of(GIB)), of(GIB) as f64 / GIB as f64 * 1e6),
        ("bulk down, ms a GiB", Work::Down(of(GIB)), of(GIB) as f64 / GIB as f64 * 1e6),
        (
            "16 KiB there and back, µs",
            Work::PingPong { messages: of(15_000), size: 16 * 1024 },
            of(15_000) as f64 * 1e3,
        ),
        ("64 B there and back, µs", Work::PingPong { messages: of(30_000), size: 64 }, of(30_000) as f64 * 1e3),
    ];
    println!("{:28} {:>9} {:>9} {:>12}", "processor time of the relay", "pipes", "copy", "pipes : copy");
    for (label, work, unit) in cases {
        let mut times: [Vec<f64>; 2] = Default::default();
        for round in 0..ROUNDS {
            for at in [round % 2, 1 - round % 2] {
                let Some((times, pipes)) = times.iter_mut().zip([16, 0]).nth(at) else { continue };
                times.push(measure(work, pipes).as_nanos() as f64 / unit);
            }
        }
        let [pipes, copy] = times.map(median);
        println!("{label:28} {pipes:9.2} {copy:9.2} {:12.2}", pipes / copy);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The processor time that a relay with so many pipes spends on this work.
fn measure(work: Work, pipes: usize) -> Duration {
    let (client, client_side) = pair();
    let (server_side, server) = pair();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scratch = Scratch::new(pipes);
            let limits = Limits {
                idle: Duration::from_secs(60),
                half_close: Duration::from_secs(60),
                expires: None,
                first_byte: FirstByte::Settled,
            };
            let (mut client, mut server) = (stream(client_side), stream(server_side));
            let (recall, meter) = (Recall::default(), Total::default());
            let start = clock_gettime(ClockId::ThreadCPUTime);
            let report = relay(&mut client, &mut server, Early::default(), limits, &scratch, &recall, &meter).await;
            let end = clock_gettime(ClockId::ThreadCPUTime);
            assert_eq!(meter.0.get(), report.up + report.down);
            (report, Duration::try_from(end - start).unwrap())
        })
    };
    thread::scope(|scope| {
        let relay = scope.spawn(run);
        scope.spawn(move || serve(work, server));
        request(work, client);
        let (Report { end, up, down }, spent) = relay.join().unwrap();
        assert!(matches!(end, End::Finished(_)), "{end:?}");
        assert_eq!(
            (up, down),
            match work {
                Work::Up(bytes) => (bytes, 0),
                Work::Down(bytes) => (0, bytes),
                Work::PingPong { messages, size } => (messages * size as u64, messages * size as u64),
            }
        );
        spent
    })
}

/// Counts, as a worker does.
#[derive(Default)]
struct Total(Cell<u64>);

impl Meter for Total {
    fn moved(&self, _direction: Direction, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }
}

/// Two ends of a connection over loopback: who connected, and who accepted.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    for socket in [&connected, &accepted] {
        socket.set_nodelay(true).unwrap();
    }
    (connected, accepted)
}

fn stream(socket: TcpStream) -> Stream {
    socket.set_nonblocking(true).unwrap();
    Stream::new(OwnedFd::from(socket))
}

fn request(work: Work, mut socket: TcpStream) {
    match work {
        Work::Up(bytes) => {
            send(&mut socket, bytes);
            socket.shutdown(Shutdown::Write).unwrap();
            receive(&mut socket);
        }
        Work::Down(_) => {
            socket.shutdown(Shutdown::Write).unwrap();
            receive(&mut socket);
        }
        Work::PingPong { messages, size } => {
            let mut message = vec![7; size];
            for _ in 0..messages {
                socket.write_all(&message).unwrap();
                socket.read_exact(&mut message).unwrap();
            }
            socket.shutdown(Shutdown::Write).unwrap();
            receive(&mut socket);
        }
    }
}

fn serve(work: Work, mut socket: TcpStream) {
    match work {
        Work::Up(_) => receive(&mut socket),
        Work::Down(bytes) => send(&mut socket, bytes),
        Work::PingPong { messages, size } => {
            let mut message = vec![0; size];
            for _ in 0..messages {
                socket.read_exact(&mut message).unwrap();
                socket.write_all(&message).unwrap();
            }
            receive(&mut socket);
        }
    }
}

fn send(socket: &mut TcpStream, bytes: u64) {
    let chunk = vec![7; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        socket.write_all(chunk.get(..now).unwrap_or_default()).unwrap();
        left -= now as u64;
    }
}

/// Reads to the end.
fn receive(socket: &mut TcpStream) {
    let mut chunk = vec![0; CHUNK];
    while socket.read(&mut chunk).unwrap() > 0 {}
}
