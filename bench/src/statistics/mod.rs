//! What a few samples tell, and how surely.
//!
//! Times of starts and system calls have long tails and no distribution that one could name, and there are few of them.
//! So everything here goes by order and by resampling, and assumes nothing else: medians, percentiles, bootstrap
//! intervals (Efron 1979) and permutation tests (Fisher 1935). All that is random starts from one seed: the same samples
//! give the same report.

mod bootstrap;
mod discoveries;
mod permutation;
mod summary;
mod together;

pub use self::bootstrap::{Interval, of_median, of_ratio};
pub use self::discoveries::discoveries;
pub use self::permutation::{FEWEST, p_value};
pub use self::summary::{Summary, median};
pub use self::together::{Together, chance_of};

/// What is less likely than this by chance alone is called a difference.
pub const LEVEL: f64 = 0.05;

/// From which all random numbers come.
const SEED: u64 = 20_261_128;
