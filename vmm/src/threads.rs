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

/// Makes the calling thread's wake-ups wait until the task that runs on its CPU stops by itself,
/// where no CPU is idle (SCHED_BATCH, sched(7)). For threads that move frames: when they share a
/// CPU with who makes the frames, a vCPU or the host's network stack, taking the CPU at each frame
/// costs an exit, an interrupt and two changes of tasks a frame; a moment later there are several.
pub fn prefer_batches() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live structure, which is only read. Where it is refused, by a
    // container's seccomp filter perhaps, frames move all the same.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) };
}
