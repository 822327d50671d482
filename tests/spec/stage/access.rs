//! The access log of an instance in this process, read while it is written.

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;

/// A file for an access log, in a folder of its own.
pub struct AccessLog(TempDir);

impl AccessLog {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A configuration with this access log.
    pub fn of(&self, configuration: &str) -> String {
        format!("log = {{ access = {:?}, format = \"json\" }}\n{configuration}", self.0.path().join("access"))
    }

    /// Waits until so many connections have ended and returns the line of the last one.
    pub async fn line(&self, count: usize) -> Value {
        self.lines(count).await.swap_remove(count - 1)
    }

    /// The lines of all of them.
    pub async fn lines(&self, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        eventually(&format!("{count} lines of the access log"), || {
            let text = std::fs::read_to_string(self.0.path().join("access")).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
            lines.len() >= count
        })
        .await;
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }
}
