//! Intervals by the percentile bootstrap: what a figure would have been, had other samples of the same kind been drawn.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{SEED, median};

/// So many draws; the ends of the interval then vary by a small part of its width.
const DRAWS: usize = 2000;
/// The share of draws outside the interval, half of them at each end.
const OUTSIDE: f64 = 0.05;

/// Where something lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The interval of the median of `samples`; `None` when there are none.
pub fn of_median(samples: &[f64]) -> Option<Interval> {
    let mut random = Rng::with_seed(SEED);
    interval(|| median(&draw(samples, &mut random)))
}

/// The interval of the median of `samples` divided by that of `base`; `None` when there are none of either, or when
/// `base` may be 0.
pub fn of_ratio(samples: &[f64], base: &[f64]) -> Option<Interval> {
    let mut random = Rng::with_seed(SEED);
    interval(|| {
        let above = median(&draw(samples, &mut random))?;
        let below = median(&draw(base, &mut random)).filter(|below| *below > 0.0)?;
        Some(above / below)
    })
}

/// As many as there are, each any of them.
fn draw(samples: &[f64], random: &mut Rng) -> Vec<f64> {
    (0..samples.len()).map(|_| samples[random.usize(..samples.len())]).collect()
}

fn interval(draw: impl FnMut() -> Option<f64>) -> Option<Interval> {
    let mut drawn: Vec<f64> = std::iter::repeat_with(draw).take(DRAWS).collect::<Option<_>>()?;
    drawn.sort_by(f64::total_cmp);
    let outside = (DRAWS as f64 * OUTSIDE / 2.0) as usize;
    Some(Interval { low: drawn[outside], high: drawn[DRAWS - 1 - outside] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponentially distributed, as waiting times are: the median is ln 2.
    fn exponential(count: usize, random: &mut Rng) -> Vec<f64> {
        (0..count).map(|_| -(1.0 - random.f64()).ln()).collect()
    }

    #[test]
    fn the_interval_holds_the_true_median_about_as_often_as_it_says() {
        let mut random = Rng::with_seed(7);
        let covers = |random: &mut Rng| {
            let interval = of_median(&exponential(25, random)).unwrap();
            (interval.low..=interval.high).contains(&2f64.ln())
        };
        let covered = (0..80).filter(|_| covers(&mut random)).count();
        // Of a median, the percentile bootstrap's intervals are rather too wide than too narrow.
        assert!((70..=80).contains(&covered), "{covered} of 80");
    }

    #[test]
    fn the_interval_of_a_ratio_holds_the_true_ratio() {
        let mut random = Rng::with_seed(8);
        let base = exponential(400, &mut random);
        let tripled: Vec<f64> = exponential(400, &mut random).iter().map(|it| it * 3.0).collect();
        let ratio = of_ratio(&tripled, &base).unwrap();
        assert!(ratio.low < 3.0 && 3.0 < ratio.high && ratio.high < 4.5, "{ratio:?}");
    }

    #[test]
    fn equal_samples_have_no_width_and_the_same_samples_the_same_interval() {
        assert_eq!(of_median(&[2.0; 9]), Some(Interval { low: 2.0, high: 2.0 }));
        let samples = exponential(12, &mut Rng::with_seed(9));
        assert_eq!(of_median(&samples), of_median(&samples));
        assert_eq!(of_median(&[]), None);
        assert_eq!(of_ratio(&[1.0], &[0.0]), None);
    }
}
