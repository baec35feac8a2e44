//! Removing a folder with whatever a workload has put into it.
//!
//! A workload may nest folders deeper than a path or our descriptors reach, and take every right
//! from them, as overlayfs itself does with its `work`. So no path is walked and nothing recurses: a
//! folder's folders are moved up to the top before it goes.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, ReadDir};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Removes the folder at `path`, which no link may stand for, and everything in it. What is not
/// there is removed already.
///
/// # Errors
/// The first thing that could not be removed; the rest is removed as far as possible.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_folder(AT_FDCWD, path.as_os_str()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    Removal { top, moved: 0 }.empty()?;
    match fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

struct Removal {
    top: OwnedFd,
    /// How many folders were moved up, which gives them their names.
    moved: u64,
}

impl Removal {
    /// Each pass takes what is there and what the last one moved up.
    fn empty(&mut self) -> io::Result<()> {
        loop {
            let (mut is_empty, mut failure) = (true, None);
            for entry in entries(self.top.as_fd())? {
                is_empty = false;
                if let Err(error) = self.remove(&entry?) {
                    failure = failure.or(Some(error));
                }
            }
            match failure {
                Some(error) => return Err(error),
                None if is_empty => return Ok(()),
                None => {}
            }
        }
    }

    fn remove(&mut self, entry: &DirEntry) -> io::Result<()> {
        let name = entry.file_name();
        if !entry.file_type()?.is_dir() {
            return remove_at(self.top.as_fd(), &name, UnlinkatFlags::NoRemoveDir);
        }
        let folder = open_folder(self.top.as_fd(), &name)?;
        for inner in entries(folder.as_fd())? {
            let inner = inner?;
            match inner.file_type()?.is_dir() {
                true => self.move_up(folder.as_fd(), &inner.file_name())?,
                false => {
                    remove_at(folder.as_fd(), &inner.file_name(), UnlinkatFlags::NoRemoveDir)?;
                }
            }
        }
        match remove_at(self.top.as_fd(), &name, UnlinkatFlags::RemoveDir) {
            // Reading it missed something: the next pass takes it.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        }
    }

    fn move_up(&mut self, folder: BorrowedFd, name: &OsStr) -> io::Result<()> {
        // To move a folder takes the right to write to it (its `..` changes).
        allow(folder, name)?;
        loop {
            self.moved += 1;
            let target = format!("moved-{}", self.moved);
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(folder, name, self.top.as_fd(), target.as_str(), flags) {
                Err(Errno::EEXIST) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// The entries of an open folder.
fn entries(folder: BorrowedFd) -> io::Result<ReadDir> {
    fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

fn open_folder(parent: BorrowedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty());
    match folder {
        Ok(folder) if geteuid().is_root() => Ok(folder),
        Ok(_) | Err(Errno::EACCES) => {
            allow(parent, name)?;
            openat(parent, name, flags, Mode::empty())
        }
        Err(error) => Err(error),
    }
}

/// Gives the owner every right to a folder. Root has them anyway.
fn allow(parent: BorrowedFd, name: &OsStr) -> nix::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}

fn remove_at(folder: BorrowedFd, name: &OsStr, flags: UnlinkatFlags) -> io::Result<()> {
    match unlinkat(folder, name, flags) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn whatever_is_in_it_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let tree = dir.path().join("tree");
        // The names that folders are moved to are taken.
        for folder in ["a/b/c", "moved-1/moved-2", "moved-3", "work/work"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        fs::write(tree.join("a/b/c/file"), "").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink("/nowhere", tree.join("dangling")).unwrap();
        for (folder, mode) in [("work/work", 0), ("a/b", 0o500), ("a", 0o100)] {
            fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        remove_tree(&tree).unwrap();
        symlink(&outside, &tree).unwrap();
        assert!(remove_tree(&tree).is_err());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn folders_may_be_nested_deeper_than_paths_and_descriptors_reach() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let name = OsStr::new("a folder with a long name, so that the path is soon too long");
        let mut folder = open_folder(AT_FDCWD, tree.as_os_str()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&folder, name, Mode::S_IRWXU).unwrap();
            folder = open_folder(folder.as_fd(), name).unwrap();
        }
        drop(folder);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
