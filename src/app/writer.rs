//! The single writer: the one task that changes what is in effect, a command at a time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::checkers::Checkers;
use super::outliers::Outliers;
use super::reconcile::{Adoption, Opening, Plan, reconcile, shown};
use super::sockets::{BindError, Bound, Sockets};
use super::{Applied, ReloadError, Source, Stopped, show_snapshot};
use crate::admin::{ReloadNote, View};
use crate::config::model::{Files, OnDown};
use crate::config::{Loaded, Problems};
use crate::ending::Reason;
use crate::health::{Change, Found};
use crate::proxy::Target;
use crate::snapshot::Snapshot;
use crate::task::Tasks;
use crate::units::Name;
use crate::worker::{Equipment, Order, Worker};

/// How many commands and findings may wait.
const WAITING: usize = 1024;
/// How often a snapshot that was replaced is looked at, until the last connection that was being set up by it has let go.
const RETIREMENT: Duration = Duration::from_secs(1);
/// How long workers may take to end once the time of their connections is over.
const GRACE: Duration = Duration::from_secs(5);

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Put the configuration into effect anew, from this text if there is one and else from where it came from.
    Reload { text: Option<String>, reply: oneshot::Sender<Result<Applied, ReloadError>> },
    /// Stop.
    Stop { at_once: bool },
}

/// The single writer and all it owns.
#[derive(Debug)]
pub(super) struct Writer {
    source: Source,
    equipment: Equipment,
    workers: Vec<Worker>,
    sockets: Sockets,
    checkers: Checkers,
    found: mpsc::Receiver<Found>,
    outliers: Outliers,
    view: Arc<View>,
    control: Tasks,
    /// Hears which files the last configuration tried was made of.
    looked_at: watch::Sender<Files>,
    /// Snapshots that were replaced. They are dropped here and not by the worker that happens to be last to use one: that
    /// takes a while when there are many servers.
    retired: Vec<Arc<Snapshot>>,
}

impl Writer {
    pub(super) fn new(
        source: Source,
        equipment: Equipment,
        workers: Vec<Worker>,
        view: Arc<View>,
        control: Tasks,
        looked_at: watch::Sender<Files>,
    ) -> Self {
        let (findings, found) = mpsc::channel(WAITING);
        let checkers = Checkers::new(control.clone(), findings);
        let outliers = Outliers::new(Arc::clone(&equipment.published), control.clone());
        Self {
            source,
            equipment,
            workers,
            sockets: Sockets::default(),
            checkers,
            found,
            outliers,
            view,
            control,
            looked_at,
            retired: Vec::new(),
        }
    }

