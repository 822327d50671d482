//! Durations as people write them: `"500ms"`, `"5s"`, `"1m30s"`, `"2h"`, `"1d"`.

use std::time::Duration;

/// The longest duration accepted, in milliseconds: ten years. Far enough for anyone and small enough that adding it to
/// the present never overflows.
const LONGEST_MILLIS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Reads a duration: one or more pairs of a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), largest unit first.
///
/// # Errors
/// Says, in words for the person who wrote it, what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration such as \"500ms\", \"5s\", \"1m30s\" or \"2h\"";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        let Ok(number) = number.parse::<u64>() else {
            return Err(EXPECTED.to_owned());
        };
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if tail.is_empty() => {
                return Err(format!("the unit is missing: did you mean \"{number}s\" or \"{number}ms\"?"));
            }
            "" => return Err(format!("{EXPECTED}; the unit follows the number at once and is ms, s, m, h or d")),
            _ => return Err(format!("{EXPECTED}; \"{unit}\" is no unit")),
        };
        if scale >= last_unit {
            return Err(format!("{EXPECTED}, with the largest unit first"));
        }
        last_unit = scale;
        total = number
            .checked_mul(scale)
            .and_then(|millis| millis.checked_add(total))
            .filter(|millis| *millis <= LONGEST_MILLIS)
            .ok_or_else(|| "the longest duration is ten years".to_owned())?;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration the way [`parse_duration`] reads it; exact to the millisecond.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (scale, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
        let count = millis / scale;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            millis -= count * scale;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in
            [("0s", 0), ("500ms", 500), ("5s", 5000), ("1m30s", 90_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for text in ["", " ", "5", "s", "-5s", "5 s", "5x", "1s1m", "1.5s", "99999999999999999999s", "999999d", "5s5"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse_duration("5").is_err_and(|e| e.contains("did you mean \"5s\"")));
        assert!(parse_duration("5 minutes").is_err_and(|e| e.contains("follows the number at once")));
    }
}
