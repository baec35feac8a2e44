//! File operations that cannot leave a folder, whatever names they are given, and that make nothing
//! deeper or longer than the limits allow.
//!
//! Every path is resolved by openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_SYMLINKS. Where there are
//! links on its way, they are followed by name first: `..` and absolute links end inside the folder,
//! as they would for a process that is chrooted there, and it shows how deep the place really is,
//! which the path through the links does not tell. What is then done to the last component never
//! follows it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::limits::{Budget, Limits};
use crate::removal::remove_tree;
use crate::resolve::{follow_links, open_without_links};

/// A folder that nothing done through this leaves.
pub(crate) struct Beneath {
    root: OwnedFd,
    budget: Budget,
    /// Folders that were made because something is in them.
    made: RefCell<BTreeSet<PathBuf>>,
}

/// A name in a folder that is known to be inside.
pub(crate) struct Place {
    parent: OwnedFd,
    name: CString,
    path: PathBuf,
}

impl Beneath {
    pub(crate) fn new(root: &Path, limits: Limits) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty())?;
        Ok(Self { root, budget: Budget::new(limits), made: RefCell::default() })
    }

    /// The folders that had to be made for what is in them, without those that were asked for by
    /// [`Beneath::was_named`]; told once.
    pub(crate) fn take_implied(&self) -> BTreeSet<PathBuf> {
        self.made.take()
    }

    /// The archive has an entry of this folder's own, which the caller keeps the name of.
    pub(crate) fn was_named(&self, folder: &Path) -> io::Result<()> {
        self.made.borrow_mut().remove(folder);
        self.budget.keep_name(folder)
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The place that `path` names, relative to the folder; missing parents are made.
    pub(crate) fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        self.budget.check(path)?;
        let (parent, real) = self.folder(path.parent().unwrap_or(Path::new("")))?;
        let path = real.join(name);
        self.budget.check(&path)?;
        Ok(Place { parent, name: c_string(name)?, path })
    }

    /// The place of `path`, which has no links on its way; none where its folder is no more.
    pub(crate) fn place_if_there(&self, path: &Path) -> io::Result<Option<Place>> {
        let name = c_string(path.file_name().ok_or(Errno::EINVAL)?)?;
        self.budget.look_up(path)?;
        match self.open_dir(path.parent().unwrap_or(Path::new(""))) {
            Ok(parent) => Ok(Some(Place { parent, name, path: path.to_owned() })),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `path` is a folder, or may become one: nothing on the way there is anything else,
    /// nor a link.
    pub(crate) fn may_be_folder(&self, path: &Path) -> io::Result<bool> {
        self.budget.look_up(path)?;
        match self.open_dir(path) {
            // What comes before the first name that is missing are folders.
            Ok(_) | Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a folder, or makes it. With its path without links.
    fn folder<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, Cow<'p, Path>)> {
        self.budget.look_up(path)?;
        let real = match self.open_dir(path) {
            Ok(folder) => return Ok((folder, Cow::Borrowed(path))),
            Err(Errno::ENOENT) => Cow::Borrowed(path),
            Err(Errno::ELOOP) => Cow::Owned(self.without_links(path)?),
            Err(error) => return Err(error.into()),
        };
        self.budget.look_up(&real)?;
        match self.open_dir(&real) {
            Err(Errno::ENOENT) => Ok((self.make(&real)?, real)),
            other => Ok((other?, real)),
        }
    }

    fn open_dir(&self, path: &Path) -> nix::Result<OwnedFd> {
        open_without_links(&self.root, path, OFlag::O_DIRECTORY)
    }

    /// Follows the links of `path`, all of them. What is missing is as it may be made.
    fn without_links(&self, path: &Path) -> io::Result<PathBuf> {
        follow_links(path, true, |next| {
            self.budget.check(next)?;
            self.budget.step(next)?;
            self.link_at(next)
        })
    }

    /// The target of a link; none of anything else, nor where nothing is.
    fn link_at(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let file = match open_without_links(&self.root, path, OFlag::O_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        // An empty name is the file itself (readlink(2)), which says ENOENT unless it is a link.
        match readlinkat(&file, c"") {
            Err(Errno::ENOENT) => Ok(None),
            other => Ok(Some(other?.into())),
        }
    }

    /// Makes what is missing of `path`, which has no links.
    fn make(&self, path: &Path) -> io::Result<OwnedFd> {
        self.budget.check(path)?;
        let mut folder = self.root.try_clone()?;
        let mut so_far = PathBuf::new();
        for part in path.components() {
            so_far.push(part);
            match mkdirat(&folder, part.as_os_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    self.budget.keep_name(&so_far)?;
                    self.made.borrow_mut().insert(so_far.clone());
                }
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            folder = openat(&folder, part.as_os_str(), flags, Mode::empty())?;
        }
        Ok(folder)
    }
}

impl Place {
    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(crate) fn name(&self) -> &std::ffi::CStr {
        &self.name
    }

    /// Relative to the root, without links on its way.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
