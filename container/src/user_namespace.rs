//! User namespaces beside a container's: work that takes root of one whose ids are of the caller's ranges, as only there
//! can a caller who is not root remove what containers wrote as other users; one that a container is to join, with its
//! network; and work that takes root of a container's own, as the host's has no id in its files.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe2, read, write};
use oci_spec::runtime::LinuxIdMapping;

use crate::child::ExitStatus;
use crate::descriptors::close_all_but;
use crate::error::{Error, Result};
use crate::idmap::IdMaps;
use crate::process::credentials::{become_root_of_user_namespace, setgroups};

/// A new user namespace with these maps, and a network namespace that belongs to it, where root of the first may do all
/// that root may do with a network. Both exist as long as the descriptors, or who is in them.
///
/// # Errors
/// They cannot be made, or the maps are refused.
pub fn user_and_network_namespace(
    uid: &[LinuxIdMapping],
    gid: &[LinuxIdMapping],
) -> Result<[OwnedFd; 2]> {
    IdMaps::new(uid, gid)?.namespaces(CloneFlags::CLONE_NEWNET, ["user", "net"])
}

/// Runs `work` in a process of its own, which is root of a new user namespace with these maps, and waits for it.
///
/// # Errors
/// The namespace cannot be made, the maps are refused, or `work` failed.
pub fn as_root_of_user_namespace(
    uid: &[LinuxIdMapping],
    gid: &[LinuxIdMapping],
    work: impl FnOnce() -> std::io::Result<()>,
) -> Result<()> {
    let maps = IdMaps::new(uid, gid)?;
    let failed = |source: Errno| Error::host("make a process in a new user namespace", source);
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed);
    let (ready, made) = pipe()?;
    let (go, mapped) = pipe()?;
    // SAFETY: glibc's fork leaves its allocator usable in the child, also of a process with threads, and `work` uses
    // nothing else that could be locked: files by system calls. The child ends by _exit.
    match unsafe { fork() }.map_err(failed)? {
        ForkResult::Child => {
            drop((ready, mapped));
            let code = match child(&made, &go).map_err(std::io::Error::from).and_then(|()| work()) {
                Ok(()) => 0,
                Err(error) => error.raw_os_error().unwrap_or(Errno::EIO as i32),
            };
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            drop((made, go));
            // An end of file is a child that failed; its code says why.
            let is_made = read(&ready, &mut [0]) == Ok(1);
            let written = if is_made { maps.write(child) } else { Ok(()) };
            if written.is_ok() {
                let _ = write(&mapped, &[1]);
            }
            drop(mapped);
            let ended = waitpid(child, None).map_err(failed)?;
            written?;
            match ended {
                WaitStatus::Exited(_, 0) => Ok(()),
                WaitStatus::Exited(_, code) => Err(failed(Errno::from_raw(code))),
                _ => Err(failed(Errno::EINTR)),
            }
        }
    }
}

fn child(made: &OwnedFd, go: &OwnedFd) -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    write(made.as_fd(), &[1])?;
    if read(go, &mut [0])? != 1 {
        return Err(Errno::EPERM);
    }
    become_root_of_user_namespace().map_err(|failure| failure.errno)
}

/// Runs `work` in a process of its own, which is root of the user namespace `namespace` and of nothing else, and waits for
/// its end: `work` says with which code. It has the standard streams and `keep` open, and may own no other descriptor.
///
/// # Errors
/// The process cannot be made, or may not go into the namespace.
pub fn as_root_of_joined_user_namespace(
    namespace: BorrowedFd<'_>,
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce() -> u8,
) -> Result<ExitStatus> {
    let failed = |source: Errno| Error::host("make a process in a user namespace", source);
    let mut keep: Vec<_> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    let (entered, their_entered) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    keep.push(their_entered.as_raw_fd());
    keep.sort_unstable();
    // SAFETY: as above: `work` gets by with the allocator and system calls, and the child ends by _exit.
    match unsafe { fork() }.map_err(failed)? {
        ForkResult::Child => {
            let code = match enter(namespace, &keep) {
                Ok(()) => i32::from(work()),
                Err(errno) => {
                    // Where that fails the parent hears of the end alone.
                    let _ = write(&their_entered, &(errno as i32).to_ne_bytes());
                    1
                }
            };
            // SAFETY: as above.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            drop(their_entered);
            let mut why = [0; 4];
            let told = read(&entered, &mut why).map_err(failed)?;
            let ended = waitpid(child, None).map_err(failed)?;
            if told == why.len() {
                return Err(failed(Errno::from_raw(i32::from_ne_bytes(why))));
            }
            match ended {
                WaitStatus::Exited(_, code) => Ok(ExitStatus::Exited(code)),
                WaitStatus::Signaled(_, signal, _) => {
                    Ok(ExitStatus::Signaled { signal, oom_killed: false })
                }
                _ => Err(failed(Errno::ECHILD)),
            }
        }
    }
}

/// The caller's groups stay outside: they have names of the host's, and rights there.
fn enter(namespace: BorrowedFd<'_>, keep: &[i32]) -> Result<(), Errno> {
    setgroups(&[])?;
    setns(namespace, CloneFlags::CLONE_NEWUSER)?;
    become_root_of_user_namespace().map_err(|failure| failure.errno)?;
    // Behind the change of user, which the kernel forgets it with (prctl(2)).
    set_pdeathsig(Signal::SIGKILL)?;
    close_all_but(keep)
}
