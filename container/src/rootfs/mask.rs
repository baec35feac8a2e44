//! `linux.maskedPaths` and `linux.readonlyPaths`: parts of /proc and /sys that a container must not read or write.

use super::mounts::remount_bind;
use super::resolve::{DescriptorPath, InnerPath};
use super::root::none;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Child: hides a path: a directory under an empty read-only tmpfs, anything else under the host's /dev/null. A path
/// that does not exist needs no hiding.
pub(crate) fn mask(path: &InnerPath, root: BorrowedFd, null: &OwnedFd) -> Result<(), Errno> {
    let Some(target) = open_existing(path, root)? else { return Ok(()) };
    let is_directory = fstat(&target)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let target = DescriptorPath::new(&target);
    if is_directory {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // One page and one inode: never to be filled.
        let data = Some(c"size=4096,nr_inodes=2");
        return mount(Some(c"tmpfs"), target.as_c_str(), Some(c"tmpfs"), flags, data);
    }
    let null = DescriptorPath::new(null);
    mount(Some(null.as_c_str()), target.as_c_str(), none(), MsFlags::MS_BIND, none())
}

/// Child: opens the host's /dev/null as a source for [`mask`].
pub(crate) fn open_null() -> Result<OwnedFd, Errno> {
    open(c"/dev/null", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Child: makes a path read-only by a read-only bind of itself.
pub(crate) fn make_readonly(path: &InnerPath, root: BorrowedFd) -> Result<(), Errno> {
    let Some(target) = open_existing(path, root)? else { return Ok(()) };
    let target = DescriptorPath::new(&target);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(target.as_c_str()), target.as_c_str(), none(), flags, none())?;
    let Some(mounted) = open_existing(path, root)? else { return Err(Errno::ENOENT) };
    remount_bind(&mounted, MsFlags::MS_RDONLY)
}

fn open_existing(path: &InnerPath, root: BorrowedFd) -> Result<Option<OwnedFd>, Errno> {
    match path.open(root) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
