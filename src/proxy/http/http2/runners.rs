//! Tasks that serve one request of HTTP/2 after the other. What a request needs is some kilobytes: to have it ready costs less
//! than to make room for it each time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::client::Http2Client;
use super::{Active, Shared, handle};
use crate::proxy::Desk;

/// How many of them wait for a request, at most.
const MOST_IDLE: usize = 64;

/// The tasks of a worker that serve requests and have none.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Runners {
    idle: RefCell<Vec<Rc<Place>>>,
    /// Whether none is to wait any more.
    dismissed: Cell<bool>,
}

/// Where a task that waits gets its next request.
#[derive(Default)]
struct Place {
    work: RefCell<Option<Work>>,
    waker: RefCell<Option<Waker>>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

/// A request to be served.
pub(super) struct Work {
    pub(super) shared: Rc<Shared>,
    pub(super) client: Http2Client,
    /// It counts as its connection's.
    pub(super) active: Active,
}

impl Runners {
    /// Serves a request.
    pub(super) fn serve(desk: &Rc<Desk>, work: Work) {
        let waiting = desk.requests.runners.idle.borrow_mut().pop();
        let Some(place) = waiting else {
            return desk.tasks.spawn_local("http2 requests", run(Rc::clone(desk), work));
        };
        *place.work.borrow_mut() = Some(work);
        if let Some(waker) = &*place.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Has those end that have nothing to do, now and from here on.
    pub(in crate::proxy) fn dismiss(&self) {
        self.dismissed.set(true);
        for place in self.idle.borrow_mut().drain(..) {
            if let Some(waker) = &*place.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Waits for a request, unless enough wait already.
    async fn next(&self, place: &Rc<Place>) -> Option<Work> {
        if self.dismissed.get() || self.idle.borrow().len() >= MOST_IDLE {
            return None;
        }
        self.idle.borrow_mut().push(Rc::clone(place));
        poll_fn(|cx| {
            if let Some(work) = place.work.borrow_mut().take() {
                return Poll::Ready(Some(work));
            }
            if self.dismissed.get() {
                return Poll::Ready(None);
            }
            match &mut *place.waker.borrow_mut() {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }
}

async fn run(desk: Rc<Desk>, first: Work) {
    let place = Rc::default();
    // It goes from one request to the next as well: it need not be taken out of the runtime's and put in again, and deadlines
    // seldom come, as each that has passed on is looked at once.
    let mut timer = None;
    let mut next = Some(first);
    while let Some(Work { shared, client, active }) = next {
        handle(&shared, client, &mut timer).await;
        drop(active);
        drop(shared);
        next = desk.requests.runners.next(&place).await;
    }
}
