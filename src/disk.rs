//! Reading files that somebody else writes: whole, within a bound, and never waiting for a pipe; and hearing of changes.

mod folders;

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use folders::Folders;

/// Reads a file of at most `most` bytes, and what the system says of it. Blocks on the disk.
///
/// # Errors
/// A sentence that says what is wrong with it, without its name.
pub fn read(path: &Path, most: u64) -> Result<(Vec<u8>, Metadata), String> {
    let failed = |error: io::Error| format!("cannot read the file: {}", reason(&error));
    // Opening a FIFO waits for its other end unless told not to, and only an open file can be looked at without a race.
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(no_wait).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err("cannot read the file: it is a directory".to_owned());
    }
    if !metadata.is_file() {
        return Err("cannot read the file: it is a pipe, a socket or a device, not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let (number, unit) = if most < 1024 * 1024 { (most / 1024, "KiB") } else { (most / 1024 / 1024, "MiB") };
        return Err(format!("cannot read the file: it is larger than {number} {unit}"));
    }
    Ok((bytes, metadata))
}

/// What stands in a file, as far as it takes to tell it from something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The folder a file is in.
#[must_use]
pub fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound { "there is none at this path".to_owned() } else { error.to_string() }
}
