//! Who has started a program lets it go first.

use nix::errno::Errno;

/// Where no CPU is idle, being told that the program is executed does not take the CPU from it (SCHED_BATCH, sched(7)):
/// what there is to do for a container that runs can wait until its program does, or the next tick. Until this is dropped:
/// processes that the caller makes inherit how it is scheduled.
#[derive(Debug)]
pub(crate) struct StandingBack(());

impl StandingBack {
    /// None where the caller is scheduled otherwise than usual, which is left as it is, or may not change that.
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: takes a number, of the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        (policy == libc::SCHED_OTHER && set(libc::SCHED_BATCH).is_ok()).then(|| Self(()))
    }
}

impl Drop for StandingBack {
    fn drop(&mut self) {
        // Between these two there is nothing that one may not do.
        let _ = set(libc::SCHED_OTHER);
    }
}

fn set(policy: libc::c_int) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters, of the calling thread.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_it_is_dropped() {
        // SAFETY: takes a number, of the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let standing_back = StandingBack::new();
        assert_eq!(standing_back.is_some(), before == libc::SCHED_OTHER);
        if standing_back.is_some() {
            assert_eq!(policy(), libc::SCHED_BATCH);
            // Already so: not ours to take back.
            assert!(StandingBack::new().is_none());
            assert_eq!(policy(), libc::SCHED_BATCH);
        }
        drop(standing_back);
        assert_eq!(policy(), before);
    }
}
