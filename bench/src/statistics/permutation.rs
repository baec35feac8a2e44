//! Whether two sets of samples differ: by a permutation test of their ranks.
//!
//! Were both of one kind, any other division of all samples into two sets of these sizes would have been as likely. The
//! p-value is the share of divisions that set the ranks as far apart as they are, or farther. By ranks, for one outlier
//! shall not decide (Wilcoxon 1945).

use fastrand::Rng;

use super::SEED;

/// Up to so many divisions are all looked at; of more, so many are drawn.
const MOST: u64 = 20_000;

/// With fewer samples of each of two, no difference between them is beyond chance.
pub const FEWEST: u32 = 4;

/// How likely samples of one kind would lie as far apart as `a` and `b`: between 0 and 1. With none of either, 1.
pub fn p_value(a: &[f64], b: &[f64]) -> f64 {
    Ranks::of(a, b).map_or(1.0, |ranks| {
        let (distances, seen) = (ranks.distances(), ranks.seen());
        let as_far = distances.iter().filter(|distance| **distance >= seen).count();
        as_far as f64 / distances.len() as f64
    })
}

/// The ranks of two sets of samples among all.
pub(super) struct Ranks {
    /// Twice the rank of each sample of the one set, then of the other. Equal ones share the mean of theirs, of which
    /// twice is an integer.
    doubled: Vec<u64>,
    /// Their sum.
    all: u64,
    /// How many are of the one.
    size: usize,
}

impl Ranks {
    /// `None` with none of either.
    pub(super) fn of(a: &[f64], b: &[f64]) -> Option<Self> {
        let all = [a, b].concat();
        let rank = |sample: &f64| {
            let below = all.iter().filter(|other| other.total_cmp(sample).is_lt()).count();
            let equal = all.iter().filter(|other| other.total_cmp(sample).is_eq()).count();
            (2 * below + equal + 1) as u64
        };
        let doubled: Vec<u64> = all.iter().map(rank).collect();
        let all = doubled.iter().sum();
        (!a.is_empty() && !b.is_empty()).then_some(Self { doubled, all, size: a.len() })
    }

    /// How far apart the two sets would be, were the one the samples of these numbers: of [`Ranks::of`]'s `a`, then `b`.
    pub(super) fn apart(&self, one: &[usize]) -> u64 {
        self.distance(one.iter().map(|number| self.doubled[*number]).sum())
    }

    /// From this distance on, two sets of one kind are that far apart with no more than `level`; `None` where they never
    /// are.
    pub(super) fn critical(&self, level: f64) -> Option<u64> {
        let mut distances = self.distances();
        distances.sort_unstable();
        let most = (level * distances.len() as f64) as usize;
        let (near, far) = distances.split_at(distances.len() - most);
        // Of equal ones all are far, or none.
        far.iter().find(|distance| near.last().is_none_or(|near| *distance > near)).copied()
    }

    /// Of a sum of ranks from what is expected, times the number of samples, so that all stays in integers.
    fn distance(&self, sum: u64) -> u64 {
        (sum * self.doubled.len() as u64).abs_diff(self.all * self.size as u64)
    }

    fn seen(&self) -> u64 {
        self.distance(self.doubled[..self.size].iter().sum())
    }

    /// Of all divisions, or of drawn ones.
    fn distances(&self) -> Vec<u64> {
        let (number, size) = (self.doubled.len() as u64, self.size as u64);
        let mut distances = Vec::new();
        if divisions(number, size).is_some_and(|count| count <= MOST) {
            let tell = &mut |sum| distances.push(self.distance(sum));
            each_sum(&self.doubled, self.size, 0, tell);
            return distances;
        }
        let (mut ranks, mut random) = (self.doubled.clone(), Rng::with_seed(SEED));
        // What was measured is one of the divisions (Phipson and Smyth 2010).
        distances.push(self.seen());
        distances.extend((0..MOST).map(|_| {
            random.shuffle(&mut ranks);
            self.distance(ranks[..self.size].iter().sum())
        }));
        distances
    }
}

/// How many ways there are to choose `size` of `number`; `None` when there are very many.
fn divisions(number: u64, size: u64) -> Option<u64> {
    (1..=size).try_fold(1u64, |count, step| Some(count.checked_mul(number - size + step)? / step))
}

/// Tells the sum of each choice of `size` of `ranks`.
fn each_sum(ranks: &[u64], size: usize, sum: u64, tell: &mut impl FnMut(u64)) {
    match (size, ranks.split_first()) {
        (0, _) => tell(sum),
        (size, Some((first, rest))) if size <= rest.len() + 1 => {
            each_sum(rest, size - 1, sum + first, tell);
            each_sum(rest, size, sum, tell);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_have_the_p_values_of_the_books() {
        // Wholly apart, 5 and 5: 2 of 252 divisions; 3 and 3: 2 of 20; 1 and 1: both.
        let apart = |n: u8| {
            let low: Vec<f64> = (0..n).map(f64::from).collect();
            let high: Vec<f64> = (100..100 + n).map(f64::from).collect();
            p_value(&low, &high)
        };
        assert_eq!((apart(5), apart(3), apart(1)), (2.0 / 252.0, 0.1, 1.0));
        // Hollander, Wolfe and Chicken, "Nonparametric Statistical Methods" (3rd edition), example 4.1: 0.2544.
        let at_term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let early = [1.15, 0.88, 0.90, 0.74, 1.21];
        assert!((p_value(&at_term, &early) - 0.2544).abs() < 1e-4, "{}", p_value(&at_term, &early));
        assert_eq!(p_value(&[1.0, 1.0], &[1.0, 1.0]), 1.0);
        assert_eq!(p_value(&[], &[1.0]), 1.0);
    }

    /// The share of `times` in which samples of `count` and of `count` times `factor` are told apart.
    fn told_apart(times: u32, count: usize, factor: f64) -> f64 {
        let mut random = Rng::with_seed(11);
        let mut draw = |factor: f64| -> Vec<f64> {
            (0..count).map(|_| factor * (1.0 + random.f64() - (1.0 - random.f64()).ln())).collect()
        };
        let told = (0..times).filter(|_| p_value(&draw(1.0), &draw(factor)) <= 0.05).count();
        told as f64 / f64::from(times)
    }

    #[test]
    fn what_is_the_same_is_seldom_told_apart_and_what_is_not_is_often() {
        // By all divisions, and by drawn ones.
        assert!(told_apart(200, 6, 1.0) <= 0.08, "{}", told_apart(200, 6, 1.0));
        assert!(told_apart(30, 30, 1.0) <= 0.14, "{}", told_apart(30, 30, 1.0));
        assert!(told_apart(30, 30, 2.0) > 0.95, "{}", told_apart(30, 30, 2.0));
    }

    #[test]
    fn divisions_are_counted() {
        assert_eq!(
            (divisions(10, 5), divisions(4, 4), divisions(15, 5)),
            (Some(252), Some(1), Some(3003))
        );
        assert_eq!(divisions(400, 200), None);
    }
}
