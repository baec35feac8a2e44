//! Names inside a folder that stands for a root: no link of it leads out.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// As the kernel's (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Opens `path` below `root` to look at it, in one system call. With O_NOFOLLOW a link at its end is
/// opened itself; otherwise it is one on the way.
///
/// # Errors
/// ELOOP where there is a link on the way, ENOTDIR where there is another file.
pub(crate) fn open_without_links(
    root: impl AsFd,
    path: &Path,
    flags: OFlag,
) -> Result<OwnedFd, Errno> {
    // openat2 takes no empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, path, how)
}

/// Follows the links of `path` by name, that of its last part too where `follow_last`, as for a
/// process whose root this is: `..` and absolute links end inside. `link_at` gives the target of the
/// link at a path that has none on its way, and none for anything else.
///
/// # Errors
/// What `link_at` says, or ELOOP where the links are too many.
pub(crate) fn follow_links(
    path: &Path,
    follow_last: bool,
    mut link_at: impl FnMut(&Path) -> io::Result<Option<PathBuf>>,
) -> io::Result<PathBuf> {
    let mut left = names(path);
    let mut real = PathBuf::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            real.pop();
            continue;
        }
        real.push(name);
        let Some(target) = link_at(&real)?.filter(|_| follow_last || !left.is_empty()) else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::ELOOP.into());
        }
        real.pop();
        if target.is_absolute() {
            real.clear();
        }
        for part in names(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(real)
}

/// The parts of a path; an absolute one's are those below the root.
fn names(path: &Path) -> VecDeque<OsString> {
    let part = |component| match component {
        Component::Normal(name) => Some(OsString::from(name)),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}
