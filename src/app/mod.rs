//! The running program: started in order, changed by one writer, stopped in reverse order.
//!
//! [`start`] takes a configuration and returns a [`Running`] instance, which a signal, a file or an embedding program then
//! reloads and stops. It must be called on a tokio runtime, which becomes the control runtime; the data threads have
//! runtimes of their own.

mod certificates;
mod checkers;
mod discovered;
mod drains;
mod fail_open;
mod outliers;
mod primaries;
mod reconcile;
mod sockets;
mod supplies;
mod sources;
mod watch;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot, watch as latest};

use crate::admin::View;
use crate::config::model::AdminHttp;
use crate::config::{Environment, Loaded, Problems, load_file, load_text};
use crate::logging::AccessWriter;
use crate::metrics::Catalogue;
use crate::net::address::{BindAddr, Endpoint};
use crate::snapshot::{Published, Snapshot};
use crate::task::Tasks;
use crate::units::Name;
use crate::worker::{Equipment, Worker};
pub use discovered::{Key as SourceKey, Known, Taken, sources as sources_of, take as take_answer};
pub use drains::{Change as DutyChange, changes as duty_changes};
pub use outliers::Outliers;
pub use primaries::{Deposed, Primaries};
pub use sockets::BindError;
use sockets::explain;
use writer::{Command, Writer};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, which is read again at each reload and watched if it says so.
    File(PathBuf),
    /// A text.
    Text(String),
}

impl Source {
    /// A configuration written out in the program.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Reads it. Blocks on the disk.
    ///
    /// # Errors
    /// Every problem it has.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let environment = Environment::of_this_process();
        match self {
            Self::File(path) => load_file(path, &environment),
            Self::Text(text) => load_text(text, "configuration", Path::new("."), &environment),
        }
    }
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has problems; [`Problems::human`] shows them with their lines.
    #[error("{}", .0.summary())]
    Configuration(Problems),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener cannot listen.
    #[error("admin.http: cannot listen on {address}: {why}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why, with the process in the way if that can be seen.
        why: String,
    },
    /// The access log cannot be opened.
    #[error("log.access: {0}")]
    AccessLog(io::Error),
    /// The system refuses what we cannot do without.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration has problems; [`Problems::human`] shows them with their lines.
    #[error("{}", .0.summary())]
    Configuration(Problems),
    /// A new address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The instance is stopping.
    #[error("the instance is stopping")]
    Stopping,
}

/// What a reload changed.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The generation in effect now.
    pub generation: u64,
    /// What differs from before, for people.
    pub changes: Vec<String>,
    /// What differs and takes effect only when the process starts anew.
    pub needs_restart: Vec<&'static str>,
    /// What somebody should look at all the same.
    pub warnings: Problems,
}

/// How connections ended when the instance stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Those that ended by themselves within the drain timeout.
    pub drained: u64,
    /// Those that were reset when it was over.
    pub reset: u64,
}

/// A running instance. Dropping it stops the instance at once; [`Running::stop`] lets connections finish.
#[derive(Debug)]
pub struct Running {
    commands: mpsc::Sender<Command>,
    view: Arc<View>,
    admin: Option<SocketAddr>,
    stopped: latest::Receiver<Option<Stopped>>,
    control: Tasks,
}

