//! What spares new connections a system call for each of their timers.
//!
//! A runtime that is given a timer which goes off before all others wakes itself, lest it sleep too long: a write(2) and
//! another round of its loop, though it is awake. Connections that come in quick succession would pay for that with each
//! of theirs. So as long as some come, there is a timer that goes off no later than any of theirs.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::Desk;

/// No longer than what a new connection first sets a timer for.
pub(super) const BEAT: Duration = Duration::from_millis(5);

/// A timer that runs while connections come.
#[derive(Debug, Default)]
pub struct Metronome {
    /// Whether a connection came since the last beat.
    wound: Cell<bool>,
    /// Whether it stands still until one comes.
    stands: Cell<bool>,
    starts: Notify,
}

impl Metronome {
    /// A connection came.
    pub(super) fn wind(&self) {
        self.wound.set(true);
        if self.stands.take() {
            self.starts.notify_one();
        }
    }

    /// Beats while connections come, for as long as the worker runs.
    pub(super) async fn run(desk: Rc<Desk>) {
        let metronome = &desk.metronome;
        let beats = async {
            loop {
                while metronome.wound.take() {
                    tokio::time::sleep(BEAT).await;
                }
                metronome.stands.set(true);
                metronome.starts.notified().await;
            }
        };
        let _stopped: Option<()> = desk.tasks.stopping().clone().run_until_cancelled(beats).await;
    }
}
