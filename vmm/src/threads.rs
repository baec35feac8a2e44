//! How the VMM makes its threads.

use std::thread::Builder;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Far more than any thread here uses. A stack of the usual 2 MiB may be given a huge page as soon
/// as it is touched: 2 MiB of the host's memory for each thread, and the time to clear them (a
/// millisecond on the emulated KVM host).
const STACK: usize = 512 << 10;

/// A builder of threads with a name and a small stack.
pub fn builder(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}

/// CPUs that the calling thread may run on.
pub fn cpus() -> usize {
    let may_run = |set: &CpuSet, cpu| set.is_set(cpu).unwrap_or(false);
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|&cpu| may_run(&set, cpu)).count(),
        // More than the set has room for.
        Err(_) => CpuSet::count(),
    }
}

/// When a thread that wakes runs, where no CPU is idle (sched(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WakeUps {
    /// It takes the CPU from whoever has run for longer, mostly (SCHED_OTHER).
    #[default]
    Soon,
    /// When the task that runs on its CPU stops by itself, or its turn is over (SCHED_BATCH). For threads that share a CPU
    /// with who makes their work, a vCPU or the host's network stack: taking the CPU at each piece costs an exit, an
    /// interrupt and two changes of tasks a piece; a moment later there are several.
    InTurn,
}

impl WakeUps {
    /// Makes those of the calling thread such ones, unless it has another class, by chrt(1): idle or real time.
    pub fn choose(self) {
        let policy = match self {
            Self::Soon => libc::SCHED_OTHER,
            Self::InTurn => libc::SCHED_BATCH,
        };
        // SAFETY: no pointers.
        let present = unsafe { libc::sched_getscheduler(0) };
        if !matches!(present, libc::SCHED_OTHER | libc::SCHED_BATCH) {
            return;
        }
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the pointer is to a live structure, which is only read. Where it is refused, by a
        // container's seccomp filter perhaps, devices work all the same.
        let _ = unsafe { libc::sched_setscheduler(0, policy, &parameters) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: no pointers.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn wake_ups_are_chosen_within_the_usual_classes() {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the pointer is to a live structure. A thread may always leave for this class.
        assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) }, 0);
        WakeUps::Soon.choose();
        assert_eq!(policy(), libc::SCHED_OTHER);
        WakeUps::InTurn.choose();
        assert_eq!(policy(), libc::SCHED_BATCH);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) }, 0);
        WakeUps::InTurn.choose();
        assert_eq!(policy(), libc::SCHED_IDLE, "the operator's choice");
    }
}
