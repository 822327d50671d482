//! What a reload of 10 000 servers in 100 pools costs: the writer, step by step, and a worker that picks meanwhile.
//!
//! Run with `cargo bench --bench reload`; without `--bench` (as `cargo test --benches` does) it does each step once.
//!
//! Either all weights change, so that every table is made anew, or only something that no table hangs on.
//!
//! Each step is a call that the writer makes; comparing the models, sockets and checkers are not among them. The steps are
//! medians, and so is their total.
//!
//! The goals: under 250 ms in all, and no worker stalled for more than 1 ms. A stall is the longest time that a thread which
//! does nothing but load the snapshot, look up a pool, pick and release needed for one such round while the writer
//! reloads, beside the longest without reloads: what the machine's scheduler does by itself. On a busy machine a thread
//! loses its core for milliseconds at a time, so the time the worker spent on its core is shown as well: that is what a
//! reload can be blamed for.

#![allow(clippy::print_stdout, reason = "a benchmark is there to print")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on stops loudly")]

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portreeve::balance::Policy;
use portreeve::config::model::Model;
use portreeve::config::{Environment, load_text};
use portreeve::metrics::Catalogue;
use portreeve::pool::Tried;
use portreeve::snapshot::{Published, Snapshot};
use portreeve::units::Name;
use rustix::time::{ClockId, clock_gettime};

const POOLS: usize = 100;
const SERVERS_A_POOL: usize = 100;
const GOAL: Duration = Duration::from_millis(250);

/// The steps of a reload, in their order.
const STEPS: [&str; 5] = ["load_text", "build with carry-over", "publish", "take over", "drop the old"];

fn main() {
    let reloads = if std::env::args().any(|argument| argument == "--bench") { 50 } else { 1 };
    println!("{} servers in {POOLS} pools, ms", POOLS * SERVERS_A_POOL);
    for (change, what) in [(Change::Weights, "all weights change"), (Change::Retries, "no server changes")] {
        print!("{what:18} {:>18}", "build from scratch");
        STEPS.iter().for_each(|step| print!(" {step:>21}"));
        println!(" {:>8} {:>8}", "total", "of goal");
        for policy in Policy::ALL {
            measure_steps(policy, change, reloads.min(9));
        }
    }
    println!("\nthe longest round of a worker in µs, over {reloads} reloads");
    println!(
        "{:12} {:>16} {:>16} {:>16} {:>16}",
        "algorithm", "without reloads", "on its core", "with reloads", "on its core"
    );
    for policy in Policy::ALL {
        measure_stalls(policy, reloads);
    }
}

/// What differs from one version of the file to the next.
#[derive(Clone, Copy)]
enum Change {
    /// The weights of all servers.
    Weights,
    /// How often the pools try again.
    Retries,
}

/// The file.
fn text(policy: &Policy, change: Change, version: usize) -> String {
    let (weights, retries) = match change {
        Change::Weights => (version, 2),
        Change::Retries => (0, version % 10),
    };
    let mut text = "[listeners.web]\nbind = \"127.0.0.1:8080\"\npool = \"pool-0\"\n".to_owned();
    for pool in 0..POOLS {
        writeln!(text, "[pools.pool-{pool}]\nbalance = \"{}\"\nretries = {retries}\nservers = [", policy.label())
            .unwrap();
        for server in 0..SERVERS_A_POOL {
            let weight = (server * 7919 + pool + weights) % 100 + 1;
            writeln!(text, "  {{ name = \"s{server}\", address = \"10.1.{pool}.{server}:8080\", weight = {weight} }},")
                .unwrap();
        }
        text.push_str("]\n");
    }
    text
}

fn load(text: &str) -> Model {
    let environment = Environment { descriptor_limit: 1 << 20, cores: 2 };
    load_text(text, "bench.toml", Path::new("/"), &environment).expect("the configuration is right").model
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    times.push(start.elapsed());
    done
}

