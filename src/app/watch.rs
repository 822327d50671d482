//! Watching the configuration file: a change of its content is a reload.
//!
//! The folder is watched and not the file, since editors, configuration management and Kubernetes replace files rather than
//! write to them. What happened is not asked; after any event the content is compared with what was last tried.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, oneshot};

use super::Command;
use crate::task::Tasks;

/// How long the folder must be quiet before the file is read: several quick writes are one change.
const QUIET: Duration = Duration::from_millis(100);

/// How long that is waited for: other files of the folder, such as a log, may change without end.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Watches `path` for as long as the instance runs, for content that is not `known`. A file that cannot be watched is said
/// and does not keep from running.
pub(super) fn watch(path: &Path, known: Option<Content>, commands: mpsc::WeakSender<Command>, tasks: &Tasks) {
    // One waiting event is as good as many.
    let (happened, events) = mpsc::channel(1);
    let handler = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event, too.
        if !event.is_ok_and(|event| is_reading(event.kind)) {
            let _one_waits_already = happened.try_send(());
        }
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let started = notify::recommended_watcher(handler)
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    match started {
        Ok(watcher) => {
            let path = path.to_path_buf();
            let stop = tasks.stopping().clone();
            tasks.spawn("watch", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = follow(path, known, events, commands) => {}
                }
                drop(watcher);
            });
        }
        Err(error) => tracing::warn!(path = %path.display(), "changes of the file are not watched: {error}"),
    }
}

/// Whether an event leaves every file as it was.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

async fn follow(
    path: PathBuf,
    mut last: Option<Content>,
    mut events: mpsc::Receiver<()>,
    commands: mpsc::WeakSender<Command>,
) {
    // Between reading it at the start and watching it, it may have changed without an event.
    let mut looking = Some(());
    while looking.is_some() {
        let quiet =
            async { while tokio::time::timeout(QUIET, events.recv()).await.is_ok_and(|event| event.is_some()) {} };
        let _busy_folder = tokio::time::timeout(LONGEST_WAIT, quiet).await;
        let content = read(&path).await;
        if content == last {
            looking = events.recv().await;
            continue;
        }
        last = content;
        let Some(commands) = commands.upgrade() else { return };
        let (reply, answer) = oneshot::channel();
        if commands.send(Command::Reload { text: None, reply }).await.is_err() {
            return;
        }
        // The writer has said how it went.
        let _logged = answer.await;
    }
}

/// What stands in a file, as far as it takes to tell it from something else. The reload reads the file anew, with its
/// bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content(u64);

impl Content {
    /// Reads it; `None` while there is no file that can be read. Blocks on the disk.
    pub(super) fn of(path: &Path) -> Option<Self> {
        /// As much as the reload would read, and a byte.
        const BOUND: u64 = 16 * 1024 * 1024 + 1;
        if !std::fs::metadata(path).ok()?.is_file() {
            return None;
        }
        let mut content = Vec::new();
        std::fs::File::open(path).ok()?.take(BOUND).read_to_end(&mut content).ok()?;
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Some(Self(hasher.finish()))
    }
}

async fn read(path: &Path) -> Option<Content> {
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || Content::of(&path)).await.ok().flatten()
}
