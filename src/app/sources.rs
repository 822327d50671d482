//! Whom servers are found by: one task for each source, started, kept and stopped as the snapshot says. What they answer is
//! handed to the single writer, and the last good answer of each is kept here.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::discovered::{Key, Known, Taken, sources, take};
use crate::admin::Standing;
use crate::config::model::{Discover, Model, Server};
use crate::discovery::{Asker, Source};
use crate::disk::{self, Folders};
use crate::metrics::{Answered, Catalogue, DiscoveryMetrics};
use crate::task::Tasks;
use crate::units::Name;

/// How many sources are asked at once; the descriptors for that are kept in reserve.
const AT_ONCE: usize = 16;
/// How long the first answers of new sources are waited for before a configuration takes effect without them.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// How long a folder must be quiet before a file in it is read: several quick writes are one change.
const QUIET: Duration = Duration::from_millis(100);
/// How long that is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What a source came to.
type Outcome = Result<Taken, String>;

/// What a source came to, for the writer to note.
#[derive(Debug)]
pub(super) struct Report {
    key: Key,
    /// Of which task it is: there may be another for that source by now.
    number: u64,
    outcome: Outcome,
}

/// The running sources.
#[derive(Debug)]
pub(super) struct Sources {
    tasks: Tasks,
    catalogue: Arc<Catalogue>,
    reports: mpsc::Sender<Report>,
    asking: Arc<Semaphore>,
    running: BTreeMap<Key, Running>,
    started: u64,
    folders: Watching,
}

#[derive(Debug)]
struct Running {
    discover: Discover,
    number: u64,
    stop: CancellationToken,
    /// The last good answer.
    last: Option<Arc<[Server]>>,
    /// What was last said of good answers.
    note: Option<String>,
    in_trouble: bool,
    standing: Arc<Standing>,
    metrics: Arc<DiscoveryMetrics>,
}

/// Sources that were asked for the first time, before their configuration takes effect.
#[derive(Debug, Default)]
pub(super) struct Primed(BTreeMap<Key, Inquiry>);

impl Sources {
    /// None yet. What they come to is sent to `reports`.
    pub(super) fn new(tasks: Tasks, catalogue: Arc<Catalogue>, reports: mpsc::Sender<Report>) -> Self {
        Self {
            tasks,
            catalogue,
            reports,
            asking: Arc::new(Semaphore::new(AT_ONCE)),
            running: BTreeMap::new(),
            started: 0,
            folders: Watching::default(),
        }
    }

    /// Asks every source of a configuration that is not running as it wants it, once and within bounds, so that it need not
    /// take effect without servers.
    pub(super) async fn prime(&self, model: &Model) -> Primed {
        let is_new = |(key, discover): &(Key, &Discover)| {
            self.running.get(key).is_none_or(|running| running.discover != **discover)
        };
        let new: BTreeMap<Key, Inquiry> =
            sources(model).filter(is_new).map(|(key, discover)| (key, Inquiry::new(discover))).collect();
        let asked = stream::iter(new).map(|(key, mut inquiry): (Key, Inquiry)| async move {
            inquiry.ask().await;
            (key, inquiry)
        });
        let mut asked = std::pin::pin!(asked.buffer_unordered(AT_ONCE));
        let (mut primed, until) = (Primed::default(), Instant::now() + FIRST_ANSWERS);
        while let Ok(Some((key, inquiry))) = timeout_at(until, asked.next()).await {
            primed.0.insert(key, inquiry);
        }
        primed
    }

    /// The last good answers, those of the primed sources included.
    pub(super) fn known(&self, primed: &Primed) -> Known {
        let kept =
            self.running.iter().filter_map(|(key, running)| Some((key.clone(), Arc::clone(running.last.as_ref()?))));
        let mut known: BTreeMap<Key, Arc<[Server]>> = kept.collect();
        for (key, inquiry) in &primed.0 {
            if let Some(Ok(taken)) = &inquiry.last
                && taken.is_usable(&inquiry.discover)
            {
                known.insert(key.clone(), Arc::clone(&taken.servers));
            }
        }
        Known(known)
    }

