//! What spares new connections a system call for each of their timers.
//!
//! A runtime that is given a timer which goes off before all others wakes itself, lest it sleep too long: a write(2) and
//! another round of its loop, though it is awake. Connections that come in quick succession would pay for that with each
//! of theirs. So as long as some come, there is a timer that goes off no later than any of theirs.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

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

    /// Beats while connections come, and for ever waits for those that do.
    pub(super) async fn run(&self) {
        loop {
            while self.wound.take() {
                tokio::time::sleep(BEAT).await;
            }
            self.stands.set(true);
            self.starts.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_beats_while_connections_come_and_stands_still_when_none_does() {
        let metronome = Metronome::default();
        let connections = async {
            tokio::task::yield_now().await;
            assert!(metronome.stands.get(), "nobody has come");
            for _ in 0..3 {
                metronome.wind();
                tokio::time::sleep(BEAT / 2).await;
                assert!(!metronome.stands.get());
            }
            tokio::time::sleep(BEAT * 2).await;
            assert!(metronome.stands.get(), "nobody has come for a beat");
        };
        tokio::select! {
            biased;
            () = metronome.run() => {}
            () = connections => {}
        }
    }
}
