//! Watching the configuration file: a change of its content is a reload.
//!
//! The folder is watched and not the file, since editors, configuration management and Kubernetes replace files rather than
//! write to them. What happened is not asked; after any event the content is compared with what was last tried.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, oneshot};

use super::Command;
use crate::task::Tasks;

/// How long the folder must be quiet before the file is read: several quick writes are one change.
const QUIET: Duration = Duration::from_millis(100);

/// Watches `path` for as long as the instance runs. A file that cannot be watched is said and does not keep from running.
pub(super) fn watch(path: &Path, commands: mpsc::WeakSender<Command>, tasks: &Tasks) {
    // One waiting event is as good as many.
    let (happened, events) = mpsc::channel(1);
    let handler = move |_event: notify::Result<notify::Event>| {
        let _one_waits_already = happened.try_send(());
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
                    () = follow(path, events, commands) => {}
                }
                drop(watcher);
            });
        }
        Err(error) => tracing::warn!(path = %path.display(), "changes of the file are not watched: {error}"),
    }
}

async fn follow(path: PathBuf, mut events: mpsc::Receiver<()>, commands: mpsc::WeakSender<Command>) {
    let mut last = read(&path).await;
    while events.recv().await.is_some() {
        while tokio::time::timeout(QUIET, events.recv()).await.is_ok_and(|event| event.is_some()) {}
        let content = read(&path).await;
        if content == last {
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

/// The content, or `None` while there is no file that can be read. Only its identity counts here: the reload reads it anew,
/// with its bounds.
async fn read(path: &Path) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::io::Read;
    /// As much as the reload would read, and a byte.
    const BOUND: u64 = 16 * 1024 * 1024 + 1;
    let path = path.to_path_buf();
    let hashed = tokio::task::spawn_blocking(move || {
        if !std::fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut content = Vec::new();
        std::fs::File::open(&path).ok()?.take(BOUND).read_to_end(&mut content).ok()?;
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Some(hasher.finish())
    });
    hashed.await.ok().flatten()
}
