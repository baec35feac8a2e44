//! Processes by descriptor (pidfd_open(2)), which never come to mean another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The process `pid`; None if there is none.
pub(crate) fn open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match Errno::result(fd) {
        // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        Err(Errno::ESRCH | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a signal; to a process that has ended, none.
pub(crate) fn signal(process: &impl AsFd, signal: i32) -> io::Result<()> {
    let (fd, info) = (process.as_fd().as_raw_fd(), ptr::null::<libc::siginfo_t>());
    // SAFETY: the call takes numbers and a null pointer, which stands for the usual siginfo; the
    // descriptor is open as long as `process` is borrowed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits up to so many milliseconds until the process has ended, and says whether it has. Who its
/// parent is does not matter.
pub(crate) fn wait(process: &impl AsFd, milliseconds: u16) -> io::Result<bool> {
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut ended, PollTimeout::from(milliseconds)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
