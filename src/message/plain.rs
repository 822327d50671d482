//! Fields as almost all of them are, read eight bytes at a time: `Name: value`, with a name of letters, digits and dashes, one
//! space, and a value without control characters.
//!
//! Whatever is otherwise is none here, be it wrong or only rare, and is read by the rules of [`super::line`].

/// Where the parts of a field stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// Where its name ends.
    pub(super) name_end: usize,
    /// Where its value begins.
    pub(super) value: usize,
    /// Where that ends.
    pub(super) value_end: usize,
    /// Where the next line begins.
    pub(super) next: usize,
}

/// The field that begins at `start`, if it is whole and plain.
pub(super) fn field(bytes: &[u8], start: usize) -> Option<Plain> {
    let name_end = first(bytes, start, not_in_plain_names)?;
    let value = match *bytes.get(name_end..)?.first_chunk()? {
        [b':', b' '] if name_end > start => name_end + 2,
        _ => return None,
    };
    let value_end = first(bytes, value, controls)?;
    let [last, end @ ..] = *bytes.get(value_end.checked_sub(1)?..)?.first_chunk::<3>()?;
    // Spaces around a value are none of it.
    if end != *b"\r\n" || last == b' ' && value_end > value || bytes.get(value) == Some(&b' ') {
        return None;
    }
    Some(Plain { name_end, value, value_end, next: value_end + 2 })
}

/// The place of the first byte from `start` on that is one of those `marked`, of which zero is one, or the end of the bytes.
fn first(bytes: &[u8], start: usize, marked: impl Fn(u64) -> u64) -> Option<usize> {
    let (eights, rest) = bytes.get(start..)?.as_chunks();
    let mut at = start;
    for eight in eights {
        let marks = marked(u64::from_le_bytes(*eight));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
    Some(at + marked(last).trailing_zeros() as usize / 8)
}

const HIGHEST: u64 = all(0x80);

/// The same byte eight times.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks by their highest bit those of eight bytes under 128 that are no less than `least`, as do the others here.
const fn no_less(low: u64, least: u8) -> u64 {
    low + all(0x80 - least)
}

/// Marks those of eight bytes under 128 that are this one.
const fn equal(low: u64, byte: u8) -> u64 {
    !((low ^ all(byte)) + all(0x7f))
}

/// The bits of small letters in which they differ from capitals, and none of other bytes.
pub(super) const fn case(eight: u64) -> u64 {
    let low = eight & !HIGHEST;
    (no_less(low, b'a') & !no_less(low, b'z' + 1) & !eight & HIGHEST) >> 2
}

/// Marks what is neither a letter nor a digit nor a dash.
const fn not_in_plain_names(eight: u64) -> u64 {
    let low = eight & !HIGHEST;
    let lower = low | all(0x20);
    let letters = no_less(lower, b'a') & !no_less(lower, b'z' + 1);
    let digits = no_less(low, b'0') & !no_less(low, b'9' + 1);
    (!(letters | digits | equal(low, b'-')) | eight) & HIGHEST
}

/// Marks control characters, the tabulator among them.
const fn controls(eight: u64) -> u64 {
    let low = eight & !HIGHEST;
    (!no_less(low, b' ') | equal(low, 0x7f)) & !eight & HIGHEST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
        let found = field(bytes, 2)?;
        Some((&bytes[2..found.name_end], &bytes[found.value..found.value_end], &bytes[found.next..]))
    }

    #[test]
    fn a_plain_field_is_found_whatever_its_length() {
        for name in 1..20 {
            for value in 0..40 {
                let (name, value) = (&b"x-Y0".repeat(5)[..name], &b"a b\xff".repeat(10)[..value]);
                let bytes = [b"\r\n", name, b": ", value.trim_ascii(), b"\r\nnext line"].concat();
                assert_eq!(parts(&bytes), Some((name, value.trim_ascii(), &b"next line"[..])), "{bytes:?}");
            }
        }
    }

    #[test]
    fn whatever_else_stands_there_is_none() {
        for (at, byte) in (0..b"\r\nname: value\r\n".len()).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut bytes = *b"\r\nname: value\r\n and more";
            bytes[at] = byte;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let is_value = |byte: u8| !byte.is_ascii_control();
            let expected = match at {
                0 | 1 => true,
                2..6 => is_name(byte),
                8 | 12 => is_value(byte) && byte != b' ',
                9..12 => is_value(byte),
                _ => bytes == *b"\r\nname: value\r\n and more",
            };
            assert_eq!(parts(&bytes).is_some(), expected, "{:?}", String::from_utf8_lossy(&bytes));
        }
        for bytes in ["", "\r\n", "\r\n\r\n........", "\r\n: value\r\n........", "\r\na:b\r\n........", "\r\na: b"] {
            assert_eq!(parts(bytes.as_bytes()), None, "{bytes:?}");
        }
    }
}
