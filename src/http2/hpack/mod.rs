//! HPACK (RFC 7541): header lists as HTTP/2 packs them.
//!
//! What comes in may use all of it. What goes out names what every decoder knows, and has the rest in plain: nothing is
//! remembered of what was sent, so that nothing has to be found there again.

pub mod decoder;
pub mod encoder;
mod huffman;
mod table;

/// What is wrong with a packed list, in words. Nothing can be unpacked any more on a connection that had one (RFC 7541 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

/// Takes a number off the front, of which the first byte has its lowest bits (RFC 7541 §5.1).
fn take_number(bits: u32, bytes: &mut &[u8]) -> Result<usize, Fault> {
    let (first, mut rest) = bytes.split_first().ok_or(Fault("a number is missing"))?;
    let most = (1_u32 << bits) - 1;
    let mut number = u32::from(*first) & most;
    if number == most {
        // Four more bytes hold more than any length that is taken.
        for place in 0..4 {
            let (byte, after) = rest.split_first().ok_or(Fault("a number has no end"))?;
            rest = after;
            number += u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                *bytes = rest;
                return Ok(number as usize);
            }
        }
        return Err(Fault("a number is too large"));
    }
    *bytes = rest;
    Ok(number as usize)
}

/// Writes a number whose first byte has it in its lowest bits, and `pattern` above them.
#[inline]
fn put_number(number: usize, bits: u32, pattern: u8, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    match number.checked_sub(most) {
        None => out.push(pattern | number as u8),
        Some(rest) => {
            out.push(pattern | most as u8);
            put_rest(rest, out);
        }
    }
}

fn put_rest(mut rest: usize, out: &mut Vec<u8>) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc_are_what_they_stand_for() {
        // RFC 7541 appendix C.1.
        for (number, bits, bytes) in [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
            let mut out = Vec::new();
            put_number(number, bits, 0, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(take_number(bits, &mut &*out), Ok(number));
        }
    }

    #[test]
    fn numbers_without_an_end_and_beyond_all_are_refused() {
        for bytes in
            [&[][..], &[0x1f], &[0x1f, 0x80], &[0x1f, 0xff, 0xff, 0xff, 0xff], &[0x1f, 0x80, 0x80, 0x80, 0x80, 0]]
        {
            assert!(take_number(5, &mut { bytes }).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(number in 0_usize..200_000_000, bits in 1_u32..=8) {
            let mut out = Vec::new();
            put_number(number, bits, 0, &mut out);
            out.push(7);
            let mut rest = &*out;
            prop_assert_eq!(take_number(bits, &mut rest), Ok(number));
            prop_assert_eq!(rest, &[7]);
        }
    }
}
