//! What was read of a request's body, for as long as it may have to be sent again.
//!
//! A body passes through; only its beginning is kept, and only until its server has begun to answer. A request whose body is
//! longer than that, or still goes on after that much, is sent once.

use std::io::Read as _;

use super::body::Piece;
use super::places::Place;
use crate::proxy::Requests;

/// How much of a body is kept.
const MOST: usize = 16 * 1024;
/// How much of all bodies of a worker together.
const MOST_TOGETHER: usize = 16 * 1024 * 1024;

/// What was read of a body.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    room: Option<Place>,
    /// Whether the body is over with them.
    end: bool,
    /// Whether no more is kept, so that something may be missing.
    is_over: bool,
    /// How many of them were given out again, while they are.
    again: Option<usize>,
}

impl Kept {
    /// Whether all that was read is here, be it nothing.
    pub(super) fn is_all(&self) -> bool {
        !self.is_over
    }

    /// How many bytes are here.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps a piece that was read, if there is room for it; `end` says that the body is over with it.
    pub(super) fn keep(&mut self, requests: &Requests, piece: &[u8], end: bool) {
        if self.is_over {
            return;
        }
        self.end = end;
        if piece.is_empty() {
            return;
        }
        let length = self.bytes.len().saturating_add(piece.len());
        self.room = None;
        if length <= MOST {
            self.room = requests.kept.take_some(length, MOST_TOGETHER);
        }
        if self.room.is_none() {
            return self.stop(requests);
        }
        if self.bytes.capacity() == 0 {
            self.bytes = requests.stash.buffer();
        }
        self.bytes.extend_from_slice(piece);
    }

    /// The body is not sent another time: all is forgotten but for what is still on its way for this one.
    pub(super) fn stop(&mut self, requests: &Requests) {
        self.is_over = true;
        if self.again.is_none() {
            self.room = None;
            requests.stash.return_buffer(std::mem::take(&mut self.bytes));
        }
    }

    /// All that is here is to be given out from its beginning.
    pub(super) fn rewind(&mut self) {
        let has_begun = self.end || !self.bytes.is_empty();
        self.again = has_begun.then_some(0);
    }

    /// Whether some of it has still to be given out again.
    pub(super) fn is_under_way(&self) -> bool {
        self.again.is_some()
    }

    /// Gives out the next piece of what is sent again, if there is one.
    pub(super) fn again(&mut self, requests: &Requests, buffer: &mut [u8]) -> Option<Piece> {
        let given = self.again?;
        let mut waiting = self.bytes.get(given..).unwrap_or_default();
        // Reading from memory does not fail.
        let bytes = waiting.read(buffer).unwrap_or_default();
        let is_last = waiting.is_empty();
        self.again = (!is_last).then_some(given + bytes);
        if is_last && self.is_over {
            self.stop(requests);
        }
        Some(Piece { bytes, end: is_last && self.end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given out again, in pieces of so many bytes at most.
    fn again(kept: &mut Kept, requests: &Requests, most: usize) -> (Vec<u8>, bool) {
        let (mut all, mut over) = (Vec::new(), false);
        let mut buffer = vec![0; most];
        while let Some(Piece { bytes, end }) = kept.again(requests, &mut buffer) {
            all.extend_from_slice(&buffer[..bytes]);
            assert!(!over, "a piece behind the last");
            over = end;
        }
        (all, over)
    }

    #[test]
    fn what_is_kept_is_given_out_again_as_often_as_it_is_asked_for_and_more_is_kept_behind_it() {
        let requests = Requests::default();
        let mut kept = Kept::default();
        kept.rewind();
        assert!(!kept.is_under_way(), "nothing was read");
        kept.keep(&requests, b"some", false);
        kept.rewind();
        assert!(kept.is_under_way() && kept.is_all());
        assert_eq!(again(&mut kept, &requests, 3), (b"some".to_vec(), false));
        assert!(!kept.is_under_way());
        kept.keep(&requests, b" more", true);
        for most in [1, 2, 9, 100] {
            kept.rewind();
            assert_eq!(again(&mut kept, &requests, most), (b"some more".to_vec(), true));
        }
    }

    #[test]
    fn an_end_without_a_byte_is_given_out_again_too() {
        let requests = Requests::default();
        let mut kept = Kept::default();
        kept.keep(&requests, b"", true);
        kept.rewind();
        assert!(kept.is_under_way());
        assert_eq!(again(&mut kept, &requests, 9), (Vec::new(), true));
        assert!(!kept.is_under_way());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_the_room_is_free_again() {
        let requests = Requests::default();
        let mut kept = Kept::default();
        kept.keep(&requests, &vec![1; MOST], false);
        assert_eq!((kept.is_all(), kept.len()), (true, MOST));
        kept.keep(&requests, &[1], false);
        assert_eq!((kept.is_all(), kept.len()), (false, 0));
        kept.keep(&requests, &[1], true);
        assert_eq!((kept.is_all(), kept.len()), (false, 0), "what comes later alone is of no use");
        let many: Vec<Kept> = (0..=MOST_TOGETHER / MOST)
            .map(|_| {
                let mut kept = Kept::default();
                kept.keep(&requests, &vec![1; MOST], true);
                kept
            })
            .collect();
        let (last, others) = many.split_last().unwrap();
        assert!(others.iter().all(Kept::is_all) && !last.is_all());
        drop(many);
        let mut kept = Kept::default();
        kept.keep(&requests, &[1], true);
        assert!(kept.is_all());
    }

    #[test]
    fn what_is_on_its_way_goes_on_to_its_end_when_no_more_is_kept() {
        let requests = Requests::default();
        let mut kept = Kept::default();
        kept.keep(&requests, b"some", true);
        kept.rewind();
        kept.stop(&requests);
        assert!(kept.is_under_way() && !kept.is_all());
        assert_eq!(again(&mut kept, &requests, 3), (b"some".to_vec(), true));
        assert_eq!(kept.len(), 0);
    }
}
