//! The control: instructions alone.

use std::hint::black_box;
use std::io;

use crate::clock::each;

/// Steps of a multiplication, a shift and an exclusive or that wait for one another (splitmix64's finalizer, Steele et
/// al. 2014), in registers.
pub fn mix(operations: u32) -> io::Result<f64> {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    let time = each(operations, || {
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Ok(())
    });
    black_box(state);
    time
}
