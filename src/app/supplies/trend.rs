//! How something that runs out goes, and when that is worth a word. Pure.

use std::time::{Duration, Instant};

use crate::metrics::Stock;

/// How long something has to last once more than half of it is gone.
const SOON: Duration = Duration::from_secs(30);

/// How it went when it was last looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    last: Option<(u32, Instant)>,
    is_short: bool,
}

/// That it went over, one way or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It runs out.
    Short,
    /// It does no more.
    Enough,
}

impl Trend {
    /// So much of it is taken now. It is short when less than a fifth is left; or less than half, which does not last for
    /// [`SOON`]: what is taken for a while only, as a port that rests for a minute, comes to a level first. It is no more once
    /// a third is left.
    pub(super) fn follow(&mut self, taken: u32, total: u32, now: Instant) -> (Stock, Option<Turn>) {
        let free = total.saturating_sub(taken);
        let lasts = self.last.and_then(|(before, at)| {
            let more = taken.checked_sub(before).filter(|more| *more > 0)?;
            Some(now.saturating_duration_since(at).mul_f64(f64::from(free) / f64::from(more)))
        });
        self.last = Some((taken, now));
        let left = f64::from(free) / f64::from(total.max(1));
        let was_short = self.is_short;
        let is_soon_over = left < 0.5 && lasts.is_some_and(|lasts| lasts < SOON);
        self.is_short = left < 0.2 || is_soon_over || was_short && left < 1.0 / 3.0;
        let turn = match (was_short, self.is_short) {
            (false, true) => Some(Turn::Short),
            (true, false) => Some(Turn::Enough),
            (false, false) | (true, true) => None,
        };
        (Stock { free, total, lasts }, turn)
    }

    /// Whether nobody has to look closely.
    pub(super) fn is_plentiful(&self, stock: &Stock) -> bool {
        !self.is_short && stock.free > stock.total / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a series of looks, a second apart.
    fn said(taken: &[u32]) -> Vec<(usize, Turn)> {
        let (mut trend, start) = (Trend::default(), Instant::now());
        let each = taken.iter().enumerate();
        each.filter_map(|(second, taken)| {
            let now = start + Duration::from_secs(second as u64);
            trend.follow(*taken, 1000, now).1.map(|turn| (second, turn))
        })
        .collect()
    }

    #[test]
    fn each_turn_is_said_once() {
        assert_eq!(said(&[0, 0, 0]), []);
        assert_eq!(said(&[801, 801, 900, 1000, 1000]), [(0, Turn::Short)]);
        assert_eq!(said(&[801, 790, 801, 700, 660, 0]), [(0, Turn::Short), (4, Turn::Enough)]);
    }

    #[test]
    fn what_goes_quickly_is_said_before_little_is_left_and_what_comes_to_a_level_is_not() {
        assert_eq!(said(&[0, 200, 400, 600]), [(3, Turn::Short)]);
        assert_eq!(said(&[0, 200, 400, 400]), []);
        let level: Vec<u32> = (0..60).map(|second| second * 10).chain([600; 10]).collect();
        assert_eq!(said(&level), [], "at ten a second what is left lasts for longer");
    }

    #[test]
    fn how_long_it_lasts_is_reckoned_from_the_last_look() {
        let (mut trend, start) = (Trend::default(), Instant::now());
        let second = Duration::from_secs(1);
        let mut lasts = |taken, seconds| trend.follow(taken, 1000, start + seconds * second).0.lasts;
        assert_eq!(lasts(100, 0), None);
        assert_eq!(lasts(200, 2), Some(16 * second));
        assert_eq!(lasts(200, 3), None);
        assert_eq!(lasts(100, 4), None);
        assert_eq!(lasts(1200, 5), Some(Duration::ZERO));
        assert_eq!(Trend::default().follow(0, 0, start).0, Stock { free: 0, total: 0, lasts: None });
    }
}
