//! `linux.maskedPaths` and `linux.readonlyPaths`: parts of /proc and /sys that a container must not read or write.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::bind::{add_flags, bind};
use super::resolve::{DescriptorPath, InnerPath};
use crate::step::{At, Failure, Step};

/// Child: hides paths: directories under an empty read-only tmpfs, which they share, anything else under the host's
/// /dev/null. A path that does not exist needs no hiding.
pub(crate) fn mask(paths: &[InnerPath], root: BorrowedFd) -> Result<(), Failure> {
    let (mut null, mut empty) = (None, None);
    for (index, path) in paths.iter().enumerate() {
        mask_one(path, root, &mut null, &mut empty).at_index(Step::MaskPath, index)?;
    }
    Ok(())
}

fn mask_one(
    path: &InnerPath,
    root: BorrowedFd,
    null: &mut Option<OwnedFd>,
    empty: &mut Option<OwnedFd>,
) -> Result<(), Errno> {
    let Some(target) = open_existing(path, root)? else { return Ok(()) };
    let is_directory = fstat(&target)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let source = if is_directory { empty } else { null };
    if let Some(source) = source {
        return bind_descriptor(source, &target);
    }
    if is_directory {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // One page and one inode: never to be filled.
        let data = Some(c"size=4096,nr_inodes=2");
        let target = DescriptorPath::new(&target);
        mount(Some(c"tmpfs"), target.as_c_str(), Some(c"tmpfs"), flags, data)?;
        *source = open_existing(path, root)?;
        return Ok(());
    }
    let host = open(c"/dev/null", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    bind_descriptor(source.insert(host), &target)
}

fn bind_descriptor(source: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let (source, target) = (DescriptorPath::new(source), DescriptorPath::new(target));
    bind(source.as_c_str(), target.as_c_str(), MsFlags::empty())
}

/// Child: makes paths read-only by read-only binds of themselves.
pub(crate) fn make_readonly(paths: &[InnerPath], root: BorrowedFd) -> Result<(), Failure> {
    for (index, path) in paths.iter().enumerate() {
        make_one_readonly(path, root).at_index(Step::ReadonlyPath, index)?;
    }
    Ok(())
}

fn make_one_readonly(path: &InnerPath, root: BorrowedFd) -> Result<(), Errno> {
    let Some(target) = open_existing(path, root)? else { return Ok(()) };
    let target = DescriptorPath::new(&target);
    bind(target.as_c_str(), target.as_c_str(), MsFlags::MS_REC)?;
    let Some(mounted) = open_existing(path, root)? else { return Err(Errno::ENOENT) };
    add_flags(&mounted, MsFlags::MS_RDONLY)
}

fn open_existing(path: &InnerPath, root: BorrowedFd) -> Result<Option<OwnedFd>, Errno> {
    match path.open(root) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
