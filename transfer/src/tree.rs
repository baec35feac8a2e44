//! A tree of files, and finding things in it.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::{Attempt, TransferError};

/// A tree of files, by its root.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// Anything else.
    Other,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found(pub Kind);

impl Found {
    /// `d` for a folder, `f` for anything else, `-` for nothing: what [`FileRequest::Look`](crate::FileRequest::Look)
    /// tells.
    pub fn letter(found: Option<&Self>) -> u8 {
        match found {
            None => b'-',
            Some(Self(Kind::Folder)) => b'd',
            Some(Self(Kind::Other)) => b'f',
        }
    }

    /// The other way round; None where it is no answer.
    pub fn from_letter(letter: u8) -> Option<Option<Self>> {
        match letter {
            b'-' => Some(None),
            b'd' => Some(Some(Self(Kind::Folder))),
            b'f' => Some(Some(Self(Kind::Other))),
            _ => None,
        }
    }
}

impl Tree {
    /// The tree whose root is `path`, for example `/proc/PID/root`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, TransferError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self { root })
    }

    /// The tree whose root this descriptor is.
    pub fn of(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The descriptor of its root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What is at `path`, following links; None where there is nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn look(&self, path: &Path) -> Result<Option<Found>, TransferError> {
        let found = match self.resolve(path, OFlag::empty()) {
            // A file with a slash behind it is nothing, too.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other.and_then(fstat).at("look at", path)?,
        };
        Ok(Some(Found(if is(&found, SFlag::S_IFDIR) { Kind::Folder } else { Kind::Other })))
    }

    /// Opens `path` by O_PATH, following links as a process would whose root this is.
    pub(crate) fn resolve(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        retry(|| openat2(&self.root, path, how))
    }
}

/// EAGAIN: somebody renamed something during the walk, and the kernel could not be sure about `..`.
pub(crate) fn retry<T>(mut attempt: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    for _ in 0..128 {
        match attempt() {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens a name in a folder by O_PATH, a link itself.
pub(crate) fn open_name(folder: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens what a descriptor has for its content: what it is has been seen, and cannot be exchanged.
pub(crate) fn reopen(found: &OwnedFd) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

pub(crate) fn is(found: &FileStat, kind: SFlag) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// The names of a path that stays below where it begins; None of one that does not.
pub(crate) fn names_below(path: &Path) -> Option<Vec<CString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(CString::new(name.as_bytes()).ok()?),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(names)
}

/// The path without a `/.` or `/` at its end, and whether there was one: then a link there is followed.
pub(crate) fn split_dot(path: &Path) -> (PathBuf, bool) {
    let bytes = path.as_os_str().as_bytes();
    let bare = bytes.strip_suffix(b"/.").or_else(|| bytes.strip_suffix(b"/"));
    match bare {
        Some(bare) => (PathBuf::from(OsStr::from_bytes(bare)), true),
        None => (path.to_owned(), false),
    }
}
