//! Servers that are to be rid of their requests: those that went down or are no more, where the pool says so.
//!
//! A connection of a client outlives its requests, and may have some at many servers at once. So it is not called back, as one
//! that is relayed is: its requests look here how long their server may keep them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::backend::State;
use crate::ending::Reason;

/// For how long after its time a dismissal is remembered: whoever is bound by it has heard of it by then.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The dismissals of a worker.
#[derive(Debug, Default)]
pub struct Dismissals {
    /// By the address of the server's state. Another that comes to stand there has no requests from before.
    of: RefCell<FxHashMap<usize, Dismissal>>,
    count: Cell<u64>,
}

/// That requests at a server end.
#[derive(Clone, Copy, Debug)]
struct Dismissal {
    /// It is for those sent before.
    at: Instant,
    by: Instant,
    reason: Reason,
}

impl Dismissals {
    /// Has all requests that a server has by now end by `by`. Whoever carries them is to be woken.
    pub fn dismiss(&self, server: &Arc<State>, by: Instant, reason: Reason) {
        let at = Instant::now();
        let mut all = self.of.borrow_mut();
        all.retain(|_, old| at < old.by + REMEMBERED);
        all.insert(Arc::as_ptr(server).addr(), Dismissal { at, by, reason });
        self.count.set(self.count.get() + 1);
    }

    /// How many there have been.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// By when a request that was sent to this server at `sent` has to end, and why, if it has to.
    pub(super) fn due(&self, server: &Arc<State>, sent: Instant) -> Option<(Instant, Reason)> {
        if self.count.get() == 0 {
            return None;
        }
        let dismissal = self.of.borrow().get(&Arc::as_ptr(server).addr()).copied()?;
        (sent <= dismissal.at).then_some((dismissal.by, dismissal.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Name;

    fn state(name: &str) -> Arc<State> {
        State::new(Name::new("pool"), Name::new(name))
    }

    #[tokio::test(start_paused = true)]
    async fn requests_from_before_are_to_end_and_later_ones_are_not() {
        let dismissals = Dismissals::default();
        let (down, other) = (state("down"), state("other"));
        let before = Instant::now();
        assert_eq!(dismissals.due(&down, before), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        let by = Instant::now() + Duration::from_secs(5);
        dismissals.dismiss(&down, by, Reason::ServerDown);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(dismissals.due(&down, before), Some((by, Reason::ServerDown)));
        assert_eq!(dismissals.due(&other, before), None);
        assert_eq!(dismissals.due(&down, Instant::now()), None);
        // Those that it was for are over.
        tokio::time::advance(Duration::from_secs(5) + REMEMBERED).await;
        dismissals.dismiss(&other, Instant::now(), Reason::Drained);
        assert_eq!((dismissals.due(&down, before), dismissals.count()), (None, 2));
    }
}
