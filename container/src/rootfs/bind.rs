//! Binds, and changes of mounts that exist.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::resolve::DescriptorPath;

/// What mount(2) does not look at.
const NONE: Option<&CStr> = None;

/// Child: binds `source` on `target`. `flags`: none, or MS_REC for what is mounted below it as well.
pub(crate) fn bind(source: &CStr, target: &CStr, flags: MsFlags) -> Result<(), Errno> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND | flags, NONE)
}

/// Child: changes the mount at `target`: its propagation, or with MS_REMOUNT its flags.
pub(super) fn change(target: &CStr, flags: MsFlags) -> Result<(), Errno> {
    mount(NONE, target, NONE, flags, NONE)
}

/// Child: adds `flags` to the mount that `mounted` is the root of.
pub(super) fn add_flags(mounted: &OwnedFd, flags: MsFlags) -> Result<(), Errno> {
    let base = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    // A remount replaces all flags, so those in force are repeated. In a user namespace some are locked as well.
    let in_force = in_force(mounted)?;
    change(DescriptorPath::new(mounted).as_c_str(), base | in_force)
}

fn in_force(mounted: &OwnedFd) -> Result<MsFlags, Errno> {
    let flags = fstatvfs(mounted)?.flags();
    let pairs = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let held = pairs.into_iter().filter(|(in_force, _)| flags.contains(*in_force));
    Ok(held.fold(MsFlags::empty(), |all, (_, flag)| all | flag))
}
