//! The rounds of a benchmark: one that warms caches and is not counted, then those that are. In each the
//! subjects have their turns (A B C D A B C D), so that a drift of the host meets all alike.

use std::collections::BTreeMap;

use crate::report::Measurement;
use crate::summary::Summary;

/// What one turn found: metric, unit, value.
pub(crate) type Figure = (&'static str, &'static str, f64);

/// Gives each subject its turn in round 0, which is not counted, and in rounds 1 to `runs`. `progress`
/// hears of every round; `turn` is told its number.
///
/// # Errors
/// The first turn that fails ends it: half a comparison is none.
pub(crate) fn measure<S, E, F: IntoIterator<Item = Figure>>(
    runs: u32,
    subjects: &[S],
    name: impl Fn(&S) -> &str,
    mut progress: impl FnMut(u32),
    mut turn: impl FnMut(&S, u32) -> Result<F, E>,
) -> Result<Vec<Measurement>, E> {
    let mut samples: BTreeMap<(usize, &str, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..=runs {
        progress(round);
        for (position, subject) in subjects.iter().enumerate() {
            let figures = turn(subject, round)?;
            for (metric, unit, value) in figures.into_iter().filter(|_| round > 0) {
                samples.entry((position, metric, unit)).or_default().push(value);
            }
        }
    }
    let measurement = |((position, metric, unit), samples): ((usize, &str, &str), _)| {
        Some(Measurement {
            subject: name(&subjects[position]).to_owned(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            summary: Summary::of(samples)?,
        })
    };
    Ok(samples.into_iter().filter_map(measurement).collect())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn subjects_take_turns_and_the_first_round_does_not_count() {
        let (mut turns, mut rounds) = (Vec::new(), Vec::new());
        let turn = |subject: &&'static str, round| {
            turns.push(*subject);
            let rare = (round == 2).then_some(("rare", "KiB", 7.0));
            Ok::<_, Infallible>([("time", "ms", f64::from(round))].into_iter().chain(rare))
        };
        let Ok(results) =
            measure(2, &["b", "a"], |subject| subject, |round| rounds.push(round), turn);
        assert_eq!(turns, ["b", "a", "b", "a", "b", "a"]);
        assert_eq!(rounds, [0, 1, 2]);
        let found: Vec<_> = results
            .iter()
            .map(|it| {
                (it.subject.as_str(), it.metric.as_str(), it.unit.as_str(), &it.summary.samples[..])
            })
            .collect();
        let of = |subject| {
            [(subject, "rare", "KiB", &[7.0][..]), (subject, "time", "ms", &[1.0, 2.0][..])]
        };
        assert_eq!(found, [of("b"), of("a")].concat());
    }

    #[test]
    fn half_a_comparison_is_none() {
        let turn = |subject: &&str, _| if *subject == "b" { Err("broken") } else { Ok([]) };
        assert_eq!(measure(3, &["a", "b"], |subject| subject, |_| {}, turn).err(), Some("broken"));
    }
}
