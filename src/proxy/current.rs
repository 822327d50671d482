//! The snapshot in effect, as one worker holds it.
//!
//! All workers hold the same snapshot, and whoever takes hold of it or lets go of it writes to one place: with each request
//! that would be the one place for which all of them wait. So a worker holds it once, and its connections and requests share
//! that.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::cache::Cache;

use crate::snapshot::{Published, Snapshot};
use crate::units::Name;

/// What a worker holds.
pub struct Current(RefCell<Held>);

/// A snapshot, as what a worker does shares it.
#[derive(Debug)]
pub struct InEffect(Arc<Snapshot>);

impl std::ops::Deref for InEffect {
    type Target = Arc<Snapshot>;

    fn deref(&self) -> &Arc<Snapshot> {
        &self.0
    }
}

struct Held {
    cache: Cache<Arc<Published>, Arc<Snapshot>>,
    shared: Arc<InEffect>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}

impl Current {
    /// Holds what is published.
    #[must_use]
    pub fn new(published: Arc<Published>) -> Self {
        let mut cache = Cache::new(published);
        let shared = Arc::new(InEffect(Arc::clone(cache.load())));
        Self(RefCell::new(Held { cache, shared }))
    }

    /// The snapshot in effect. The one before is let go of, unless requests hold it.
    pub fn snapshot(&self) -> Arc<InEffect> {
        let mut held = self.0.borrow_mut();
        let Held { cache, shared } = &mut *held;
        let published = cache.load();
        if !Arc::ptr_eq(published, shared) {
            *shared = Arc::new(InEffect(Arc::clone(published)));
        }
        Arc::clone(shared)
    }

    /// The same for what came through this listener: see [`Snapshot::with_listener`].
    pub fn with_listener(&self, name: &Name) -> Arc<InEffect> {
        let snapshot = self.snapshot();
        match snapshot.listener(name) {
            Some(_) => snapshot,
            None => Arc::new(InEffect(Arc::clone(&snapshot.0).with_listener(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, load_text};
    use crate::metrics::Catalogue;

    #[test]
    fn what_is_held_is_what_is_published_and_nothing_older() {
        let build = || {
            let text = "[listeners.l]\nbind = 0\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:1\"]\n";
            let environment = Environment { descriptor_limit: 20_000, cores: 2 };
            let loaded = load_text(text, "test", Path::new("/"), &environment);
            let loaded = loaded.unwrap_or_else(|problems| panic!("{}", problems.human(false)));
            Arc::new(Snapshot::build(loaded.model, None, &Catalogue::new(1)))
        };
        let first = build();
        let published = Arc::new(Published::new(Arc::clone(&first)));
        let current = Current::new(Arc::clone(&published));
        let request = current.snapshot();
        assert!(Arc::ptr_eq(&request.0, &first) && Arc::ptr_eq(&request, &current.snapshot()));
        let second = build();
        published.store(Arc::clone(&second));
        assert!(Arc::ptr_eq(&current.snapshot().0, &second));
        assert!(Arc::ptr_eq(&request.0, &first), "a request has what it began with");
        drop(request);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
