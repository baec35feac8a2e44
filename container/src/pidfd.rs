//! Processes by descriptor (pidfd_open(2)), which never comes to name another process.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens a process, close-on-exec.
pub(crate) fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: integers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0u32) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal. Ok if the process has ended already.
pub(crate) fn send(pidfd: BorrowedFd, signal: Signal) -> Result<(), Errno> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    let (fd, number) = (pidfd.as_raw_fd(), signal as libc::c_int);
    // SAFETY: the descriptor is live; without siginfo the kernel fills it in as kill(2) does.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, no_info, 0u32) };
    match Errno::result(sent) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Waits until the process has ended, which its descriptor tells to everybody, not to its parent alone.
pub(crate) fn wait_for_end(pidfd: BorrowedFd) {
    let mut watched = [PollFd::new(pidfd, PollFlags::POLLIN)];
    while let Err(Errno::EINTR) | Ok(0) = poll(&mut watched, PollTimeout::NONE) {}
}
