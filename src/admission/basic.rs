//! The `Basic` scheme of HTTP (RFC 7617): what a client says of itself, and the way to an answer that stalls nobody.
//!
//! What was verified lately is answered at once. Everything else is verified on threads of its own, few at a time and with
//! a bounded queue, for the whole process: whoever floods it with passwords keeps others from being verified, and
//! neither those who have been nor connections that ask for no password.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::users::Users;
use super::verified::{Tag, Verified};
use crate::units::Secret;

/// The most bytes of a name, a colon and a password.
const LONGEST: usize = 1024;
/// How many bytes that may take in base64.
const LONGEST_ENCODED: usize = LONGEST.div_ceil(3) * 4;

/// Who verifies passwords, for all users of the process: a few at once, and some who wait.
static TURNS: Turns = Turns::new(2, 64);

/// What a request's credentials come to, as far as that can be said at once.
#[derive(Debug)]
pub enum Answer {
    /// They are this user's.
    Known(Arc<str>),
    /// They have to be verified first.
    Pending(Pending),
    /// They are nobody's, or none at all.
    Refused,
}

/// What verifying credentials comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are this user's.
    Known(Arc<str>),
    /// They are nobody's.
    Refused,
    /// Too many others wait for that already: try again later.
    Overloaded,
}

/// Credentials that have to be verified.
pub struct Pending {
    users: Users,
    credentials: Secret,
    tag: Option<Tag>,
}

impl Users {
    /// Who says so, by the value of an `Authorization` field. It takes microseconds and allocates nothing for those who
    /// were verified lately.
    #[must_use]
    pub fn check(&self, authorization: &[u8]) -> Answer {
        let mut buffer = [0; LONGEST_ENCODED];
        let Some(credentials) = decode(authorization, &mut buffer) else { return Answer::Refused };
        let tag = self.gate.verified.tag(credentials);
        if let Some(name) = tag.and_then(|tag| self.gate.verified.find(&tag, Instant::now())) {
            return Answer::Known(name);
        }
        Answer::Pending(Pending { users: self.clone(), credentials: Secret::new(credentials.to_vec()), tag })
    }
}

impl Pending {
    /// Verifies them on a thread for such work and remembers them if they are a user's. When dropped before, it gives up
    /// its place in the queue, or else ends its work for nobody.
    pub async fn verify(self) -> Verdict {
        let turns = self.users.gate.turns;
        let Ok(place) = turns.places.try_acquire() else { return Verdict::Overloaded };
        let Ok(turn) = turns.at_once.acquire().await else { return Verdict::Overloaded };
        // Those who came first may have brought the same: a browser asks for many things at once.
        if let Some(name) = self.known() {
            return Verdict::Known(name);
        }
        let name = spawn_blocking(move || self.work((place, turn))).await.ok().flatten();
        name.map_or(Verdict::Refused, Verdict::Known)
    }

    fn known(&self) -> Option<Arc<str>> {
        self.users.gate.verified.find(self.tag.as_ref()?, Instant::now())
    }

    /// The permits are held until it is over, whether anybody still waits for that or not.
    fn work(self, _permits: (SemaphorePermit<'static>, SemaphorePermit<'static>)) -> Option<Arc<str>> {
        let (name, password) = split(self.credentials.expose())?;
        let name = self.users.verified(name, password)?;
        if let Some(tag) = self.tag {
            self.users.gate.verified.add(tag, &name, Instant::now());
        }
        Some(name)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// What the clones of [`Users`] share.
pub(super) struct Gate {
    verified: Verified,
    turns: &'static Turns,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { verified: Verified::new(), turns: &TURNS }
    }
}

/// So many passwords are verified at once, and so many more wait.
struct Turns {
    at_once: Semaphore,
    places: Semaphore,
}

impl Turns {
    const fn new(at_once: usize, waiting: usize) -> Self {
        Self { at_once: Semaphore::const_new(at_once), places: Semaphore::const_new(at_once + waiting) }
    }
}

/// The name, the colon and the password that such a field is of.
fn decode<'a>(authorization: &[u8], buffer: &'a mut [u8; LONGEST_ENCODED]) -> Option<&'a [u8]> {
    let (scheme, rest) = authorization.trim_ascii().split_at_checked("Basic".len())?;
    let encoded = rest.trim_ascii_start();
    if !scheme.eq_ignore_ascii_case(b"Basic") || encoded.len() == rest.len() || encoded.len() > LONGEST_ENCODED {
        return None;
    }
    let length = BASE64_STANDARD.decode_slice(encoded, buffer).ok()?;
    let credentials = buffer.get(..length)?;
    // Neither has control characters (RFC 7617 §2); bcrypt would stop at a NUL.
    let plain = length <= LONGEST && !credentials.iter().any(u8::is_ascii_control);
    (plain && split(credentials).is_some()).then_some(credentials)
}

