//! A clone that is to begin in namespaces which exist: made by a process between, as no thread can go into a user
//! namespace and come back, and what is made together with a new one would belong to that one.
//!
//! The process between is the runtime's copy, goes where the clone is to begin, makes it as the runtime's own child
//! (CLONE_PARENT), tells its number, and ends.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{Pid, pipe2, write};

use crate::clone::{Cloned, Parent, clone};
use crate::pidfd;
use crate::step::Failure;

/// What became of it.
pub(crate) enum Between {
    /// The caller is the runtime.
    Cloned(Cloned),
    /// The caller is the clone.
    InClone,
    /// There is none: what stood in the way was told to `report`.
    NotEntered,
}

/// As [`clone`], from within what `enter` enters. `report`: called with what failed of that.
///
/// # Safety
/// As for [`clone`], of `enter` and `report` as well.
pub(crate) unsafe fn clone_from_within(
    enter: impl FnOnce() -> Result<(), Failure>,
    report: impl FnOnce(&Failure),
    namespaces: CloneFlags,
    cgroup: Option<&OwnedFd>,
) -> Result<Between, Errno> {
    let (told, teller) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the process between runs `between` alone, as the clone of it what the caller promises.
    let Some(process) = (unsafe { clone(CloneFlags::empty(), None, Parent::Caller) })? else {
        return match enter() {
            // SAFETY: as above.
            Ok(()) => unsafe { make(namespaces, cgroup, &teller) },
            Err(failure) => {
                report(&failure);
                end()
            }
        };
    };
    drop(teller);
    let mut number = [0; 4];
    let read = File::from(told).read_exact(&mut number);
    // Of our own child there is nothing else to learn.
    let _ = pidfd::reap(process.pidfd.as_fd(), WaitPidFlag::WEXITED);
    match (read, i32::from_ne_bytes(number)) {
        (Err(error), _) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Between::NotEntered),
        (Err(error), _) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
        (Ok(()), errno) if errno < 0 => Err(Errno::from_raw(-errno)),
        (Ok(()), pid) => {
            let pid = Pid::from_raw(pid);
            // It is our child, not waited for: the number is still its.
            Ok(Between::Cloned(Cloned { pid, pidfd: pidfd::open(pid)? }))
        }
    }
}

/// In the process between: makes the clone and tells of it.
///
/// # Safety
/// As for [`clone`].
unsafe fn make(
    namespaces: CloneFlags,
    cgroup: Option<&OwnedFd>,
    teller: &OwnedFd,
) -> Result<Between, Errno> {
    // SAFETY: the caller's.
    let number = match unsafe { clone(namespaces, cgroup, Parent::CallersParent) } {
        Ok(None) => return Ok(Between::InClone),
        Ok(Some(cloned)) => cloned.pid.as_raw(),
        Err(errno) => -(errno as i32),
    };
    tell(teller.as_fd(), number);
    end()
}

/// A runtime that is gone has no use for it.
fn tell(teller: BorrowedFd, number: i32) {
    let _ = write(teller, &number.to_ne_bytes());
}

fn end() -> ! {
    // SAFETY: ends this process at once, without running the parent's exit handlers.
    unsafe { libc::_exit(0) }
}
