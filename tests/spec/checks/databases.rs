//! Databases, by the servers that Debian has: who is let in, and which is the primary.

mod mysql;
mod postgres;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

/// Who runs databases, which refuse to be run by root.
const NOBODY: u32 = 65_534;

/// A command that is run by nobody in particular, and not by root.
fn command(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    // What is temporary stands apart as well: MariaDB removes what it takes for its own.
    command.current_dir(folder).env("TMPDIR", folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Runs a command to its end, which is to be a good one, and returns what it says.
async fn run(mut command: Command) -> String {
    let done =
        tokio::task::spawn_blocking(move || command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap());
    let done = done.await.unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// A folder for a database.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    folder
}

/// A file with a password.
fn password(folder: &Path, word: &str) -> std::path::PathBuf {
    let path = folder.join(format!("{word}.pass"));
    fs::write(&path, format!("{word}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    path
}

/// Copies a file to where those who run databases may read it, and nobody else.
fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(to, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A server that is stopped when it is dropped.
struct Daemon(Child);

impl Daemon {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        // At once, but with all that belongs to it.
        if rustix::process::kill_process(pid, Signal::QUIT).is_ok() {
            self.0.wait().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}
