//! Servers from a file: TOML, or JSON if its name ends so. Who watches the file asks again.

use std::path::PathBuf;

use super::{Answer, Content, Format};
use crate::disk;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Reads a file.
#[derive(Debug)]
pub struct Asker {
    path: PathBuf,
    /// What stood in it when it was read last.
    before: Option<Vec<u8>>,
}

impl Asker {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, before: None }
    }

    pub(super) async fn ask(&mut self) -> Result<Answer, String> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || disk::read(&path, LARGEST)).await;
        let read = read.unwrap_or_else(|_stopping| Err("it was not read".to_owned()));
        // One that comes back is looked at anew, whatever stood in it before.
        let (bytes, _) = read.inspect_err(|_| self.before = None)?;
        if self.before.as_ref() == Some(&bytes) {
            return Ok(Answer { content: Content::Same, ttl: None });
        }
        self.before = Some(bytes.clone());
        let is_json = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let format = if is_json { Format::Json } else { Format::Toml };
        Ok(Answer { content: Content::List(bytes, format), ttl: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_the_same_until_it_is_another_or_was_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.JSON");
        let mut asker = Asker::new(path.clone());
        assert!(asker.ask().await.is_err_and(|why| why.contains("there is none at this path")));
        std::fs::write(&path, "[]").unwrap();
        let list = Content::List(b"[]".to_vec(), Format::Json);
        assert_eq!(asker.ask().await.unwrap().content, list);
        assert_eq!(asker.ask().await.unwrap().content, Content::Same);
        std::fs::remove_file(&path).unwrap();
        assert!(asker.ask().await.is_err());
        std::fs::write(&path, "[]").unwrap();
        assert_eq!(asker.ask().await.unwrap().content, list);
        let path = folder.path().join("servers.toml");
        std::fs::write(&path, "").unwrap();
        let content = Asker::new(path).ask().await.unwrap().content;
        assert_eq!(content, Content::List(Vec::new(), Format::Toml));
    }
}
