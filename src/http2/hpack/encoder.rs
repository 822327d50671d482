//! Packs header lists.

use super::put_number;
use super::table::STATIC;
use crate::message::name::{LONGEST, Words, words};

/// Says that nothing is remembered of what is sent (RFC 7541 §6.3): the other side needs no table for it.
pub const NO_TABLE: u8 = 0x20;
/// The place of `:status` with `200`, and of those that are not in the table with a value of their own.
const STATUS: usize = 8;
/// The most bytes that a field takes beside its own.
const MOST_PREFIXES: usize = 12;
/// Where the names of fields begin that are no pseudo-header ones.
const FIELDS: usize = 14;

/// A list that is packed, field by field.
#[derive(Debug)]
pub struct Packer<'o> {
    out: &'o mut Vec<u8>,
}

/// The pseudo-header fields that are written by their places in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    /// `:authority`
    Authority = 1,
    /// `:method`
    Method = 2,
    /// `:path`
    Path = 4,
    /// `:scheme`
    Scheme = 6,
}

impl<'o> Packer<'o> {
    /// Packs what follows behind what is there.
    #[must_use]
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// The status of a response.
    pub fn status(&mut self, status: u16) {
        let known = match status {
            200 => 0,
            204 => 1,
            206 => 2,
            304 => 3,
            400 => 4,
            404 => 5,
            500 => 6,
            _ => {
                put_number(STATUS, 4, 0, self.out);
                let digit = |of: u16| b'0' + (status / of % 10) as u8;
                self.out.extend_from_slice(&[3, digit(100), digit(10), digit(1)]);
                return;
            }
        };
        self.out.push(0x80 | (STATUS + known) as u8);
    }

    /// A pseudo-header field of a request.
    pub fn pseudo(&mut self, pseudo: Pseudo, value: &[u8]) {
        let whole = match (pseudo, value) {
            (Pseudo::Method, b"GET") => 2,
            (Pseudo::Method, b"POST") => 3,
            (Pseudo::Path, b"/") => 4,
            (Pseudo::Scheme, b"http") => 6,
            (Pseudo::Scheme, b"https") => 7,
            _ => {
                put_number(pseudo as usize, 4, 0, self.out);
                return self.string(value);
            }
        };
        self.out.push(0x80 | whole);
    }

    /// The protocol of an extended CONNECT (RFC 8441 §4).
    pub fn protocol(&mut self, value: &[u8]) {
        self.out.push(0);
        self.string(b":protocol");
        self.string(value);
    }

    /// A field; its name is written in lower case. What proves who somebody is enters no table of those behind
    /// (RFC 7541 §7.1.3).
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.out.reserve(name.len() + value.len() + MOST_PREFIXES);
        match place(name) {
            Some((place, is_secret)) => put_number(place, 4, if is_secret { 0x10 } else { 0 }, self.out),
            None => {
                self.out.push(0);
                put_number(name.len(), 7, 0, self.out);
                let from = self.out.len();
                self.out.extend_from_slice(name);
                self.out.get_mut(from..).unwrap_or_default().make_ascii_lowercase();
            }
        }
        self.string(value);
    }

    fn string(&mut self, text: &[u8]) {
        put_number(text.len(), 7, 0, self.out);
        self.out.extend_from_slice(text);
    }
}

/// How many names are tried at most: there are no more of one length.
const OF_A_LENGTH: usize = 6;
/// A name of the table, by its words and its place; zero is none.
#[derive(Clone, Copy)]
struct Known {
    words: Words,
    place: u8,
}

/// For each length, the names that have it.
static BY_LENGTH: [[Known; OF_A_LENGTH]; LONGEST + 1] = by_length();

