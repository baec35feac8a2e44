//! User namespaces beside a container's: work that takes root of one whose ids are of the caller's ranges, as only there
//! can a caller who is not root remove what containers wrote as other users; and one that a container is to join, with its
//! network.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe2, read, write};
use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Error, Result};
use crate::idmap::IdMaps;
use crate::process::credentials::become_root_of_user_namespace;

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
