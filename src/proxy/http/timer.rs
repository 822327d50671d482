//! The one timer of a connection. Deadlines mostly move away before they come: the timer is set only for one that is nearer
//! than what it is set for, and looks again when it goes off.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set anew as seldom as can be.
#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer that goes off at `at` or is set for something nearer.
    pub(super) fn new(at: Instant) -> Self {
        Self(Box::pin(sleep_until(at)))
    }

    /// Waits for a deadline; which one may be another with every call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        while self.0.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_comes_in_its_time_whether_it_is_nearer_or_further_than_the_last() {
        let start = Instant::now();
        let mut timer = Timer::new(start + Duration::from_secs(5));
        for seconds in [9, 3, 10] {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            poll_fn(|cx| timer.poll(cx, deadline)).await;
            assert!(Instant::now() >= deadline && Instant::now() < deadline + Duration::from_millis(5));
        }
    }
}
