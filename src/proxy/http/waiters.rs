//! What serves a request of HTTP/1, and then the next one of whichever connection of the worker. It is some kilobytes: to have
//! it ready costs less than to make room for it each time, and a connection between requests has none.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{After, Connection};

/// How many of them wait for a request, at most.
const MOST_IDLE: usize = 256;

/// Those of a worker that have no request.
#[derive(Default)]
pub(in crate::proxy) struct Waiters(RefCell<Vec<Waiter>>);

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiters").field(&self.0.borrow().len()).finish()
    }
}

/// One of them. If it is dropped while it serves, the connection is dropped with it.
struct Waiter {
    seat: Rc<Seat>,
    /// Runs for as long as this is there, and goes on where it is whenever somebody asks it to.
    serves: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where a connection is handed over, and back.
#[derive(Default)]
struct Seat {
    asks: Cell<Option<Box<Connection>>>,
    leaves: Cell<Option<Served>>,
}

/// A connection whose request is over.
pub(super) struct Served {
    pub(super) connection: Box<Connection>,
    pub(super) after: After,
    /// For how long its next request is waited for.
    pub(super) keep_alive: Duration,
}

impl Waiters {
    /// Has the next request of a connection served.
    pub(super) async fn serve(&self, connection: Box<Connection>) -> Served {
        let waiting = self.0.borrow_mut().pop();
        let mut waiter = waiting.unwrap_or_else(Waiter::new);
        let served = waiter.serve(connection).await;
        let mut waiters = self.0.borrow_mut();
        if waiters.len() < MOST_IDLE {
            waiters.push(waiter);
        }
        served
    }
}

impl Waiter {
    fn new() -> Self {
        let seat = Rc::<Seat>::default();
        let own = Rc::clone(&seat);
        let serves = async move {
            loop {
                let mut connection = poll_fn(|_| own.asks.take().map_or(Poll::Pending, Poll::Ready)).await;
                let (after, keep_alive) = connection.next().await;
                own.leaves.set(Some(Served { connection, after, keep_alive }));
            }
        };
        Self { seat, serves: Box::pin(serves) }
    }

    async fn serve(&mut self, connection: Box<Connection>) -> Served {
        self.seat.asks.set(Some(connection));
        poll_fn(|cx| {
            // Whether the request is over is seen at the seat.
            let _for_ever = self.serves.as_mut().poll(cx).is_pending();
            self.seat.leaves.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
