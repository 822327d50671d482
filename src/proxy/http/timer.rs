//! The one timer of a connection. Deadlines mostly move away before they come: the timer is set only for one that is nearer
//! than what it is set for, and looks again when it goes off.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set anew, and told who waits for it, as seldom as can be.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Who is woken when it goes off, if that was said since it did so last.
    waits: Option<Waker>,
}

impl Timer {
    /// A timer that goes off at `at` or is set for something nearer.
    pub(super) fn new(at: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(at)), waits: None }
    }

    /// Waits for a deadline; which one may be another with every call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let Self { sleep, waits } = self;
        if sleep.is_elapsed() {
            *waits = None;
        }
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        if waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        *waits = None;
        while sleep.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        *waits = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_last_is_woken_each_time_and_by_the_nearest_deadline() {
        let start = Instant::now();
        let mut timer = Timer::new(start + Duration::from_secs(60));
        for round in 0..3 {
            let [before, last] = [(); 2].map(|()| Arc::<Woken>::default());
            let deadline = Instant::now() + Duration::from_secs(5);
            // The one who waits last says so twice, and for less the second time.
            for (who, deadline) in [(&before, deadline), (&last, deadline), (&last, deadline - Duration::from_secs(2))]
            {
                let waker = Waker::from(Arc::clone(who));
                assert!(timer.poll(&mut Context::from_waker(&waker), deadline).is_pending());
            }
            tokio::time::advance(Duration::from_secs(3)).await;
            tokio::task::yield_now().await;
            assert!(last.0.load(Ordering::Relaxed), "round {round}");
            assert!(timer.poll(&mut Context::from_waker(Waker::noop()), Instant::now()).is_ready());
        }
    }

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
