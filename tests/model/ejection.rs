//! The jury that ejects servers, on a paused clock: outcomes of all kinds, servers that fail their checks, and reloads, held
//! against a model that keeps every outcome and counts anew each time.
//!
//! Where several servers may be let back in and any will do, the model takes what it sees and checks that it was right to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use portreeve::app::Outliers;
use portreeve::backend::{Lapse, Outcome, State};
use portreeve::config::{Environment, load_text};
use portreeve::metrics::Catalogue;
use portreeve::pool::Tried;
use portreeve::snapshot::{Published, Snapshot};
use portreeve::task::Tasks;
use portreeve::units::Name;
use tokio::task::yield_now;
use tokio::time::{Instant, advance};

use super::seeds;

const STEPS: usize = 2000;
/// How long nothing is heard of a server that stays.
const DEAF: Duration = Duration::from_secs(1);
/// Timers go off within the millisecond after they are due; nothing else happens that soon.
const LATE: Duration = Duration::from_millis(2);

#[tokio::test(start_paused = true)]
async fn servers_are_ejected_as_a_naive_count_of_outcomes_says() {
    let (mut in_a_row, mut by_rate, mut early, mut longest) = (0, 0, 0, 0);
    for (seed, _witness) in seeds::all("servers_are_ejected_as_a_naive_count_of_outcomes_says", seeds::MANY) {
        let mut trial = Trial::new(Rng::with_seed(seed)).await;
        for _ in 0..STEPS {
            trial.step().await;
            trial.check();
        }
        in_a_row += trial.seen.in_a_row;
        by_rate += trial.seen.by_rate;
        early += trial.seen.early;
        longest = longest.max(trial.seen.most_times);
        trial.end().await;
    }
    println!(
        "{in_a_row} ejected for outcomes in a row, {by_rate} by comparison, {early} let back in early, {longest} times"
    );
    assert!(in_a_row > 200 && by_rate > 50 && early > 20 && longest > 2, "the jury hardly ever met");
}

/// What the configuration asks for.
#[derive(Clone, Debug)]
struct Asked {
    on: bool,
    /// In a row: 5xx, gateway errors, failures.
    limits: [usize; 3],
    /// Servers are compared: the factor.
    factor: u32,
    margin: u32,
    interval: Duration,
    max_ejected: usize,
}

/// What does not change: the past is reckoned by it.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    first: Duration,
    longest: Duration,
}

const MIN_SERVERS: usize = 3;
const MIN_REQUESTS: usize = 6;

impl Asked {
    fn any(random: &mut Rng) -> Self {
        Self {
            on: random.u8(..8) > 0,
            limits: [random.usize(0..6), random.usize(0..4), random.usize(0..4)],
            factor: if random.bool() { 0 } else { random.u32(1..1500) },
            margin: random.u32(..20),
            interval: Duration::from_millis(random.u64(4..30) * 100),
            max_ejected: random.usize(..=100),
        }
    }

    fn text(&self, lengths: Lengths, weights: &[u16]) -> String {
        let [server_errors, gateway_errors, failures] = self.limits;
        let Self { factor, margin, interval, max_ejected, .. } = self;
        let millis = |duration: Duration| format!("\"{}ms\"", duration.as_millis());
        let servers: Vec<String> = weights
            .iter()
            .enumerate()
            .map(|(place, weight)| format!("{{ name = \"{place}\", address = \"unix:/{place}\", weight = {weight} }}"))
            .collect();
        let outlier = format!(
            "outlier = {{ consecutive_5xx = {server_errors}, consecutive_gateway = {gateway_errors}, \
             consecutive_failures = {failures}, success_rate_factor = {factor}, success_rate_margin = \"{margin}%\", \
             success_rate_min_servers = {MIN_SERVERS}, success_rate_min_requests = {MIN_REQUESTS}, interval = {}, \
             max_ejected = \"{max_ejected}%\", ejection = {}, max_ejection = {} }}",
            millis(*interval),
            millis(lengths.first),
            millis(lengths.longest)
        );
        let outlier = if self.on { outlier } else { String::new() };
        format!(
            "[listeners.l]\nbind = 0\npool = \"p\"\n[pools.p]\ncheck = \"none\"\nservers = [{}]\n{outlier}\n",
            servers.join(", ")
        )
    }

    /// Whether anybody is ever ejected.
    fn ejects(&self) -> bool {
        self.on && (self.factor > 0 || self.limits.iter().any(|limit| *limit > 0))
    }
}

