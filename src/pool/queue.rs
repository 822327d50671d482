//! Those who wait for a server that has room, first come, first served, whichever worker they are on.
//!
//! The queue belongs to the name of a pool and outlives its snapshots: a reload changes nobody's place. As long as nobody
//! waits nobody takes its lock; that somebody does is one atomic to look at.
//!
//! # Why nobody sleeps while there is room
//!
//! Who has room to give, gives first and looks whether somebody waits then; who waits, joins first and looks for room then.
//! All of that is sequentially consistent, so that one of both sees the other. Whoever is called looks for room once more,
//! and when it leaves, be it with a server or without, calls the one behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::metrics::{Catalogue, PoolMetrics};
use crate::units::Name;

/// What a pool is and has, for as long as its name stays in the configuration.
#[derive(Debug)]
pub struct PoolState {
    /// Its name.
    pub name: Name,
    /// What is counted of it.
    pub metrics: Arc<PoolMetrics>,
    /// How many wait.
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Arc<Notify>>>,
}

/// The queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl PoolState {
    /// A pool nobody has used yet, which counts in `catalogue` under its name.
    #[must_use]
    pub fn counted(name: Name, catalogue: &Catalogue) -> Arc<Self> {
        let metrics = catalogue.pool(&name);
        Arc::new(Self { name, metrics, waiting: AtomicUsize::new(0), line: Mutex::default() })
    }

    /// The same for a pool that no catalogue shows.
    #[must_use]
    pub fn new(name: Name) -> Arc<Self> {
        Self::counted(name, &Catalogue::new(1))
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Takes the last place of the queue, unless `most` wait already.
    ///
    /// # Errors
    /// When it is full.
    pub fn join(self: &Arc<Self>, most: usize) -> Result<Ticket, QueueFull> {
        let mut line = self.line();
        if line.len() >= most {
            return Err(QueueFull);
        }
        let call = Arc::new(Notify::new());
        line.push_back(Arc::clone(&call));
        self.count(&line);
        Ok(Ticket { pool: Arc::clone(self), call })
    }

    /// There may be room: calls the first, if anybody waits.
    pub(super) fn call_first(&self) {
        if self.waiting() > 0
            && let Some(first) = self.line().front()
        {
            first.notify_one();
        }
    }

    fn count(&self, line: &VecDeque<Arc<Notify>>) {
        self.waiting.store(line.len(), Ordering::SeqCst);
        self.metrics.set_queue(line.len());
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        // A panic while it was held left a whole queue behind.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a queue, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<PoolState>,
    call: Arc<Notify>,
}

impl Ticket {
    /// Whether nobody is before it.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.pool.line().front().is_some_and(|first| Arc::ptr_eq(first, &self.call))
    }

    /// Waits until it is first and there may be room. It was not in vain if that was so in between.
    pub async fn called(&self) {
        self.call.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.pool.line();
        let place = line.iter().position(|other| Arc::ptr_eq(other, &self.call));
        if let Some(place) = place {
            line.remove(place);
            self.pool.count(&line);
        }
        if place == Some(0)
            && let Some(next) = line.front()
        {
            next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn is_called(ticket: &Ticket) -> bool {
        pin!(ticket.called()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn the_first_is_called_and_the_next_when_it_has_left() {
        let pool = PoolState::new(Name::new("pool"));
        let [a, b, c] = [(); 3].map(|()| pool.join(3).unwrap());
        assert_eq!((pool.join(3).unwrap_err(), pool.waiting()), (QueueFull, 3));
        assert!(a.is_first() && !b.is_first());
        pool.call_first();
        pool.call_first();
        assert!(!is_called(&b) && is_called(&a) && !is_called(&a));
        drop(b);
        assert!(!is_called(&c), "one that leaves from the middle calls nobody");
        drop(a);
        assert!(is_called(&c));
        drop(c);
        pool.call_first();
        assert_eq!(pool.waiting(), 0);
    }

    #[test]
    fn a_call_that_comes_before_it_is_waited_for_is_not_lost() {
        let pool = PoolState::new(Name::new("pool"));
        let ticket = pool.join(1).unwrap();
        pool.call_first();
        assert!(is_called(&ticket));
    }
}
