//! Processes by descriptor (pidfd_open(2)), which never comes to name another process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Opens a process, close-on-exec.
///
/// # Errors
/// ESRCH or EINVAL: there is no such process, or it is a thread. Others: the host is out of descriptors.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: integers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0u32) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal by its number, as real-time signals have no names. Ok if the process has ended already.
///
/// # Errors
/// EPERM: it is not ours to signal. EINVAL: no signal has this number.
pub fn send(process: impl AsFd, signal: i32) -> Result<(), Errno> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    let fd = process.as_fd().as_raw_fd();
    // SAFETY: the descriptor is live; without siginfo the kernel fills it in as kill(2) does.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0u32) };
    match Errno::result(sent) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Waits until the process has ended, which its descriptor tells to everybody, not to its parent alone. Ok(false):
/// it still lived when the time was over.
///
/// # Errors
/// The kernel is out of memory.
pub fn wait(process: impl AsFd, timeout: PollTimeout) -> Result<bool, Errno> {
    let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut watched, timeout) {
            Err(Errno::EINTR) => {}
            ended => return ended.map(|count| count > 0),
        }
    }
}

/// Waits for a child's change of state, of which it tells one waiter.
pub(crate) fn reap(child: BorrowedFd, flags: WaitPidFlag) -> Result<WaitStatus, Errno> {
    loop {
        match waitid(Id::PIDFd(child), flags) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