/// A server as the model knows it.
#[derive(Debug, Default)]
struct Defendant {
    weight: u16,
    healthy: bool,
    ejected: bool,
    /// Outcomes since counting began anew.
    row: Vec<Outcome>,
    /// Whether nothing is counted until the next word.
    told: bool,
    /// When it is let back in or heard of again.
    due: Option<Instant>,
    /// Ejections that count, and when the last of them was over or will be.
    times: u32,
    ended: Option<Instant>,
    /// Outcomes since the last comparison: good ones, and all.
    score: (usize, usize),
}

impl Defendant {
    fn is_fit(&self) -> bool {
        self.weight > 0 && self.healthy && !self.ejected
    }

    /// Whether one more outcome was too much.
    fn is_excessive(&self, limits: [usize; 3]) -> bool {
        let is_ok = |outcome: &&Outcome| **outcome == Outcome::Ok;
        let is_failure = |outcome: &&Outcome| matches!(outcome, Outcome::Failure(_));
        let answers =
            || self.row.iter().rev().take_while(|outcome| !is_ok(outcome)).filter(|outcome| !is_failure(outcome));
        let failures = self.row.iter().rev().take_while(is_failure).count();
        let gateway_errors = answers().take_while(|outcome| **outcome == Outcome::Gateway).count();
        let counts = [answers().count(), gateway_errors, failures];
        limits.iter().zip(counts).any(|(limit, count)| *limit > 0 && count >= *limit)
    }

    /// Heard of again, and let back in if it is out.
    fn end(&mut self, now: Instant) {
        self.due = None;
        self.told = false;
        self.row.clear();
        if std::mem::take(&mut self.ejected) {
            self.ended = Some(now);
        }
    }

    /// Ejections that count by now.
    fn times(&self, lengths: Lengths, now: Instant) -> u32 {
        let mut left = self.times;
        let mut good = self.ended.map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended));
        while good >= lengths.first && left > 0 {
            good -= lengths.first;
            left -= 1;
        }
        left
    }
}

#[derive(Default)]
struct Seen {
    in_a_row: usize,
    by_rate: usize,
    early: usize,
    most_times: u32,
}

struct Trial {
    random: Rng,
    asked: Asked,
    lengths: Lengths,
    servers: Vec<Defendant>,
    next_round: Option<Instant>,
    published: Arc<Published>,
    catalogue: Arc<Catalogue>,
    outliers: Outliers,
    tasks: Tasks,
    seen: Seen,
    /// Which server does worst.
    bad: usize,
}

/// Lets the jury do all that it has to.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

impl Trial {
    async fn new(mut random: Rng) -> Self {
        let first = Duration::from_millis(random.u64(1..40) * 100);
        let lengths = Lengths { first, longest: first * random.u32(1..5) };
        let mut weights: Vec<u16> = (0..random.usize(1..9)).map(|_| u16::from(random.u8(..8) > 0)).collect();
        weights[0] = 1;
        let asked = Asked::any(&mut random);
        let catalogue = Catalogue::new(1);
        let published = Arc::new(Published::from_pointee(build(&asked.text(lengths, &weights), None, &catalogue)));
        published.load().take_over();
        let tasks = Tasks::new(Arc::clone(&catalogue));
        let mut outliers = Outliers::new(Arc::clone(&published), tasks.clone());
        outliers.follow(&published.load());
        let servers = weights.iter().map(|weight| Defendant { weight: *weight, healthy: true, ..Defendant::default() });
        let servers = servers.collect();
        let seen = Seen::default();
        let mut trial = Self {
            random,
            asked,
            lengths,
            servers,
            next_round: None,
            published,
            catalogue,
            outliers,
            tasks,
            seen,
            bad: 0,
        };
        settle().await;
        trial.follow_rounds();
        trial
    }

    async fn step(&mut self) {
        let place = self.random.usize(..self.servers.len());
        match self.random.u8(..100) {
            0..88 => self.outcome(place).await,
            88..94 => self.time_passes().await,
            94..99 => self.health_changes(place).await,
            _ => self.reload().await,
        }
    }

    fn state(&self, place: usize) -> Arc<State> {
        let snapshot = self.published.load();
        Arc::clone(&snapshot.pool(&Name::new("p")).unwrap().pool.servers().nth(place).unwrap().state)
    }

