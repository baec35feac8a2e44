//! What a measured process leaves running behind its exit.
//!
//! A VMM may end before its machine has been taken apart (ours does, see `isolab_vmm::teardown`), and
//! on a host with few CPUs that work would be charged to whoever is measured next.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Something that stays longer does not end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// From now on, processes that lose their parent become children of this one.
pub fn adopt() {
    // Cannot fail on any kernel since 3.4; without it there would be nothing to wait for.
    let _ = prctl::set_child_subreaper(true);
}

/// Waits until no child of this process is left. For callers who have waited for their own.
pub fn wait() {
    let deadline = Instant::now() + PATIENCE;
    let any = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    loop {
        match waitpid(None, Some(any)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(WaitStatus::StillAlive) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return, // ECHILD
        }
    }
}
