//! Whose turn it is: whoever finds every server full waits, behind those who came before, for as long as its pool says.
//!
//! What is waited for is the pool of that name, as it is in effect by then: a reload that makes room makes it for those who
//! wait as well.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::Desk;
use crate::ending::Reason;
use crate::pool::{Picked, PoolState, QueueFull, Ticket, Tried};
use crate::snapshot::{PoolInEffect, Snapshot};

/// One that is to be given a server of a pool.
#[derive(Debug)]
pub(super) struct Turn<'d> {
    desk: &'d Desk,
    /// The snapshot it began with.
    snapshot: &'d Arc<Snapshot>,
    /// A later one, if it has waited.
    newer: Option<Arc<Snapshot>>,
    /// Where the pool stands in the one or the other.
    place: usize,
    /// Kept while it waits.
    queued: RefCell<Option<Queued>>,
}

/// A place in the queue of a pool.
#[derive(Debug)]
struct Queued {
    ticket: Ticket,
    pool: Arc<PoolState>,
    worker: usize,
    since: Instant,
    until: Instant,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.pool.metrics.waited(self.worker, self.since.elapsed());
    }
}

impl<'d> Turn<'d> {
    /// For the pool at this place of a snapshot.
    pub(super) fn new(desk: &'d Desk, snapshot: &'d Arc<Snapshot>, place: usize) -> Self {
        Self { desk, snapshot, newer: None, place, queued: RefCell::new(None) }
    }

    /// The pool as it is in effect; `None` never, unless there was none from the beginning.
    pub(super) fn pool(&self) -> Option<&PoolInEffect> {
        self.newer.as_ref().unwrap_or(self.snapshot).pool_at(self.place)
    }

    /// Picks a server by `pick`, unless others wait for one already. Whoever has one waits no longer.
    pub(super) fn pick<'p>(
        &'p self,
        tried: &Tried,
        pick: impl FnOnce(&'p PoolInEffect) -> Option<Picked<'p>>,
    ) -> Option<Picked<'p>> {
        let pool = self.pool()?;
        let is_new = tried.count() == 0 && self.queued.borrow().is_none();
        if is_new && pool.pool.state().waiting() > 0 && pool.pool.is_full(tried) {
            return None;
        }
        let picked = pick(pool)?;
        self.queued.take();
        Some(picked)
    }

    /// Waits until there may be a server to pick.
    ///
    /// # Errors
    /// Why there will be none: no server could serve, or there is no room to wait, or no more time. A request has time until
    /// `expires`.
    pub(super) async fn wait(&mut self, tried: &Tried, expires: Option<Instant>) -> Result<(), Reason> {
        if self.queued.borrow().is_none() {
            let queued = self.join(tried)?;
            let is_first = queued.ticket.is_first();
            self.queued.replace(Some(queued));
            // Somebody may have left since it was looked for room, and found nobody to call.
            if is_first {
                return Ok(());
            }
        }
        // Taken out while it waits: dropped with this future, it leaves the queue.
        let Some(queued) = self.queued.take() else { return Err(Reason::Internal) };
        let (until, late) = match expires.filter(|expires| *expires < queued.until) {
            Some(expires) => (expires, Reason::RequestTimeout),
            None => (queued.until, Reason::QueueTimeout),
        };
        timeout_at(until, queued.ticket.called()).await.map_err(|_elapsed| late)?;
        self.queued.replace(Some(queued));
        self.follow();
        Ok(())
    }

    fn join(&self, tried: &Tried) -> Result<Queued, Reason> {
        let pool = self.pool().map(|pool| &pool.pool).ok_or(Reason::NoServer)?;
        let queue = pool.rules().queue;
        if queue.max == 0 || !pool.is_full(tried) {
            return Err(Reason::NoServer);
        }
        let ticket = pool.state().join(queue.max).map_err(|QueueFull| Reason::QueueFull)?;
        let since = Instant::now();
        let (pool, worker) = (Arc::clone(pool.state()), self.desk.worker);
        Ok(Queued { ticket, pool, worker, since, until: since + queue.timeout })
    }

    /// Turns to the snapshot in effect, if that has the pool still.
    fn follow(&mut self) {
        let snapshot = self.desk.published.load();
        let place = self.pool().and_then(|pool| snapshot.place_of(pool.pool.name()));
        if let Some(place) = place {
            (self.newer, self.place) = (Some(Arc::clone(&snapshot)), place);
        }
    }
}
