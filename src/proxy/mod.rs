//! What happens to a connection once it is let in: the client says who it is and where to, a server is picked, connected
//! to, and relayed to; then it is said how that went.

mod connect;
mod connection;
mod current;
mod dismissals;
mod ends;
mod http;
mod intake;
mod key;
mod live;
mod metronome;
mod reasons;
mod record;
mod turn;
mod witness;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::logging::AccessWriter;
use crate::metrics::{Catalogue, WorkerMetrics};
use crate::relay::Scratch;
use crate::snapshot::Published;
use crate::task::Tasks;
use crate::tls::Turns;

pub use connection::{Admitted, Entrance, Place};
pub use current::{Current, InEffect};
pub use dismissals::Dismissals;
pub use live::{Live, LiveConnections, Target};
pub use metronome::Metronome;

/// What all connections of a worker share.
#[derive(Debug)]
pub struct Desk {
    /// The worker's number, which is its shard in every metric.
    pub worker: usize,
    /// The snapshot in effect.
    pub published: Arc<Published>,
    /// The same, for requests.
    pub current: Current,
    /// Everything that is counted.
    pub catalogue: Arc<Catalogue>,
    /// The access log.
    pub access: AccessWriter,
    /// The buffer and the pipes.
    pub scratch: Scratch,
    /// Whose handshake computes next.
    pub turns: Turns,
    /// The connections that are open.
    pub live: LiveConnections,
    /// The servers that are to be rid of their requests.
    pub dismissals: Dismissals,
    /// How quickly they come and go.
    pub turnover: Turnover,
    /// The tasks of the worker.
    pub tasks: Tasks,
    /// What requests use again.
    pub requests: Requests,
    /// Told when descriptors have run out; all workers have the same.
    pub shortage: Arc<Notify>,
    /// What makes timers cheap while connections come.
    pub metronome: Metronome,
}

/// What the requests of a worker share.
#[derive(Debug, Default)]
pub struct Requests {
    /// Heads and buffers.
    stash: http::Stash,
    /// Connections to servers that wait for the next one.
    upstreams: http::Upstreams,
    /// What serves the next one of HTTP/1.
    waiters: http::Waiters,
    /// Tasks that wait for the next one of HTTP/2.
    runners: http::Runners,
    /// Places for responses that are compressed.
    encoders: http::Places,
    /// Places for copies of requests.
    copies: http::Places,
    /// Places for bytes of bodies that wait for copies.
    copied: http::Places,
    /// Places for bytes of bodies that may have to be sent again.
    kept: http::Places,
}

/// How many connections end for each that begins, over the last hundred or so: near one where they are short, near none
/// while long ones gather.
#[derive(Debug, Default)]
pub struct Turnover(Cell<u32>);

impl Turnover {
    const ONE: u32 = 1 << 16;
    const MEMORY: u32 = 64;

    /// A connection began.
    pub fn began(&self) {
        self.0.set(self.0.get() - self.0.get() / Self::MEMORY);
    }

    /// A connection ended.
    pub fn ended(&self) {
        self.0.set((self.0.get() + Self::ONE / Self::MEMORY).min(Self::ONE));
    }

    /// Whether most connections are short.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.0.get() > Self::ONE / 2
    }
}

impl Desk {
    /// What is counted of this worker.
    #[must_use]
    pub fn metrics(&self) -> Option<&WorkerMetrics> {
        self.catalogue.workers().get(self.worker)
    }

    /// Makes room where descriptors have run out: connections to servers that wait for requests are closed, by other workers
    /// soon. Returns whether this one had any.
    pub fn make_room(&self) -> bool {
        self.shortage.notify_waiters();
        self.requests.upstreams.make_room()
    }

    /// Starts what looks after the connections to servers that wait for requests, and what makes timers cheap.
    pub fn keep_house(self: &Rc<Self>) {
        self.tasks.spawn_local("upstreams", http::Upstreams::keep_house(Rc::clone(self)));
        let (desk, stopping) = (Rc::clone(self), self.tasks.stopping().clone());
        self.tasks.spawn_local("metronome", async move {
            let _stopped: Option<()> = stopping.run_until_cancelled(desk.metronome.run()).await;
            desk.requests.runners.dismiss();
        });
    }

    /// Closes the connections to a server that wait for requests, as when it went down.
    pub fn forget(&self, server: &Arc<crate::backend::State>) {
        self.requests.upstreams.close(server);
    }

    /// Serves an admitted connection in a task of its own.
    pub fn spawn(self: &Rc<Self>, admitted: Admitted) {
        self.metronome.wind();
        connection::begin(self, admitted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turnover_is_high_while_connections_come_and_go_and_falls_when_they_stay() {
        let turnover = Turnover::default();
        assert!(!turnover.is_high());
        for _ in 0..200 {
            turnover.began();
            turnover.ended();
        }
        assert!(turnover.is_high());
        for _ in 0..50 {
            turnover.began();
        }
        assert!(!turnover.is_high());
    }
}
