//! Which of many differences are none of chance.

/// Of so many that are called different, so large a part may be noise.
const FALSE_PART: f64 = 0.05;

/// Says of each p-value whether it is called a difference, so that of all that are no more than 5 % are expected to be
/// noise (Benjamini and Hochberg 1995). One threshold for each would call every twentieth of what is the same different.
pub fn discoveries(p_values: &[f64]) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let bound = |rank: usize| FALSE_PART * (rank + 1) as f64 / sorted.len() as f64;
    let largest = (0..sorted.len()).rev().find(|&rank| sorted[rank] <= bound(rank));
    let threshold = largest.map(|rank| sorted[rank]);
    p_values.iter().map(|p| threshold.is_some_and(|threshold| *p <= threshold)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_with_the_rank() {
        // 0.039 of the third rank is above 0.0375, and 0.04 of the fourth is not above 0.05.
        assert_eq!(discoveries(&[0.04, 0.001, 0.02, 0.039]), [true; 4]);
        assert_eq!(discoveries(&[0.9, 0.001, 0.04, 0.5]), [false, true, false, false]);
        assert_eq!(discoveries(&[0.03, 0.5]), [false, false]);
        assert!(discoveries(&[]).is_empty());
    }
}
