//! Unpacks header lists.

use super::table::{Dynamic, STATIC};
use super::{Fault, huffman, take_number};

/// How large the other side's table may be: what the RFC begins with, which nobody is asked to change (RFC 9113 §6.5.2).
const TABLE: usize = 4096;
/// What is kept for the next list of the room that strings were decoded in.
const SCRATCH_KEPT: usize = 512;

/// Unpacks the header lists of a connection, each of which may refer to those before.
#[derive(Debug)]
pub struct Decoder {
    table: Dynamic,
    /// Where strings are decoded.
    scratch: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: Dynamic::new(TABLE), scratch: Vec::new() }
    }
}

/// Where a string stands.
enum Text<'b> {
    Plain(&'b [u8]),
    /// It was decoded, up to there.
    Decoded(usize),
}

impl Decoder {
    /// Unpacks a list, and hands over its fields one after the other.
    ///
    /// # Errors
    /// What is wrong with it; the connection can be used no more then.
    pub fn decode(&mut self, block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        let decoded = self.fields(block, &mut field);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
        decoded
    }

    fn fields(&mut self, mut block: &[u8], field: &mut impl FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        let mut begun = false;
        while let Some(first) = block.first() {
            match first {
                0x80.. => {
                    let (name, value) = self.entry(take_number(7, &mut block)?)?;
                    field(name, value);
                }
                0x40.. => self.literal(6, &mut block, true, field)?,
                0x20.. => {
                    let most = take_number(5, &mut block)?;
                    if begun || most > TABLE {
                        return Err(Fault("the table is made larger than agreed, or within a list"));
                    }
                    self.table.resize(most);
                    continue;
                }
                _ => self.literal(4, &mut block, false, field)?,
            }
            begun = true;
        }
        Ok(())
    }

    /// The entry of an index.
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Fault> {
        let index = index.checked_sub(1).ok_or(Fault("an index is zero"))?;
        match STATIC.get(index) {
            Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
            None => self.table.get(index - STATIC.len()).ok_or(Fault("an index is of no entry")),
        }
    }

    /// A field that is said in full, or whose name alone is known; `enters` the table or not.
    fn literal(
        &mut self,
        bits: u32,
        block: &mut &[u8],
        enters: bool,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Fault> {
        let index = take_number(bits, block)?;
        self.scratch.clear();
        let name = match index {
            0 => Some(string(block, &mut self.scratch)?),
            _ => None,
        };
        let value_at = self.scratch.len();
        let value = string(block, &mut self.scratch)?;
        let of = |text: &Text<'_>, from: usize| match text {
            Text::Plain(_) => from..from,
            Text::Decoded(end) => from..*end,
        };
        let value = match &value {
            Text::Plain(value) => value,
            Text::Decoded(_) => self.scratch.get(of(&value, value_at)).unwrap_or_default(),
        };
        match &name {
            Some(Text::Plain(name)) => {
                field(name, value);
                if enters {
                    self.table.insert(name, value);
                }
            }
            Some(name @ Text::Decoded(_)) => {
                let name = self.scratch.get(of(name, 0)).unwrap_or_default();
                field(name, value);
                if enters {
                    self.table.insert(name, value);
                }
            }
            None => match index.checked_sub(1 + STATIC.len()) {
                None => {
                    let (name, _) = STATIC.get(index - 1).ok_or(Fault("an index is of no entry"))?;
                    field(name.as_bytes(), value);
                    if enters {
                        self.table.insert(name.as_bytes(), value);
                    }
                }
                Some(nth) => {
                    let (name, _) = self.table.get(nth).ok_or(Fault("an index is of no entry"))?;
                    field(name, value);
                    if enters {
                        // The entry whose name it is may have to make room for it (RFC 7541 §4.4).
                        let name = name.to_vec();
                        self.table.insert(&name, value);
                    }
                }
            },
        }
        Ok(())
    }
}

