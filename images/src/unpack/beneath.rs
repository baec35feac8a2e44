//! File operations that cannot leave a folder, whatever names they are given.
//!
//! Every path is resolved by openat2 with RESOLVE_IN_ROOT: `..` and symbolic links, absolute ones
//! too, end inside the folder, as they would for a process that is chrooted there. What is then
//! done to the last component never follows it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::removal::remove_tree;

/// A folder that nothing done through this leaves.
pub(crate) struct Beneath {
    root: OwnedFd,
    /// Folders that were made because something is in them.
    made: RefCell<BTreeSet<PathBuf>>,
}

/// A name in a folder that is known to be inside.
pub(crate) struct Place {
    parent: OwnedFd,
    name: CString,
}

impl Beneath {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { root: open(root, flags, Mode::empty())?, made: RefCell::default() })
    }

    /// The folders that had to be made for what is in them, without those that were asked for by
    /// [`Beneath::was_named`].
    pub(crate) fn implied(&self) -> BTreeSet<PathBuf> {
        self.made.borrow().clone()
    }

    /// The archive has an entry of this folder's own.
    pub(crate) fn was_named(&self, folder: &Path) {
        self.made.borrow_mut().remove(folder);
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The place that `path` names, relative to the folder; missing parents are made.
    pub(crate) fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = match self.open_dir(parent) {
            Err(Errno::ENOENT) => self.make_parents(parent)?,
            other => other?,
        };
        Ok(Place { parent, name: c_string(name)? })
    }

    /// Whether `path` is a folder, or may become one: nothing on the way there is anything else,
    /// nor a link.
    pub(crate) fn may_be_folder(&self, path: &Path) -> io::Result<bool> {
        let mut so_far = PathBuf::new();
        for part in path.components() {
            so_far.push(part);
            match self.open(&so_far, ResolveFlag::RESOLVE_NO_SYMLINKS) {
                Ok(_) => {}
                Err(Errno::ENOENT) => return Ok(true),
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn open_dir(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open(path, ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    fn open(&self, path: &Path, more: ResolveFlag) -> nix::Result<OwnedFd> {
        // openat2 takes no empty path.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | more);
        openat2(&self.root, path, how)
    }

    fn make_parents(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut so_far = PathBuf::new();
        for part in path.components() {
            let place_parent = self.open_dir(&so_far)?;
            so_far.push(part);
            match mkdirat(&place_parent, part.as_os_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => drop(self.made.borrow_mut().insert(so_far.clone())),
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.open_dir(path)?)
    }
}

impl Place {
    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(crate) fn name(&self) -> &std::ffi::CStr {
        &self.name
    }

    /// A path to this very place, for calls that take no folder descriptor. The name itself is a
    /// single component, so only that may be a link, which callers do not follow.
    pub(crate) fn proc_path(&self) -> PathBuf {
        let folder = format!("/proc/self/fd/{}", self.parent.as_raw_fd());
        Path::new(&folder).join(OsStr::from_bytes(self.name.to_bytes()))
    }

    /// What is there now, not following it; `None` when nothing is.
    pub(crate) fn stat(&self) -> io::Result<Option<FileStat>> {
        match fstatat(&self.parent, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is there, a folder with all its content, so that something else can be made.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let Some(stat) = self.stat()? else { return Ok(()) };
        if is_dir(&stat) {
            return remove_tree(&self.proc_path()).map(drop);
        }
        Ok(unlinkat(&self.parent, self.name(), UnlinkatFlags::NoRemoveDir)?)
    }
}

pub(crate) fn is_dir(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(io::Error::other)
}
