//! How many of several metrics chance calls different.
//!
//! Metrics of one benchmark are no trials that know nothing of each other: they are of the same turns, and what is late
//! to its first line is late to its end. Of twenty such, chance calls none different in most runs and then ten at once. So the
//! turns are divided anew, each with all of its metrics, and the differences counted that are called then (Westfall and
//! Young 1993).

use fastrand::Rng;

use super::permutation::Ranks;
use super::{LEVEL, SEED};

/// So many divisions are drawn.
const DRAWS: usize = 10_000;

/// Metrics of the same turns: the samples of one subject, then of the other, each in the order of its turns.
#[derive(Debug, Default)]
pub struct Together<'a> {
    /// By metric: of each side as many as of any other metric.
    pub metrics: Vec<(&'a [f64], &'a [f64])>,
}

/// How likely at least `count` of all metrics are called different where all are of one kind.
pub fn chance_of(count: usize, groups: &[Together<'_>]) -> f64 {
    if count == 0 {
        return 1.0;
    }
    let mut random = Rng::with_seed(SEED);
    let mut tests: Vec<Tests> = groups.iter().map(Tests::of).collect();
    let as_many = (0..DRAWS).filter(|_| {
        tests.iter_mut().map(|tests| tests.called_by_chance(&mut random)).sum::<usize>() >= count
    });
    // What was measured is one of the divisions.
    (as_many.count() + 1) as f64 / (DRAWS + 1) as f64
}

/// The tests of metrics of the same turns.
struct Tests {
    /// The numbers of all turns, in an order of chance.
    turns: Vec<usize>,
    /// How many of them are the one subject's.
    size: usize,
    /// Of each metric, and the distance from which on it is called different.
    metrics: Vec<(Ranks, u64)>,
}

impl Tests {
    fn of(group: &Together<'_>) -> Self {
        let (size, all) =
            group.metrics.first().map_or((0, 0), |(a, b)| (a.len(), a.len() + b.len()));
        let test = |(a, b): &(&[f64], &[f64])| {
            let ranks = Ranks::of(a, b)?;
            // What can never be called different adds nothing.
            let critical = ranks.critical(LEVEL)?;
            Some((ranks, critical))
        };
        let metrics = group.metrics.iter().filter_map(test).collect();
        Self { turns: (0..all).collect(), size, metrics }
    }

    fn called_by_chance(&mut self, random: &mut Rng) -> usize {
        random.shuffle(&mut self.turns);
        let one = &self.turns[..self.size];
        self.metrics.iter().filter(|(ranks, critical)| ranks.apart(one) >= *critical).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::p_value;

    const TURNS: usize = 6;

    /// Of two subjects each metric's samples, where the second's are `bias` larger. Of what chance adds to a sample, up to
    /// 1, the part `shared` is the turn's and so in each metric.
    fn measured(
        random: &mut Rng,
        metrics: usize,
        shared: f64,
        bias: f64,
    ) -> Vec<(Vec<f64>, Vec<f64>)> {
        let turns: [Vec<f64>; 2] = [(); 2].map(|()| (0..TURNS).map(|_| random.f64()).collect());
        let mut side = |turns: &[f64], bias: f64| -> Vec<f64> {
            turns.iter().map(|it| bias + shared * it + (1.0 - shared) * random.f64()).collect()
        };
        (0..metrics).map(|_| (side(&turns[0], 0.0), side(&turns[1], bias))).collect()
    }

    fn together(group: &[(Vec<f64>, Vec<f64>)]) -> Together<'_> {
        Together { metrics: group.iter().map(|(a, b)| (&a[..], &b[..])).collect() }
    }

    /// How many are called different, and how likely that is.
    fn called(groups: &[Vec<(Vec<f64>, Vec<f64>)>]) -> (usize, f64) {
        let count = groups.iter().flatten().filter(|(a, b)| p_value(a, b) <= LEVEL).count();
        let groups: Vec<_> = groups.iter().map(|group| together(group)).collect();
        (count, chance_of(count, &groups))
    }

    #[test]
    fn metrics_of_the_same_turns_are_different_together_by_chance() {
        let mut random = Rng::with_seed(3);
        let runs: Vec<_> =
            (0..100).map(|_| called(&[measured(&mut random, 8, 0.95, 0.0)])).collect();
        // So many at once would be in one run of 2,700 if they knew nothing of each other.
        let many = runs.iter().filter(|(count, _)| *count >= 4).count();
        assert!((2..=10).contains(&many), "{many} of 100");
        let surprising = runs.iter().filter(|(_, chance)| *chance < 0.01).count();
        assert!(surprising <= 3, "{surprising} of 100");
    }

    #[test]
    fn what_differs_is_more_than_chance() {
        let mut random = Rng::with_seed(4);
        // Of metrics that are one, chance is never surprised: it takes benchmarks that know nothing of each other.
        for (shared, groups) in [(0.0, 1), (0.95, 3)] {
            let mut run = || -> Vec<_> {
                (0..groups).map(|_| measured(&mut random, 8, shared, 1.0)).collect()
            };
            let told = (0..10).filter(|_| called(&run()).1 < 0.01).count();
            assert!(told >= 9, "{told} of 10, of which {shared} is shared");
        }
    }

    #[test]
    fn groups_are_divided_each_by_itself() {
        let (low, high): (Vec<f64>, Vec<f64>) = ((0..5).map(f64::from).collect(), vec![9.0; 5]);
        let apart = || Together { metrics: vec![(&low[..], &high[..])] };
        let one = chance_of(1, &[apart()]);
        assert!((0.005..0.05).contains(&one), "{one}");
        let both = chance_of(2, &[apart(), apart()]);
        assert!((both - one * one).abs() < 0.001, "{both} of {one}");
    }
}
