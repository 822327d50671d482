//! The connections a worker has open, so that they can be called back when their listener, their server or the process
//! ends.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;
use tokio::time::Instant;

use super::connection::Entrance;
use super::{Desk, Dismissals};
use crate::backend::State;
use crate::ending::Reason;
use crate::metrics::ListenerMetrics;
use crate::relay::Recall;

/// The open connections of one worker.
#[derive(Debug, Default)]
pub struct LiveConnections(RefCell<Slab<Rc<Live>>>);

/// One open connection, as its worker knows it.
#[derive(Debug)]
pub struct Live {
    entrance: Arc<Entrance>,
    /// The server it was given, once connected.
    server: OnceCell<Arc<State>>,
    /// Calls its relay back.
    pub recall: Recall,
    recalled_for: Cell<Option<Reason>>,
}

/// Which connections are meant.
#[derive(Clone, Debug)]
pub enum Target {
    /// All.
    All,
    /// Those that came through this listener.
    Listener(Arc<ListenerMetrics>),
    /// Those that were given to this server.
    Server(Arc<State>),
}

impl Live {
    /// It was given to this server, which was chosen for it, or asked, at `sent`. That may be over by now: who was dismissed
    /// meanwhile did not find this connection among those that it had.
    pub fn set_server(&self, server: &Arc<State>, sent: Instant, dismissals: &Dismissals) {
        // A connection is given to one server in its life; a second call would change nothing.
        let _first = self.server.set(Arc::clone(server));
        if let Some((by, reason)) = dismissals.due(server, sent) {
            self.call_back(by, reason);
        }
    }

    /// Why it was called back, if it was.
    #[must_use]
    pub fn recalled_for(&self) -> Option<Reason> {
        self.recalled_for.get()
    }

    fn is_meant(&self, target: &Target) -> bool {
        match target {
            Target::All => true,
            Target::Listener(listener) => Arc::ptr_eq(&self.entrance.metrics, listener),
            Target::Server(server) => self.server.get().is_some_and(|own| Arc::ptr_eq(own, server)),
        }
    }

    /// Calls it back, unless it is to be over earlier for another reason.
    fn call_back(&self, by: Instant, reason: Reason) {
        if self.recall.by().is_none_or(|earlier| by < earlier) {
            self.recalled_for.set(Some(reason));
            self.recall.set(by);
        }
    }
}

impl LiveConnections {
    /// Takes a new connection in; it is taken out when the guard is dropped.
    pub(super) fn enter(&self, desk: &Rc<Desk>, entrance: Arc<Entrance>) -> Entry {
        let live = Rc::new(Live {
            entrance,
            server: OnceCell::new(),
            recall: Recall::default(),
            recalled_for: Cell::new(None),
        });
        let key = self.0.borrow_mut().insert(Rc::clone(&live));
        Entry { desk: Rc::clone(desk), key, live }
    }

    /// Calls back the connections that are meant: by `by` they are to be over. Returns how many there are.
    pub fn call_back(&self, target: &Target, by: Instant, reason: Reason) -> usize {
        let all = self.0.borrow();
        let meant = all.iter().filter(|(_, live)| live.is_meant(target));
        meant.map(|(_, live)| live.call_back(by, reason)).count()
    }

    /// Has those that carry requests look around whether anything concerns these.
    pub fn look_around(&self) {
        self.0.borrow().iter().for_each(|(_, live)| live.recall.look_around());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// The entry of one connection, for as long as it is open.
#[derive(Debug)]
pub(super) struct Entry {
    desk: Rc<Desk>,
    key: usize,
    live: Rc<Live>,
}

impl std::ops::Deref for Entry {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.desk.live.0.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_those_that_carry_requests_are_woken_to_look_around() {
        let (recall, woken) = (Recall::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let count = || woken.0.load(Ordering::Relaxed);
        recall.listen(&cx);
        recall.look_around();
        assert_eq!(count(), 0);
        recall.listen_around(&cx);
        recall.look_around();
        assert_eq!(count(), 1);
        // Its request is over.
        recall.listen_around(&cx);
        recall.listen(&cx);
        recall.look_around();
        assert_eq!(count(), 1);
    }
}