    /// Opens the listeners of the first snapshot and starts taking commands.
    pub(super) async fn start(
        mut self,
    ) -> Result<(mpsc::Sender<Command>, watch::Receiver<Option<Stopped>>), BindError> {
        let snapshot = self.equipment.published.load_full();
        let openings: Vec<Opening> = snapshot
            .model
            .listeners
            .iter()
            .flat_map(|listener| {
                listener.bind.iter().map(|bind| Opening {
                    binding: (listener.name.clone(), bind.clone()),
                    backlog: listener.backlog,
                    displaces: false,
                })
            })
            .collect();
        let bound = Sockets::bind(&openings, self.workers.len())?;
        snapshot.take_over();
        show_snapshot(&self.equipment.catalogue, &snapshot);
        self.listen(bound).await;
        self.checkers.follow(&snapshot);
        self.outliers.follow(&snapshot);
        let (commands, inbox) = mpsc::channel(WAITING);
        let (result, stopped) = watch::channel(None);
        let control = self.control.clone();
        control.spawn("writer", self.run(inbox, result));
        Ok((commands, stopped))
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, result: watch::Sender<Option<Stopped>>) {
        let at_once = loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Reload { text, reply }) => {
                        let outcome = self.reload(text).await;
                        let _asker_left = reply.send(outcome);
                    }
                    Some(Command::Stop { at_once }) => break at_once,
                    None => break true,
                },
                Some(found) = self.found.recv() => self.note(found).await,
                () = tokio::time::sleep(RETIREMENT), if !self.retired.is_empty() => {
                    self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
                }
            }
        };
        let stopped = self.stop(at_once, &mut inbox).await;
        let _nobody_waits = result.send(Some(stopped));
    }

    /// A reload, counted and logged.
    async fn reload(&mut self, text: Option<String>) -> Result<Applied, ReloadError> {
        let catalogue = Arc::clone(&self.equipment.catalogue);
        let outcome = self.try_reload(text).await;
        match &outcome {
            Ok(applied) => {
                catalogue.reloads_applied.fetch_add(1, Ordering::Relaxed);
                let changes = summary(&applied.changes);
                self.note_reload(true, changes.clone());
                tracing::info!(generation = applied.generation, "reloaded: {changes}");
                if !applied.needs_restart.is_empty() {
                    tracing::warn!("takes effect at the next start only: {}", applied.needs_restart.join(", "));
                }
                applied.warnings.lines().for_each(|line| tracing::warn!("{line}"));
            }
            Err(error) => {
                catalogue.reloads_failed.fetch_add(1, Ordering::Relaxed);
                self.note_reload(false, error.to_string());
                tracing::error!("the reload failed and changed nothing: {error}");
                if let ReloadError::Configuration(problems) = error {
                    tracing::error!("{}", problems.human(false));
                }
            }
        }
        outcome
    }

    fn note_reload(&self, applied: bool, message: String) {
        self.view.set_last_reload(ReloadNote { at: SystemTime::now(), applied, message });
    }

    /// Everything that can fail comes first; what follows the publishing cannot.
    async fn try_reload(&mut self, text: Option<String>) -> Result<Applied, ReloadError> {
        let source = text.map_or_else(|| self.source.clone(), Source::Text);
        let previous = self.equipment.published.load_full();
        let catalogue = Arc::clone(&self.equipment.catalogue);
        let (before, from) = (Arc::clone(&previous), source.clone());
        // Reading and building take a while for a large configuration, and checks and the admin listener go on meanwhile.
        let built = tokio::task::spawn_blocking(move || -> Result<(Snapshot, Plan, Problems), Problems> {
            let Loaded { mut model, warnings } = from.load()?;
            let plan = reconcile(&before.model, &model);
            // What takes effect at the next start only is kept as it is, so that the next reload compares with the truth.
            model.workers = before.model.workers;
            model.watch = before.model.watch;
            model.admin = before.model.admin.clone();
            model.log = before.model.log.clone();
            Ok((Snapshot::build(model, Some(&before), &catalogue), plan, warnings))
        });
        let built = match built.await {
            Ok(built) => built,
            Err(_panicked_or_stopping) => return Err(ReloadError::Stopping),
        };
        let files = match &built {
            Ok((_, _, warnings)) => warnings.files(),
            Err(problems) => problems.files(),
        };
        self.looked_at.send_replace(files.clone());
        let (mut snapshot, plan, warnings) = built.map_err(ReloadError::Configuration)?;
        let bound = Sockets::bind(&plan.open, self.workers.len())?;

        snapshot.succeed(&previous);
        let snapshot = Arc::new(snapshot);
        let drained = self.drained_listeners(&previous, &plan.removed_listeners);
        self.equipment.published.store(Arc::clone(&snapshot));
        self.retired.push(previous);
        snapshot.take_over();
        show_snapshot(&self.equipment.catalogue, &snapshot);
        self.source = source;
        self.view.access().reopen();
        self.adopt(&plan.adopt, &snapshot).await;
        self.listen(bound).await;
        self.silence(&plan.close).await;
        let by = Instant::now() + snapshot.drain_timeout();
        for target in drained {
            self.call_back(target, by, Reason::Drained).await;
        }
        self.checkers.follow(&snapshot);
        self.outliers.follow(&snapshot);
        let Plan { changes, needs_restart, .. } = plan;
        Ok(Applied { generation: snapshot.generation, changes, needs_restart, warnings })
    }

    fn drained_listeners(&self, previous: &Snapshot, removed: &[Name]) -> Vec<Target> {
        let metrics = removed.iter().filter_map(|name| previous.listener(name));
        metrics.map(|listener| Target::Listener(Arc::clone(&listener.metrics))).collect()
    }

    /// Gives newly bound sockets to the workers.
    async fn listen(&mut self, bound: Vec<Bound>) {
        let snapshot = self.equipment.published.load_full();
        for Bound { binding, endpoint, sockets } in bound {
            let (name, address) = binding.clone();
            let Some(listener) = snapshot.listener(&name) else { continue };
            tracing::info!(listener = %name, address = %shown(&address, &endpoint), "listening");
            let id = self.sockets.insert(binding, endpoint);
            for (worker, socket) in self.workers.iter().zip(sockets) {
                let (name, metrics) = (name.clone(), Arc::clone(&listener.metrics));
                let opened = order(worker, |done| Order::Listen { id, socket, name, metrics, done }).await;
                if let Some(Err(error)) = opened {
                    tracing::error!(listener = %listener.metrics.name(), "a worker cannot accept: {error}");
                }
            }
        }
        self.view.set_endpoints(self.sockets.endpoints());
    }

    async fn adopt(&mut self, adoptions: &[Adoption], snapshot: &Snapshot) {
        for Adoption { from, to, backlog } in adoptions {
            let (Some(id), Some(listener)) = (self.sockets.rename(from, to.clone()), snapshot.listener(to)) else {
                continue;
            };
            self.order_all(|done| Order::Adopt {
                id,
                name: to.clone(),
                metrics: Arc::clone(&listener.metrics),
                backlog: *backlog,
                done,
            })
            .await;
        }
        self.view.set_endpoints(self.sockets.endpoints());
    }

    async fn silence(&mut self, bindings: &[super::reconcile::Binding]) {
        if bindings.is_empty() {
            return;
        }
        let ids = self.sockets.remove(bindings);
        self.order_all(|done| Order::Silence { ids: ids.clone(), done }).await;
        self.view.set_endpoints(self.sockets.endpoints());
    }

    async fn call_back(&self, target: Target, by: Instant, reason: Reason) -> usize {
        let counts = self.order_all(|done| Order::CallBack { target: target.clone(), by, reason, done }).await;
        counts.into_iter().sum()
    }

    /// Gives every worker an order, all at once, and returns their answers.
    async fn order_all<T>(&self, make: impl Fn(oneshot::Sender<T>) -> Order) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            if worker.orders.send(make(done)).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.extend(answer.await);
        }
        all
    }

    /// Something was found of a server: one log line, and if it is down its connections are dealt with as its pool says.
    async fn note(&self, found: Found) {
        let Found { server, change, reason } = found;
        let snapshot = self.equipment.published.load_full();
        let Some(pool) = snapshot.pool(&server.pool) else { return };
        let (left, of) = (pool.pool.open_servers(), pool.pool.servers().count());
        match change {
            Change::Up => {
                tracing::info!(pool = %server.pool, server = %server.name, "server is up: {reason}; {left} of {of} are open");
            }
            Change::Role(role) => {
                tracing::info!(pool = %server.pool, server = %server.name, "server is {role}: {reason}");
            }
            Change::Share(share) => {
                tracing::info!(pool = %server.pool, server = %server.name, "server takes {share} of its weight: {reason}");
            }
            Change::Down => {
                self.outliers.look();
                tracing::warn!(pool = %server.pool, server = %server.name, "server is down: {reason}; {left} of {of} are open");
                let now = Instant::now();
                let by = match pool.on_down {
                    OnDown::Keep => None,
                    OnDown::Drain => Some(now + snapshot.drain_timeout()),
                    OnDown::Reset => Some(now),
                };
                if let Some(by) = by {
                    let count = self.call_back(Target::Server(Arc::clone(&server)), by, Reason::ServerDown).await;
                    tracing::info!(pool = %server.pool, server = %server.name, "{count} of its connections are to end");
                }
            }
        }
    }

    /// Stops in reverse order of the start: listeners, connections, workers; the admin listener goes last.
    async fn stop(mut self, at_once: bool, inbox: &mut mpsc::Receiver<Command>) -> Stopped {
        self.view.set_draining();
        let catalogue = Arc::clone(&self.equipment.catalogue);
        self.silence(&self.sockets.bindings()).await;
        let snapshot = self.equipment.published.load_full();
        let limit = if at_once { Duration::ZERO } else { snapshot.drain_timeout() };
        let reset_before = catalogue.endings(Reason::Shutdown);
        let open = self.call_back(Target::All, Instant::now() + limit, Reason::Shutdown).await;
        tracing::info!(connections = open, "stopping: listeners are closed, connections have {limit:?} to finish");
        for worker in &self.workers {
            let _ended_before = worker.orders.send(Order::Finish).await;
        }
        let finished = self.finished();
        tokio::pin!(finished);
        let mut deadline = Instant::now() + limit + GRACE;
        loop {
            tokio::select! {
                () = &mut finished => {
                    let workers = std::mem::take(&mut self.workers);
                    // Their connections are over; what is left of them is over in a moment.
                    let _joined = tokio::task::spawn_blocking(|| workers.into_iter().for_each(Worker::join)).await;
                    break;
                }
                () = tokio::time::sleep_until(deadline) => {
                    tracing::error!("a worker did not end in time and is left behind");
                    break;
                }
                Some(command) = inbox.recv() => match command {
                    Command::Reload { reply, .. } => { let _asker_left = reply.send(Err(ReloadError::Stopping)); }
                    Command::Stop { at_once: true } => {
                        let now = Instant::now();
                        deadline = now + GRACE;
                        self.call_back(Target::All, now, Reason::Shutdown).await;
                    }
                    Command::Stop { at_once: false } => {}
                },
            }
        }
        let reset = catalogue.endings(Reason::Shutdown) - reset_before;
        let drained = (open as u64).saturating_sub(reset);
        tracing::info!(drained, reset, "stopped");
        self.control.stop();
        Stopped { drained, reset }
    }

    /// Waits until every worker's inbox is closed, which is when it has ended.
    fn finished(&self) -> impl Future<Output = ()> + 'static {
        let orders: Vec<_> = self.workers.iter().map(|worker| worker.orders.clone()).collect();
        async move {
            for orders in orders {
                orders.closed().await;
            }
        }
    }
}

/// Gives one worker an order and returns its answer, unless it has ended.
async fn order<T>(worker: &Worker, make: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
    let (done, answer) = oneshot::channel();
    worker.orders.send(make(done)).await.ok()?;
    answer.await.ok()
}

/// The changes in one line of bearable length.
fn summary(changes: &[String]) -> String {
    const SHOWN: usize = 10;
    if changes.is_empty() {
        return "nothing changed".to_owned();
    }
    let mut text = changes.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if changes.len() > SHOWN {
        text.push_str(&format!(" and {} more", changes.len() - SHOWN));
    }
    text
}
