//! Accepting connections: the loop that never waits for a peer and never ends by one, the gate, and the hand-over of
//! accepted sockets to the worker with the least to do.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ending::Reason;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::address::ClientAddr;
use crate::net::errno::{AcceptFailure, accept_failure};
use crate::net::listen::Acceptor;
use crate::proxy::{Admitted, Desk, Entrance, Place};
use crate::units::Name;

/// How many connections are accepted in a row before those that are open have their turn.
const BATCH: usize = 32;
/// How long accepting pauses when descriptors or memory have run out.
const PAUSE: Duration = Duration::from_millis(100);
/// How many other workers are compared with before a socket is handed over; with more workers, a part of them in turn.
const COMPARED: usize = 8;

/// The way to the other workers.
#[derive(Debug)]
pub struct Peers {
    /// Where each worker takes handed-over connections from, by its number.
    pub doors: Vec<mpsc::Sender<Admitted>>,
    /// Whether the process has run out of descriptors, so that it is said once.
    pub exhausted: Arc<AtomicBool>,
}

/// One listening socket of a worker, and whose it is. A reload may give the socket to another listener.
#[derive(Debug)]
pub struct Mouth {
    acceptor: Acceptor,
    owner: RefCell<Arc<Entrance>>,
}

impl Mouth {
    /// A socket that belongs to this listener.
    #[must_use]
    pub fn new(acceptor: Acceptor, name: Name, metrics: Arc<ListenerMetrics>, catalogue: Arc<Catalogue>) -> Rc<Self> {
        let owner = Entrance { name, metrics, port: acceptor.port(), catalogue };
        Rc::new(Self { acceptor, owner: RefCell::new(Arc::new(owner)) })
    }

    /// Gives the socket to another listener, or the same with another backlog.
    pub fn adopt(&self, name: Name, metrics: Arc<ListenerMetrics>, backlog: u32) {
        self.owner.replace_with(|before| {
            Arc::new(Entrance { name, metrics, port: before.port, catalogue: Arc::clone(&before.catalogue) })
        });
        if let Err(errno) = rustix::net::listen(self.acceptor.as_fd(), i32::try_from(backlog).unwrap_or(i32::MAX)) {
            tracing::warn!("the backlog of a listening socket cannot be changed: {errno}");
        }
    }

    /// Accepts until it is told to stop, then takes in what has already arrived and closes the socket, all in one go, since
    /// closing resets what was not taken in.
    pub async fn accept_until(self: Rc<Self>, stop: CancellationToken, desk: Rc<Desk>, peers: Rc<Peers>) {
        let _told_to_stop = stop.run_until_cancelled(self.accept(&desk, &peers)).await;
        while let Ok((socket, client)) = self.acceptor.try_accept() {
            self.admit(&desk, &peers, socket, client);
        }
    }

