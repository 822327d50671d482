//! What happens to a connection once it is let in: a server is picked, connected to, and relayed to; then it is said how
//! that went.

mod connection;
mod live;
mod reasons;
mod record;

use std::rc::Rc;
use std::sync::Arc;

use crate::logging::AccessWriter;
use crate::metrics::{Catalogue, WorkerMetrics};
use crate::relay::Scratch;
use crate::snapshot::Published;
use crate::task::Tasks;

pub use connection::{Admitted, Place, serve};
pub use live::{Entry, Live, LiveConnections, Target};

/// What all connections of a worker share.
#[derive(Debug)]
pub struct Desk {
    /// The worker's number, which is its shard in every metric.
    pub worker: usize,
    /// The snapshot in effect.
    pub published: Arc<Published>,
    /// Everything that is counted.
    pub catalogue: Arc<Catalogue>,
    /// The access log.
    pub access: AccessWriter,
    /// The buffer and the pipes.
    pub scratch: Scratch,
    /// The connections that are open.
    pub live: LiveConnections,
    /// The tasks of the worker.
    pub tasks: Tasks,
}

impl Desk {
    /// What is counted of this worker.
    #[must_use]
    pub fn metrics(&self) -> Option<&WorkerMetrics> {
        self.catalogue.workers().get(self.worker)
    }

    /// Serves an admitted connection in a task of its own. From here on, and not only once the task runs, it can be called
    /// back.
    pub fn spawn(self: &Rc<Self>, admitted: Admitted) {
        let entry = self.live.enter(Arc::clone(&admitted.place.listener));
        self.tasks.spawn_local("connection", serve(Rc::clone(self), admitted, entry));
    }
}
