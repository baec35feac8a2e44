//! Alone in its process: it waits for all children there are.

use std::io::pipe;
use std::process::Command;

use isolab_bench::leftovers::{adopt, wait};
use isolab_isolation::timeline;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

#[test]
fn what_outlives_its_parent_is_waited_for() {
    adopt();
    // The shell leaves a child behind, which ends when its standard input does.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0; cat <&3 >/dev/null 2>&1 & exit 0"]);
    let (reader, writer) = pipe().unwrap();
    assert!(shell.stdin(reader).status().unwrap().success());
    drop(shell);
    assert!(matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)));
    let exited = timeline::now();
    drop(writer);
    assert!(wait().unwrap() > exited);
    assert_eq!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));
}