/// The names that are longer, and their places.
const LONG: [(&str, usize); 2] = [("access-control-allow-origin", 20), ("strict-transport-security", 56)];

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse a place that is none")]
const fn by_length() -> [[Known; OF_A_LENGTH]; LONGEST + 1] {
    let mut all = [[Known { words: Words::of(""), place: 0 }; OF_A_LENGTH]; LONGEST + 1];
    let mut at = FIELDS;
    while at < STATIC.len() {
        let name = STATIC[at].0;
        if name.len() <= LONGEST {
            let of_length = &mut all[name.len()];
            let mut free = 0;
            while of_length[free].place != 0 {
                free += 1;
            }
            of_length[free] = Known { words: Words::of(name), place: at as u8 + 1 };
        }
        at += 1;
    }
    all
}

/// Where the table has this name, in any case, and whether its value is a secret.
fn place(name: &[u8]) -> Option<(usize, bool)> {
    let Some(of_length) = BY_LENGTH.get(name.len()) else {
        let long = LONG.into_iter().find(|(long, _)| name.eq_ignore_ascii_case(long.as_bytes()));
        return long.map(|(_, place)| (place, false));
    };
    let words = words(name);
    let is_it = |known: &&Known| known.words.are(words);
    let place = of_length.iter().take_while(|known| known.place != 0).find(is_it)?.place;
    /// `authorization`, `cookie`, `proxy-authorization` and `set-cookie`.
    const SECRETS: [u8; 4] = [23, 32, 49, 55];
    Some((place.into(), SECRETS.contains(&place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::decoder::Decoder;
    use proptest::prelude::*;

    fn packed(pack: impl FnOnce(&mut Packer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        pack(&mut Packer::new(&mut out));
        out
    }

    fn unpacked(block: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut list = Vec::new();
        let field = |name: &[u8], value: &[u8]| list.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
        Decoder::default().decode(block, field).unwrap();
        list
    }

    #[test]
    fn every_status_is_what_it_is() {
        for status in 100..=999 {
            let block = packed(|packer| packer.status(status));
            assert_eq!(unpacked(&block), [(":status".to_owned(), status.to_string().into_bytes())]);
        }
        assert_eq!(packed(|packer| packer.status(200)), [0x88]);
    }

    #[test]
    fn every_name_that_is_known_is_written_by_its_place() {
        for (name, _) in STATIC.iter().skip(FIELDS) {
            let block = packed(|packer| packer.field(name.to_ascii_uppercase().as_bytes(), b"v"));
            assert!(block.len() <= 4, "{name}: {block:?}");
            assert_eq!(unpacked(&block), [((*name).to_owned(), b"v".to_vec())]);
        }
    }

    #[test]
    fn pseudo_header_fields_are_what_they_are() {
        let all = [
            (Pseudo::Method, ":method", ["GET", "POST", "PATCH"]),
            (Pseudo::Scheme, ":scheme", ["http", "https", "ftp"]),
            (Pseudo::Path, ":path", ["/", "/index.html", "/x?y"]),
            (Pseudo::Authority, ":authority", ["", "example.com", "[::1]:80"]),
        ];
        for (pseudo, name, values) in all {
            for value in values {
                let block = packed(|packer| packer.pseudo(pseudo, value.as_bytes()));
                assert_eq!(unpacked(&block), [(name.to_owned(), value.as_bytes().to_vec())]);
            }
        }
        let block = packed(|packer| packer.protocol(b"websocket"));
        assert_eq!(unpacked(&block), [(":protocol".to_owned(), b"websocket".to_vec())]);
    }

    #[test]
    fn secrets_are_never_to_be_put_into_a_table() {
        for name in ["authorization", "Cookie", "proxy-authorization", "SET-COOKIE"] {
            let block = packed(|packer| packer.field(name.as_bytes(), b"secret"));
            assert_eq!(block[0] & 0xf0, 0x10, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(
            fields in prop::collection::vec(("[a-zA-Z0-9-]{1,200}", prop::collection::vec(any::<u8>(), 0..400)), 0..30),
        ) {
            let block = packed(|packer| fields.iter().for_each(|(name, value)| packer.field(name.as_bytes(), value)));
            let lower: Vec<_> = fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
            prop_assert_eq!(unpacked(&block), lower);
        }
    }
}
