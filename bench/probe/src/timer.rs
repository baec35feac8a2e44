//! How late a timer is.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than a start of anything, shorter than the kernel's tick.
const SLEEP: Duration = Duration::from_micros(200);

/// How long after its time a sleep of 200 µs ends, on average: the kernel's slack of 50 µs (prctl(2), PR_SET_TIMERSLACK)
/// and what lies between the timer and the process.
pub fn late(operations: u32) -> io::Result<f64> {
    let mut nanoseconds = 0;
    for _ in 0..operations {
        let begun = Instant::now();
        thread::sleep(SLEEP);
        nanoseconds += begun.elapsed().saturating_sub(SLEEP).as_nanos();
    }
    Ok(nanoseconds as f64 / f64::from(operations))
}
