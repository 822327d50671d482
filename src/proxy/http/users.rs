//! Who makes a request, where a route asks for a name and a password.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::of_gone;
use super::request::Job;
use crate::admission::{Answer, Users, Verdict};
use crate::ending::Reason;
use crate::message::head::Known;

/// How long a client waits for its password to be verified, behind those of others.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request is not let in.
pub(super) enum Denied {
    /// It is answered for this reason.
    Refused(Reason),
    /// Nobody is there any more to be answered.
    Gone(Reason),
}

/// What is asked of one who is not known (RFC 7617 §2).
pub(super) fn challenge(realm: &str) -> String {
    format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
}

impl Job<'_> {
    /// Finds out which of these users makes the request, so that the access log can say so.
    pub(super) async fn authenticate(&mut self, users: &Users) -> Result<(), Denied> {
        let mut fields = self.request.fields.values(Known::Authorization);
        // Of two, nobody knows which the server would believe.
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Err(Denied::Refused(Reason::Unauthorized));
        };
        let name = match users.check(field) {
            Answer::Known(name) => name,
            Answer::Refused => return Err(Denied::Refused(Reason::Unauthorized)),
            Answer::Pending(pending) => match self.wait_for(pending.verify()).await {
                Ok(name) => name,
                Err(denied) => {
                    // It is no limit of the route's.
                    if matches!(denied, Denied::Refused(Reason::RefusedLimit)) {
                        self.record.failed("too many passwords wait to be verified");
                    }
                    return Err(denied);
                }
            },
        };
        self.record.made_by(&name);
        Ok(())
    }

    /// Waits for a verdict for as long as the client does. One who leaves leaves the queue as well.
    async fn wait_for(&mut self, verdict: impl Future<Output = Verdict>) -> Result<Arc<str>, Denied> {
        let Self { client, timer, recall, .. } = self;
        let mut verdict = pin!(verdict);
        let until = Instant::now() + PATIENCE;
        poll_fn(|cx| {
            if let Poll::Ready(verdict) = verdict.as_mut().poll(cx) {
                return Poll::Ready(match verdict {
                    Verdict::Known(name) => Ok(name),
                    Verdict::Refused => Err(Denied::Refused(Reason::Unauthorized)),
                    Verdict::Overloaded => Err(Denied::Refused(Reason::RefusedLimit)),
                });
            }
            if let Poll::Ready(gone) = client.poll_gone(cx) {
                return Poll::Ready(Err(Denied::Gone(of_gone(gone))));
            }
            recall.listen(cx);
            let due = recall.by().map_or(until, |by| by.min(until));
            timer.poll(cx, due).map(|()| match recall.by() {
                Some(by) if by <= Instant::now() => Err(Denied::Gone(Reason::Shutdown)),
                Some(_) | None => Err(Denied::Refused(Reason::RefusedLimit)),
            })
        })
        .await
    }
}
