//! Lists in the values of fields: their parts, and the weights of parts (RFC 9110 §5.6.1, §5.6.6 and §12.4.2).

/// The weight of a part that names none, in thousandths.
const WHOLE: u16 = 1000;

/// The parts of a list, without the spaces around them and without empty ones. A comma in a quoted string separates nothing.
pub(super) fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(value, b',').filter(|part| !part.is_empty())
}

/// What stands in a part before its parameters, and its weight in thousandths; `None` where that is no weight.
pub(super) fn weighted(part: &[u8]) -> Option<(&[u8], u16)> {
    let mut pieces = split(part, b';');
    let value = pieces.next()?;
    let mut weight = WHOLE;
    for parameter in pieces {
        if let Some((b'q' | b'Q', rest)) = parameter.split_first()
            && let Some((b'=', text)) = rest.split_first()
        {
            weight = parse_weight(text)?;
        }
    }
    Some((value, weight))
}

/// What stands between the semicolons of a part.
pub(super) fn pieces(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(part, b';').filter(|piece| !piece.is_empty())
}

/// Whether a quoted string is begun and not ended, which would take in whatever is put behind it.
pub(super) fn leaves_a_quote_open(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    value.iter().for_each(|byte| {
        _ = is_outside(*byte, &mut quoted, &mut escaped);
    });
    quoted
}

/// What stands between separators that are not in quoted strings, without the spaces around it.
fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let separates = move |byte: &u8| is_outside(*byte, &mut quoted, &mut escaped) && *byte == separator;
    value.split(separates).map(<[u8]>::trim_ascii)
}

/// Whether the next byte belongs to no quoted string, the quotes themselves being part of it (RFC 9110 §5.6.4).
fn is_outside(byte: u8, quoted: &mut bool, escaped: &mut bool) -> bool {
    match byte {
        _ if *escaped => *escaped = false,
        b'\\' if *quoted => *escaped = true,
        b'"' => *quoted = !*quoted,
        _ => return !*quoted,
    }
    false
}

/// `0`, `0.5`, `1.000`: three digits behind the point at most (RFC 9110 §12.4.2).
fn parse_weight(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => WHOLE,
        _ => return None,
    };
    for (digit, worth) in fraction.iter().zip([100, 10, 1]) {
        if !digit.is_ascii_digit() {
            return None;
        }
        weight += u16::from(digit - b'0') * worth;
    }
    (weight <= WHOLE).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_at_commas_that_are_not_quoted() {
        let split: Vec<_> = parts(br#" a , ,b;x="1,\",2" ,, c"#).collect();
        assert_eq!(split, [&b"a"[..], br#"b;x="1,\",2""#, b"c"]);
        assert_eq!(parts(b" , ").count(), 0);
    }

    #[test]
    fn a_quote_is_left_open_or_closed() {
        for (value, open) in
            [("", false), ("a=\"b\"", false), ("a=\"b", true), (r#"a="b\""#, true), (r#"a="b\\""#, false)]
        {
            assert_eq!(leaves_a_quote_open(value.as_bytes()), open, "{value}");
        }
    }

    #[test]
    fn weights_are_read_to_the_thousandth() {
        for (part, weight) in
            [("gzip", 1000), ("gzip;q=0", 0), ("gzip ; Q=0.5", 500), ("a;x=\";q=0\";q=1.000", 1000), ("a;q=0.042;", 42)]
        {
            assert_eq!(weighted(part.as_bytes()).map(|(_, weight)| weight), Some(weight), "{part}");
        }
        assert_eq!(weighted(b"text/html; level=1 ;q=0.3"), Some((&b"text/html"[..], 300)));
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        for text in ["", "2", "1.001", "0.1234", "-1", "0.5x", ".5", "1,0", "0.a", "00", " 1"] {
            assert_eq!(parse_weight(text.as_bytes()), None, "{text:?}");
        }
    }
}