    /// Starts, keeps and stops what the configuration in effect asks for. A source that is asked in another way from now on
    /// keeps its last good answer until it has another.
    pub(super) fn follow(&mut self, model: &Model, primed: Primed) {
        let Primed(mut primed) = primed;
        self.folders.follow(model, &self.tasks);
        let mut wanted = HashSet::new();
        for (key, discover) in sources(model) {
            let is_first = wanted.insert(key.clone());
            let before = self.running.get(&key);
            if !is_first || before.is_some_and(|running| running.discover == *discover) {
                continue;
            }
            let before = self.running.remove(&key);
            if let Some(old) = &before {
                old.stop.cancel();
            }
            let inquiry = primed.remove(&key).unwrap_or_else(|| Inquiry::new(discover));
            self.start(key, inquiry, before);
        }
        self.running.retain(|key, running| {
            let keep = wanted.contains(key);
            if !keep {
                running.stop.cancel();
                running.metrics.ended(&key.1);
            }
            keep
        });
    }

    fn start(&mut self, key: Key, inquiry: Inquiry, before: Option<Running>) {
        self.started += 1;
        let (number, stop) = (self.started, self.tasks.stopping().child_token());
        let metrics = self.catalogue.discovery(&key.0);
        let running = match before {
            Some(before) => Running { discover: inquiry.discover.clone(), number, stop: stop.clone(), ..before },
            None => {
                metrics.begun(&key.1);
                Running {
                    discover: inquiry.discover.clone(),
                    number,
                    stop: stop.clone(),
                    last: None,
                    note: None,
                    in_trouble: false,
                    standing: Arc::new(Standing::new(&key.1)),
                    metrics,
                }
            }
        };
        self.running.insert(key.clone(), running);
        if let Some(outcome) = inquiry.last.clone() {
            // It is in effect already.
            let _is_known = self.note(Report { key: key.clone(), number, outcome });
        }
        let changes = match &inquiry.discover.source {
            Source::File(_) => self.folders.changes(),
            Source::Dns(_) | Source::Http(_) => None,
        };
        let (reports, asking) = (self.reports.clone(), Arc::clone(&self.asking));
        self.tasks.spawn("source", async move {
            let _stopped = stop.run_until_cancelled(inquiry.go_on(key, number, reports, asking, changes)).await;
        });
    }

    /// Notes what a source came to, and says whether other servers are known by now.
    pub(super) fn note(&mut self, report: Report) -> bool {
        let Report { key, number, outcome } = report;
        let (pool, source) = &key;
        let Some(running) = self.running.get_mut(&key).filter(|running| running.number == number) else { return false };
        let trouble = match outcome {
            Ok(taken) if taken.is_usable(&running.discover) => {
                if std::mem::take(&mut running.in_trouble) {
                    tracing::info!(%pool, source, "servers are found again: {} in the answer", taken.servers.len());
                }
                if let Some(note) = taken.note.as_ref().filter(|_| taken.note != running.note) {
                    tracing::warn!(%pool, source, "{note}");
                }
                let is_news = running.last.as_ref() != Some(&taken.servers);
                running.metrics.answered(source, if is_news { Answered::Changed } else { Answered::Same });
                running.standing.answered(taken.servers.len());
                (running.note, running.last) = (taken.note, Some(taken.servers));
                return is_news;
            }
            Ok(_) => {
                running.metrics.answered(source, Answered::Empty);
                "the answer has no servers".to_owned()
            }
            Err(why) => {
                running.metrics.answered(source, Answered::Failed);
                why
            }
        };
        if !std::mem::replace(&mut running.in_trouble, true) {
            let kept = running.last.as_ref().map_or(0, |servers| servers.len());
            tracing::warn!(%pool, source, "no servers are found: {trouble}; {kept} found before are kept");
        }
        running.standing.failed(&trouble);
        false
    }

    /// How each source does, by pools.
    pub(super) fn standings(&self) -> BTreeMap<Name, Vec<Arc<Standing>>> {
        let mut all: BTreeMap<Name, Vec<Arc<Standing>>> = BTreeMap::new();
        for ((pool, _), running) in &self.running {
            all.entry(pool.clone()).or_default().push(Arc::clone(&running.standing));
        }
        all
    }

    /// Shows in the metrics how many of the servers in effect were found and not asked for by their addresses.
    pub(super) fn count(&self, asked: &Model, in_effect: &Model) {
        for (asked, pool) in asked.pools.iter().zip(&in_effect.pools).filter(|(asked, _)| !asked.discover.is_empty()) {
            self.catalogue.discovery(&pool.name).set_servers(pool.servers.len().saturating_sub(asked.servers.len()));
        }
    }
}

/// One source, asked time and again.
#[derive(Debug)]
struct Inquiry {
    discover: Discover,
    asker: Asker,
    last: Option<Outcome>,
    /// How many questions in a row led to no servers.
    failures: u32,
    ttl: Option<Duration>,
}