/// One whole reload, with the time of each of [`STEPS`].
fn reload(published: &Published, catalogue: &Catalogue, text: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    let model = timed(&mut times, || load(text));
    let previous = published.load_full();
    let built = Arc::new(timed(&mut times, || Snapshot::build(model, Some(&previous), catalogue)));
    timed(&mut times, || published.store(Arc::clone(&built)));
    timed(&mut times, || built.take_over());
    // As the writer does: a worker that was last to let go would have the work of dropping it.
    let waiting = Instant::now();
    while Arc::strong_count(&previous) > 1 && waiting.elapsed() < Duration::from_secs(1) {
        std::hint::spin_loop();
    }
    timed(&mut times, || drop(previous));
    times
}

fn measure_steps(policy: &Policy, change: Change, rounds: usize) {
    let catalogue = Catalogue::new(2);
    let mut scratch = Vec::new();
    let first = load(&text(policy, change, 0));
    for _ in 0..rounds {
        let (model, empty) = (first.clone(), Catalogue::new(2));
        drop(timed(&mut scratch, || Snapshot::build(model, None, &empty)));
    }
    let published = Published::from_pointee(Snapshot::build(first, None, &catalogue));
    published.load().take_over();
    let mut columns: Vec<Vec<Duration>> = vec![Vec::new(); STEPS.len() + 1];
    for version in 1..=rounds {
        let text = text(policy, change, version);
        let times = reload(&published, &catalogue, &text);
        let total = times.iter().sum();
        columns.iter_mut().zip(times.into_iter().chain([total])).for_each(|(column, time)| column.push(time));
    }
    print!("{:18} {:18.2}", policy.label(), millis(median(scratch)));
    let medians: Vec<Duration> = columns.into_iter().map(median).collect();
    let (total, steps) = medians.split_last().unwrap();
    steps.iter().for_each(|step| print!(" {:21.3}", millis(*step)));
    println!(" {:8.1} {:8.2}", millis(*total), total.as_secs_f64() / GOAL.as_secs_f64());
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What a worker saw.
#[derive(Clone, Copy, Default)]
struct Stall {
    /// The longest round.
    longest: Duration,
    /// The most time a round took of the processor.
    busiest: Duration,
}

fn measure_stalls(policy: &Policy, reloads: usize) {
    let catalogue = Catalogue::new(2);
    let published = Published::from_pointee(Snapshot::build(load(&text(policy, Change::Weights, 0)), None, &catalogue));
    published.load().take_over();
    let texts: Vec<String> = (1..=reloads).map(|version| text(policy, Change::Weights, version)).collect();
    let mut took = Duration::ZERO;
    let busy = watched(&published, || {
        let start = Instant::now();
        texts.iter().for_each(|text| drop(reload(&published, &catalogue, text)));
        took = start.elapsed();
    });
    // For as long, the same thread beside one that works as hard and publishes nothing.
    let quiet = watched(&published, || {
        let start = Instant::now();
        let mut at = texts.iter().cycle();
        while start.elapsed() < took {
            at.next().map(|text| load(text));
        }
    });
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{:12} {:16.1} {:16.1} {:16.1} {:16.1}",
        policy.label(),
        micros(quiet.longest),
        micros(quiet.busiest),
        micros(busy.longest),
        micros(busy.busiest)
    );
}

/// Does `work` while another thread does what a worker does for each connection.
fn watched(published: &Published, work: impl FnOnce()) -> Stall {
    let over = AtomicBool::new(false);
    let names: Vec<Name> = (0..POOLS).map(|pool| Name::new(&format!("pool-{pool}"))).collect();
    let watch = || {
        let mut stall = Stall::default();
        let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        for name in names.iter().cycle() {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let (start, started) = (Instant::now(), cpu());
            let snapshot = published.load_full();
            let picked = snapshot.pool(name).and_then(|pool| pool.pool.pick(&Tried::new(), None));
            let lease = picked.map(|picked| picked.lease);
            drop(snapshot);
            drop(lease);
            stall.busiest = stall.busiest.max(cpu().saturating_sub(started));
            stall.longest = stall.longest.max(start.elapsed());
        }
        stall
    };
    thread::scope(|scope| {
        let worker = scope.spawn(watch);
        work();
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    })
}
