//! The loop that probes, on a paused clock, against servers on unix sockets.
//!
//! Connecting to a unix socket succeeds or fails within the call, so that the clock, which jumps whenever all wait for it,
//! never jumps past an answer that is on its way. What each checker did is read from the metrics, a tick at a time: no
//! server is probed twice in one tick, so every result is seen.

use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use portreeve::backend::State;
use portreeve::health::{Change, Check, Checker, Found, Timing};
use portreeve::metrics::Catalogue;
use portreeve::net::address::ServerAddr;
use portreeve::units::Name;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::asked::{Asked, AskedPool, AskedServer};
use super::naive::{Id, Naive};
use super::seeds;

const TICK: Duration = Duration::from_millis(60);
const TICKS: usize = 250;
const SERVERS: [&str; 3] = ["a", "b", "c"];

#[tokio::test(start_paused = true)]
async fn checkers_find_what_a_naive_count_of_results_says() {
    let (mut probes, mut changes) = (0, 0);
    for (seed, _witness) in seeds::all("checkers_find_what_a_naive_count_of_results_says", seeds::FEW) {
        let mut ward = Ward::new(Rng::with_seed(seed));
        for _ in 0..TICKS {
            ward.tick().await;
        }
        ward.stop.cancel();
        settle().await;
        assert!(ward.patients.iter().all(|patient| Arc::strong_count(&patient.state) == 1), "a checker did not stop");
        probes += ward.patients.iter().map(|patient| patient.seen.0 + patient.seen.1).sum::<u64>();
        changes += ward.changes;
    }
    println!("{probes} probes, {changes} changes of health");
    assert!(probes > 500 && changes > 50, "the checkers hardly ever did anything");
}

/// Servers under observation.
struct Ward {
    random: Rng,
    timing: Timing,
    naive: Naive,
    patients: Vec<Patient>,
    found: mpsc::Receiver<Found>,
    catalogue: Arc<Catalogue>,
    stop: CancellationToken,
    changes: usize,
    _folder: tempfile::TempDir,
}

struct Patient {
    id: Id,
    state: Arc<State>,
    path: PathBuf,
    listener: Option<UnixListener>,
    /// Probes that passed and failed.
    seen: (u64, u64),
    /// The last probe, and what may tell how soon the next has to follow.
    last_probe: Option<Instant>,
    was_changing: bool,
    was_up: bool,
    met_traffic: bool,
}

fn address(path: &Path) -> ServerAddr {
    ServerAddr::parse(&format!("unix:{}", path.display()), Path::new("/")).unwrap()
}

/// Lets every task go on until it waits for time to pass.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

