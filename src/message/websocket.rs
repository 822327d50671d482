//! The key of WebSocket's opening handshake and the answer to it (RFC 6455 §4), for requests that come by HTTP/2, which has
//! neither (RFC 8441 §5), and go on by HTTP/1, or the other way round.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fastrand::Rng;

/// What a server appends to a key before it hashes it (§1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A fresh key: sixteen bytes in base64. It proves that the answer is one to this request, and keeps no secret.
#[must_use]
pub fn make_key(rng: &mut Rng) -> [u8; 24] {
    let mut key = [0; 24];
    // Sixteen bytes always make 24 letters.
    let _all = BASE64_STANDARD.encode_slice(rng.u128(..).to_be_bytes(), &mut key);
    key
}

/// What a server answers that was sent `key` and understood it.
#[must_use]
pub fn accept(key: &[u8]) -> String {
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

/// Whether this is what a server answers that was sent `key` and understood it.
#[must_use]
pub fn accepts(key: &[u8], answer: &[u8]) -> bool {
    accept(key).as_bytes() == answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        assert!(accepts(b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!accepts(b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOO="));
        assert!(!accepts(b"dGhlIHNhbXBsZSBub25jZQ==", b""));
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_another_each_time() {
        let mut rng = Rng::with_seed(1);
        let (one, other) = (make_key(&mut rng), make_key(&mut rng));
        assert_ne!(one, other);
        assert_eq!(BASE64_STANDARD.decode(one).unwrap().len(), 16);
    }
}
