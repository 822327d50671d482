//! Hearing of changes of the files in folders (inotify(7)).
//!
//! Folders are watched and not files, since editors, configuration management and Kubernetes replace files rather than write
//! to them. A file that is written to counts as changed when it is closed, and one that is only read does not: a log, or what a
//! web server hands out, may be in the same folder.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;
use tokio::net::unix::pipe;

/// Folders that are watched.
#[derive(Debug)]
pub struct Folders {
    events: pipe::Receiver,
    /// Those that are watched, and those for which it was tried.
    watched: Mutex<HashMap<PathBuf, Option<i32>>>,
}

impl Folders {
    const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
        .union(WatchFlags::CREATE)
        .union(WatchFlags::DELETE)
        .union(WatchFlags::MOVED_FROM)
        .union(WatchFlags::MOVED_TO)
        .union(WatchFlags::ATTRIB)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::MOVE_SELF);

    /// None yet. To be called on a runtime.
    ///
    /// # Errors
    /// When the system has no more to watch with.
    pub fn new() -> io::Result<Self> {
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { events: pipe::Receiver::from_owned_fd_unchecked(events)?, watched: Mutex::default() })
    }

    /// Watches these folders and no other any more. One that cannot be watched is told to `failed`, and not tried again for as
    /// long as it is wanted.
    pub fn follow(&self, wanted: &HashSet<PathBuf>, mut failed: impl FnMut(&Path, Errno)) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let unwanted: Vec<_> = watched.extract_if(|folder, _| !wanted.contains(folder)).collect();
        for folder in wanted {
            watched.entry(folder.clone()).or_insert_with(|| {
                add_watch(&self.events, folder, Self::CHANGES | WatchFlags::ONLYDIR)
                    .inspect_err(|errno| failed(folder, *errno))
                    .ok()
            });
        }
        for (_, watch) in unwanted {
            // A folder that goes by several names is watched once.
            if let Some(watch) = watch.filter(|watch| !watched.values().any(|other| *other == Some(*watch))) {
                // It may be gone, and with it what there was to watch.
                let _gone = remove_watch(&self.events, watch);
            }
        }
    }

    /// Waits until something has changed in one of them; several changes at once may be one.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn changed(&self) -> io::Result<()> {
        // Room for the longest name and more; what happened does not matter.
        let mut events = [0; 4096];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut events) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether there was a change by now.
    fn has_changed(folders: &Folders) -> bool {
        let changed = std::pin::pin!(folders.changed());
        matches!(changed.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    fn only(folder: &Path) -> HashSet<PathBuf> {
        HashSet::from([folder.to_owned()])
    }

    #[tokio::test]
    async fn writing_replacing_and_removing_a_file_is_a_change_and_reading_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let folders = Folders::new().unwrap();
        folders.follow(&only(folder.path()), |folder, errno| panic!("{}: {errno}", folder.display()));
        fs::write(&file, "one").unwrap();
        folders.changed().await.unwrap();
        while has_changed(&folders) {}
        fs::read(&file).unwrap();
        tokio::task::yield_now().await;
        assert!(!has_changed(&folders));
        fs::write(folder.path().join("other"), "two").unwrap();
        folders.changed().await.unwrap();
        while has_changed(&folders) {}
        fs::rename(folder.path().join("other"), &file).unwrap();
        folders.changed().await.unwrap();
        while has_changed(&folders) {}
        fs::remove_file(&file).unwrap();
        folders.changed().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_folder_is_told_once_and_a_folder_of_two_names_is_watched_while_one_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("itself");
        std::os::unix::fs::symlink(folder.path(), &name).unwrap();
        let missing = folder.path().join("missing");
        let folders = Folders::new().unwrap();
        let mut told = Vec::new();
        let both = HashSet::from([folder.path().to_owned(), name.clone(), missing.clone()]);
        for _ in 0..2 {
            folders.follow(&both, |folder, errno| told.push((folder.to_owned(), errno)));
        }
        assert_eq!(told, [(missing, Errno::NOENT)]);
        folders.follow(&only(&name), |folder, errno| panic!("{}: {errno}", folder.display()));
        fs::write(folder.path().join("file"), "one").unwrap();
        folders.changed().await.unwrap();
    }
}
