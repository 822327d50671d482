//! The jury of the process: ejects servers that do badly, and lets them back in. One task, the only writer of that flag.
//!
//! Workers count and tell it (see [`State::report`]), and now and then it compares the servers of a pool; how much is too much and how long an ejection lasts stands in the
//! snapshot in effect, and [`health`](crate::health) decides.

mod rounds;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backend::{Ejection, Excess, Jury, Score, Server, State, Suspect};
use crate::health::{Crowd, Outlier, Record, Verdict};
use crate::net::address::ServerAddr;
use crate::snapshot::{PoolInEffect, Published, Snapshot};
use crate::task::Tasks;
use crate::units::format_duration;
use rounds::Rounds;

/// How many suspects may wait; those that find no room are told of again.
const WAITING: usize = 256;
/// How long nothing more is heard of a server that stays although it does badly.
const DEAF: Duration = Duration::from_secs(1);

/// How the writer reaches the jury. Public for those who judge it in turn.
#[derive(Debug)]
pub struct Outliers {
    tell: mpsc::Sender<Suspect>,
    /// Rung when something changed that ejections hang on.
    bell: Arc<Notify>,
    tasks: Tasks,
    /// The task, until it is started.
    session: Option<Session>,
}

impl Outliers {
    /// A jury that meets once there is a snapshot to follow.
    #[must_use]
    pub fn new(published: Arc<Published>, tasks: Tasks) -> Self {
        let (tell, suspects) = mpsc::channel(WAITING);
        let bell = Arc::new(Notify::new());
        let session =
            Session { published, suspects, bell: Arc::clone(&bell), known: HashMap::new(), rounds: Rounds::default() };
        Self { tell, bell, tasks, session: Some(session) }
    }

    /// Lets traffic to the servers of the snapshot in effect be counted as it says.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        if let Some(session) = self.session.take() {
            self.tasks.spawn("outliers", session.run(self.tasks.stopping().clone()));
        }
        for pool in snapshot.pools() {
            let jury = pool.outlier.map(|outlier| Jury { limits: outlier.limits, tell: self.tell.clone() });
            let jury = jury.map(Arc::new);
            pool.pool.servers().for_each(|server| server.state.set_jury(jury.clone()));
        }
        self.bell.notify_one();
    }

    /// A server went down, and the others may be all that is left.
    pub fn look(&self) {
        self.bell.notify_one();
    }
}

/// The task.
#[derive(Debug)]
struct Session {
    published: Arc<Published>,
    suspects: mpsc::Receiver<Suspect>,
    bell: Arc<Notify>,
    /// Servers that were suspects, by where their states are: each holds its own, so that no other can be there.
    known: HashMap<usize, Known>,
    rounds: Rounds,
}

/// A server that was a suspect.
#[derive(Debug)]
struct Known {
    server: Arc<State>,
    address: ServerAddr,
    record: Record,
    /// When it is let back in, or heard of again.
    due: Option<Instant>,
}

