//! Token buckets: how fast a device may go.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vmm_sys_util::timerfd::TimerFd;

use crate::poison::unpoisoned;

/// How much of a second's allowance can be saved up and spent at once.
const BURST_SECONDS: f64 = 0.1;
/// The shortest wait, so that a tiny deficit does not become a flood of timers.
const MIN_WAIT: Duration = Duration::from_micros(100);

/// A limit the operator set; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Payload, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
    /// Requests or frames a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<NonZeroU64>,
}

/// One quantity that refills at a constant rate.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: f64,
    capacity: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket that gains `rate` tokens a second and holds a tenth of a second's worth.
    pub fn new(rate: NonZeroU64, now: Instant) -> Self {
        let rate = rate.get() as f64;
        let capacity = (rate * BURST_SECONDS).max(1.0);
        Self { rate, capacity, tokens: capacity, filled: now }
    }

    /// How long until something may be taken; zero means now.
    ///
    /// Whatever is taken then may exceed the bucket: it goes into debt and the next waits
    /// longer. So a request larger than the bucket passes, and the average still holds.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + elapsed * self.rate).min(self.capacity);
        if self.tokens > 0.0 {
            return Duration::ZERO;
        }
        let seconds = (1.0 - self.tokens) / self.rate;
        // Cannot fail or overflow: the debt is at most a request of 4 GiB at one byte a second.
        Duration::from_secs_f64(seconds).max(MIN_WAIT)
    }

    /// Takes `count` tokens, into debt if need be.
    pub fn take(&mut self, count: u64) {
        self.tokens -= count as f64;
    }
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<TokenBucket>,
    operations: Option<TokenBucket>,
}

/// The buckets of a device, and one queue's timer that tells when to go on.
#[derive(Debug)]
pub struct RateLimiter {
    buckets: Arc<Mutex<Buckets>>,
    timer: TimerFd,
}

impl RateLimiter {
    /// A limiter for `limit`; `None` where nothing is limited.
    ///
    /// # Errors
    /// The host gives no timerfd.
    pub fn new(limit: RateLimit) -> io::Result<Option<Self>> {
        if limit == RateLimit::default() {
            return Ok(None);
        }
        let bucket = |rate: Option<NonZeroU64>| rate.map(|r| TokenBucket::new(r, Instant::now()));
        Ok(Some(Self {
            buckets: Arc::new(Mutex::new(Buckets {
                bytes: bucket(limit.bytes_per_second),
                operations: bucket(limit.operations_per_second),
            })),
            timer: TimerFd::new()?,
        }))
    }

    /// A limiter for another queue of the device, which spends from the same buckets.
    ///
    /// # Errors
    /// The host gives no timerfd.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { buckets: Arc::clone(&self.buckets), timer: TimerFd::new()? })
    }

    /// Whether a request may start now. If not, the timer is set for when to ask again.
    pub fn ready(&mut self) -> bool {
        let wait = {
            let mut buckets = self.lock();
            let now = Instant::now();
            let Buckets { bytes, operations } = &mut *buckets;
            let waits = [bytes, operations].into_iter().flatten();
            waits.map(|bucket| bucket.wait(now)).max()
        };
        let wait = wait.unwrap_or_default();
        // A timer that cannot be set must not stall the device for good.
        wait.is_zero() || self.timer.reset(wait, None).is_err()
    }

    /// Accounts for a request of `bytes` that starts.
    pub fn take(&mut self, bytes: u64) {
        let mut buckets = self.lock();
        if let Some(bucket) = &mut buckets.bytes {
            bucket.take(bytes);
        }
        if let Some(bucket) = &mut buckets.operations {
            bucket.take(1);
        }
    }

    /// The timerfd to watch.
    pub fn timer_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        // Plain numbers are never left half changed.
        unpoisoned(self.buckets.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(value: u64) -> NonZeroU64 {
        NonZeroU64::new(value).unwrap()
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate(1000), start);
        for _ in 0..100 {
            assert_eq!(bucket.wait(start), Duration::ZERO);
            bucket.take(1);
        }
        assert_eq!(bucket.wait(start), Duration::from_millis(1));
        let mut now = start;
        let mut passed = 0;
        while now < start + Duration::from_secs(10) {
            match bucket.wait(now) {
                Duration::ZERO => {
                    bucket.take(1);
                    passed += 1;
                }
                wait => now += wait,
            }
        }
        assert!((9_990..=10_010).contains(&passed), "{passed}");
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_is_paid_for() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate(1000), start);
        bucket.take(5_000);
        let wait = bucket.wait(start);
        assert!(wait > Duration::from_millis(4_899) && wait < Duration::from_millis(4_902));
        assert_eq!(bucket.wait(start + wait), Duration::ZERO);
    }

    #[test]
    fn the_largest_debt_at_the_lowest_rate_does_not_panic() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate(1), start);
        bucket.take(1 << 32);
        assert!(bucket.wait(start) > Duration::from_secs(1 << 31));
        let mut bucket = TokenBucket::new(rate(u64::MAX), start);
        bucket.take(u64::MAX);
        assert!(bucket.wait(start) >= MIN_WAIT);
    }

    #[test]
    fn time_that_does_not_advance_or_goes_back_gives_nothing() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut bucket = TokenBucket::new(rate(10), later);
        bucket.take(1);
        assert!(!bucket.wait(start).is_zero());
        assert!(!bucket.wait(later).is_zero());
    }

    #[test]
    fn a_limiter_arms_its_timer_and_goes_on() {
        assert!(RateLimiter::new(RateLimit::default()).unwrap().is_none());
        let limit = RateLimit { bytes_per_second: None, operations_per_second: Some(rate(100)) };
        let mut limiter = RateLimiter::new(limit).unwrap().unwrap();
        let mut passed = 0;
        while limiter.ready() {
            limiter.take(4096);
            passed += 1;
            assert!(passed < 10_000, "never limited");
        }
        assert!(passed >= 10);
        limiter.timer.wait().unwrap();
        assert!(limiter.ready());
    }
}
