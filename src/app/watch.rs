//! Watching the configuration file and those it was made of: a change of content is a reload.
//!
//! What happened is not asked; after any event the contents are compared with what was last tried, whoever asked for that. So
//! a change that comes with a `SIGHUP` is one reload, and what is wrong with it is said once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch as latest};

use super::{Command, Source};
use crate::config::model::Files;
use crate::config::{Loaded, Problems};
use crate::disk::{self, Content, Folders, folder};
use crate::task::Tasks;

/// How long the folders must be quiet before the files are read: several quick writes are one change.
const QUIET: Duration = Duration::from_millis(100);
/// How long that is waited for: other files of a folder, such as a log, may change without end.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// As much of a file as a reload would read.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Loads a configuration, and tells all that it was made of, its own file among that: with what stood in it before it was
/// read, so that what changes from then on is a change. Blocks on the disk.
pub(super) fn load(source: &Source) -> (Result<Loaded, Problems>, Files) {
    let own = match source {
        Source::File(path) => Some((path.clone(), content(path))),
        Source::Text(_) => None,
    };
    let loaded = source.load();
    let mut files = match &loaded {
        Ok(Loaded { model, .. }) => model.files.clone(),
        Err(problems) => problems.files().clone(),
    };
    files.extend(own);
    (loaded, files)
}

/// Watches `path` for as long as the instance runs, and the `files` that the last configuration tried was made of. What cannot
/// be watched is said and does not keep from running.
pub(super) fn watch(path: &Path, files: latest::Receiver<Files>, commands: mpsc::WeakSender<Command>, tasks: &Tasks) {
    match Folders::new() {
        Ok(folders) => {
            let stop = tasks.stopping().clone();
            let watch = Watch { files, folders };
            tasks.spawn("watch", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = watch.follow(commands) => {}
                }
            });
        }
        Err(error) => tracing::warn!(path = %path.display(), "changes of files are not watched: {error}"),
    }
}

/// What is watched.
struct Watch {
    /// All that the last try was made of, and what stood in it.
    files: latest::Receiver<Files>,
    folders: Folders,
}

impl Watch {
    async fn follow(mut self, commands: mpsc::WeakSender<Command>) {
        loop {
            self.watch_folders();
            let folders = &self.folders;
            let quiet = async {
                while tokio::time::timeout(QUIET, folders.changed()).await.is_ok_and(|change| change.is_ok()) {}
            };
            let _busy_folder = tokio::time::timeout(LONGEST_WAIT, quiet).await;
            // Whether or not there was an event: they may have changed after being read and before being watched.
            if !self.is_changed().await {
                let goes_on = tokio::select! {
                    change = self.folders.changed() => change.is_ok(),
                    changed = self.files.changed() => changed.is_ok(),
                };
                if !goes_on {
                    return;
                }
                continue;
            }
            let Some(commands) = commands.upgrade() else { return };
            let (reply, answer) = oneshot::channel();
            if commands.send(Command::Reload { text: None, reply }).await.is_err() {
                return;
            }
            // The writer has said how it went, and which files it looked at.
            let _logged = answer.await;
        }
    }

    /// Watches the folder of every file, and no other any more.
    fn watch_folders(&mut self) {
        let wanted: HashSet<PathBuf> = self.files.borrow_and_update().keys().map(|file| folder(file)).collect();
        self.folders.follow(&wanted, |folder, errno| {
            tracing::warn!(folder = %folder.display(), "changes of the files in a folder are not watched: {errno}");
        });
    }

    async fn is_changed(&self) -> bool {
        let files = self.files.borrow().clone();
        for (path, before) in files {
            if read(&path).await != before {
                return true;
            }
        }
        false
    }
}

/// What stands in a file; `None` while there is none that can be read. Blocks on the disk.
fn content(path: &Path) -> Option<Content> {
    disk::read(path, LARGEST).ok().map(|(bytes, _)| Content::of(&bytes))
}

async fn read(path: &Path) -> Option<Content> {
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || content(&path)).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn what_was_tried_already_is_no_change_whoever_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portreeve.toml");
        let source = Source::File(path.clone());
        let load = || load(&source).1;
        let (tried, files) = latest::channel(load());
        let watch = Watch { files, folders: Folders::new().unwrap() };
        assert!(!watch.is_changed().await, "there was no file, and there is none");
        for text in ["nonsense", "workers = 1\n"] {
            fs::write(&path, text).unwrap();
            assert!(watch.is_changed().await);
            tried.send_replace(load());
            assert!(!watch.is_changed().await, "{text}");
        }
        fs::remove_file(&path).unwrap();
        assert!(watch.is_changed().await);
    }
}
