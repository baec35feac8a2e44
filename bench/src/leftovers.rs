//! What a measured process leaves running behind its exit.
//!
//! A VMM may end before its machine has been taken apart (ours does, see `isolab_vmm::teardown`), and
//! on a host with few CPUs that work would be charged to whoever is measured next.

use std::thread;
use std::time::{Duration, Instant};

use isolab_isolation::timeline;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Something that stays longer does not end by itself.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks, and so the error of what [`wait`] returns.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

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
