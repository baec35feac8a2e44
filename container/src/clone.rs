//! clone3(2) as a safe-to-reason-about fork.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;

/// `linux/sched.h`; the constant of the libc crate is too narrow for its value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The process that was made.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub pid: Pid,
    /// Becomes readable when the process ends, whatever anybody does with SIGCHLD.
    pub pidfd: OwnedFd,
}

/// Whose child a clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    Caller,
    CallersParent,
}

/// Clones this process into new namespaces, and into `cgroup` if given. Returns twice: in the caller with the clone,
/// in the clone with None and all signals blocked.
///
/// The clone has a copy of this memory and one thread. Locks that other threads held at that moment stay locked in it
/// for ever, those of the allocator among them.
///
/// # Safety
/// What the clone runs must not allocate, free, or take any lock that another thread may hold: system calls and the
/// memory at hand only. It must end in execve or _exit, never return into the caller's frames.
pub(crate) unsafe fn clone(
    namespaces: CloneFlags,
    cgroup: Option<&OwnedFd>,
    parent: Parent,
) -> Result<Option<Cloned>, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeros is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.bits() as u32) | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    match parent {
        Parent::Caller => args.exit_signal = libc::SIGCHLD as u64,
        // The signal is the caller's own then (clone(2)).
        Parent::CallersParent => args.flags |= libc::CLONE_PARENT as u64,
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // No signal handler of ours may run in the clone. It unblocks them just before execve.
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
    // SAFETY: without CLONE_VM the clone runs on its own copy of this stack (stack = 0); `args` and `pidfd` are live.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        return Ok(None);
    }
    let cloned = Errno::result(pid);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    let pid = Pid::from_raw(cloned? as libc::pid_t);
    // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
    Ok(Some(Cloned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }))
}
