//! The benchmark measured by itself: one subject takes part under two names, and any difference between them that is
//! called one is an error of the benchmark's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::comparison::{Comparison, Verdict};

/// Of comparisons of the same, so large a part may be called different.
pub const ALLOWED: f64 = 0.05;
/// A run of which as many are called different is one of a thousand whose error is no larger than allowed.
const SURELY_TOO_MANY: f64 = 0.001;

/// What was said of the same subject under two names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// Comparisons made.
    pub comparisons: usize,
    /// Of these, called different.
    pub called_different: usize,
    /// The part that may be: 0.05.
    pub allowed: f64,
    /// Whether so many are more than chance explains: the run's verdicts mean nothing then.
    pub failed: bool,
}

impl SelfTest {
    /// `None` where nobody took part twice.
    pub(super) fn of(comparisons: &[Comparison]) -> Option<Self> {
        let count = comparisons.len();
        let different = comparisons.iter().filter(|it| it.verdict != Verdict::NoDifference).count();
        (count > 0).then(|| Self {
            comparisons: count,
            called_different: different,
            allowed: ALLOWED,
            failed: at_least(different, count, ALLOWED) < SURELY_TOO_MANY,
        })
    }
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { comparisons, called_different, .. } = self;
        write!(
            f,
            "A/A: of one subject measured twice, {called_different} of {comparisons} metrics "
        )?;
        write!(f, "were called different; by chance one of 20 is")?;
        match self.failed {
            true => write!(f, ": THE VERDICTS OF THIS RUN CANNOT BE TRUSTED"),
            false => Ok(()),
        }
    }
}

/// How likely at least `successes` of `trials` are, each of which is one with the probability `part`: the binomial
/// distribution's upper tail.
fn at_least(successes: usize, trials: usize, part: f64) -> f64 {
    let mut exactly = (1.0 - part).powi(trials as i32);
    let mut below = 0.0;
    for count in 0..successes {
        below += exactly;
        exactly *= (trials - count) as f64 / (count + 1) as f64 * part / (1.0 - part);
    }
    1.0 - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_binomial_distribution_s() {
        assert!((at_least(1, 2, 0.5) - 0.75).abs() < 1e-12);
        assert!((at_least(2, 20, 0.05) - 0.264_160_3).abs() < 1e-6, "{}", at_least(2, 20, 0.05));
        assert_eq!(at_least(0, 9, 0.05), 1.0);
        // Of 20, one is what chance does, and 6 is more.
        assert!(at_least(1, 20, ALLOWED) > 0.6 && at_least(6, 20, ALLOWED) < SURELY_TOO_MANY);
    }
}
