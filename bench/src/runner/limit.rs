//! A subject that hangs does not hang the benchmark: what it runs is killed, and it has failed.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid};

/// Does `work`. When that takes longer than `limit`, kills the processes that the calling thread has started in it, and
/// theirs: not those by which `work` cleans up then, but they have no more time either.
///
/// # Errors
/// It took longer.
pub fn within<T>(limit: Duration, work: impl FnOnce() -> T) -> Result<T, TooLong<T>> {
    let worker = format!("/proc/self/task/{}", gettid());
    // Servers of ours that all turns have.
    let earlier = children(Path::new(&worker));
    let (done, end) = mpsc::channel::<()>();
    // Owns `done`, which goes with it if `work` panics: the thread ends then, which is waited for.
    thread::scope(move |scope| {
        let watch = scope.spawn(move || {
            let mut killed = false;
            while end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let mut hung = children(Path::new(&worker));
                hung.retain(|child| !earlier.contains(child));
                hung.into_iter().for_each(kill_tree);
                killed = true;
            }
            killed
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

/// Kills a process and its descendants, which would be nobody's without it.
fn kill_tree(process: i32) {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let below: Vec<i32> = tasks.flat_map(|task| children(&task.path())).collect();
    // It may just have gone by itself.
    let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    below.into_iter().for_each(kill_tree);
}

/// Of a thread, proc_pid_children(5); none on a kernel without CONFIG_PROC_CHILDREN, which Debian's have.
fn children(task: &Path) -> Vec<i32> {
    let list = fs::read_to_string(task.join("children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleep(seconds: &str) -> Child {
        Command::new("sleep").arg(seconds).spawn().unwrap()
    }

    #[test]
    fn what_takes_too_long_is_killed_and_nothing_else() {
        let mut earlier = sleep("1000");
        let late = within(Duration::from_millis(100), || {
            // The end of its output is that of the last one of them.
            let script = "sleep 1000 & sleep 1000";
            let command = &mut Command::new("sh");
            let hangs = command.args(["-c", script]).stdout(Stdio::piped()).output().unwrap();
            let cleans_up = Command::new("true").status().unwrap();
            (hangs.status.success(), cleans_up.success())
        });
        assert_eq!(late.unwrap_err().returned, (false, true));
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
