//! Shares in percent, from 0 to 100.

/// A share in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// Nothing of it.
    pub const ZERO: Self = Self(0);
    /// Half of it.
    pub const HALF: Self = Self(50);
    /// All of it.
    pub const ALL: Self = Self(100);

    /// A share, unless it is more than all.
    #[must_use]
    pub const fn new(percent: u8) -> Option<Self> {
        if percent <= 100 { Some(Self(percent)) } else { None }
    }

    /// The number before the sign.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Reads `50%`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .and_then(|number| Self::new(number.parse().ok()?))
            .ok_or_else(|| "expected a whole number from 0 to 100 and a percent sign, such as \"50%\"".to_owned())
    }

    /// That share of a number, rounded down.
    #[must_use]
    pub const fn of(self, whole: usize) -> usize {
        // Not multiplied first, so that no number is too large.
        whole / 100 * self.0 as usize + whole % 100 * self.0 as usize / 100
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_number_and_a_sign() {
        for percent in ["0%", "7%", "100%"] {
            assert_eq!(Percent::parse(percent).unwrap().to_string(), percent);
        }
        for text in ["", "%", "50", "101%", "-1%", "+1%", "1.5%", " 1%", "300%", "50 %"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_of_a_number_is_rounded_down_and_never_more_than_all() {
        let half = Percent::new(50).unwrap();
        assert_eq!([0, 1, 2, 3, 199, usize::MAX].map(|whole| half.of(whole)), [0, 0, 1, 1, 99, usize::MAX / 2]);
        assert_eq!(Percent::new(100).unwrap().of(usize::MAX), usize::MAX);
    }
}
