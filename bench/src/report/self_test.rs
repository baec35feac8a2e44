//! The benchmark measured by itself: one subject takes part under two names, and any difference between them that is
//! called one is an error of the benchmark's.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Measurement;
use super::comparison::{Comparison, Verdict};
use crate::statistics::{LEVEL, Together, chance_of};

/// A run of which as many are called different is one of a hundred. Five rounds of one benchmark tell no smaller part.
const SURELY_TOO_MANY: f64 = 0.01;

/// What was said of the same subject under two names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// Comparisons made.
    pub comparisons: usize,
    /// Of these, called different.
    pub called_different: usize,
    /// The part that may be: 0.05.
    pub allowed: f64,
    /// How likely chance calls at least as many different, as metrics of the same turns often are together; older
    /// reports have none.
    #[serde(default)]
    pub chance: Option<f64>,
    /// Whether so many are more than chance explains: the run's verdicts mean nothing then.
    pub failed: bool,
}

impl SelfTest {
    /// Of `comparisons`, which are of measurements among `results`. `None` where nobody took part twice.
    pub(super) fn of(results: &[Measurement], comparisons: &[Comparison]) -> Option<Self> {
        let count = comparisons.len();
        let different = comparisons.iter().filter(|it| it.verdict != Verdict::NoDifference).count();
        (count > 0).then(|| {
            let chance = chance_of(different, &of_same_turns(results, comparisons));
            Self {
                comparisons: count,
                called_different: different,
                allowed: LEVEL,
                chance: Some(chance),
                failed: chance < SURELY_TOO_MANY,
            }
        })
    }
}

/// The samples that are compared, by the turns that they are of.
fn of_same_turns<'a>(
    results: &'a [Measurement],
    comparisons: &'a [Comparison],
) -> Vec<Together<'a>> {
    let mut groups: BTreeMap<_, Together<'a>> = BTreeMap::new();
    for comparison in comparisons {
        let of = |subject: &str| {
            results.iter().find(|it| {
                (&*it.benchmark, &*it.subject, &*it.metric)
                    == (&*comparison.benchmark, subject, &*comparison.metric)
            })
        };
        if let Some((one, other)) = of(&comparison.subject).zip(of(&comparison.baseline)) {
            let turns = (&one.benchmark, &one.rounds, &other.rounds);
            let samples = (&one.summary.samples[..], &other.summary.samples[..]);
            groups.entry(turns).or_default().metrics.push(samples);
        }
    }
    groups.into_values().collect()
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { comparisons, called_different, .. } = self;
        write!(
            f,
            "A/A: of one subject measured twice, {called_different} of {comparisons} metrics "
        )?;
        write!(f, "were called different; by chance one of 20 is")?;
        if let Some(chance) = self.chance {
            write!(f, ", and as many in {:.1} % of runs", chance * 100.0)?;
        }
        match self.failed {
            true => write!(f, ": THE VERDICTS OF THIS RUN CANNOT BE TRUSTED"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::again;
    use crate::report::tests::{measured, report_of};

    /// Six metrics of eight turns of a subject, and of the same again, which is slower by `bias`. What chance adds to a
    /// metric is each turn's, moved on by so many turns from one metric to the next.
    fn twice(bias: f64, moved: usize) -> Vec<Measurement> {
        let mut chance = [3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0];
        let again = again("process");
        let mut metrics = Vec::new();
        for number in 0..6 {
            let samples = |bias: f64| chance.iter().map(|it| 100.0 + it + bias).collect();
            let name = format!("metric_{number}");
            metrics.push(measured("process", &name, samples(0.0)));
            metrics.push(measured(&again, &name, samples(bias)));
            chance.rotate_left(moved);
        }
        metrics
    }

    #[test]
    fn all_at_once_may_be_chance_and_one_by_one_is_none() {
        let test = |bias, moved| report_of(twice(bias, moved)).self_test.unwrap();
        let same = test(0.0, 0);
        assert_eq!((same.comparisons, same.called_different, same.chance), (6, 0, Some(1.0)));
        // One in 20 calls them different, and then all of them.
        let together = test(3.6, 0);
        assert_eq!((together.called_different, together.failed), (6, false), "{together:?}");
        assert!((0.01..0.06).contains(&together.chance.unwrap()), "{together:?}");
        let apart = test(3.6, 1);
        assert_eq!((apart.called_different, apart.failed), (6, true), "{apart:?}");
        assert!(apart.to_string().contains("CANNOT BE TRUSTED"), "{apart}");
    }
}
