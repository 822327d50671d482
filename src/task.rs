//! Tasks: every one that is spawned is named, counted, told to stop and awaited. The only callers of `spawn` are here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Catalogue;

/// A group of tasks that stop together.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    group: Arc<Group>,
}

/// What the tasks of one group hold in common, so that they do not all hold what is everybody's.
#[derive(Debug)]
struct Group {
    catalogue: Arc<Catalogue>,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), group: Arc::new(Group { catalogue }) }
    }

    /// Starts a task on the runtime of the caller. It is told to stop through [`Tasks::stopping`].
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.witnessed(name, work));
    }

    /// Starts a task on the worker of the caller, which has a `LocalRuntime`. The work has a box of its own: a runtime
    /// moves what it is given several times over, and what a connection or a request needs is large.
    pub fn spawn_local(&self, name: &'static str, work: impl Future<Output = ()> + 'static) {
        self.tracker.spawn_local(self.witnessed(name, Box::pin(work)));
    }

    fn witnessed<F>(&self, name: &'static str, work: F) -> Witnessed<F> {
        Witnessed { work, _witness: Witness { name, group: Arc::clone(&self.group) } }
    }

    /// What tells the tasks of this group to stop.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// How many tasks run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tells all tasks to stop.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Waits until all tasks have ended. Call [`Tasks::stop`] first.
    pub async fn ended(&self) {
        self.tracker.wait().await;
    }
}

pin_project! {
    /// A task and its witness. Written out, since an `async` block would hold the work twice, before and while it runs.
    struct Witnessed<F> {
        #[pin]
        work: F,
        _witness: Witness,
    }
}

impl<F: Future<Output = ()>> Future for Witnessed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().work.poll(cx)
    }
}

/// Says so when the task it is part of panics. The panic itself ends that task alone.
struct Witness {
    name: &'static str,
    group: Arc<Group>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.group.catalogue.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.name, "a task ended by a panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_ends_when_its_tasks_have_heard_that_they_are_to_stop() {
        let tasks = Tasks::new(Catalogue::new(1));
        let stopping = tasks.stopping().clone();
        tasks.spawn("waiter", async move { stopping.cancelled().await });
        assert_eq!(tasks.len(), 1);
        tasks.stop();
        tasks.ended().await;
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_ends_its_task_alone() {
        let catalogue = Catalogue::new(1);
        let tasks = Tasks::new(Arc::clone(&catalogue));
        tasks.spawn("bomb", async { panic!("on purpose") });
        tasks.stop();
        tasks.ended().await;
        assert_eq!(catalogue.panics.load(Ordering::Relaxed), 1);
    }
}
