//! How long a thread may look for work before it sleeps.
//!
//! Work for a thread that sleeps costs an exit of the vCPU that notifies it and a wake-up on
//! another CPU; a thread that looks by itself spares both, and burns a CPU meanwhile. So it learns
//! what pays, as KVM does for vCPUs that halt (Documentation/virt/kvm/halt-polling.rst): a sleep
//! that was over soon could have been spared, and makes the window wider; one that was not means
//! that there is nothing to do, and closes it. Where another thread wants the CPU, a vCPU that was
//! just interrupted mostly, looking holds up the very work that it looks for: then the window
//! stays closed for a while, the longer the more often that happens.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::threads::cpus;

/// Widenings from the first window to the limit, each by a factor of two.
const WIDENINGS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// A thread's choice of how long to look.
#[derive(Debug)]
pub struct Polling {
    limit: Duration,
    window: Duration,
    pause: Duration,
    paused_until: Option<Instant>,
    /// What [`preemptions`] was when the thread began to look.
    preempted: i64,
}

impl Polling {
    /// Never longer than `limit`, and not at all where there is one CPU only: whoever makes the
    /// work could not run meanwhile.
    pub fn new(limit: Duration) -> Self {
        let limit = if limit.is_zero() || cpus() < 2 { Duration::ZERO } else { limit };
        Self { limit, window: Duration::ZERO, pause: FIRST_PAUSE, paused_until: None, preempted: 0 }
    }

    /// It will never pay.
    pub fn is_off(&self) -> bool {
        self.limit.is_zero()
    }

    /// How long to look before the next sleep.
    pub fn window(&self) -> Option<Duration> {
        (!self.window.is_zero()).then_some(self.window)
    }

    /// The calling thread begins to look.
    pub fn begin(&mut self) -> Instant {
        self.preempted = preemptions();
        Instant::now()
    }

    /// Whether another thread wanted the calling thread's CPU since it began to look, which
    /// closes the window.
    pub fn is_crowded(&mut self) -> bool {
        let crowded = preemptions() != self.preempted;
        if crowded {
            self.crowd(Instant::now());
        }
        crowded
    }

    /// The thread looked in vain, and nobody minded.
    pub fn in_vain(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// The thread slept for so long.
    pub fn slept(&mut self, duration: Duration) {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.paused_until = None;
        self.window = if duration > self.limit {
            Duration::ZERO
        } else {
            (self.window * 2).clamp(self.limit / (1 << WIDENINGS), self.limit)
        };
    }

    fn crowd(&mut self, now: Instant) {
        self.window = Duration::ZERO;
        self.paused_until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// How often the calling thread had to leave its CPU to another.
fn preemptions() -> i64 {
    // Cannot fail: the thread exists. Without an answer nothing is held against looking.
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

#[cfg(test)]
mod tests {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    use super::*;

    const LIMIT: Duration = Duration::from_micros(200);

    fn polling() -> Polling {
        Polling { limit: LIMIT, ..Polling::new(Duration::ZERO) }
    }

    fn first_cpu() -> CpuSet {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu).unwrap()).unwrap();
        let mut one = CpuSet::new();
        one.set(first).unwrap();
        one
    }

    fn run_on(cpu: &CpuSet) {
        sched_setaffinity(Pid::from_raw(0), cpu).unwrap();
    }

    fn micros(window: Option<Duration>) -> u128 {
        window.map_or(0, |window| window.as_micros())
    }

    #[test]
    fn short_sleeps_widen_the_window_up_to_the_limit_and_a_long_one_closes_it() {
        let mut polling = polling();
        assert_eq!(polling.window(), None, "a guest that does nothing costs nothing");
        let mut after = |sleep| {
            polling.slept(Duration::from_micros(sleep));
            micros(polling.window())
        };
        assert_eq!([10, 200, 1, 199, 50].map(&mut after), [25, 50, 100, 200, 200]);
        assert_eq!([201, 5, 1_000_000, 9].map(after), [0, 25, 0, 25]);
    }

    #[test]
    fn a_crowded_cpu_closes_the_window_for_longer_each_time_until_nobody_minds() {
        let mut polling = polling();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 256] {
            polling.slept(Duration::ZERO);
            assert_eq!(micros(polling.window()), 25);
            let now = Instant::now();
            polling.crowd(now);
            assert_eq!(polling.window(), None);
            assert_eq!(polling.paused_until, Some(now + Duration::from_millis(pause)));
            polling.paused_until = Some(long_ago);
        }
        polling.slept(Duration::ZERO);
        polling.in_vain();
        polling.crowd(long_ago);
        assert_eq!(polling.paused_until, Some(long_ago + FIRST_PAUSE));
        polling.paused_until = Some(Instant::now() + Duration::from_secs(3600));
        polling.slept(Duration::ZERO);
        assert_eq!(polling.window(), None, "paused");
    }

    #[test]
    fn it_is_off_without_a_limit_and_on_one_cpu() {
        assert!(Polling::new(Duration::ZERO).is_off());
        assert_eq!(Polling::new(LIMIT).is_off(), cpus() < 2);
        let cpu = first_cpu();
        std::thread::spawn(move || {
            run_on(&cpu);
            assert!(Polling::new(LIMIT).is_off());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_has_to_share_its_cpu_notices() {
        let cpu = first_cpu();
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let rival = std::thread::spawn(move || {
            run_on(&cpu);
            while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {}
        });
        let crowded = std::thread::spawn(move || {
            run_on(&cpu);
            let mut polling = polling();
            let began = polling.begin();
            while !polling.is_crowded() {
                assert!(began.elapsed() < Duration::from_secs(60), "never preempted");
            }
            polling.window()
        });
        assert_eq!(crowded.join().unwrap(), None);
        drop(done);
        rival.join().unwrap();
    }
}
