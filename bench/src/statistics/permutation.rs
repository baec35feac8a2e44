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
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let ranks = doubled_ranks(a, b);
    let all: u64 = ranks.iter().sum();
    // The sum's distance from what is expected, times the number of samples, so that all stays in integers.
    let (size, number) = (a.len() as u64, ranks.len() as u64);
    let distance = |sum: u64| (sum * number).abs_diff(all * size);
    let seen = distance(ranks[..a.len()].iter().sum());
    match divisions(number, size).filter(|count| *count <= MOST) {
        Some(count) => {
            let mut as_far = 0;
            each_sum(&ranks, a.len(), 0, &mut |sum| as_far += u64::from(distance(sum) >= seen));
            as_far as f64 / count as f64
        }
        None => {
            let (mut ranks, mut random) = (ranks, Rng::with_seed(SEED));
            let as_far = (0..MOST).filter(|_| {
                random.shuffle(&mut ranks);
                distance(ranks[..a.len()].iter().sum()) >= seen
            });
            // What was measured is one of the divisions (Phipson and Smyth 2010).
            (as_far.count() as f64 + 1.0) / (MOST as f64 + 1.0)
        }
    }
}

/// Twice the rank of each sample of `a`, then of `b`, among all. Equal ones share the mean of theirs, of which twice is
/// an integer.
fn doubled_ranks(a: &[f64], b: &[f64]) -> Vec<u64> {
    let all = [a, b].concat();
    let rank = |sample: &f64| {
        let below = all.iter().filter(|other| other.total_cmp(sample).is_lt()).count();
        let equal = all.iter().filter(|other| other.total_cmp(sample).is_eq()).count();
        (2 * below + equal + 1) as u64
    };
    all.iter().map(rank).collect()
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
