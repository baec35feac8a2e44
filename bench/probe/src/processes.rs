//! Processes and threads: their beginning and end.

use std::io;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::clock::each;

/// The argument with which this program does nothing.
pub const NOTHING: &str = "nothing";

/// A child that has to be waited for.
pub struct Forked(Pid);

impl Forked {
    /// Waits until it has ended, which must be with success.
    pub fn wait(self) -> io::Result<()> {
        match waitpid(self.0, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(io::Error::other(format!("a child ended with {other:?}"))),
        }
    }
}

/// Runs `work`, which makes system calls and nothing else, in a copy of this process, which ends with it.
pub fn in_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<Forked> {
    // SAFETY: `work` makes system calls only, in a child of which no other thread is left: it meets no lock that another
    // thread of the parent's may have held.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked(child)),
        ForkResult::Child => {
            let code = i32::from(work().is_err());
            // SAFETY: it does not return, and runs nothing of what the parent has registered to run at its end.
            unsafe { libc::_exit(code) }
        }
    }
}

/// A copy of this process that ends at once, waited for.
pub fn fork(operations: u32) -> io::Result<f64> {
    each(operations, || in_child(|| Ok(()))?.wait())
}

/// A process that executes this program anew, which does nothing, waited for. std takes vfork's way, as shells do.
pub fn exec(operations: u32) -> io::Result<f64> {
    each(operations, || {
        let mut command = Command::new("/proc/self/exe");
        let status = command.arg(NOTHING).stdout(Stdio::null()).status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("a child ended with {status}"))),
        }
    })
}

/// A thread that ends at once, joined.
pub fn thread(operations: u32) -> io::Result<f64> {
    each(operations, || {
        let joined = thread::Builder::new().spawn(|| ())?.join();
        joined.map_err(|_| io::Error::other("a thread panicked"))
    })
}