    async fn outcome(&mut self, place: usize) {
        // One does worse than the others, and not always the same.
        if self.random.u8(..100) == 0 {
            self.bad = self.random.usize(..self.servers.len());
        }
        let fails = self.random.u8(..10) < if place == self.bad { 8 } else { 1 };
        let outcome = match self.random.u8(..3) {
            _ if !fails => Outcome::Ok,
            0 => Outcome::ServerError,
            1 => Outcome::Gateway,
            _ => Outcome::Failure(Lapse::Late),
        };
        self.state(place).report(0, outcome);
        settle().await;
        let now = Instant::now();
        let (is_on, limits) = (self.asked.ejects(), self.asked.limits);
        let server = &mut self.servers[place];
        server.score.0 += usize::from(outcome == Outcome::Ok);
        server.score.1 += 1;
        // A good one ends every row, whoever listens.
        if outcome == Outcome::Ok || is_on && !server.told {
            server.row.push(outcome);
        }
        if outcome == Outcome::Ok || !is_on || server.told || !server.is_excessive(limits) {
            return;
        }
        server.told = true;
        if self.may_eject(place) {
            self.eject(place, now);
            self.seen.in_a_row += 1;
        } else {
            let server = &mut self.servers[place];
            server.due = Some(server.due.unwrap_or(now + DEAF));
        }
    }

    /// By the rules: it is fit, it is not the last one, and there are not too many.
    fn may_eject(&self, place: usize) -> bool {
        let others_fit = self.servers.iter().enumerate().any(|(other, server)| other != place && server.is_fit());
        let ejected = self.servers.iter().filter(|server| server.ejected).count();
        let most = (self.servers.len() * self.asked.max_ejected / 100).max(1);
        self.servers[place].is_fit() && others_fit && ejected < most
    }

    /// Takes down that it is ejected, and checks for how long.
    fn eject(&mut self, place: usize, now: Instant) {
        let lengths = self.lengths;
        let server = &mut self.servers[place];
        server.times = server.times(lengths, now) + 1;
        let length = (lengths.first * server.times).min(lengths.longest);
        (server.ejected, server.due, server.ended) = (true, Some(now + length), Some(now + length));
        self.seen.most_times = self.seen.most_times.max(self.servers[place].times);
        let ejection = self.state(place).ejection().unwrap_or_else(|| panic!("{place} was not ejected"));
        assert_eq!(ejection.until.duration_since(ejection.since).unwrap(), length, "how long {place} is out");
        assert!(!ejection.reason.is_empty());
    }

    async fn time_passes(&mut self) {
        let end = Instant::now() + Duration::from_millis(self.random.u64(..3000));
        loop {
            let dues = self.servers.iter().filter_map(|server| server.due);
            let Some(due) = dues.chain(self.next_round).min().filter(|due| *due <= end) else { break };
            // Before it is due nothing happens.
            let before = due - Duration::from_millis(1);
            if before > Instant::now() {
                advance(before - Instant::now()).await;
                settle().await;
                self.check();
            }
            advance((due + LATE).saturating_duration_since(Instant::now())).await;
            settle().await;
            self.due();
            self.check();
        }
        advance(end.saturating_duration_since(Instant::now())).await;
        settle().await;
    }

    /// What is due by now happens.
    fn due(&mut self) {
        let now = Instant::now();
        for server in &mut self.servers {
            if server.due.is_some_and(|due| due <= now) {
                server.end(now);
            }
        }
        if self.next_round.is_some_and(|due| due <= now) {
            self.next_round = Some(now + self.asked.interval);
            self.compare(now);
        }
    }

    /// Those far under the average go, the worst first.
    fn compare(&mut self, now: Instant) {
        let scores: Vec<(usize, usize)> =
            self.servers.iter_mut().map(|server| std::mem::take(&mut server.score)).collect();
        let is_compared = |place: &usize| scores[*place].1 >= MIN_REQUESTS && self.servers[*place].is_fit();
        let mut compared: Vec<usize> = (0..scores.len()).filter(is_compared).collect();
        if compared.len() < MIN_SERVERS {
            return;
        }
        let rate = |place: usize| scores[place].0 as f64 / scores[place].1 as f64;
        let count = compared.len() as f64;
        let average = compared.iter().map(|place| rate(*place)).sum::<f64>() / count;
        let variance =
            compared.iter().map(|place| (rate(*place) - average) * (rate(*place) - average)).sum::<f64>() / count;
        let least = average
            - (variance.sqrt() * f64::from(self.asked.factor) / 1000.0).max(f64::from(self.asked.margin) / 100.0);
        compared.sort_by(|one, other| rate(*one).total_cmp(&rate(*other)));
        for place in compared {
            // So near the border that rounding decides: either is right.
            let may_be = (rate(place) - least).abs() < 1e-6 && self.state(place).is_ejected();
            if (rate(place) < least - 1e-6 || may_be) && self.may_eject(place) {
                self.eject(place, now);
                self.seen.by_rate += 1;
            }
        }
    }

