//! What a measured process leaves running behind its exit, and what all of it cost.
//!
//! A VMM may end before its machine has been taken apart (ours does, see `isolab_vmm::teardown`), and
//! on a host with few CPUs that work would be charged to whoever is measured next.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use isolab_isolation::timeline;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::family;
use crate::meter::{CPU, FAULTS, SWITCHES};
use crate::runner::Figure;

/// Something that stays longer does not end by itself.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks, and so the error of what [`wait`] returns.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// What a network namespace, a VM or a tree of mounts takes to go, some of it behind grace periods of RCU of 10 to 20 ms each.
const REST: Duration = Duration::from_millis(100);

/// What children that have been waited for, and theirs, have cost (getrusage(2)).
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Of user space, guests included, and of the kernel, in microseconds. Their sum is the scheduler's and exact,
    /// while a kernel that counts by ticks divides it as it can.
    cpu_time: i64,
    /// A process or vCPU gave its processor away, or lost it.
    context_switches: i64,
    /// A page was given on its first touch, without a disk.
    page_faults: i64,
}

impl Cost {
    /// Until now.
    ///
    /// # Errors
    /// None that the manual page knows.
    pub fn of_children() -> io::Result<Self> {
        Self::of(UsageWho::RUSAGE_CHILDREN)
    }

    /// What the calling thread has cost until now, which is none of them.
    ///
    /// # Errors
    /// None that the manual page knows.
    pub fn of_this_thread() -> io::Result<Self> {
        Self::of(UsageWho::RUSAGE_THREAD)
    }

    /// As a [`Meter`](crate::meter::Meter) of [`Time`](crate::meter::Counted::Time) tells it.
    pub fn metered(sums: &[(&str, f64)]) -> Self {
        let sum = |what| sums.iter().find(|(name, _)| *name == what).map_or(0, |it| it.1 as i64);
        Self { cpu_time: sum(CPU), context_switches: sum(SWITCHES), page_faults: sum(FAULTS) }
    }

    fn of(whose: UsageWho) -> io::Result<Self> {
        let usage = getrusage(whose)?;
        Ok(Self {
            cpu_time: (usage.user_time() + usage.system_time()).num_microseconds(),
            context_switches: usage.voluntary_context_switches()
                + usage.involuntary_context_switches(),
            page_faults: usage.minor_page_faults(),
        })
    }

    /// What has come to it since `before`.
    pub fn since(self, before: Cost) -> Cost {
        Cost {
            cpu_time: self.cpu_time - before.cpu_time,
            context_switches: self.context_switches - before.context_switches,
            page_faults: self.page_faults - before.page_faults,
        }
    }

    /// As they stand in a report.
    pub fn figures(self) -> [Figure; 3] {
        [
            Figure::new("cpu_time", "ms", self.cpu_time as f64 / 1e3),
            Figure::new("context_switches", "count", self.context_switches as f64),
            Figure::new("page_faults", "count", self.page_faults as f64),
        ]
    }
}

/// From now on, processes that lose their parent become children of this one.
pub fn adopt() {
    // Cannot fail on any kernel since 3.4; without it there would be nothing to wait for.
    let _ = prctl::set_child_subreaper(true);
}

/// Waits until no child of this process is left, and says when that was, in nanoseconds of
/// CLOCK_MONOTONIC; `None` when something stays. For callers who have waited for their own.
pub fn wait() -> Option<u64> {
    let deadline = Instant::now() + TIMEOUT;
    let any = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    loop {
        match waitpid(None, Some(any)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                thread::sleep(POLL_INTERVAL);
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Some(timeline::now()), // ECHILD
        }
    }
}

/// Likewise, beside `servers`, children that stay: until nothing else descends from this process.
pub fn wait_beside(servers: &[u32]) -> Option<u64> {
    let own = std::process::id();
    let deadline = Instant::now() + TIMEOUT;
    let any = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    loop {
        while matches!(waitpid(None, Some(any)), Ok(ended) if ended != WaitStatus::StillAlive) {}
        let mut family = family::of(&[own.cast_signed()], &[]).ok()?;
        let stays = |pid: u32| pid == own || servers.contains(&pid);
        family.retain(|pid| !stays(pid.cast_unsigned()));
        if family.is_empty() {
            return Some(timeline::now());
        }
        if Instant::now() > deadline {
            return None;
        }
        // All of /proc is read for a look.
        thread::sleep(25 * POLL_INTERVAL);
    }
}

/// Before something is timed that costs milliseconds: leaves the kernel the time to take apart what was before it. That
/// work is no process's, so nothing tells when it is done.
pub fn rest() {
    thread::sleep(REST);
}
