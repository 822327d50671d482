//! Which bytes may stand where: the characters of RFC 9110 §5.6.2, §5.5 and RFC 3986, as tables.

const TOKEN: u8 = 1;
const LOWER_TOKEN: u8 = 2;
const PATH: u8 = 4;
const QUERY: u8 = 8;
const HOST: u8 = 16;

static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse a place that is none")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        let alphanumeric = c.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric || in_set(c, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
            if !c.is_ascii_uppercase() {
                class |= LOWER_TOKEN;
            }
        }
        // What RFC 3986 has, and what browsers send beside it (URL Standard §1.3) where nobody reads it in two ways.
        if alphanumeric || in_set(c, b"-._~%!$&'()*+,;=:@/[]|^") {
            class |= PATH;
        }
        if alphanumeric || in_set(c, b"-._~%!$&'()*+,;=:@/?[]|^{}`\\") {
            class |= QUERY;
        }
        if alphanumeric || in_set(c, b"-._~%!$&'()*+,;=") {
            class |= HOST;
        }
        classes[byte] = class;
        byte += 1;
    }
    classes
}

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse a place that is none")]
const fn in_set(c: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == c {
            return true;
        }
        at += 1;
    }
    false
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Whether the byte may stand in a token: a method, the name of a field.
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether these bytes are a token without capitals: the name of a field in HTTP/2 (RFC 9113 §8.2).
#[must_use]
pub fn is_lower_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is(*byte, LOWER_TOKEN))
}

/// Whether these bytes are a token.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is(*byte, TOKEN))
}

/// Whether the byte may stand in the value of a field.
#[must_use]
pub fn is_value_byte(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// Whether these bytes can be the value of a field.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    let (eights, rest) = bytes.as_chunks();
    let are_values =
        |eight: &[u8; 8]| are_plain(u64::from_ne_bytes(*eight)) || eight.iter().all(|byte| is_value_byte(*byte));
    eights.iter().all(are_values) && rest.iter().all(|byte| is_value_byte(*byte))
}

/// Whether none of eight bytes is a control character, be it one that may stand in a value: of each of them the highest bit is
/// that of a difference which is negative only if it is one.
const fn are_plain(eight: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    let from_delete = eight ^ (ONES * 0x7f);
    let low = eight.wrapping_sub(ONES * 0x20) & !eight;
    let delete = from_delete.wrapping_sub(ONES) & !from_delete;
    (low | delete) & HIGHEST == 0
}

/// Whether these bytes can be a path.
#[must_use]
pub fn is_path(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'/') && bytes.iter().all(|byte| is(*byte, PATH))
}

/// Whether the byte may stand in a path.
#[must_use]
pub fn is_path_byte(byte: u8) -> bool {
    is(byte, PATH)
}

/// Whether these bytes can be a query, without its question mark.
#[must_use]
pub fn is_query(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| is(*byte, QUERY))
}

/// Whether the byte may stand in a registered name (RFC 3986 §3.2.2).
#[must_use]
pub fn is_host_byte(byte: u8) -> bool {
    is(byte, HOST)
}

/// The parts of a list, without the spaces around them and without empty ones (RFC 9110 §5.6.1). Commas in quotes are
/// taken for separators as well: no list that is read here has any.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_no_value_has_is_found_at_every_place() {
        for byte in 0..=u8::MAX {
            for length in 0..20 {
                for place in 0..length {
                    for others in [b" ", b"~", b"\t", b"\xff"] {
                        let mut value = others.repeat(length);
                        value[place] = byte;
                        assert_eq!(is_value(&value), is_value_byte(byte), "{value:?}");
                    }
                }
            }
        }
        assert!(is_value(b""));
    }
}