    /// Accepts. Ends only when the socket itself is broken.
    async fn accept(&self, desk: &Rc<Desk>, peers: &Peers) {
        let mut batch = 0;
        loop {
            match self.acceptor.try_accept() {
                Ok((socket, client)) => {
                    peers.note_recovered();
                    self.admit(desk, peers, socket, client);
                    batch += 1;
                    if batch == BATCH {
                        batch = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Err(errno) => match accept_failure(errno) {
                    AcceptFailure::Peer => {}
                    AcceptFailure::Empty => {
                        batch = 0;
                        if self.acceptor.readable().await.is_err() {
                            return;
                        }
                    }
                    // Connections that only wait make room.
                    AcceptFailure::Exhausted if desk.make_room() => {}
                    AcceptFailure::Exhausted => {
                        peers.note_exhausted(errno);
                        tokio::time::sleep(PAUSE).await;
                    }
                    AcceptFailure::Ours => {
                        let listener = &self.owner.borrow().name;
                        tracing::error!(%listener, "a listening socket is broken and accepts no more: {errno}");
                        return;
                    }
                },
            }
        }
    }

    /// The gate: lets the connection in, here or at the worker with the least to do, or turns it away before anything was
    /// allocated for it.
    fn admit(&self, desk: &Rc<Desk>, peers: &Peers, socket: std::os::fd::OwnedFd, client: ClientAddr) {
        let accepted = Instant::now();
        let owner = &*self.owner.borrow();
        owner.metrics.accepted(desk.worker);
        desk.turnover.began();
        let snapshot = desk.current.with_listener(&owner.name);
        let most = snapshot.listener(&owner.name).map_or(0, |listener| listener.max_connections);
        let Some(mut place) = Place::take(owner, desk.worker, most, snapshot.model.max_connections) else {
            owner.metrics.ended(desk.worker, Reason::RefusedFull, Duration::ZERO);
            return reset(&socket);
        };
        let target = peers.idlest(desk);
        if let Some(worker) = target {
            place.move_to(worker);
        }
        let admitted = Admitted { socket, client, accepted, snapshot, place };
        match target {
            Some(worker) => peers.hand_over(desk, worker, admitted),
            None => desk.spawn(admitted),
        }
    }
}

impl Peers {
    /// The worker to hand a new connection over to: one that carries clearly less than this one does.
    fn idlest(&self, desk: &Desk) -> Option<usize> {
        let workers = desk.catalogue.workers();
        let own = workers.get(desk.worker)?.active.get();
        let others = workers.len() - 1;
        let first = if others > COMPARED { fastrand::usize(..others) } else { 0 };
        let (active, worker) = (0..others.min(COMPARED))
            .map(|step| (desk.worker + 1 + (first + step) % others) % workers.len())
            .filter_map(|worker| Some((workers.get(worker)?.active.get(), worker)))
            .min()?;
        is_clearly_more(own, active, desk.turnover.is_high()).then_some(worker)
    }

    fn hand_over(&self, desk: &Rc<Desk>, worker: usize, admitted: Admitted) {
        let refused = match self.doors.get(worker).map(|door| door.try_send(admitted)) {
            Some(Ok(())) => {
                if let Some(metrics) = desk.metrics() {
                    metrics.handed_over.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            Some(Err(mpsc::error::TrySendError::Full(admitted) | mpsc::error::TrySendError::Closed(admitted))) => {
                admitted
            }
            None => return,
        };
        // A worker that takes nothing more is busier than it looks.
        let mut kept = refused;
        kept.place.move_to(desk.worker);
        desk.spawn(kept);
    }

    fn note_exhausted(&self, errno: Errno) {
        if !self.exhausted.swap(true, Ordering::Relaxed) {
            tracing::error!("accepting pauses until connections end: {errno}");
        }
    }

    fn note_recovered(&self) {
        if self.exhausted.load(Ordering::Relaxed) && self.exhausted.swap(false, Ordering::Relaxed) {
            tracing::warn!("accepting again");
        }
    }
}

/// Whether a worker with `own` connections, the new one included, should give it to one with `others`. A hand-over wakes
/// another thread, so a small lead is left alone; and where connections come and go a larger one too, since it passes by
/// itself.
fn is_clearly_more(own: u32, other: u32, short_lived: bool) -> bool {
    let lead = if short_lived { (own / 2).max(32) } else { (own / 16).max(4) };
    own > other.saturating_add(lead)
}

/// Refuses with a reset, which costs neither side a lingering socket.
fn reset(socket: &std::os::fd::OwnedFd) {
    let _unix_socket = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_of_a_few_connections_is_left_alone_and_more_is_handed_over() {
        assert!(!is_clearly_more(1, 0, false));
        assert!(!is_clearly_more(4, 0, false));
        assert!(is_clearly_more(5, 0, false));
        assert!(!is_clearly_more(1000, 940, false));
        assert!(is_clearly_more(1000, 900, false));
        assert!(!is_clearly_more(1000, 900, true), "short connections even it out by themselves");
        assert!(is_clearly_more(1000, 400, true));
    }

    #[test]
    fn no_worker_of_four_ends_with_more_than_its_share_and_a_tenth() {
        let mut workers = [0_u32; 4];
        for _ in 0..200 {
            // The worst the kernel can do: every connection arrives at the first worker.
            let idlest = (1..4).min_by_key(|w| workers[*w]).unwrap();
            let target = if is_clearly_more(workers[0] + 1, workers[idlest], false) { idlest } else { 0 };
            workers[target] += 1;
        }
        assert!(workers.iter().all(|active| *active <= 55), "{workers:?}");
    }
}
