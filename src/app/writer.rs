//! The single writer: the one task that changes what is in effect, a command at a time.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::checkers::Checkers;
use super::discovered::Difference;
use super::drains::{self, Drains};
use super::fail_open;
use super::outliers::Outliers;
use super::primaries::{Deposed, Primaries};
use super::reconcile::{Adoption, Opening, Plan, reconcile, shown};
use super::sockets::{BindError, Bound, Sockets};
use super::sources::{Primed, Report, Sources};
use super::watch::load;
use super::{Applied, ReloadError, Source, Stopped, show_snapshot};
use crate::admin::{ReloadNote, View};
use crate::backend::{Duty, State};
use crate::config::Loaded;
use crate::config::model::{Files, Model, OnDown};
use crate::ending::Reason;
use crate::health::{Change, Found};
use crate::proxy::Target;
use crate::snapshot::Snapshot;
use crate::task::Tasks;
use crate::units::Name;
use crate::worker::{Equipment, Order, Worker};

/// How many commands and findings may wait.
const WAITING: usize = 1024;
/// How often a snapshot that was replaced is looked at, until the last connection that was being set up by it has let go, and
/// a server that is taken out of service, until its last connection has ended.
const ROUND: Duration = Duration::from_secs(1);
/// How soon answers of sources take effect: several at once are one change.
const GATHERING: Duration = Duration::from_millis(10);
/// How long it is at least from one change of servers that were found to the next, however often sources change their minds.
const BETWEEN_REBUILDS: Duration = Duration::from_secs(1);
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
    primaries: Primaries,
    drains: Drains,
    /// What was asked for: the configuration without the servers that were found.
    asked: Arc<Model>,
    sources: Sources,
    reports: mpsc::Receiver<Report>,
    /// When servers that were found take effect next, if there are others by now.
    rebuild_at: Option<Instant>,
    rebuilt: Option<Instant>,
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
        let (answers, reports) = mpsc::channel(WAITING);
        let sources = Sources::new(control.clone(), Arc::clone(&equipment.catalogue), answers);
        let asked = Arc::new(equipment.published.load().model.clone());
        Self {
            source,
            equipment,
            workers,
            sockets: Sockets::default(),
            checkers,
            found,
            outliers,
            primaries: Primaries::default(),
            drains: Drains::default(),
            asked,
            sources,
            reports,
            rebuild_at: None,
            rebuilt: None,
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
        self.primaries.prepare(&snapshot);
        snapshot.take_over();
        show_snapshot(&self.equipment.catalogue, &snapshot);
        // Clients may connect by now and wait.
        let primed = self.sources.prime(&self.asked).await;
        // None of it has served anybody yet, so that nothing is carried over and no server is new among others.
        let snapshot = match self.with_servers_found(&primed, None).await {
            Some(with_servers) => self.publish(with_servers, snapshot),
            None => snapshot,
        };
        self.primaries.follow(&snapshot);
        self.listen(bound).await;
        self.follow(&snapshot, primed);
        let (commands, inbox) = mpsc::channel(WAITING);
        let (result, stopped) = watch::channel(None);
        let control = self.control.clone();
        control.spawn("writer", self.run(inbox, result));
        Ok((commands, stopped))
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, result: watch::Sender<Option<Stopped>>) {
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                () = tokio::time::sleep_until(self.primaries.due().unwrap_or_else(Instant::now)), if self.primaries.due().is_some() => {
                    let snapshot = self.equipment.published.load_full();
                    let deposed = self.primaries.look_at_due(&snapshot);
                    self.depose(deposed, &snapshot).await;
                }
                Some(report) = self.reports.recv() => self.note_report(report),
                () = tokio::time::sleep_until(self.rebuild_at.unwrap_or_else(Instant::now)), if self.rebuild_at.is_some() => {
                    self.rebuild().await;
                }
                _ = round.tick(), if !(self.retired.is_empty() && self.drains.is_empty()) => {
                    self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
                    self.drains.look();
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
        let from = source.clone();
        // Reading and building take a while for a large configuration, and checks and the admin listener go on meanwhile.
        let Ok((loaded, mut files)) = tokio::task::spawn_blocking(move || load(&from)).await else {
            return Err(ReloadError::Stopping);
        };
        if let Source::File(own) = &self.source {
            // Where a text was tried in its place, the file is as it was.
            files.entry(own.clone()).or_insert_with(|| self.looked_at.borrow().get(own).copied().flatten());
        }
        self.looked_at.send_replace(files);
        let Loaded { mut model, warnings } = loaded.map_err(ReloadError::Configuration)?;
        let primed = self.sources.prime(&model).await;
        let (before, known) = (Arc::clone(&previous), self.sources.known(&primed));
        let built = tokio::task::spawn_blocking(move || {
            let mut with_servers = model.clone();
            known.add_to(&mut with_servers);
            let plan = reconcile(&before.model, &with_servers);
            // What takes effect at the next start only is kept as it is, so that the next reload compares with the truth.
            for model in [&mut model, &mut with_servers] {
                model.workers = before.model.workers;
                model.watch = before.model.watch;
                model.admin = before.model.admin.clone();
                model.log = before.model.log.clone();
            }
            (model, Snapshot::build(with_servers, Some(&before), &catalogue), plan)
        });
        let Ok((asked, snapshot, plan)) = built.await else { return Err(ReloadError::Stopping) };
        let bound = Sockets::bind(&plan.open, self.workers.len())?;

        let drained = self.drained_listeners(&previous, &plan.removed_listeners);
        let duties = drains::changes(&previous, &snapshot);
        let snapshot = self.publish(snapshot, previous);
        self.renew().await;
        self.source = source;
        self.asked = Arc::new(asked);
        self.view.access().reopen();
        self.adopt(&plan.adopt, &snapshot).await;
        self.listen(bound).await;
        self.silence(&plan.close).await;
        let by = Instant::now() + snapshot.drain_timeout();
        for target in drained {
            self.call_back(target, by, Reason::Drained).await;
        }
        for change in duties {
            self.change_duty(change).await;
        }
        self.follow(&snapshot, primed);
        // Once it is forgotten what was found of servers that have moved.
        let deposed = self.primaries.follow(&snapshot);
        self.depose(deposed, &snapshot).await;
        let Plan { changes, needs_restart, .. } = plan;
        Ok(Applied { generation: snapshot.generation, changes, needs_restart, warnings })
    }

    /// Puts a snapshot into effect.
    fn publish(&mut self, mut snapshot: Snapshot, previous: Arc<Snapshot>) -> Arc<Snapshot> {
        snapshot.succeed(&previous);
        let snapshot = Arc::new(snapshot);
        self.primaries.prepare(&snapshot);
        self.equipment.published.store(Arc::clone(&snapshot));
        self.retired.push(previous);
        snapshot.take_over();
        show_snapshot(&self.equipment.catalogue, &snapshot);
        snapshot
    }

    /// Has workers without requests let go of the snapshot before.
    async fn renew(&self) {
        for worker in &self.workers {
            let _ended_before = worker.orders.send(Order::Renew).await;
        }
    }

    /// Lets all that goes on beside the workers be as a snapshot says.
    fn follow(&mut self, snapshot: &Snapshot, primed: Primed) {
        self.checkers.follow(snapshot);
        self.outliers.follow(snapshot);
        self.sources.follow(&snapshot.model, primed);
        self.sources.count(&self.asked, &snapshot.model);
        self.view.set_sources(self.sources.standings());
    }

    /// What was asked for with the servers that are known by now; nothing where it makes no difference.
    async fn with_servers_found(&self, primed: &Primed, carried: Option<Arc<Snapshot>>) -> Option<Snapshot> {
        let (known, asked) = (self.sources.known(primed), Arc::clone(&self.asked));
        let (before, catalogue) = (self.equipment.published.load_full(), Arc::clone(&self.equipment.catalogue));
        let built = tokio::task::spawn_blocking(move || {
            let mut model = Model::clone(&asked);
            known.add_to(&mut model);
            (model != before.model).then(|| match carried {
                Some(carried) => Snapshot::rebuild(model, &carried, &catalogue),
                None => Snapshot::build(model, None, &catalogue),
            })
        });
        built.await.ok().flatten()
    }

    /// A source has answered, or not.
    fn note_report(&mut self, report: Report) {
        if self.sources.note(report) {
            let soonest = Instant::now() + GATHERING;
            let at = self.rebuilt.map_or(soonest, |before| soonest.max(before + BETWEEN_REBUILDS));
            self.rebuild_at.get_or_insert(at);
        }
    }

    /// Puts servers that were found into effect: one log line for each pool, and the connections of those that are no more are
    /// dealt with as the pool says of servers that go down.
    async fn rebuild(&mut self) {
        self.rebuild_at = None;
        let previous = self.equipment.published.load_full();
        let built = self.with_servers_found(&Primed::default(), Some(Arc::clone(&previous))).await;
        let Some(snapshot) = built else { return };
        let duties = drains::changes(&previous, &snapshot);
        let snapshot = self.publish(snapshot, Arc::clone(&previous));
        self.renew().await;
        self.rebuilt = Some(Instant::now());
        for change in duties {
            self.change_duty(change).await;
        }
        self.follow(&snapshot, Primed::default());
        let deposed = self.primaries.follow(&snapshot);
        self.depose(deposed, &snapshot).await;
        for (old, new) in previous.model.pools.iter().zip(&snapshot.model.pools) {
            let Some(difference) = Difference::between(old, new) else { continue };
            tracing::info!(pool = %new.name, "other servers were found: {difference}; {} in all", new.servers.len());
            let Some(pool) = previous.pool(&old.name).filter(|_| new.on_down != OnDown::Keep) else { continue };
            let removed: HashSet<Name> = difference.removed.into_iter().collect();
            for server in pool.pool.servers().filter(|server| removed.contains(&server.state.name)) {
                self.end_connections(&server.state, new.on_down, &snapshot).await;
            }
        }
    }

    /// Deals with the connections of a server that is down or no more.
    async fn end_connections(&self, server: &Arc<State>, on_down: OnDown, snapshot: &Snapshot) {
        let now = Instant::now();
        let by = match on_down {
            OnDown::Keep => return,
            OnDown::Drain => now + snapshot.drain_timeout(),
            OnDown::Reset => now,
        };
        let count = server.active();
        self.call_back(Target::Server(Arc::clone(server)), by, Reason::ServerDown).await;
        if count > 0 {
            let (pool, name) = (&server.pool, &server.name);
            tracing::info!(%pool, server = %name, "{count} of its connections and requests are to end");
        }
    }

    fn drained_listeners(&self, previous: &Snapshot, removed: &[Name]) -> Vec<Target> {
        let metrics = removed.iter().filter_map(|name| previous.listener(name));
        metrics.map(|listener| Target::Listener(Arc::clone(&listener.metrics))).collect()
    }

    /// A server is taken out of service, or put back.
    async fn change_duty(&mut self, change: drains::Change) {
        if change.duty == Duty::Ready {
            change.server.warm_up();
        }
        self.drains.note(&change);
        if let Some(limit) = change.limit {
            self.call_back(Target::Server(change.server), Instant::now() + limit, Reason::Drained).await;
        }
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

    /// Connections of servers that are no longer primaries are dealt with as their pools say of servers that go down.
    async fn depose(&self, deposed: Vec<Deposed>, snapshot: &Snapshot) {
        for Deposed(server) in deposed {
            if let Some(pool) = snapshot.pool(&server.pool) {
                self.end_connections(&server, pool.on_down, snapshot).await;
            }
        }
    }

    /// Something was found of a server: one log line, and if it is down its connections are dealt with as its pool says.
    async fn note(&mut self, found: Found) {
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
            }
        }
        // What follows from it is said behind it, and done before anybody is waited for.
        fail_open::look(&pool.pool);
        let deposed = self.primaries.look(pool).map(|Deposed(old)| old);
        let down = (change == Change::Down).then_some(server);
        let is_another = |old: &Arc<State>| down.as_ref().is_none_or(|down| !Arc::ptr_eq(old, down));
        let deposed = deposed.filter(is_another);
        for server in down.iter().chain(&deposed) {
            self.end_connections(server, pool.on_down, &snapshot).await;
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
