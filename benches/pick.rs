//! What a pick and its release cost, for each algorithm at 10, 100 and 10 000 servers, and the ratio that counts: choosing
//! among 10 000 is to cost what choosing among 10 does.
//!
//! Run with `cargo bench --bench pick`; without `--bench` (as `cargo test --benches` does) each case runs only briefly.
//!
//! - `idle`: a connection ends before the next begins.
//! - `busy`: each server has two connections on average; each round begins one and ends the oldest.
//! - `half`: as `busy`, with every other server down.
//!
//! A figure is the median over batches of nanoseconds a round, each thread's own. At 10 000 servers some of it is memory:
//! their states do not fit into the cache next to the core.

#![allow(clippy::print_stdout, reason = "a benchmark is there to print")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use portreeve::backend::{Server, State};
use portreeve::balance::{Key, Policy};
use portreeve::net::address::ServerAddr;
use portreeve::pool::{Pool, Rules, Settings, Tried};
use portreeve::units::{Name, Weight};

const SIZES: [usize; 3] = [10, 100, 10_000];
const SITUATIONS: [Situation; 3] = [
    Situation { label: "idle", connections: 0, every_other_down: false },
    Situation { label: "busy", connections: 2, every_other_down: false },
    Situation { label: "half", connections: 2, every_other_down: true },
];

/// What the servers of a pool are doing meanwhile.
struct Situation {
    label: &'static str,
    /// In flight a server.
    connections: usize,
    every_other_down: bool,
}

fn main() {
    let batches = if std::env::args().any(|argument| argument == "--bench") { 201 } else { 1 };
    println!("threads  algorithm    case  {:>8} {:>8} {:>8}   10000 : 10", "10", "100", "10000");
    for threads in [1, 2] {
        for policy in Policy::ALL {
            for situation in &SITUATIONS {
                let [small, medium, large] = SIZES.map(|servers| measure(policy, servers, situation, threads, batches));
                println!(
                    "{threads:7}  {:11}  {}  {small:8.1} {medium:8.1} {large:8.1}   {:10.2}",
                    policy.label(),
                    situation.label,
                    large / small,
                );
            }
        }
    }
    println!("reload of 10000 servers of many weights, in ms:  build  take over  drop");
    for policy in Policy::ALL {
        let [build, take_over, drop] = measure_reload(policy);
        println!("         {:37} {build:8.2} {take_over:8.2} {drop:8.2}", policy.label());
    }
}

/// Nanoseconds a round.
fn measure(policy: &Policy, servers: usize, situation: &Situation, threads: usize, batches: usize) -> f64 {
    const ROUNDS: u32 = 5_000;
    let pool = pool(policy, servers, |_| Some(Weight::ONE));
    pool.take_over();
    if situation.every_other_down {
        pool.servers().step_by(2).for_each(|server| server.state.set_healthy(false));
    }
    let held = servers * situation.connections / threads;
    let together = Barrier::new(threads);
    // As of clients from everywhere, each of which has to be hashed.
    let key = || pool.key().map(|_| Key::of(&fastrand::u64(..).to_be_bytes()));
    let run = || {
        let mut leases: VecDeque<_> = (0..held).map(|_| pool.pick(&Tried::new(), key())).collect();
        leases.iter().flatten().for_each(|picked| picked.server.state.answered(Duration::from_millis(1)));
        let mut batch = || {
            together.wait();
            let start = Instant::now();
            for _ in 0..ROUNDS {
                leases.push_back(pool.pick(&Tried::new(), key()));
                leases.pop_front();
            }
            start.elapsed()
        };
        (0..batches + batches / 4).map(|_| batch()).skip(batches / 4).collect::<Vec<Duration>>()
    };
    let mut times: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        run().into_iter().chain(others.into_iter().filter_map(|other| other.join().ok()).flatten()).collect()
    });
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |median| median.as_nanos() as f64 / f64::from(ROUNDS))
}

/// Milliseconds to build a pool of 10 000 servers of many weights, to take over with it, and to drop it once another has.
fn measure_reload(policy: &Policy) -> [f64; 3] {
    let weight = |place: usize| Weight::new(u16::try_from(place * 7919 % 1000 + 1).ok()?);
    let time = |act: &mut dyn FnMut()| {
        let start = Instant::now();
        act();
        start.elapsed().as_secs_f64() * 1000.0
    };
    let mut built = None;
    let old = pool(policy, 10_000, weight);
    old.take_over();
    let servers: Vec<_> = old.servers().cloned().collect();
    let build = time(&mut || built = Some(pool_of(policy, servers.clone())));
    let take_over = time(&mut || built.iter().for_each(Pool::take_over));
    let mut old = Some(old);
    let drop = time(&mut || old = None);
    [build, take_over, drop]
}

/// A pool of servers nobody has seen yet.
fn pool(balance: &Policy, count: usize, weight: impl Fn(usize) -> Option<Weight>) -> Pool {
    let server = |place: usize| {
        let state = State::new(Name::new("pool"), Name::new(&place.to_string()));
        let address = ServerAddr::parse("127.0.0.1:1", Path::new("/")).ok()?;
        Some(Server { weight: weight(place)?, ..Server::new(state, address) })
    };
    pool_of(balance, (0..count).filter_map(server).collect())
}

fn pool_of(balance: &Policy, servers: Vec<Server>) -> Pool {
    let settings = Settings {
        balance: balance.clone(),
        retries: 2,
        connect_timeout: Duration::from_secs(5),
        sources: Vec::new(),
        rules: Rules::default(),
    };
    Pool::new(Name::new("pool"), settings, servers)
}