impl Session {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let due = self.known.values().filter_map(|known| known.due).chain(self.rounds.next()).min();
            let (bell, waits) = (Arc::clone(&self.bell), due.is_some());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if waits => {
                    self.let_back_in(Instant::now());
                    self.compare(Instant::now());
                }
                () = bell.notified() => self.look_again(),
                Some(suspect) = self.suspects.recv() => self.judge(suspect),
            }
        }
    }

    /// A server did badly too often.
    fn judge(&mut self, suspect: Suspect) {
        let Suspect { server: state, seen } = suspect;
        let snapshot = self.published.load_full();
        let Some((pool, outlier, server)) = find(&snapshot, &state) else {
            state.count_anew();
            return;
        };
        if !self.eject(pool, outlier, server, seen) {
            let known = self.known(server);
            known.due = Some(known.due.unwrap_or(Instant::now() + DEAF));
        }
    }

    /// Compares the servers of the pools whose time for it has come.
    fn compare(&mut self, now: Instant) {
        let snapshot = self.published.load_full();
        for name in self.rounds.due(&snapshot, now) {
            let Some(pool) = snapshot.pool(&name) else { continue };
            let Some((outlier, rates)) = pool.outlier.and_then(|outlier| Some((outlier, outlier.success_rate?))) else {
                continue;
            };
            let servers: Vec<&Server> = pool.pool.servers().collect();
            // Of one that is out, what came before is no measure of how it does now.
            let score = |server: &&Server| Some(server.state.score()).filter(|_| server.state.is_fit(server.weight));
            let scores: Vec<Score> = servers.iter().map(|server| score(server).unwrap_or_default()).collect();
            for (place, seen) in rates.outliers(&scores) {
                if let Some(server) = servers.get(place) {
                    self.eject(pool, outlier, server, seen);
                }
            }
        }
    }

    /// Ejects a server for what was seen of it, if that may be. Says whether it did.
    fn eject(&mut self, pool: &PoolInEffect, outlier: Outlier, server: &Server, seen: Excess) -> bool {
        let state = &server.state;
        // What a server that is out did before, and what comes of what was sent to it then, changes nothing.
        if !state.is_fit(server.weight) {
            return false;
        }
        let verdict = outlier.judge(crowd(pool, state));
        if verdict != Verdict::Eject {
            let why = if verdict == Verdict::LastOne { "no other is fit" } else { "as many are ejected as may be" };
            tracing::debug!(pool = %state.pool, server = %state.name, "server is not ejected, since {why}: {seen}");
            return false;
        }
        let now = Instant::now();
        let known = self.known(server);
        let length = outlier.sentence(&mut known.record, now);
        known.due = Some(now + length);
        known.address = server.address.clone();
        let since = SystemTime::now();
        let reason = seen.to_string();
        state.set_ejected(Some(Ejection { since, until: since + length, reason: reason.clone() }));
        state.metrics().ejected();
        super::fail_open::look(&pool.pool);
        let (length, left) = (format_duration(length), Left(pool));
        tracing::warn!(pool = %state.pool, server = %state.name, "server is ejected for {length}: {reason}; {left}");
        true
    }

    /// What is known of a server.
    fn known(&mut self, server: &Server) -> &mut Known {
        self.known.entry(Arc::as_ptr(&server.state).addr()).or_insert_with(|| Known {
            server: Arc::clone(&server.state),
            address: server.address.clone(),
            record: Record::default(),
            due: None,
        })
    }

    /// Lets those back in whose time has come.
    fn let_back_in(&mut self, now: Instant) {
        let snapshot = self.published.load_full();
        for known in self.known.values_mut().filter(|known| known.due.is_some_and(|due| due <= now)) {
            known.end(now, &snapshot, "its time is over");
        }
        // Nothing is to be remembered of those whose past is forgotten.
        self.known.retain(|_, known| {
            let ejection = find(&snapshot, &known.server).map(|(_, outlier, _)| outlier.ejection);
            known.due.is_some() || ejection.is_some_and(|ejection| known.record.times(ejection, now) > 0)
        });
    }

    /// Looks whether the ejections there are still make sense: after a reload, and when servers went down.
    fn look_again(&mut self) {
        let (snapshot, now) = (self.published.load_full(), Instant::now());
        self.rounds.follow(&snapshot, now);
        self.known.retain(|_, known| {
            let Some((pool, _, server)) = find(&snapshot, &known.server) else {
                known.end(now, &snapshot, "its pool ejects no servers any more");
                return false;
            };
            if server.address != known.address {
                known.end(now, &snapshot, "it is at another address");
                return false;
            }
            if known.server.is_ejected() && !pool.pool.servers().any(|server| server.state.is_fit(server.weight)) {
                known.end(now, &snapshot, "no other is fit");
            }
            true
        });
    }
}

impl Known {
    /// Lets it back in if it is ejected, and has it heard of again.
    fn end(&mut self, now: Instant, snapshot: &Snapshot, why: &str) {
        self.due = None;
        // Before it is given anything again.
        self.server.count_anew();
        if !self.server.is_ejected() {
            return;
        }
        self.record.end(now);
        self.server.set_ejected(None);
        if let Some(pool) = snapshot.pool(&self.server.pool) {
            super::fail_open::look(&pool.pool);
            let (pool, server, left) = (&self.server.pool, &self.server.name, Left(pool));
            tracing::info!(%pool, %server, "server is no longer ejected: {why}; {left}");
        }
    }
}

