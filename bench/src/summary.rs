//! Order statistics of a few samples.

use serde::Serialize;

/// What is told of a set of samples, all in one unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// In the order they were taken.
    pub samples: Vec<f64>,
    /// The smallest sample.
    pub min: f64,
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The smallest that at least 95 % do not exceed (nearest rank).
    pub p95: f64,
    /// The largest sample.
    pub max: f64,
}

impl Summary {
    /// Summarises `samples`; `None` when there are none.
    pub fn of(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        // Nearest rank: at least one, at most all, as 0 < 0.95 < 1.
        let rank = (0.95 * sorted.len() as f64).ceil() as usize;
        let p95 = sorted[rank.saturating_sub(1)];
        Some(Self { samples, min, median, p95, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_are_those_of_the_sorted_samples() {
        let summary = Summary::of((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (summary.min, summary.median, summary.p95, summary.max),
            (1.0, 10.5, 19.0, 20.0)
        );
        assert_eq!(summary.samples[0], 20.0);
    }

    #[test]
    fn one_sample_is_all_of_them_and_none_is_none() {
        let summary = Summary::of(vec![3.0]).unwrap();
        assert_eq!((summary.min, summary.median, summary.p95, summary.max), (3.0, 3.0, 3.0, 3.0));
        assert_eq!(Summary::of(vec![]), None);
    }
}
