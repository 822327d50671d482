//! Names of listeners, pools and servers: cheap to clone, compared by text.

use std::fmt;
use std::sync::Arc;

/// The name by which a listener, pool or server keeps its identity across reloads.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes: it stands in every label and log line.
    pub const LONGEST: usize = 128;

    /// A name from its text, which [`Name::parse`] or the caller has checked.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Reads a name from a settings file.
    ///
    /// # Errors
    /// An empty name, one over [`Name::LONGEST`] bytes, or one with white space or control characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a name cannot be empty".to_owned());
        }
        if text.len() > Self::LONGEST {
            return Err(format!("a name has at most {} bytes", Self::LONGEST));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("a name has no spaces or control characters".to_owned());
        }
        Ok(Self::new(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
