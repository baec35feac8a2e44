//! A network namespace of nobody's, to try things in.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe2, read, write};

use crate::error::NetworkError;

const WHAT: &str = "a network namespace in a user namespace";

/// Makes one, of a user namespace of its own, for as long as `attempt` takes.
pub(super) fn in_new_namespace(
    attempt: impl FnOnce(BorrowedFd<'_>) -> Result<(), NetworkError>,
) -> Result<(), NetworkError> {
    let failed = |errno: Errno| NetworkError::kernel("make", WHAT)(errno.into());
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed);
    let ((made, telling), (waiting, end)) = (pipe()?, pipe()?);
    // SAFETY: the child makes system calls only, and leaves by _exit.
    match unsafe { fork() }.map_err(failed)? {
        ForkResult::Child => {
            drop(end);
            let code = child(&telling, &waiting).err().unwrap_or(Errno::UnknownErrno) as i32;
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            drop(telling);
            let is_made = read(&made, &mut [0]) == Ok(1);
            let path = format!("/proc/{child}/ns/net");
            let tried = match is_made {
                true => File::open(&path)
                    .map_err(NetworkError::io("open", &path))
                    .and_then(|namespace| attempt(namespace.as_fd())),
                false => Ok(()),
            };
            drop(end);
            let ended = waitpid(child, None).map_err(failed)?;
            match ended {
                nix::sys::wait::WaitStatus::Exited(_, code) if code != 0 => {
                    Err(failed(Errno::from_raw(code)))
                }
                _ => tried,
            }
        }
    }
}

/// Child: tells that it is there, and waits for an end of file.
fn child(telling: &OwnedFd, waiting: &OwnedFd) -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    write(telling.as_fd(), &[1])?;
    read(waiting, &mut [0]).map(drop)
}
