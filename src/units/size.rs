//! Sizes as people write them: `"512B"`, `"16KiB"`, `"10MiB"`, `"1GiB"`, or by thousands `"16kB"`, `"10MB"`, `"1GB"`.

/// The units, the largest first, and how many bytes each is.
const UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size: a whole number and a unit (`B`, `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`). Nothing at all may be written `0`.
///
/// # Errors
/// Says, in words for the person who wrote it, what is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a size such as \"512B\", \"16KiB\" or \"10MB\"";
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    let scale = match UNITS.iter().find(|(known, _)| *known == unit) {
        Some((_, scale)) => *scale,
        None if unit.is_empty() && number.bytes().all(|digit| digit == b'0') => return Ok(0),
        None if unit.is_empty() => {
            return Err(format!("the unit is missing: did you mean \"{number}B\" or \"{number}KiB\"?"));
        }
        None => {
            let near = UNITS.iter().find(|(known, _)| known.eq_ignore_ascii_case(unit));
            return Err(match near {
                Some((known, _)) => format!("\"{unit}\" is no unit: did you mean \"{number}{known}\"?; {EXPECTED}"),
                None => format!("\"{unit}\" is no unit; {EXPECTED}"),
            });
        }
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    bytes.filter(|bytes| *bytes < u64::MAX).ok_or_else(|| "that is more than there are bytes".to_owned())
}

/// Writes a size the way [`parse_size`] reads it, in the largest unit of powers of two that is exact.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let exact = UNITS
        .iter()
        .filter(|(unit, _)| unit.ends_with("iB"))
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    match exact {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("0B", 0), ("64B", 64), ("16KiB", 16_384), ("10MiB", 10 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, bytes) in [("16kB", 16_000), ("10MB", 10_000_000), ("2GB", 2_000_000_000)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_is_exact() {
        for (bytes, text) in [(0, "0B"), (64, "64B"), (1500, "1500B"), (16_384, "16KiB"), (3 << 30, "3GiB")] {
            assert_eq!(format_size(bytes), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for text in
            ["", " ", "KiB", "-1B", "1.5MiB", "16 KiB", "5x", "1KiB2B", "18446744073709551615B", "99999999999GiB"]
        {
            assert!(parse_size(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse_size("16").is_err_and(|e| e.contains("did you mean \"16B\" or \"16KiB\"?")));
        assert!(parse_size("16kib").is_err_and(|e| e.contains("did you mean \"16KiB\"?")));
    }
}
