//! A subject that hangs does not hang the benchmark: what it runs is killed, and it has failed.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid};

/// Between two looks at what a killed process has left to us ([`crate::leftovers::adopt`]).
const INTERVAL: Duration = Duration::from_millis(100);

/// Does `work`. When that takes longer than `limit`, kills the processes that the calling thread has started in it, until
/// it returns.
///
/// # Errors
/// It took longer.
pub fn within<T>(limit: Duration, work: impl FnOnce() -> T) -> Result<T, TooLong<T>> {
    let worker = gettid();
    // Servers of ours that all turns have.
    let earlier = children(worker);
    let (done, end) = mpsc::channel::<()>();
    // Owns `done`, which goes with it if `work` panics: the thread ends then, which is waited for.
    thread::scope(move |scope| {
        let watch = scope.spawn(move || {
            let mut wait = limit;
            while end.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                for child in children(worker).difference(&earlier) {
                    // It has just gone by itself.
                    let _ = kill(Pid::from_raw(*child), Signal::SIGKILL);
                }
                wait = INTERVAL;
            }
            wait != limit
        });
        let returned = work();
        drop(done);
        match watch.join() {
            Ok(false) => Ok(returned),
            Ok(true) => Err(TooLong { returned }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Of work whose processes were killed.
#[derive(Debug)]
pub struct TooLong<T> {
    /// What it came to without them.
    pub returned: T,
}

/// Of a thread, proc_pid_children(5); none on a kernel without CONFIG_PROC_CHILDREN, which Debian's have.
fn children(thread: Pid) -> BTreeSet<i32> {
    let list = fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sleep(seconds: &str) -> std::process::Child {
        Command::new("sleep").arg(seconds).spawn().unwrap()
    }

    #[test]
    fn what_takes_too_long_is_killed_and_nothing_else() {
        let mut earlier = sleep("1000");
        let late = within(Duration::from_millis(50), || sleep("1000").wait().unwrap());
        assert!(!late.unwrap_err().returned.success());
        assert_eq!(earlier.try_wait().unwrap(), None, "it was there before");
        earlier.kill().unwrap();
        earlier.wait().unwrap();
        let short = within(Duration::from_secs(600), || sleep("0").wait().unwrap());
        assert!(short.unwrap().success());
    }

    #[test]
    fn a_panic_is_passed_on() {
        let panics = || within(Duration::from_secs(600), || panic!("as told"));
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
