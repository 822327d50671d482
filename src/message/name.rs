//! Names of fields, compared in any case and all at once: that one is another is seldom known before its last byte.

use super::plain::case;

/// The longest name whose words are all of it.
pub const LONGEST: usize = 24;

/// The bytes of a name of up to [`LONGEST`] as words: the first, the last and those behind the first, which may overlap. Two
/// names of one length are the same if these are.
#[must_use]
pub const fn words(name: &[u8]) -> [u64; 3] {
    match (name.first_chunk(), name.last_chunk(), name.split_at_checked(8)) {
        (Some(first), Some(last), Some((_, rest))) => {
            let middle = match rest.first_chunk() {
                Some(middle) => u64::from_le_bytes(*middle),
                None => 0,
            };
            [u64::from_le_bytes(*first), u64::from_le_bytes(*last), middle]
        }
        _ => match (name.first_chunk(), name.last_chunk(), name) {
            (Some(first), Some(last), _) => [u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64, 0],
            (_, _, [a, b, c]) => [*a as u64 | (*b as u64) << 8 | (*c as u64) << 16, 0, 0],
            (_, _, [a, b]) => [*a as u64 | (*b as u64) << 8, 0, 0],
            (_, _, [a]) => [*a as u64, 0, 0],
            _ => [0; 3],
        },
    }
}

/// The words of a name in lower case, and with each the bits in which its letters differ from capitals.
#[derive(Clone, Copy, Debug)]
pub struct Words([(u64, u64); 3]);

impl Words {
    /// Those of this name.
    ///
    /// # Panics
    /// When it is longer than [`LONGEST`].
    #[must_use]
    pub const fn of(name: &str) -> Self {
        assert!(name.len() <= LONGEST, "its words are all of it");
        let [first, last, middle] = words(name.as_bytes());
        Self([(first, case(first)), (last, case(last)), (middle, case(middle))])
    }

    /// Whether these are the words of the name, in any case.
    #[must_use]
    pub fn are(self, words: [u64; 3]) -> bool {
        words.into_iter().zip(self.0).fold(0, |differ, (own, (word, case))| differ | (own | case) ^ word) == 0
    }
}