impl Ward {
    fn new(mut random: Rng) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let timing = Timing {
            interval: Duration::from_millis(random.u64(200..800)),
            fast_interval: Duration::from_millis(random.u64(100..200)),
            down_interval: Duration::from_millis(random.u64(200..800)),
            timeout: Duration::from_millis(50),
            rise: random.u32(1..5),
            fall: random.u32(1..5),
            ..Timing::default()
        };
        let catalogue = Catalogue::new(1);
        let (findings, found) = mpsc::channel(16);
        let (stop, probes) = (CancellationToken::new(), Arc::new(Semaphore::new(1)));
        let mut naive = Naive::new();
        let asked_server = |name: &&'static str| AskedServer {
            given_name: Some(*name),
            port: 1,
            weight: 1,
            priority: 0,
            backup: false,
            ready: true,
            zone: None,
            max_connections: 0,
        };
        let pool = AskedPool {
            name: "p",
            balance: portreeve::balance::Policy::RoundRobin,
            check: Some((timing.rise, timing.fall)),
            retries: 0,
            max_connections: 0,
            fail_open: 0,
            queues: true,
            slow_start: 0,
            primary: None,
            discover: None,
            servers: SERVERS.iter().map(asked_server).collect(),
        };
        let view = naive.plan(&Asked { zone: None, pools: vec![pool] }, |_| false);
        let members: Vec<(String, Id)> = view.members().map(|(_, server, id)| (server.name(), id)).collect();
        naive.publish(std::rc::Rc::new(view));
        let patients = members
            .into_iter()
            .map(|(name, id)| {
                let path = folder.path().join(&name);
                let state = State::counted(Name::new("p"), Name::new(&name), &catalogue);
                let checker = Checker {
                    server: Arc::clone(&state),
                    address: address(&path),
                    check: Check::tcp(timing),
                    announce: None,
                    source: None,
                    delay: Duration::from_millis(random.u64(5..50)),
                    probes: Arc::clone(&probes),
                };
                tokio::spawn(checker.run(findings.clone(), stop.clone()));
                let mut patient = Patient {
                    id,
                    state,
                    path,
                    listener: None,
                    seen: (0, 0),
                    last_probe: None,
                    was_changing: false,
                    was_up: true,
                    met_traffic: false,
                };
                patient.set_alive(random.bool());
                patient
            })
            .collect();
        Self { random, timing, naive, patients, found, catalogue, stop, changes: 0, _folder: folder }
    }

    async fn tick(&mut self) {
        let mut expected = VecDeque::new();
        let (rise, fall) = (self.timing.rise, self.timing.fall);
        for patient in &mut self.patients {
            match self.random.u8(..100) {
                0..4 => {
                    let alive = patient.listener.is_none();
                    patient.set_alive(alive);
                }
                4..7 => {
                    let failures = self.random.u32(1..4);
                    (0..failures).for_each(|_| patient.state.report_failure());
                    self.naive.servers.get_mut(&patient.id).unwrap().unheard = failures;
                    patient.met_traffic = true;
                    expected.extend(self.naive.heard(patient.id, fall).map(|up| (patient.id, up)));
                }
                _ => {}
            }
        }
        settle().await;
        self.compare(&mut expected);
        sleep(TICK).await;
        settle().await;
        let shown = self.catalogue.expose();
        let mut probed = Vec::new();
        for patient in &mut self.patients {
            let Some(passed) = patient.new_result(&shown) else { continue };
            assert_eq!(passed, patient.listener.is_some(), "the probe of {}", patient.state.name);
            patient.drain();
            patient.judge_pace(&self.timing);
            probed.push((patient.id, passed));
        }
        for (id, passed) in probed {
            expected.extend(self.naive.probed(id, passed, (rise, fall)).map(|up| (id, up)));
        }
        for patient in &mut self.patients {
            patient.was_changing = self.naive.against(patient.id) > 0;
            patient.was_up = self.naive.servers[&patient.id].up;
        }
        self.compare(&mut expected);
    }

    /// What the checkers found is what was expected, one finding a change.
    fn compare(&mut self, expected: &mut VecDeque<(Id, bool)>) {
        let mut found: Vec<(Id, bool)> = Vec::new();
        while let Ok(Found { server, change, reason }) = self.found.try_recv() {
            let patient = self.patients.iter().find(|patient| Arc::ptr_eq(&patient.state, &server)).unwrap();
            assert!(!reason.is_empty());
            assert_eq!(server.health().reason, reason);
            found.push((patient.id, change == Change::Up));
        }
        self.changes += found.len();
        found.sort_unstable();
        let mut wanted: Vec<(Id, bool)> = expected.drain(..).collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        for patient in &self.patients {
            let known = &self.naive.servers[&patient.id];
            let health = patient.state.health();
            assert_eq!((health.up, health.tested), (known.up, known.tested), "{}", patient.state.name);
            assert_eq!(patient.state.is_healthy(), known.up);
        }
    }
}

impl Patient {
    fn set_alive(&mut self, alive: bool) {
        self.listener = None;
        let _was_there = std::fs::remove_file(&self.path);
        if alive {
            let listener = UnixListener::bind(&self.path).unwrap();
            listener.set_nonblocking(true).unwrap();
            self.listener = Some(listener);
        }
    }

    /// Takes what waits to be accepted, or the queue would fill up and refuse.
    fn drain(&self) {
        if let Some(listener) = &self.listener {
            while listener.accept().is_ok() {}
        }
    }