/// A server's place in a snapshot, if its pool ejects servers.
fn find<'a>(snapshot: &'a Snapshot, state: &Arc<State>) -> Option<(&'a PoolInEffect, Outlier, &'a Server)> {
    let pool = snapshot.pool(&state.pool)?;
    let server = pool.pool.servers().find(|server| Arc::ptr_eq(&server.state, state))?;
    Some((pool, pool.outlier?, server))
}

fn crowd(pool: &PoolInEffect, state: &Arc<State>) -> Crowd {
    let others_fit = |server: &&Server| !Arc::ptr_eq(&server.state, state) && server.state.is_fit(server.weight);
    Crowd {
        servers: pool.pool.servers().count(),
        ejected: pool.pool.servers().filter(|server| server.state.is_ejected()).count(),
        others_fit: pool.pool.servers().filter(others_fit).count(),
    }
}

/// How many of a pool's servers are open, for the end of a line.
struct Left<'a>(&'a PoolInEffect);

impl std::fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} are open", self.0.pool.open_servers(), self.0.pool.servers().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Lapse, Outcome};
    use crate::config::{Environment, load_text};
    use crate::metrics::Catalogue;
    use std::path::Path;

    const SECOND: Duration = Duration::from_secs(1);
    const OUTLIER: &str = "outlier = { consecutive_failures = 2, ejection = \"10s\", max_ejection = \"25s\" }";

    /// A pool under observation, on a paused clock.
    struct Court {
        catalogue: Arc<Catalogue>,
        published: Arc<Published>,
        outliers: Outliers,
        tasks: Tasks,
    }

    fn build(servers: u16, more: &str, before: Option<&Snapshot>, catalogue: &Catalogue) -> Snapshot {
        let servers: Vec<_> = (1..=servers).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let servers = servers.join(", ");
        let text = format!("[listeners.l]\nbind = 0\npool = \"p\"\n[pools.p]\nservers = [{servers}]\n{more}\n");
        let environment = Environment { descriptor_limit: 20_000, cores: 2 };
        let loaded =
            load_text(&text, "test", Path::new("/"), &environment).unwrap_or_else(|p| panic!("{}", p.human(false)));
        Snapshot::build(loaded.model, before, catalogue)
    }

    impl Court {
        fn new(servers: u16, more: &str) -> Self {
            let catalogue = Catalogue::new(1);
            let published = Arc::new(Published::from_pointee(build(servers, more, None, &catalogue)));
            let tasks = Tasks::new(Arc::clone(&catalogue));
            let mut outliers = Outliers::new(Arc::clone(&published), tasks.clone());
            published.load().take_over();
            outliers.follow(&published.load());
            Self { catalogue, published, outliers, tasks }
        }

        fn reload(&mut self, servers: u16, more: &str) {
            let snapshot = build(servers, more, Some(&self.published.load()), &self.catalogue);
            self.published.store(Arc::new(snapshot));
            self.published.load().take_over();
            self.outliers.follow(&self.published.load());
        }

        fn state(&self, server: usize) -> Arc<State> {
            let snapshot = self.published.load();
            let pool = snapshot.pools().next().unwrap();
            Arc::clone(&pool.pool.servers().nth(server).unwrap().state)
        }

        /// Lets everything happen that is due.
        async fn settle(&self) {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }

        async fn after(&self, time: Duration) {
            tokio::time::advance(time).await;
            self.settle().await;
        }

        async fn fails(&self, server: usize) {
            (0..2).for_each(|_| self.state(server).report(0, Outcome::Failure(Lapse::Late)));
            self.settle().await;
        }

        /// Which servers are ejected.
        fn ejected(&self) -> Vec<usize> {
            let servers = self.published.load().pools().next().unwrap().pool.servers().count();
            (0..servers).filter(|server| self.state(*server).is_ejected()).collect()
        }

        /// How many of a thousand picks are this server's.
        fn picks_of(&self, server: usize) -> usize {
            let (snapshot, state) = (self.published.load(), self.state(server));
            let pool = &snapshot.pools().next().unwrap().pool;
            let picks = (0..1000).filter_map(|_| pool.pick(&crate::pool::Tried::new(), None));
            picks.filter(|picked| Arc::ptr_eq(&picked.server.state, &state)).count()
        }

        fn picks(&self) -> Vec<Option<String>> {
            let snapshot = self.published.load();
            let pool = &snapshot.pools().next().unwrap().pool;
            let mut picks: Vec<_> = (0..100)
                .map(|_| pool.pick(&crate::pool::Tried::new(), None).map(|picked| picked.server.state.name.to_string()))
                .collect();
            picks.sort();
            picks.dedup();
            picks
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_too_often_is_given_nothing_for_a_while_and_each_time_for_longer() {
        for policy in crate::balance::Policy::ALL {
            let court = Court::new(2, &format!("balance = \"{}\"\n{OUTLIER}", policy.label()));
            for time in [10, 20, 25, 25] {
                court.fails(0).await;
                assert_eq!(court.ejected(), [0]);
                assert_eq!(court.picks(), [Some("127.0.0.1:2".to_owned())], "{policy:?}");
                let ejection = court.state(0).ejection().unwrap();
                assert_eq!(ejection.until.duration_since(ejection.since).unwrap(), time * SECOND);
                assert_eq!(ejection.reason, "2 attempts in a row failed, the last with a late first byte");
                court.after(time * SECOND - SECOND / 1000).await;
                assert_eq!(court.ejected(), [0]);
                court.after(SECOND / 500).await;
                assert_eq!(court.ejected(), [0; 0]);
                assert_eq!(court.picks().len(), 2, "{policy:?}");
            }
            // Of four, all are forgotten by then.
            court.after(41 * SECOND).await;
            court.fails(0).await;
            court.after(10 * SECOND + SECOND / 1000).await;
            assert_eq!(court.ejected(), [0; 0]);
            let text = court.catalogue.expose();
            let count = "portreeve_server_ejections_total{pool=\"p\",server=\"127.0.0.1:1\"} 5";
            assert!(text.lines().any(|line| line == count), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_let_back_in_gets_its_share_little_by_little_whatever_ended_its_ejection() {
        fastrand::seed(51);
        for reload in [false, true] {
            let mut court = Court::new(2, &format!("slow_start = \"100s\"\n{OUTLIER}"));
            assert!((450..=550).contains(&court.picks_of(0)));
            court.fails(0).await;
            assert_eq!(court.picks_of(0), 0);
            if reload {
                court.reload(2, "slow_start = \"100s\"");
                court.settle().await;
            } else {
                court.after(10 * SECOND + SECOND / 1000).await;
            }
            // Whether its share is that part of the whole, or of its weight, is the algorithm's.
            assert!((20..=120).contains(&court.picks_of(0)), "a tenth of its share");
            court.after(50 * SECOND).await;
            assert!((200..=380).contains(&court.picks_of(0)), "half of it");
            court.after(50 * SECOND).await;
            assert!((450..=550).contains(&court.picks_of(0)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_its_share_of_a_pool_is_ejected_and_others_are_when_there_is_room_again() {
        let court = Court::new(3, OUTLIER);
        court.fails(0).await;
        court.fails(1).await;
        assert_eq!(court.ejected(), [0], "half of three is one");
        court.after(10 * SECOND + SECOND / 1000).await;
        court.fails(1).await;
        assert_eq!(court.ejected(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_server_that_is_fit_is_never_ejected() {
        let court = Court::new(1, OUTLIER);
        court.fails(0).await;
        assert_eq!(court.ejected(), [0; 0]);
        let court = Court::new(2, OUTLIER);
        court.state(1).set_healthy(false);
        court.fails(0).await;
        assert_eq!(court.ejected(), [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejected_server_is_let_back_in_when_it_is_all_that_is_left() {
        let court = Court::new(2, OUTLIER);
        court.fails(0).await;
        court.state(1).set_healthy(false);
        court.outliers.look();
        court.settle().await;
        assert_eq!(court.ejected(), [0; 0]);
        assert_eq!(court.picks(), [Some("127.0.0.1:1".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejection_outlives_a_reload_unless_that_turns_ejecting_off() {
        let mut court = Court::new(3, OUTLIER);
        court.fails(1).await;
        court.reload(2, OUTLIER);
        court.settle().await;
        assert_eq!(court.ejected(), [1]);
        court.reload(2, "");
        court.settle().await;
        assert_eq!(court.ejected(), [0; 0]);
        court.fails(1).await;
        assert_eq!(court.ejected(), [0; 0]);
        court.reload(2, OUTLIER);
        court.fails(1).await;
        assert_eq!(court.ejected(), [1]);
    }

    /// Servers are compared every ten seconds, from three on with ten requests each.
    const RATES: &str = "outlier = { consecutive_failures = 0, success_rate_min_servers = 3, success_rate_factor = 1000, \
                         success_rate_min_requests = 10, ejection = \"10s\", max_ejection = \"25s\" }";

    impl Court {
        /// So many requests to a server, of which so many go wrong, spread so that few of them do so in a row.
        fn serves(&self, server: usize, requests: u64, wrong: u64) {
            for number in 0..requests {
                let fails = number * wrong / requests != (number + 1) * wrong / requests;
                self.state(server).report(0, if fails { Outcome::Failure(Lapse::Late) } else { Outcome::Ok });
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_worse_than_the_others_is_ejected_when_they_are_compared() {
        let court = Court::new(4, RATES);
        court.settle().await;
        (0..3).for_each(|server| court.serves(server, 100, 1));
        court.serves(3, 100, 40);
        court.after(10 * SECOND - SECOND / 1000).await;
        assert_eq!(court.ejected(), [0; 0]);
        court.after(SECOND / 500).await;
        assert_eq!(court.ejected(), [3]);
        assert_eq!(
            court.state(3).ejection().unwrap().reason,
            "60.0% of 100 attempts went well, against 89.2% in the pool"
        );
        // What came before the last comparison is not held against anybody again.
        court.after(20 * SECOND).await;
        assert_eq!(court.ejected(), [0; 0]);
        (0..3).for_each(|server| court.serves(server, 100, 0));
        court.serves(3, 9, 9);
        court.after(10 * SECOND).await;
        assert_eq!(court.ejected(), [0; 0], "nine are too few to tell");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_that_do_worse_as_many_of_the_worst_are_ejected_as_may_be() {
        let court = Court::new(5, RATES);
        court.settle().await;
        for (server, wrong) in [0, 0, 95, 0, 90].into_iter().enumerate() {
            court.serves(server, 100, wrong);
        }
        court.after(10 * SECOND + SECOND / 1000).await;
        assert_eq!(court.ejected(), [2, 4]);
        let court = Court::new(5, &RATES.replace("{ ", "{ max_ejected = \"20%\", "));
        court.settle().await;
        for (server, wrong) in [0, 0, 95, 0, 90].into_iter().enumerate() {
            court.serves(server, 100, wrong);
        }
        court.after(10 * SECOND + SECOND / 1000).await;
        assert_eq!(court.ejected(), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn servers_are_compared_as_the_configuration_in_effect_says() {
        let mut court = Court::new(4, RATES);
        court.reload(4, &RATES.replace("success_rate_factor = 1000", "success_rate_factor = 0"));
        (0..3).for_each(|server| court.serves(server, 100, 1));
        court.serves(3, 100, 40);
        court.after(11 * SECOND).await;
        assert_eq!(court.ejected(), [0; 0]);
        court.reload(4, &RATES.replace("{ ", "{ interval = \"1h\", "));
        court.settle().await;
        court.reload(4, &RATES.replace("{ ", "{ interval = \"2s\", "));
        court.settle().await;
        court.after(2 * SECOND + SECOND / 1000).await;
        assert_eq!(court.ejected(), [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_and_keeps_no_server() {
        let court = Court::new(2, OUTLIER);
        court.fails(0).await;
        let state = Arc::downgrade(&court.state(0));
        court.tasks.stop();
        court.tasks.ended().await;
        drop(court);
        assert!(state.upgrade().is_none());
    }
}
