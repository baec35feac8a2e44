//! When the requests of an open loop are due.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Requests at a fixed rate from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Instant,
    rate: u32,
    /// How many there are.
    pub count: u64,
}

impl Schedule {
    /// So many a second, for so long.
    pub fn new(start: Instant, rate: u32, duration: Duration) -> Self {
        let count = (duration.as_secs_f64() * f64::from(rate)).ceil() as u64;
        Self { start, rate, count }
    }

    /// When a request is due.
    pub fn due(&self, number: u64) -> Instant {
        // In whole nanoseconds: a sum of intervals would drift.
        let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Gives a permit when each is due, and `more` at the end, by a thread of its own: the runtime's clock ticks in
    /// milliseconds, the kernel's sleeps end within some 50 µs.
    pub fn release(self, permits: Arc<Semaphore>, more: usize) {
        thread::spawn(move || {
            for number in 0..self.count {
                let due = self.due(number);
                let left = due.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    thread::sleep(left);
                }
                permits.add_permits(1);
            }
            permits.add_permits(more);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_does_not_drift() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3000, Duration::from_secs(10));
        assert_eq!(schedule.count, 30_000);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(3000), start + Duration::from_secs(1));
        assert_eq!(schedule.due(3_000_000), start + Duration::from_secs(1000));
        assert_eq!(Schedule::new(start, 1, Duration::from_millis(1)).count, 1);
    }
}