/// The name has no colon, the password may.
fn split(credentials: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    let (name, rest) = credentials.split_at_checked(colon)?;
    Some((name, rest.strip_prefix(b":")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "a:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    fn users() -> Users {
        Users::parse(FILE).unwrap()
    }

    /// Users whose passwords are verified apart from those of other tests.
    fn users_with(turns: Turns) -> Users {
        let gate = Gate { verified: Verified::new(), turns: Box::leak(Box::new(turns)) };
        let mut users = users();
        users.gate = Arc::new(gate);
        users
    }

    fn basic(credentials: &str) -> Vec<u8> {
        format!("Basic {}", BASE64_STANDARD.encode(credentials)).into_bytes()
    }

    fn pending(users: &Users, credentials: &str) -> Pending {
        match users.check(&basic(credentials)) {
            Answer::Pending(pending) => pending,
            other @ (Answer::Known(_) | Answer::Refused) => panic!("{credentials}: {other:?}"),
        }
    }

    fn is_known(users: &Users, credentials: &str) -> bool {
        matches!(users.check(&basic(credentials)), Answer::Known(name) if &*name == "a")
    }

    #[tokio::test]
    async fn who_was_verified_once_is_known_at_once_and_nobody_else_is() {
        let users = users();
        assert_eq!(pending(&users, "a:secret").verify().await, Verdict::Known("a".into()));
        assert!(is_known(&users, "a:secret") && is_known(&users.clone(), "a:secret"));
        for wrong in ["a:Secret", "b:secret", "a:secret:", ":", "a:"] {
            assert_eq!(pending(&users, wrong).verify().await, Verdict::Refused, "{wrong}");
            assert!(!is_known(&users, wrong), "{wrong}");
        }
        let again = Users::parse(FILE).unwrap();
        assert!(!is_known(&again, "a:secret"), "the file was read anew");
    }

    #[tokio::test]
    async fn who_asks_for_many_things_at_once_is_verified_once() {
        let users = users_with(Turns::new(1, 2));
        let first = pending(&users, "a:secret");
        let second = pending(&users, "a:secret");
        let held = users.gate.turns.at_once.acquire().await.unwrap();
        let mut second = Box::pin(second.verify());
        assert!(poll_once(second.as_mut()).await.is_none());
        drop(held);
        assert!(first.known().is_none());
        let tag = first.tag.unwrap();
        users.gate.verified.add(tag, &"from the cache".into(), Instant::now());
        assert_eq!(second.await, Verdict::Known("from the cache".into()));
    }

    #[tokio::test]
    async fn when_the_queue_is_full_others_are_sent_away_and_who_leaves_makes_room() {
        let users = users_with(Turns::new(1, 1));
        let held = users.gate.turns.at_once.acquire().await.unwrap();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(pending(&users, "a:secret").verify())).collect();
        for one in &mut waiting {
            assert!(poll_once(one.as_mut()).await.is_none());
        }
        assert_eq!(pending(&users, "a:secret").verify().await, Verdict::Overloaded);
        waiting.pop();
        let last = pending(&users, "a:secret").verify();
        drop(held);
        let (first, last) = tokio::join!(waiting.remove(0), last);
        assert_eq!([first, last], [Verdict::Known("a".into()), Verdict::Known("a".into())]);
    }

    #[test]
    fn what_is_not_of_the_basic_scheme_is_refused() {
        let users = users();
        let refused = |value: &[u8]| matches!(users.check(value), Answer::Refused);
        for value in
            ["", "Basic", "Basic ", "Basic YTpi=", "Basic !", "Bearer YTpi", "BasicYTpi", "YTpi", "Basic YTpi YTpi"]
        {
            assert!(refused(value.as_bytes()), "{value:?}");
        }
        for credentials in ["a", "a:\0", "a\n:b", "a:b\x7f", &format!("a:{}", "x".repeat(LONGEST))] {
            assert!(refused(&basic(credentials)), "{credentials:?}");
        }
        for value in ["Basic YTpi", "bASIC   YTpi", " Basic YTpi "] {
            assert!(matches!(users.check(value.as_bytes()), Answer::Pending(_)), "{value:?}");
        }
        let longest = format!("a:{}", "x".repeat(LONGEST - 2));
        assert_eq!(split(pending(&users, &longest).credentials.expose()).unwrap().1.len(), LONGEST - 2);
    }

    #[test]
    fn a_password_may_have_colons_and_no_secret_is_shown() {
        assert_eq!(split(b"a:b:c"), Some((&b"a"[..], &b"b:c"[..])));
        assert_eq!(format!("{:?}", users().check(&basic("a:secret"))), "Pending(Pending { .. })");
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(mut work: F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut work).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
