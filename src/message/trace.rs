//! By what a request is known on its way: W3C Trace Context, and request ids.
//!
//! A `traceparent` that is one is passed on as it is, with its `tracestate`. Where there is none, or what is there is none, a
//! fresh one is made that asks nobody to record anything, and `tracestate` is dropped (W3C Trace Context §4.3).

use fastrand::Rng;

/// How long a `traceparent` of version 00 is; those of later versions begin with as much (§3.2.2 and §4.1).
const LENGTH: usize = 55;
/// The longest request id that is taken from a client.
const LONGEST_REQUEST_ID: usize = 128;

/// The `traceparent` to pass on, if the values of that field are one and valid; otherwise a fresh one has to be made.
#[must_use]
pub fn kept<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    values.next().filter(|value| is_valid(value) && values.next().is_none())
}

/// Whether a value is a valid `traceparent`: in lower-case hexadecimal a version, an id of the trace and one of the parent that
/// are not all zero, and flags. Of a version above 00 more may follow after another dash; there is no version ff.
#[must_use]
pub fn is_valid(traceparent: &[u8]) -> bool {
    let mut parts = traceparent.splitn(5, |byte| *byte == b'-');
    let mut next = |digits: usize| parts.next().filter(|part| part.len() == digits && part.iter().all(is_lower_hex));
    let (Some(version), Some(trace), Some(parent), Some(_flags)) = (next(2), next(32), next(16), next(2)) else {
        return false;
    };
    let follows = traceparent.len() > LENGTH;
    let is_set = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
    is_set(trace) && is_set(parent) && version != b"ff" && (version != b"00" || !follows)
}

/// A fresh `traceparent` with random ids and without the flag that asks for recording.
#[must_use]
pub fn make(rng: &mut Rng) -> [u8; LENGTH] {
    let mut made = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let [_, _, _, ids @ ..] = &mut made;
    let (trace, rest) = ids.split_at_mut(32);
    let [_, parent @ ..] = rest else { return made };
    // None of them may be zero.
    write_hex(trace, [rng.u64(..), rng.u64(..).max(1)]);
    write_hex(parent, [rng.u64(..).max(1)]);
    made
}

/// Whether a request id that somebody sent can be passed on and logged: 1 to 128 visible ASCII characters that need no
/// escaping anywhere and separate nothing.
#[must_use]
pub fn is_valid_request_id(id: &[u8]) -> bool {
    (1..=LONGEST_REQUEST_ID).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b','))
}

/// A fresh request id: 32 random digits.
#[must_use]
pub fn make_request_id(rng: &mut Rng) -> [u8; 32] {
    let mut digits = [0; 32];
    write_hex(&mut digits, [rng.u64(..), rng.u64(..)]);
    digits
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Writes numbers in lower-case hexadecimal one behind the other.
fn write_hex<const NUMBERS: usize>(place: &mut [u8], numbers: [u64; NUMBERS]) {
    let (pairs, _rest) = place.as_chunks_mut::<8>().0.as_chunks_mut();
    for ([high, low], number) in pairs.iter_mut().zip(numbers) {
        *high = hex_of_half((number >> 32) as u32);
        *low = hex_of_half(number as u32);
    }
}

/// The eight digits of half a number, all at once: each is spread to a byte of its own, and those from ten on are given what
/// lies between `9` and `a`.
const fn hex_of_half(half: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let pairs = (half as u64 | (half as u64) << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (bytes | bytes << 4) & (ONES * 0x0f);
    let from_ten_on = ((digits + ONES * 6) >> 4) & ONES;
    (digits + ONES * b'0' as u64 + from_ten_on * (b'a' - b'9' - 1) as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_traceparent_is_kept() {
        let later = VALID.replacen("00", "01", 1);
        for value in [VALID, &later, &format!("{later}-and-more"), &format!("{later}-"), &VALID.replace("-01", "-ff")] {
            assert_eq!(kept([value.as_bytes()].into_iter()), Some(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_not_kept() {
        let later = VALID.replacen("00", "cc", 1);
        for value in [
            "",
            "00",
            &VALID.to_ascii_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &VALID.replacen("00", "0", 1),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("0af7", "0ag7"),
            &VALID.replace('-', "_"),
            &VALID.replace("-01", "-1"),
            &VALID.replace("-01", ""),
            &format!("{VALID}-"),
            &format!("{VALID}-more"),
            &format!(" {VALID}"),
            &format!("{later}more"),
            &format!("{later}.more"),
        ] {
            assert_eq!(kept([value.as_bytes()].into_iter()), None, "{value:?}");
        }
        assert_eq!(kept([VALID.as_bytes(), VALID.as_bytes()].into_iter()), None, "two are none");
        assert_eq!(kept(std::iter::empty()), None);
    }

    #[test]
    fn what_is_made_is_valid_and_never_the_same() {
        let mut rng = Rng::with_seed(7);
        let (first, second) = (make(&mut rng), make(&mut rng));
        assert!(is_valid(&first) && is_valid(&second));
        assert!(first.ends_with(b"-00"), "nobody is asked to record");
        assert_ne!(first, second);
        let mut digits = [0; 32];
        write_hex(&mut digits, [0x0af7_6519_16cd_43dd, 0x8448_eb21_1c80_319c]);
        assert_eq!(digits, *b"0af7651916cd43dd8448eb211c80319c");
        let (first, second) = (make_request_id(&mut rng), make_request_id(&mut rng));
        assert!(is_valid_request_id(&first) && first.iter().all(is_lower_hex));
        assert_ne!(first, second);
    }

    #[test]
    fn a_request_id_is_short_and_needs_no_escaping() {
        for id in ["a", "1-2_3.4:5/6=+", &"x".repeat(128)] {
            assert!(is_valid_request_id(id.as_bytes()), "{id}");
        }
        for id in ["", "a b", "a,b", "a\"b", "a\\b", "a\n", "\u{fc}", &"x".repeat(129)] {
            assert!(!is_valid_request_id(id.as_bytes()), "{id:?}");
        }
    }
}
