//! Order statistics of a few samples.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, of_median};

/// What is told of a set of samples, all in one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// In the order they were taken.
    pub samples: Vec<f64>,
    /// The smallest sample.
    pub min: f64,
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// Where the median of many more such samples lies, with 95 % confidence.
    pub interval: Interval,
    /// The smallest that at least 95 % do not exceed (nearest rank).
    pub p95: f64,
    /// Likewise for 99 %.
    pub p99: f64,
    /// The largest sample.
    pub max: f64,
}

impl Summary {
    /// Summarises `samples`; `None` when there are none.
    pub fn of(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let (median, interval) = (middle(&sorted)?, of_median(&sorted)?);
        let (p95, p99) = (nearest_rank(&sorted, 0.95), nearest_rank(&sorted, 0.99));
        Some(Self { samples, min, median, interval, p95, p99, max })
    }
}

/// The middle of `samples`, in whatever order; `None` when there are none.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[half - 1] + upper) / 2.0 })
}

/// The smallest that the share `part` of them, above 0 and up to 1, does not exceed. There is at least one.
fn nearest_rank(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted[rank.saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_are_those_of_the_sorted_samples() {
        let summary = Summary::of((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (summary.min, summary.median, summary.p95, summary.p99, summary.max),
            (1.0, 10.5, 19.0, 20.0, 20.0)
        );
        assert_eq!(summary.samples[0], 20.0);
        assert_eq!(median(&summary.samples), Some(10.5));
    }

    #[test]
    fn one_sample_is_all_of_them_and_none_is_none() {
        let summary = Summary::of(vec![3.0]).unwrap();
        assert_eq!((summary.min, summary.median, summary.p95, summary.max), (3.0, 3.0, 3.0, 3.0));
        assert_eq!(summary.interval, Interval { low: 3.0, high: 3.0 });
        assert_eq!(Summary::of(vec![]), None);
        assert_eq!(median(&[]), None);
    }
}