/// Takes a string off the front (RFC 7541 §5.2).
fn string<'b>(block: &mut &'b [u8], scratch: &mut Vec<u8>) -> Result<Text<'b>, Fault> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = take_number(7, block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Fault("a string is longer than what came"))?;
    *block = rest;
    if !is_coded {
        return Ok(Text::Plain(text));
    }
    huffman::decode(text, scratch)?;
    Ok(Text::Decoded(scratch.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type List = Vec<(String, String)>;

    fn unpacked(decoder: &mut Decoder, block: &[u8]) -> Result<List, Fault> {
        let mut list = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |name, value| list.push((text(name), text(value))))?;
        Ok(list)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..][..2], 16).unwrap()).collect()
    }

    fn list(fields: &[(&str, &str)]) -> List {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_requests_of_the_rfc_are_unpacked_plain_and_coded() {
        // RFC 7541 appendices C.3 and C.4.
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let host = (":authority", "www.example.com");
        let lists = [
            list(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), host]),
            list(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), host, ("cache-control", "no-cache")]),
            list(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/index.html"),
                host,
                ("custom-key", "custom-value"),
            ]),
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::default();
            for (block, list) in blocks.iter().zip(&lists) {
                assert_eq!(unpacked(&mut decoder, &hex(block)).as_ref(), Ok(list));
            }
        }
    }

    #[test]
    fn the_responses_of_the_rfc_are_unpacked_though_entries_leave() {
        // RFC 7541 appendix C.6, with the table of 256 bytes that it is for.
        let blocks = [
            "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718
             63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
             dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let (private, site) = (("cache-control", "private"), ("location", "https://www.example.com"));
        let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
        let lists = [
            list(&[(":status", "302"), private, date, site]),
            list(&[(":status", "307"), private, date, site]),
            list(&[
                (":status", "200"),
                private,
                ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
                site,
                ("content-encoding", "gzip"),
                ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
            ]),
        ];
        let mut decoder = Decoder::default();
        for (block, list) in blocks.iter().zip(&lists) {
            assert_eq!(unpacked(&mut decoder, &hex(block)).as_ref(), Ok(list));
        }
        assert!(decoder.table.get(3).is_none(), "the first ones have made room");
    }

    #[test]
    fn what_refers_to_nothing_or_does_not_end_is_refused() {
        let bad: [(&str, &[u8]); 11] = [
            ("index zero", &[0x80]),
            ("an index of no entry", &[0xbe]),
            ("a name of no entry", &[0x7e, 1, b'x']),
            ("a number without an end", &[0xff, 0x80]),
            ("a number beyond all", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("a literal without a value", &[0x41]),
            ("a string that is longer than what came", &[0x41, 5, b'x']),
            ("a name without an end", &[0x40, 0x85]),
            ("a coded string with a filling of zeros", &[0x41, 0x81, 0x18]),
            ("a table larger than agreed", &[0x3f, 0xe2, 0x1f]),
            ("a table that changes within a list", &[0x82, 0x20]),
        ];
        for (what, block) in bad {
            assert!(unpacked(&mut Decoder::default(), block).is_err(), "{what}");
        }
        assert_eq!(unpacked(&mut Decoder::default(), &[0x20, 0x3f, 0xe1, 0x1f, 0x82]), Ok(list(&[(":method", "GET")])));
    }

    #[test]
    fn an_entry_may_take_the_place_of_the_one_whose_name_it_has() {
        let mut decoder = Decoder::default();
        let large = "v".repeat(4000);
        let entry = |index: u8, name: &[u8], value: &str| {
            let mut block = vec![0x40 | index];
            block.extend_from_slice(name);
            super::super::put_number(value.len(), 7, 0, &mut block);
            block.extend_from_slice(value.as_bytes());
            block
        };
        unpacked(&mut decoder, &entry(0, b"\x04name", &large)).unwrap();
        assert_eq!(unpacked(&mut decoder, &entry(62, b"", &large)), Ok(list(&[("name", &large)])));
        assert_eq!(unpacked(&mut decoder, &[0xbe]), Ok(list(&[("name", &large)])));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic_or_keep_much(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _good_or_bad = decoder.decode(&block, |_, _| {});
                prop_assert!(decoder.scratch.capacity() <= SCRATCH_KEPT);
            }
        }
    }
}
