//! The files that a configuration names: each is read where it is named, and remembered for as long as it is looked after.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::model;
use crate::config::problem::{Findings, quoted};
use crate::config::read::At;
use crate::disk::{self, Content};

/// The largest certificate, key or list, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// May be read by everybody (inode(7)).
const READABLE_BY_OTHERS: u32 = 0o004;

/// The files a configuration is made of beside its own.
#[derive(Debug)]
pub(super) struct Files<'b> {
    base: &'b Path,
    pub(super) seen: model::Files,
}

impl<'b> Files<'b> {
    pub(super) fn new(base: &'b Path) -> Self {
        Self { base, seen: model::Files::new() }
    }

    /// What a file holds, or a problem at the place where it is named.
    pub(super) fn read(&mut self, name: &At<&str>, findings: &mut Findings) -> Option<Vec<u8>> {
        self.read_up_to(LARGEST, name, findings)
    }

    /// The same for one of at most so many bytes.
    pub(super) fn read_up_to(&mut self, most: u64, name: &At<&str>, findings: &mut Findings) -> Option<Vec<u8>> {
        self.look(most, name, findings).map(|(bytes, _)| bytes)
    }

    /// The same for one that nobody else should be able to read.
    pub(super) fn read_secret(&mut self, name: &At<&str>, findings: &mut Findings) -> Option<Vec<u8>> {
        self.read_secret_up_to(LARGEST, name, findings)
    }

    /// The same for one of at most so many bytes.
    pub(super) fn read_secret_up_to(&mut self, most: u64, name: &At<&str>, findings: &mut Findings) -> Option<Vec<u8>> {
        let (bytes, metadata) = self.look(most, name, findings)?;
        if metadata.permissions().mode() & READABLE_BY_OTHERS != 0 {
            let message = format!("{} can be read by everybody on this machine", quoted(name.value));
            let path = self.base.join(name.value);
            findings.warning(name.span.clone(), &message).help(&format!("chmod o-r {}", path.display()));
        }
        Some(bytes)
    }

    fn look(&mut self, most: u64, name: &At<&str>, findings: &mut Findings) -> Option<(Vec<u8>, Metadata)> {
        let path = self.base.join(name.value);
        let read = disk::read(&path, most);
        self.seen.insert(path, read.as_ref().ok().map(|(bytes, _)| Content::of(bytes)));
        read.map_err(|why| refuse(name, &why, findings)).ok()
    }
}

/// Says what is wrong with a file where it is named.
pub(super) fn refuse(name: &At<&str>, why: &str, findings: &mut Findings) {
    findings.error(name.span.clone(), &format!("{}: {why}", quoted(name.value)));
}