    async fn health_changes(&mut self, place: usize) {
        let healthy = !self.servers[place].healthy;
        self.state(place).set_healthy(healthy);
        self.servers[place].healthy = healthy;
        if !healthy {
            self.outliers.look();
        }
        settle().await;
        if !healthy {
            self.look();
        }
    }

    /// Servers that are out are let back in, one after the other, until one is fit.
    fn look(&mut self) {
        self.follow_rounds();
        if self.servers.iter().any(Defendant::is_fit) {
            return;
        }
        let now = Instant::now();
        for place in 0..self.servers.len() {
            if self.servers[place].ejected && !self.state(place).is_ejected() {
                self.servers[place].end(now);
                self.seen.early += 1;
            }
        }
        let (fit, out) = (
            self.servers.iter().filter(|server| server.is_fit()).count(),
            self.servers.iter().filter(|server| server.ejected).count(),
        );
        assert!(fit == 1 || fit == 0 && out == 0, "{fit} were let back in who are fit, and {out} are still out");
    }

    fn follow_rounds(&mut self) {
        let first = Instant::now() + self.asked.interval;
        let is_on = self.asked.ejects() && self.asked.factor > 0;
        self.next_round = is_on.then(|| self.next_round.map_or(first, |due| due.min(first)));
    }

    async fn reload(&mut self) {
        let before = std::mem::replace(&mut self.asked, Asked::any(&mut self.random));
        let weights: Vec<u16> = self.servers.iter().map(|server| server.weight).collect();
        let text = self.asked.text(self.lengths, &weights);
        let snapshot = build(&text, Some(&self.published.load()), &self.catalogue);
        self.published.store(Arc::new(snapshot));
        self.published.load().take_over();
        self.outliers.follow(&self.published.load());
        settle().await;
        let now = Instant::now();
        let limits = |asked: &Asked| asked.ejects().then_some(asked.limits);
        for server in &mut self.servers {
            if limits(&before) != limits(&self.asked) {
                server.row.clear();
            }
            if !self.asked.ejects() {
                // Everything is forgotten with the jury.
                server.end(now);
                (server.times, server.ended) = (0, None);
            }
        }
        self.look();
    }

    /// What holds after every step.
    fn check(&self) {
        let states: Vec<Arc<State>> = (0..self.servers.len()).map(|place| self.state(place)).collect();
        let ejected: Vec<bool> = states.iter().map(|state| state.is_ejected()).collect();
        let expected: Vec<bool> = self.servers.iter().map(|server| server.ejected).collect();
        assert_eq!(ejected, expected, "who is out, of {:#?} by {:?}", self.servers, self.asked);
        assert!(states.iter().zip(&ejected).all(|(state, ejected)| state.ejection().is_some() == *ejected));
        let snapshot = self.published.load();
        let pool = &snapshot.pool(&Name::new("p")).unwrap().pool;
        match pool.pick(&Tried::new(), None) {
            Some(picked) => assert!(!picked.server.state.is_ejected(), "one that is out was picked"),
            None => assert!(!self.servers.iter().any(Defendant::is_fit), "nobody was picked though somebody is fit"),
        }
        if !self.servers.iter().any(Defendant::is_fit) {
            // Whoever is down or unwanted is so without the jury.
            let would_be_fit = |server: &Defendant| server.weight > 0 && server.healthy;
            assert!(!self.servers.iter().any(would_be_fit), "the jury has left nobody");
        }
    }

    async fn end(self) {
        self.tasks.stop();
        self.tasks.ended().await;
        let states: Vec<_> = (0..self.servers.len()).map(|place| Arc::downgrade(&self.state(place))).collect();
        drop(self);
        assert!(states.iter().all(|state| state.strong_count() == 0), "somebody keeps a server");
    }
}

fn build(text: &str, before: Option<&Snapshot>, catalogue: &Catalogue) -> Snapshot {
    let environment = Environment { descriptor_limit: 65_536, cores: 2 };
    let loaded = load_text(text, "model.toml", Path::new("/"), &environment)
        .unwrap_or_else(|problems| panic!("{}\n{text}", problems.human(false)));
    Snapshot::build(loaded.model, before, catalogue)
}
