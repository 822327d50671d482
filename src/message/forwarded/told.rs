//! What `Forwarded` says, in the words of the `X-Forwarded-*` (RFC 7239 §4 and §7.4), for proxies that speak no others.

use super::super::list;
use super::super::token::is_token;

/// What the elements say; nothing where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// For whom, as `X-Forwarded-For` lists them; who is hidden is `unknown`.
    pub(super) for_: Vec<u8>,
    /// How the first of them asked.
    pub(super) proto: Vec<u8>,
    /// For which host.
    pub(super) host: Vec<u8>,
}

impl Told {
    /// What these values of the field say. One in which a quote is left open says nothing.
    pub(super) fn of<'v>(values: impl Iterator<Item = &'v [u8]>) -> Self {
        let mut told = Self::default();
        let sound = values.filter(|value| !list::leaves_a_quote_open(value));
        for (place, element) in sound.flat_map(list::parts).enumerate() {
            let mut node = b"unknown".to_vec();
            for (name, value) in list::pieces(element).filter_map(pair) {
                match name.to_ascii_lowercase().as_slice() {
                    // `_hidden` and `unknown` are no addresses (§6).
                    b"for" if !value.is_empty() && !value.contains(&b',') => node = value,
                    b"proto" if place == 0 && is_token(&value) => told.proto = value,
                    b"host" if place == 0 => told.host = value,
                    _ => {}
                }
            }
            if place > 0 {
                told.for_.extend_from_slice(b", ");
            }
            told.for_.extend_from_slice(&node);
        }
        told
    }
}

/// A name and a value, which may be quoted.
fn pair(piece: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (piece.get(..equals)?, piece.get(equals + 1..)?);
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    Some((name, quoted.map_or_else(|| value.to_vec(), unescaped)))
}

fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let stays = |byte: &&u8| {
        escaped = !escaped && **byte == b'\\';
        !escaped
    };
    quoted.iter().filter(stays).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[&str]) -> (String, String, String) {
        let Told { for_, proto, host } = Told::of(values.iter().map(|value| value.as_bytes()));
        let [for_, proto, host] = [for_, proto, host].map(|text| String::from_utf8(text).unwrap());
        (for_, proto, host)
    }

    #[test]
    fn elements_are_told_in_the_old_words() {
        for (values, for_, proto, host) in [
            (&["for=192.0.2.1"][..], "192.0.2.1", "", ""),
            (&["For=\"[2001:db8::1]:4711\";Proto=https;HOST=a.example"], "[2001:db8::1]:4711", "https", "a.example"),
            (
                &["for=192.0.2.1;proto=http, for=192.0.2.2;proto=https;host=b", "for=192.0.2.3"],
                "192.0.2.1, 192.0.2.2, 192.0.2.3",
                "http",
                "",
            ),
            (&["host=\"a\\\"b\\\\c:1\"; proto=wss"], "unknown", "wss", "a\"b\\c:1"),
            (&["for=_hidden, proto=https"], "_hidden, unknown", "", ""),
            (&["for=\"1.2.3.4, 5.6.7.8\";proto=\"a b\""], "unknown", "", ""),
            (&["for=192.0.2.1, for=\"192.0.2.2", "for=192.0.2.3"], "192.0.2.3", "", ""),
            (&["", " , ;"], "unknown", "", ""),
        ] {
            let expected = (for_.to_owned(), proto.to_owned(), host.to_owned());
            assert_eq!(told(values), expected, "{values:?}");
        }
    }
}
