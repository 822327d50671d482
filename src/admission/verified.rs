//! Names and passwords that were found to belong together a short while ago, so that one is not verified for each request.
//!
//! What is kept of a password is a tag that nobody can compute, or try passwords against, without the key, which is drawn
//! at random and never leaves the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::rand;

/// How many are remembered.
const MOST: usize = 1024;
/// For how long one is, from when it was verified.
const LASTS: Duration = Duration::from_secs(5 * 60);

/// What is remembered. Readers take no lock; a writer copies it all, which is little beside what verifying cost before.
pub(super) struct Verified {
    /// `None` if the system gave no random bytes: then nothing is remembered.
    key: Option<Key>,
    known: ArcSwap<HashMap<Tag, Known>>,
}

/// What stands for a name and a password.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag([u8; 32]);

#[derive(Clone)]
struct Known {
    name: Arc<str>,
    until: Instant,
}

impl Verified {
    /// Nobody so far.
    pub(super) fn new() -> Self {
        let mut bytes = [0; 32];
        let key = rand::fill(&mut bytes).ok().map(|()| Key::new(HMAC_SHA256, &bytes));
        Self { key, known: ArcSwap::default() }
    }

    /// What stands for these credentials.
    pub(super) fn tag(&self, credentials: &[u8]) -> Option<Tag> {
        sign(self.key.as_ref()?, credentials).as_ref().try_into().ok().map(Tag)
    }

    /// Who they are of, if that was verified lately.
    pub(super) fn find(&self, tag: &Tag, now: Instant) -> Option<Arc<str>> {
        let known = self.known.load();
        known.get(tag).filter(|known| now < known.until).map(|known| Arc::clone(&known.name))
    }

    /// Remembers that they are of this user, in place of the oldest if there are too many.
    pub(super) fn add(&self, tag: Tag, name: &Arc<str>, now: Instant) {
        self.known.rcu(|known| {
            let mut known: HashMap<Tag, Known> = HashMap::clone(known);
            known.retain(|_, known| now < known.until);
            if known.len() >= MOST && !known.contains_key(&tag) {
                let oldest = known.iter().min_by_key(|(_, known)| known.until).map(|(tag, _)| *tag);
                oldest.and_then(|oldest| known.remove(&oldest));
            }
            known.insert(tag, Known { name: Arc::clone(name), until: now + LASTS });
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    #[test]
    fn what_was_verified_is_known_for_a_while_and_by_its_own_tag_alone() {
        let verified = Verified::new();
        let now = Instant::now();
        let tag = verified.tag(b"a:secret").unwrap();
        assert!(verified.find(&tag, now).is_none());
        verified.add(tag, &name("a"), now);
        assert_eq!(verified.find(&tag, now).as_deref(), Some("a"));
        assert_eq!(verified.find(&tag, now + LASTS - Duration::from_nanos(1)).as_deref(), Some("a"));
        assert!(verified.find(&tag, now + LASTS).is_none());
        assert!(verified.find(&verified.tag(b"a:secret2").unwrap(), now).is_none());
    }

    #[test]
    fn a_tag_is_worth_nothing_under_another_key() {
        let tag = |verified: Verified| verified.tag(b"a:secret").unwrap().0;
        assert_ne!(tag(Verified::new()), tag(Verified::new()));
    }

    #[test]
    fn the_oldest_is_forgotten_for_the_newest_and_what_is_over_before_that() {
        let verified = Verified::new();
        let start = Instant::now();
        let tag = |number: usize| verified.tag(&number.to_be_bytes()).unwrap();
        let at = |number: usize| start + Duration::from_millis(number as u64);
        (0..=MOST).for_each(|number| verified.add(tag(number), &name("a"), at(number)));
        assert_eq!(verified.known.load().len(), MOST);
        assert!(verified.find(&tag(0), start).is_none() && verified.find(&tag(1), start).is_some());
        verified.add(tag(1), &name("a"), at(MOST + 1));
        assert_eq!(verified.known.load().len(), MOST, "one that is there again takes no other's place");
        verified.add(tag(MOST + 1), &name("a"), start + 2 * LASTS);
        assert_eq!(verified.known.load().len(), 1);
    }
}
