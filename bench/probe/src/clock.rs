//! Time as a workload sees it.

use std::hint::black_box;
use std::io;
use std::time::Instant;

/// Does `operation` so often, and tells the nanoseconds that each took.
pub fn each(operations: u32, mut operation: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let begun = Instant::now();
    for _ in 0..operations {
        operation()?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(operations))
}

/// Reads the clock: without the kernel where it has one that the processor can read by itself (vdso(7)), with a system
/// call or an exit elsewhere.
pub fn read(operations: u32) -> io::Result<f64> {
    each(operations, || {
        black_box(Instant::now());
        Ok(())
    })
}

/// The smallest step that the clock makes, in nanoseconds: a guest without a clock of its host's may have none but the tick
/// of its kernel, of some milliseconds.
pub fn step() -> f64 {
    let tick = || {
        let begun = Instant::now();
        loop {
            let step = begun.elapsed();
            if !step.is_zero() {
                return step.as_nanos();
            }
        }
    };
    // The first one begins anywhere between two steps.
    tick();
    (0..3).map(|_| tick()).min().unwrap_or(0) as f64
}
