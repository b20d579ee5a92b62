//! What is made of samples.

use serde_json::{Value, json};

/// A figure of several rounds: the middle one, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the rounds were not above it.
    pub median: f64,
    /// The lowest round.
    pub least: f64,
    /// The highest round.
    pub most: f64,
}

/// What is measured is printed with this many digits behind the point.
const DIGITS: f64 = 1_000.0;

// === impl Spread ===

impl Spread {
    /// Of rounds; without any, nothing is a number.
    #[must_use]
    pub fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let ends = sorted.first().copied().zip(sorted.last().copied());
        let (least, most) = ends.unwrap_or((f64::NAN, f64::NAN));
        Self { median: percentile(&sorted, 50), least, most }
    }

    /// Of what one of two cost, or did, per the other, round by round: what slows a machine down
    /// for a while slows both down.
    #[must_use]
    pub fn of_ratios(these: &[f64], those: &[f64]) -> Self {
        let ratios: Vec<f64> = these.iter().zip(those).map(|(this, that)| this / that).collect();
        Self::of(&ratios)
    }

    /// As JSON: the median alone.
    #[must_use]
    pub fn value(self) -> Value {
        rounded(self.median).into()
    }

    /// As JSON: the lowest and the highest round.
    #[must_use]
    pub fn range(self) -> Value {
        json!([rounded(self.least), rounded(self.most)])
    }
}

/// The value that so many hundredths of the sorted ones do not exceed.
#[must_use]
pub fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    let index = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// To three digits behind the point.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * DIGITS).round() / DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_is_the_middle_one_in_whatever_order_they_came() {
        let spread = Spread::of(&[9.0, 1.0, 3.0, 2.0, 100.0]);
        assert_eq!(spread, Spread { median: 3.0, least: 1.0, most: 100.0 });
        assert_eq!(Spread::of(&[2.0]), Spread { median: 2.0, least: 2.0, most: 2.0 });
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_not_of_medians() {
        // The machine was slow in the second round: both cost double, and nothing else changed.
        let spread = Spread::of_ratios(&[1.0, 4.0, 1.5], &[2.0, 4.0, 3.0]);
        assert_eq!(spread, Spread { median: 0.5, least: 0.5, most: 1.0 });
        let (these, those) = (Spread::of(&[1.0, 4.0, 1.5]), Spread::of(&[2.0, 4.0, 3.0]));
        assert_eq!((these.median, those.median), (1.5, 3.0));
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        for (hundredths, expected) in [(50, 100.0), (99, 198.0), (100, 200.0)] {
            assert!((percentile(&sorted, hundredths) - expected).abs() < f64::EPSILON);
        }
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn figures_have_three_digits() {
        assert!((rounded(1.234_56) - 1.235).abs() < f64::EPSILON);
    }
}