    /// The result that the metrics show and that was not seen before.
    fn new_result(&mut self, shown: &str) -> Option<bool> {
        let count = |result: &str| -> u64 {
            let labels = format!("pool=\"p\",server=\"{}\",result=\"{result}\"", self.state.name);
            let line = format!("portreeve_server_checks_total{{{labels}}} ");
            let value = shown.lines().find_map(|text| text.strip_prefix(&line));
            value.unwrap_or_else(|| panic!("{line} is missing in\n{shown}")).parse().unwrap()
        };
        let now = (count("passed"), count("failed"));
        let news = (now.0 - self.seen.0, now.1 - self.seen.1);
        self.seen = now;
        match news {
            (0, 0) => None,
            (1, 0) => Some(true),
            (0, 1) => Some(false),
            _ => panic!("{news:?} probes of {} in one tick", self.state.name),
        }
    }

    /// Probes follow each other at the interval, or the fast one while the state is changing, give or take a tenth.
    fn judge_pace(&mut self, timing: &Timing) {
        let now = Instant::now();
        let before = self.last_probe.replace(now);
        // Failures of traffic move the next probe.
        let met_traffic = std::mem::take(&mut self.met_traffic);
        let Some(before) = before.filter(|_| !met_traffic) else { return };
        let interval = match (self.was_changing, self.was_up) {
            (true, _) => timing.fast_interval,
            (false, true) => timing.interval,
            (false, false) => timing.down_interval,
        };
        let (least, most) = (interval.mul_f64(0.9), interval.mul_f64(1.1));
        // Each end of it was seen up to a tick late, and the clock has whole milliseconds.
        let passed = now - before;
        let slack = TICK + Duration::from_millis(2);
        assert!(passed + slack >= least && passed <= most + slack, "{passed:?} between probes of {}", self.state.name);
    }
}

/// A checker of a server nobody answers for, with a permit to wait for.
fn checker(state: &Arc<State>, path: &Path, timing: Timing, probes: &Arc<Semaphore>) -> Checker {
    Checker {
        server: Arc::clone(state),
        address: address(path),
        check: Check::tcp(timing),
        announce: None,
        source: None,
        delay: Duration::ZERO,
        probes: Arc::clone(probes),
    }
}

#[tokio::test(start_paused = true)]
async fn failures_in_traffic_never_put_off_a_probe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let _listener = UnixListener::bind(&path).unwrap();
    let state = State::new(Name::new("p"), Name::new("a"));
    let timing = Timing { fall: 100, ..Timing::default() };
    let (findings, _found) = mpsc::channel(16);
    let stop = CancellationToken::new();
    tokio::spawn(checker(&state, &path, timing, &Arc::new(Semaphore::new(1))).run(findings, stop.clone()));
    // One failure among thousands of connections, again and again: probes pass all the while, so it is no streak.
    for _ in 0..200 {
        state.report_failure();
        sleep(timing.fast_interval.mul_f64(0.8)).await;
    }
    assert!(state.health().tested, "no probe was made in {:?}", timing.fast_interval.mul_f64(0.8) * 200);
    assert!(state.is_healthy(), "{:?}", state.health());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_checker_that_was_stopped_has_no_last_word() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..64 {
        let state = State::new(Name::new("p"), Name::new("a"));
        let (findings, _found) = mpsc::channel(16);
        let probes = Arc::new(Semaphore::new(0));
        let stop = CancellationToken::new();
        let run =
            checker(&state, &folder.path().join("nobody"), Timing::default(), &probes).run(findings, stop.clone());
        let task = tokio::spawn(run);
        sleep(Duration::from_millis(1)).await;
        // Its probe may go on, and at the same moment a reload moves the server to another address.
        probes.add_permits(1);
        state.forget_health(true);
        stop.cancel();
        task.await.unwrap();
        assert!(state.is_healthy() && !state.health().tested, "what was forgotten came back: {:?}", state.health());
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_a_time_without_checks_do_not_count_once_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let _listener = UnixListener::bind(&path).unwrap();
    let state = State::new(Name::new("p"), Name::new("a"));
    (0..10).for_each(|_| state.report_failure());
    sleep(Duration::from_secs(3600)).await;
    let (findings, mut found) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let probes = Arc::new(Semaphore::new(1));
    tokio::spawn(checker(&state, &path, Timing::default(), &probes).run(findings, stop.clone()));
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    assert!(found.try_recv().is_err(), "a server that passes its checks was taken down: {:?}", state.health());
}
