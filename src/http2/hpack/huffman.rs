//! The Huffman code of HPACK (RFC 7541 appendix B), of which only the lengths are kept: the code is canonical, so that the
//! codes of a length follow one another in the order of their symbols.

use super::Fault;

/// The symbols: all bytes, and the one that would end a string.
const SYMBOLS: usize = 257;
/// The symbol that no string contains.
const END: u16 = 256;
/// The longest code.
const LONGEST: usize = 30;
/// How many bits are looked up at once: most text has no longer code.
const QUICK: u32 = 9;

/// How many bits the code of each symbol has.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// What a string is decoded by.
struct Code {
    /// The symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
    /// For each length: the first code, at the top of 32 bits; one past the last; and where its symbol stands.
    first: [u32; LONGEST + 1],
    limit: [u64; LONGEST + 1],
    place: [u16; LONGEST + 1],
    /// For the next bits, the symbol and the length of its code; a length of zero where it is longer than them.
    quick: [(u8, u8); 1 << QUICK],
}

static CODE: Code = code();

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse a place that is none")]
const fn code() -> Code {
    let mut code = Code {
        symbols: [0; SYMBOLS],
        first: [0; LONGEST + 1],
        limit: [0; LONGEST + 1],
        place: [0; LONGEST + 1],
        quick: [(0, 0); 1 << QUICK],
    };
    let (mut next, mut count, mut length) = (0_u64, 0, 1);
    while length <= LONGEST {
        let step = 1_u64 << (32 - length);
        code.first[length] = next as u32;
        code.place[length] = count as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.symbols[count] = symbol as u16;
                count += 1;
                if length <= QUICK as usize {
                    let from = (next >> (32 - QUICK)) as usize;
                    let mut at = from;
                    while at < from + (step >> (32 - QUICK)) as usize {
                        code.quick[at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                next += step;
            }
            symbol += 1;
        }
        code.limit[length] = next;
        length += 1;
    }
    assert!(count == SYMBOLS && next == 1 << 32, "every symbol has a code, and every code a symbol");
    code
}

impl Code {
    /// The symbol whose code stands at the top of these bits, and how long it is.
    fn longer(&self, window: u32) -> Option<(u16, u32)> {
        (QUICK + 1..=LONGEST as u32).find_map(|length| {
            let at = length as usize;
            if u64::from(window) >= *self.limit.get(at)? {
                return None;
            }
            let nth = (window - self.first.get(at)?) >> (32 - length);
            let symbol = self.symbols.get(usize::from(*self.place.get(at)?) + nth as usize)?;
            Some((*symbol, length))
        })
    }
}

/// Appends what a string stands for.
pub(super) fn decode(encoded: &[u8], text: &mut Vec<u8>) -> Result<(), Fault> {
    // Five bits are the shortest code.
    text.reserve(encoded.len() * 8 / 5);
    let mut bytes = encoded.iter();
    // What was read stands at the top.
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56
            && let Some(byte) = bytes.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        if count == 0 {
            return Ok(());
        }
        let quick = CODE.quick.get((bits >> (64 - QUICK)) as usize).filter(|(_, length)| *length > 0);
        let (symbol, length) = match quick {
            Some((symbol, length)) => (u16::from(*symbol), u32::from(*length)),
            None => CODE.longer((bits >> 32) as u32).ok_or(Fault("a string has a code that is none"))?,
        };
        if length > count {
            // What fills the last byte is the beginning of the longest code (RFC 7541 §5.2).
            let is_filling = count < 8 && bits.leading_ones() >= count;
            return if is_filling { Ok(()) } else { Err(Fault("a string ends within a code")) };
        }
        if symbol == END {
            return Err(Fault("a string has an end within it"));
        }
        text.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let codes = |symbol: u16| {
        let length = u32::from(LENGTHS[usize::from(symbol)]);
        let before = CODE.symbols[usize::from(CODE.place[length as usize])..].iter().take_while(|at| **at != symbol);
        ((CODE.first[length as usize] >> (32 - length)) + before.count() as u32, length)
    };
    let bits: Vec<u8> = text
        .iter()
        .map(|byte| codes(u16::from(*byte)))
        .flat_map(|(code, length)| (0..length).rev().map(move |bit| (code >> bit & 1) as u8))
        .collect();
    let byte = |bits: &[u8]| (0..8).fold(0, |byte, at| byte << 1 | bits.get(at).copied().unwrap_or(1));
    bits.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(encoded: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        decode(encoded, &mut text).map(|()| text)
    }

    #[test]
    fn the_examples_of_the_rfc_are_what_they_stand_for() {
        // RFC 7541 appendices C.4 and C.6.
        let examples: [(&str, &str); 8] = [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ];
        for (encoded, text) in examples {
            let bytes: Vec<u8> =
                (0..encoded.len() / 2).map(|at| u8::from_str_radix(&encoded[at * 2..][..2], 16).unwrap()).collect();
            assert_eq!(decoded(&bytes).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), bytes);
        }
    }

    #[test]
    fn every_byte_has_a_code() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)).unwrap(), all);
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn what_fills_the_last_byte_is_ones_and_less_than_a_byte() {
        // `a` is 00011.
        assert_eq!(decoded(&[0b0001_1111]).unwrap(), b"a");
        assert!(decoded(&[0b0001_1000]).is_err(), "zeros");
        assert!(decoded(&[0b0001_1111, 0xff]).is_err(), "a byte of ones");
        assert!(decoded(&[0xff]).is_err(), "nothing else");
        assert!(decoded(&[0xff; 4]).is_err(), "the end");
        assert!(decoded(&[0xff, 0xff, 0xff, 0b1111_1100]).is_err(), "the end, and what fills a byte");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_a_text_that_is_encoded_so_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = decoded(&bytes) {
                prop_assert_eq!(encode(&text), bytes);
            }
        }
    }
}
