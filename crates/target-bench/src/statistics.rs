//! What many figures come to.

use serde::Serialize;

/// The middle of some figures and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// A quarter is at most this.
    pub lower: f64,
    /// Half is at most this.
    pub median: f64,
    /// Three quarters are at most this.
    pub upper: f64,
}

impl Spread {
    /// Of these figures; between two of them by their distance. None of nothing.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |quarters: usize| {
            let (whole, rest) = (quarters * last / 4, quarters * last % 4);
            let next = sorted[(whole + 1).min(last)];
            let part = [0.0, 0.25, 0.5, 0.75][rest];
            sorted[whole] + (next - sorted[whole]) * part
        };
        Some(Spread { lower: at(1), median: at(2), upper: at(3) })
    }

    /// Of what the figures of a round are to each other: what disturbs a whole round disturbs neither.
    #[must_use]
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
        Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

/// The smallest of the figures that `percent` of them do not exceed (nearest rank). None of nothing.
#[must_use]
pub fn percentile(sorted: &[u32], percent: usize) -> Option<u32> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_figures() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).expect("figures");
        assert_eq!(spread, Spread { lower: 1.75, median: 2.5, upper: 3.25 });
        let spread = Spread::of([5.0, 1.0, 3.0]).expect("figures");
        assert_eq!(spread, Spread { lower: 2.0, median: 3.0, upper: 4.0 });
        let one = Spread::of([7.0]).expect("a figure");
        assert_eq!(one, Spread { lower: 7.0, median: 7.0, upper: 7.0 });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_those_of_rounds() {
        // Each round ours takes half; the machine is ten times slower in the second.
        let spread = Spread::of_ratios(&[1.0, 10.0, 1.5], &[2.0, 20.0, 3.0]).expect("figures");
        assert_eq!(spread, Spread { lower: 0.5, median: 0.5, upper: 0.5 });
        assert_eq!(Spread::of_ratios(&[1.0], &[]), None);
    }

    #[test]
    fn percentiles_are_figures_that_occurred() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&hundred, 100), Some(100));
        assert_eq!(percentile(&[10, 20, 30], 50), Some(20));
        assert_eq!(percentile(&[10, 20, 30], 99), Some(30));
        assert_eq!(percentile(&[10], 1), Some(10));
        assert_eq!(percentile(&[], 50), None);
    }
}
