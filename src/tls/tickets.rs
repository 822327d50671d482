//! Session tickets (RFC 5077, RFC 8446 §4.6.1): sealed with keys that are the server's own and rotate, or with keys from a
//! file, which several machines share. A ticket holds the whole session, so the server remembers nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::server::ProducesTickets;

use crate::units::Secret;

/// How long a key of our own seals tickets before the next one does.
const ROTATION: Duration = Duration::from_secs(6 * 3600);
/// How many keys of our own open tickets: the one that seals and those before it.
const KEPT: usize = 3;
/// How long a client may keep a ticket, in seconds: as long as two rotations, so that a key that opens it is there.
const LIFETIME: u32 = 2 * 6 * 3600;
/// How many bytes tell which key sealed a ticket.
const LABEL: usize = 16;
/// The fewest and the most bytes a key in a file may have.
const SIZES: std::ops::RangeInclusive<usize> = 32..=256;
/// The most keys in a file.
const MOST: usize = 64;

/// Seals and opens the tickets of one policy towards clients, and of no other.
#[derive(Debug)]
pub(super) struct Tickets {
    /// The first seals, all open.
    keys: ArcSwap<Vec<Arc<Key>>>,
    /// Whether keys are our own and are replaced in time.
    rotates: bool,
}

struct Key {
    label: [u8; LABEL],
    sealer: RandomizedNonceKey,
    made: Instant,
}

impl Tickets {
    /// With keys of our own.
    pub(super) fn rotating() -> Self {
        Self { keys: ArcSwap::from_pointee(Key::random().into_iter().map(Arc::new).collect()), rotates: true }
    }

    /// With keys from a file, newest first; `policy` keeps the tickets of different policies apart.
    pub(super) fn shared(secrets: &[Secret], policy: &[u8]) -> Self {
        let keys = secrets.iter().filter_map(|secret| Key::derived(secret.expose(), policy)).map(Arc::new).collect();
        Self { keys: ArcSwap::from_pointee(keys), rotates: false }
    }

    /// The key to seal with; makes a new one when it is time. Of two threads that find so, one makes it.
    fn sealing(&self) -> Option<Arc<Key>> {
        let keys = self.keys.load();
        let first = keys.first().map(Arc::clone);
        if !self.rotates || first.as_ref().is_some_and(|key| key.made.elapsed() < ROTATION) {
            return first;
        }
        let Some(fresh) = Key::random().map(Arc::new) else {
            return first;
        };
        let next = std::iter::once(Arc::clone(&fresh)).chain(keys.iter().map(Arc::clone)).take(KEPT).collect();
        self.keys.compare_and_swap(&keys, Arc::new(next));
        self.keys.load().first().map(Arc::clone)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let key = self.sealing()?;
        let mut sealed = session.to_vec();
        let nonce = key.sealer.seal_in_place_append_tag(Aad::from(key.label), &mut sealed).ok()?;
        Some([&key.label[..], &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (label, rest) = ticket.split_at_checked(LABEL)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.load();
        let old = |key: &Key| self.rotates && key.made.elapsed() > ROTATION * 3;
        let key = keys.iter().find(|key| key.label == label && !old(key))?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.sealer.open_in_place(nonce, Aad::from(key.label), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

impl Key {
    fn new(label: [u8; LABEL], bytes: &[u8]) -> Option<Self> {
        // Nonces are random, which this algorithm forgives to repeat (RFC 8452): a shared key may seal for years.
        let sealer = RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes).ok()?;
        Some(Self { label, sealer, made: Instant::now() })
    }

    fn random() -> Option<Self> {
        let (mut label, mut bytes) = ([0; LABEL], [0; 32]);
        rand::fill(&mut label).ok()?;
        rand::fill(&mut bytes).ok()?;
        Self::new(label, &bytes)
    }

    fn derived(secret: &[u8], policy: &[u8]) -> Option<Self> {
        let root = Salt::new(HKDF_SHA256, b"portreeve session tickets").extract(secret);
        let mut label = [0; LABEL];
        label.copy_from_slice(expand(&root, &[b"label", policy])?.get(..LABEL)?);
        Self::new(label, &expand(&root, &[b"key", policy])?)
    }
}

fn expand(root: &Prk, info: &[&[u8]]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    root.expand(info, HKDF_SHA256).ok()?.fill(&mut bytes).ok()?;
    Some(bytes)
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

/// Reads a file of ticket keys: one on each line in base64, newest first; empty lines and those that begin with `#` do not
/// count.
///
/// # Errors
/// What is wrong with it; the words hold nothing of a key.
pub fn ticket_keys(file: &[u8]) -> Result<Vec<Secret>, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
    let lines = text.lines().map(str::trim).enumerate();
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let bytes = STANDARD.decode(line).map_err(|_| format!("line {} is no base64", number + 1))?;
        if SIZES.contains(&bytes.len()) {
            return Ok(Secret::new(bytes));
        }
        let (least, most) = (SIZES.start(), SIZES.end());
        Err(format!("the key on line {} has {} bytes, and not {least} to {most}", number + 1, bytes.len()))
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    match keys.len() {
        0 => Err("there is no key in it".to_owned()),
        1..=MOST => Ok(keys),
        more => Err(format!("it holds {more} keys, and at most {MOST} are looked through")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &[u8] = b"all there is to know of a session";

    #[test]
    fn a_ticket_is_opened_by_the_policy_that_sealed_it_and_by_no_other() {
        let secrets = [Secret::new(vec![7; 48])];
        let (one, same, other) =
            (Tickets::shared(&secrets, b"a"), Tickets::shared(&secrets, b"a"), Tickets::shared(&secrets, b"b"));
        let ticket = one.encrypt(SESSION).unwrap();
        assert_eq!(same.decrypt(&ticket).as_deref(), Some(SESSION), "another machine with the same keys");
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(Tickets::rotating().decrypt(&ticket), None);
        assert!(!ticket.windows(8).any(|part| SESSION.starts_with(part)), "it is readable");
    }

    #[test]
    fn keys_behind_the_first_still_open_what_they_sealed() {
        let [old, new] = [7, 8].map(|byte| Secret::new(vec![byte; 32]));
        let ticket = Tickets::shared(std::slice::from_ref(&old), b"").encrypt(SESSION).unwrap();
        let rotated = Tickets::shared(&[new.clone(), old], b"");
        assert_eq!(rotated.decrypt(&ticket).as_deref(), Some(SESSION));
        let ticket = rotated.encrypt(SESSION).unwrap();
        assert_eq!(Tickets::shared(&[new], b"").decrypt(&ticket).as_deref(), Some(SESSION), "the first one seals");
    }

    #[test]
    fn garbled_tickets_open_nothing() {
        let tickets = Tickets::rotating();
        let ticket = tickets.encrypt(SESSION).unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(SESSION));
        for place in 0..ticket.len() {
            let mut garbled = ticket.clone();
            garbled[place] ^= 1;
            assert_eq!(tickets.decrypt(&garbled), None, "byte {place}");
            assert_eq!(tickets.decrypt(&ticket[..place]), None, "the first {place} bytes");
        }
    }

    #[test]
    fn a_key_file_has_a_key_on_each_line() {
        let line = STANDARD.encode([1; 48]);
        let keys = ticket_keys(format!("# newest first\n{line}\n\n  {line}\r\n").as_bytes()).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(!format!("{keys:?}").contains('1'), "{keys:?}");
        for wrong in ["", "# nothing", "not base64!", &STANDARD.encode([1; 31])] {
            assert!(ticket_keys(wrong.as_bytes()).is_err(), "{wrong:?} was accepted");
        }
    }
}
