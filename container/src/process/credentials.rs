//! User, groups, capabilities and the working directory, in the order in which the kernel lets them be set.
//!
//! Raw system calls on purpose: the wrappers of the C library for set*id stop all threads that the library knows of,
//! and in the clone of a multi-threaded process it knows of threads that do not exist.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::sys::prctl;

use super::plan::ProcessPlan;
use crate::step::{At, Failure, Step};

/// Child: becomes root of its user namespace, so that the files it makes belong to a mapped user.
pub(crate) fn become_root_of_user_namespace() -> Result<(), Failure> {
    setgid(0).at(Step::BecomeRoot)?;
    setuid(0).at(Step::BecomeRoot)
}

/// Child: working directory, groups, user and capabilities of the process.
pub(crate) fn apply(plan: &ProcessPlan) -> Result<(), Failure> {
    // Before the user changes, because the directory may be out of the user's reach; and again after, because it
    // may be within the user's reach only (NFS with root squashed, FUSE).
    let entered = enter(&plan.cwd);
    if let Some(sets) = &plan.capabilities {
        sets.limit_bounding_set()?;
        prctl::set_keepcaps(true).at(Step::Capabilities)?;
    }
    match setgroups(&plan.groups) {
        // To who has all capabilities in a user namespace it says that the namespace denies it: then the groups that the
        // caller had stay, which have no names in there.
        Err(Errno::EPERM) if plan.user_namespace && plan.groups.is_empty() => {}
        other => other.at(Step::Groups)?,
    }
    setgid(plan.gid).at(Step::Group)?;
    setuid(plan.uid).at(Step::User)?;
    match entered {
        Err(Errno::EACCES | Errno::EPERM) => enter(&plan.cwd).at(Step::WorkingDirectory)?,
        other => other.at(Step::WorkingDirectory)?,
    }
    if let Some(sets) = &plan.capabilities {
        sets.apply()?;
        prctl::set_keepcaps(false).at(Step::Capabilities)?;
    }
    Ok(())
}

/// Changes to `cwd` and makes sure that it lies below the root directory: a descriptor leaked from the host must not
/// become a way out through a working directory like `/proc/self/fd/7` (CVE-2024-21626).
fn enter(cwd: &CStr) -> Result<(), Errno> {
    nix::unistd::chdir(cwd)?;
    let mut path = [0u8; 16];
    // SAFETY: the kernel writes at most `path.len()` bytes to `path`, which is exclusively ours.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    match Errno::result(result) {
        // Too long for the small buffer: a deep directory, or a deep one outside.
        Err(Errno::ERANGE) => reachable_if_long(),
        Err(errno) => Err(errno),
        Ok(_) if path[0] == b'/' => Ok(()),
        Ok(_) => Err(Errno::EXDEV),
    }
}

/// Looks at the first byte of a long working directory.
fn reachable_if_long() -> Result<(), Errno> {
    let mut path = [0u8; libc::PATH_MAX as usize + 16];
    // SAFETY: as in `enter`.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    Errno::result(result)?;
    if path[0] == b'/' { Ok(()) } else { Err(Errno::EXDEV) }
}

/// Child: the supplementary groups.
pub(crate) fn setgroups(groups: &[libc::gid_t]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `len` ids from the slice.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
        .map(drop)
}

fn setgid(gid: libc::gid_t) -> Result<(), Errno> {
    // SAFETY: integers only; affects the calling thread, which is the only one.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

fn setuid(uid: libc::uid_t) -> Result<(), Errno> {
    // SAFETY: integers only; affects the calling thread, which is the only one.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}