/// Starts an instance. When it returns, every listener accepts.
///
/// # Errors
/// When the configuration has problems or the system refuses what it asks for; nothing is left running then.
pub async fn start(source: Source) -> Result<Running, StartError> {
    let (loaded, files) = watch::load(&source);
    let Loaded { model, warnings } = loaded.map_err(StartError::Configuration)?;
    warnings.lines().for_each(|line| tracing::warn!("{line}"));
    raise_descriptor_limit();
    let catalogue = Catalogue::new(model.workers);
    let access = AccessWriter::open(&model.log.access, model.log.format).map_err(StartError::AccessLog)?;
    let (watched, admin_http, descriptors) = (model.watch, model.admin.http, model.descriptors);
    let published = Arc::new(Published::from_pointee(Snapshot::build(model, None, &catalogue)));
    let view = Arc::new(View::new(Arc::clone(&published), Arc::clone(&catalogue), access.clone()));
    let control = Tasks::new(Arc::clone(&catalogue));

    let admin_listener = match admin_http {
        AdminHttp::Off => None,
        AdminHttp::On(address) => {
            let failed = |error| StartError::Admin { address, why: explain(&error, &BindAddr::Tcp(address)) };
            Some(std::net::TcpListener::bind(address).map_err(failed)?)
        }
    };
    let admin = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let pipes = descriptors.pipes_per_worker;
    let equipment = Equipment { published: Arc::clone(&published), catalogue: Arc::clone(&catalogue), access, pipes };
    let workers = Worker::start_all(&equipment)?;
    let (looked_at, files) = latest::channel(files);
    let writer = Writer::new(source.clone(), equipment, workers, Arc::clone(&view), control.clone(), looked_at);
    let (commands, stopped) = writer.start().await?;
    if let Some(listener) = admin_listener {
        crate::admin::serve(listener, Arc::clone(&view), &control)?;
        if let Some(address) = admin {
            tracing::info!(%address, "the admin listener answers");
        }
    }
    if let (Source::File(path), true) = (&source, watched) {
        watch::watch(path, files, commands.downgrade(), &control);
    }
    certificates::remind(Arc::clone(&published), &control);
    supplies::watch(Arc::clone(&published), Arc::clone(&catalogue), &control);
    let model = &published.load().model;
    tracing::info!(
        workers = model.workers,
        max_connections = model.max_connections,
        descriptors = descriptors.limit,
        reserved = descriptors.reserve,
        version = env!("CARGO_PKG_VERSION"),
        "started"
    );
    Ok(Running { commands, view, admin, stopped, control })
}

impl Running {
    /// Reads the configuration anew from where it came from and puts it into effect.
    ///
    /// # Errors
    /// When it has problems or the system refuses what it asks for; the running configuration is untouched then.
    pub async fn reload(&self) -> Result<Applied, ReloadError> {
        self.ask(|reply| Command::Reload { text: None, reply }).await
    }

    /// Puts another text into effect, which further reloads start from.
    ///
    /// # Errors
    /// As [`Running::reload`].
    pub async fn reload_text(&self, text: &str) -> Result<Applied, ReloadError> {
        self.ask(|reply| Command::Reload { text: Some(text.to_owned()), reply }).await
    }

    /// Opens the access log file anew, as log rotation asks for.
    pub fn reopen_logs(&self) {
        self.view.access().reopen();
    }

    /// Where a listener is found; with the port the kernel chose where port 0 was asked for.
    #[must_use]
    pub fn endpoints(&self, listener: &str) -> Vec<Endpoint> {
        self.view.endpoints().get(listener).cloned().unwrap_or_default()
    }

    /// The first TCP address of a listener.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.endpoints(listener).into_iter().find_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        })
    }

    /// Where the admin listener is found.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Everything that is counted.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        self.view.catalogue()
    }

    /// The snapshot in effect.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.view.snapshot()
    }

    /// The listeners in effect.
    #[must_use]
    pub fn listeners(&self) -> Vec<Name> {
        self.view.endpoints().into_keys().collect()
    }

    /// Stops: listeners close, connections may finish within the drain timeout, the rest are reset. A later
    /// [`Running::stop_now`] cuts that short. Returns how many of each there were.
    pub async fn stop(&self) -> Stopped {
        self.end(false).await
    }

    /// Stops and resets every connection at once.
    pub async fn stop_now(&self) -> Stopped {
        self.end(true).await
    }

    async fn end(&self, at_once: bool) -> Stopped {
        self.view.set_draining();
        // A writer that is gone has stopped already, and has left its result behind.
        let _stopped_before = self.commands.send(Command::Stop { at_once }).await;
        let mut stopped = self.stopped.clone();
        let result = stopped.wait_for(Option::is_some).await.ok().and_then(|stopped| *stopped).unwrap_or_default();
        // The writer has told the control tasks to stop, the admin listener last.
        self.control.ended().await;
        result
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ReloadError>>) -> Command,
    ) -> Result<T, ReloadError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_stopped| ReloadError::Stopping)?;
        answer.await.unwrap_or(Err(ReloadError::Stopping))
    }
}

/// Raises the soft limit of open descriptors to the hard one, on which the configuration was reckoned (getrlimit(2)).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open descriptors cannot be raised: {errno}");
    }
}

/// What metrics show of the configuration in effect.
fn show_snapshot(catalogue: &Catalogue, snapshot: &Snapshot) {
    catalogue.generation.store(snapshot.generation, Ordering::Relaxed);
    catalogue.set_certificates(snapshot.certificates());
    snapshot.pools().for_each(|pool| fail_open::look(&pool.pool));
}
