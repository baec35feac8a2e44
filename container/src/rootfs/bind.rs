//! Binds, and changes of mounts that exist.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::options::Attributes;
use super::resolve::DescriptorPath;

/// What mount(2) does not look at.
pub(super) const NONE: Option<&CStr> = None;

/// Child: a directory to mount something on or from, by its descriptor.
pub(super) fn open_directory(path: &CStr) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

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
    change_flags(mounted, flags, MsFlags::empty())
}

/// Child: adds flags, and takes flags away, of which the user namespace of whoever mounted it may lock some.
pub(super) fn change_flags(mounted: &OwnedFd, add: MsFlags, take: MsFlags) -> Result<(), Errno> {
    // A remount replaces all flags, so those in force are repeated.
    let in_force = in_force(mounted)?;
    let wanted = (in_force - take) | add;
    if wanted == in_force {
        return Ok(());
    }
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    change(DescriptorPath::new(mounted).as_c_str(), remount | wanted)
}

/// Child: changes all mounts of the tree that `mounted` is the root of (mount_setattr(2), Linux 5.12).
pub(super) fn change_tree(mounted: &OwnedFd, attributes: Attributes) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(mounted, libc::AT_RECURSIVE, &attributes)
}

/// mount_setattr(2) of what the descriptor names.
pub(super) fn set_attributes(
    mounted: &OwnedFd,
    flags: libc::c_int,
    attributes: &libc::mount_attr,
) -> Result<(), Errno> {
    // SAFETY: an empty path, and attributes of the size that is told, which the kernel reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mounted.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Child: attaches a tree of mounts that is nowhere yet (move_mount(2)).
pub(super) fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: two empty paths; the descriptors are live.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
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
    // The kernel's ST_NOSYMFOLLOW and MS_NOSYMFOLLOW.
    let more = (FsFlags::from_bits_retain(0x2000), MsFlags::from_bits_retain(256));
    let held = pairs.into_iter().chain([more]).filter(|(in_force, _)| flags.contains(*in_force));
    Ok(held.fold(MsFlags::empty(), |all, (_, flag)| all | flag))
}