impl Inquiry {
    fn new(discover: &Discover) -> Self {
        let asker = Asker::new(&discover.source, &discover.terms);
        Self { discover: discover.clone(), asker, last: None, failures: 0, ttl: None }
    }

    /// Asks once.
    async fn ask(&mut self) {
        let answer = self.asker.ask().await;
        self.ttl = answer.as_ref().ok().and_then(|answer| answer.ttl);
        match answer.and_then(|answer| take(answer.content, &self.discover)) {
            Ok(None) => {}
            Ok(Some(taken)) => self.last = Some(Ok(taken)),
            Err(why) => self.last = Some(Err(why)),
        }
        let found = self.last.as_ref().is_some_and(|last| last.as_ref().is_ok_and(|taken| !taken.servers.is_empty()));
        self.failures = if found { 0 } else { self.failures.saturating_add(1) };
    }

    /// How long to wait before asking again, give or take a tenth, so that many do not ask at the same time.
    fn pause(&self) -> Duration {
        let terms = &self.discover.terms;
        let pause = if self.failures == 0 { terms.pause(self.ttl) } else { terms.pause_after_failures(self.failures) };
        pause.mul_f64(0.9 + fastrand::f64() / 5.0)
    }

    /// Asks for as long as it is let to, and reports.
    async fn go_on(
        mut self,
        key: Key,
        number: u64,
        reports: mpsc::Sender<Report>,
        asking: Arc<Semaphore>,
        mut changes: Option<watch::Receiver<()>>,
    ) {
        // One that was asked a moment ago waits first.
        let mut waits = self.last.is_some();
        loop {
            if waits {
                tokio::select! {
                    () = sleep(self.pause()) => {}
                    () = settled(changes.as_mut()) => {}
                }
            }
            waits = true;
            let Ok(_permit) = asking.acquire().await else { return };
            self.ask().await;
            let Some(outcome) = self.last.clone() else { continue };
            if reports.send(Report { key: key.clone(), number, outcome }).await.is_err() {
                return;
            }
        }
    }
}

/// Waits for a change in a folder and for what follows it at once; for ever where none is heard of.
async fn settled(changes: Option<&mut watch::Receiver<()>>) {
    let Some(changes) = changes else { return std::future::pending().await };
    if changes.changed().await.is_err() {
        return std::future::pending().await;
    }
    let quiet = async { while timeout(QUIET, changes.changed()).await.is_ok_and(|changed| changed.is_ok()) {} };
    let _busy_folder = timeout(LONGEST_WAIT, quiet).await;
}

/// The folders of files that servers are found by.
#[derive(Debug)]
struct Watching {
    happened: watch::Sender<()>,
    folders: Option<Arc<Folders>>,
}

impl Default for Watching {
    fn default() -> Self {
        Self { happened: watch::Sender::new(()), folders: None }
    }
}

impl Watching {
    /// Watches what the configuration asks for, and nothing else any more. What cannot be watched is read now and then.
    fn follow(&mut self, model: &Model, tasks: &Tasks) {
        let wanted: HashSet<PathBuf> = sources(model)
            .filter(|_| model.watch)
            .filter_map(|(_, discover)| match &discover.source {
                Source::File(path) => Some(disk::folder(path)),
                Source::Dns(_) | Source::Http(_) => None,
            })
            .collect();
        if self.folders.is_none() && !wanted.is_empty() {
            match Folders::new() {
                Ok(folders) => self.begin(folders, tasks),
                Err(error) => tracing::warn!("changes of files with servers are not watched: {error}"),
            }
        }
        let Some(folders) = &self.folders else { return };
        folders.follow(&wanted, |folder, errno| {
            tracing::warn!(folder = %folder.display(), "changes of files with servers are not watched: {errno}");
        });
    }

    fn begin(&mut self, folders: Folders, tasks: &Tasks) {
        let folders = Arc::new(folders);
        self.folders = Some(Arc::clone(&folders));
        let (happened, stop) = (self.happened.clone(), tasks.stopping().clone());
        tasks.spawn("folders", async move {
            let hearing = async {
                while folders.changed().await.is_ok() {
                    happened.send_replace(());
                }
            };
            let _stopped = stop.run_until_cancelled(hearing).await;
        });
    }

    /// Hears of changes in any of them, the first at once: a file may have changed before its folder was watched.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        let mut changes = self.folders.as_ref().map(|_| self.happened.subscribe())?;
        changes.mark_changed();
        Some(changes)
    }
}
