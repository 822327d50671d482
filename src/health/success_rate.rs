//! Which servers of a pool do worse than the others: by how much of what they were asked went well, compared with the average
//! of the pool and with how far apart its servers are. Pure arithmetic; the method is Envoy's ("success rate outlier
//! detection"), with a margin, since among servers that all do well the least difference would be a deviation.

use std::time::Duration;

use crate::backend::{Excess, Score};
use crate::units::Percent;

/// When a server is ejected since less goes well there than elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// How often servers are compared, each time by what came since the last.
    pub interval: Duration,
    /// How many servers there have to be that can be compared.
    pub min_servers: u16,
    /// How many outcomes of a server there have to be, for it to be compared.
    pub min_requests: u32,
    /// How many standard deviations under the average are too many, in thousandths.
    pub factor: u16,
    /// How far under the average is too far, at least.
    pub margin: Percent,
}

/// What may come of rounding when the average of equal numbers is taken.
const ROUNDING: f64 = 1e-9;

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            min_servers: 5,
            min_requests: 100,
            factor: 1900,
            margin: Percent::new(5).unwrap_or(Percent::HALF),
        }
    }
}

impl SuccessRate {
    /// The servers that do too badly, by their places in `scores` and the worst first, with what is to be said of each.
    #[must_use]
    pub fn outliers(&self, scores: &[Score]) -> Vec<(usize, Excess)> {
        let compared: Vec<(usize, Score)> = scores
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, score)| score.all() >= u64::from(self.min_requests))
            .collect();
        if compared.len() < usize::from(self.min_servers).max(1) {
            return Vec::new();
        }
        let mean = |values: &dyn Fn(Score) -> f64| {
            compared.iter().map(|(_, score)| values(*score)).sum::<f64>() / compared.len() as f64
        };
        let average = mean(&Score::rate);
        let deviation = mean(&|score| (score.rate() - average).powi(2)).sqrt();
        let allowed = deviation * f64::from(self.factor) / 1000.0;
        let least = average - allowed.max(self.margin.of(1000) as f64 / 1000.0) - ROUNDING;
        let mut worse: Vec<_> = compared.into_iter().filter(|(_, score)| score.rate() < least).collect();
        worse.sort_by(|(_, one), (_, other)| one.rate().total_cmp(&other.rate()));
        worse.into_iter().map(|(place, score)| (place, Excess::Rate(score, average))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(percents: &[u64]) -> Vec<Score> {
        percents.iter().map(|well| Score { well: well * 10, wrong: (100 - well) * 10 }).collect()
    }

    fn places(rates: &SuccessRate, scores: &[Score]) -> Vec<usize> {
        rates.outliers(scores).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn a_server_is_ejected_that_is_far_under_the_others() {
        let rates = SuccessRate::default();
        let told = rates.outliers(&of(&[100, 99, 80, 100, 99]));
        let [(2, Excess::Rate(score, average))] = told[..] else { panic!("{told:?}") };
        assert_eq!(score, Score { well: 800, wrong: 200 });
        assert!((average - 0.956).abs() < 1e-9, "{average}");
        assert_eq!(places(&rates, &of(&[100, 100, 100, 100, 100])), [0; 0]);
        assert_eq!(places(&rates, &of(&[0, 0, 0, 0, 0])), [0; 0], "nobody is worse than the others");
        assert_eq!(places(&rates, &of(&[90, 70, 95, 60, 80])), [0; 0], "they are all over the place");
    }

    #[test]
    fn the_worst_goes_first() {
        let many: Vec<u64> = [60, 100, 50].into_iter().chain([100; 20]).collect();
        assert_eq!(places(&SuccessRate::default(), &of(&many)), [2, 0]);
    }

    #[test]
    fn a_difference_within_the_margin_is_none_however_alike_the_others_are() {
        let rates = SuccessRate::default();
        assert_eq!(places(&rates, &of(&[100, 100, 100, 100, 99])), [0; 0]);
        let picky = SuccessRate { margin: Percent::new(0).unwrap(), factor: 1, ..rates };
        assert_eq!(places(&picky, &of(&[90; 7])), [0; 0], "equal is equal, however it is rounded");
        let strict = SuccessRate { margin: Percent::new(0).unwrap(), ..rates };
        assert_eq!(places(&strict, &of(&[100, 100, 100, 100, 99])), [4]);
    }

    #[test]
    fn those_with_few_requests_are_not_compared_and_too_few_are_no_crowd() {
        let rates = SuccessRate::default();
        let mut scores = of(&[100, 100, 100, 100, 10]);
        scores[4] = Score { well: 0, wrong: 99 };
        assert_eq!(places(&rates, &scores), [0; 0]);
        scores[4] = Score { well: 0, wrong: 100 };
        assert_eq!(places(&rates, &scores), [4]);
        scores[0] = Score::default();
        assert_eq!(places(&rates, &scores), [0; 0], "four are too few");
        assert_eq!(places(&rates, &[]), [0; 0]);
    }

    #[test]
    fn the_factor_says_how_many_deviations_are_too_many() {
        // Of five, one that alone differs is two deviations off.
        let scores = of(&[100, 100, 100, 100, 50]);
        let with = |factor| SuccessRate { factor, ..SuccessRate::default() };
        assert_eq!((places(&with(1999), &scores), places(&with(2001), &scores)), (vec![4], vec![]));
    }
}
