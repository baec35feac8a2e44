//! A folder of the host that a guest works in: what a FUSE request comes to on the host.
//!
//! The guest is hostile. It names files by numbers that it was given ([`inodes`]), and by single names
//! below them ([`name`]): no path of its making is ever walked, no `..` taken, and no symbolic link
//! followed, so nothing outside the folder can be reached, whatever the guest renames meanwhile. What is
//! opened for its content is a regular file or a directory, never a device, pipe or socket. How many
//! descriptors it can have held is limited ([`budget`]).
//!
//! Methods take what the guest sent and answer what the host said; who calls them is
//! [`virtio::fs`](crate::virtio::fs). Each call runs to its end on the caller's thread, for which
//! [`credentials::prepare_thread`] has to be called once.

mod attributes;
mod budget;
pub mod credentials;
mod data;
mod directory;
mod handles;
mod inodes;
mod locks;
pub mod name;
mod names;
mod options;
mod xattrs;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

pub use self::attributes::{Changes, Timestamp};
pub use self::budget::Budget;
use self::credentials::Ids;
pub use self::directory::DirectoryEntry;
use self::handles::Handles;
use self::inodes::{Inode, Inodes};
use self::locks::Locks;
pub use self::locks::{LockKind, LockRange, LockRequest, Obstacle, Ticket};
pub use self::names::Creator;
pub use self::options::{CachePolicy, MAX_TAG_LENGTH, ShareOptions, ShareOptionsError};

/// A folder that cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Empty, too long, or not text.
    #[error("share: `{tag}` cannot be a tag; it takes 1 to {MAX_TAG_LENGTH} bytes")]
    Tag {
        /// What was asked for.
        tag: String,
    },
    /// The guest could not tell the two apart.
    #[error("share: two folders have the tag `{tag}`")]
    Twice {
        /// Of both.
        tag: String,
    },
    /// It does not exist, is no folder, or may not be entered.
    #[error("share: cannot open the folder {}", path.display())]
    Open {
        /// As it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Files are opened by way of it.
    #[error("share: cannot open /proc/self/fd")]
    Proc {
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// What the guest is told of a file: its number, and its attributes as it is to see them.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// For later requests. 0 for one that the guest is to look up itself.
    pub number: u64,
    /// With owner and group as the guest knows them.
    pub attributes: FileStat,
}

/// An open share.
pub struct Share {
    inodes: Inodes,
    handles: Handles,
    locks: Locks,
    /// For directories that are open.
    listings: Budget,
    /// /proc/self/fd, by which an `O_PATH` descriptor is opened for content. Its links lead to what the
    /// descriptors are open on, not to a path.
    descriptors: OwnedFd,
    read_only: bool,
    ids: Ids,
}

impl Share {
    /// Opens the folder. Its files are to be held within `budget`.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn open(options: &ShareOptions, budget: Budget) -> Result<Self, ShareError> {
        if !options.tag_is_valid() {
            return Err(ShareError::Tag { tag: options.tag.clone() });
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(&options.path, flags, Mode::empty()).and_then(|root| {
            let stat = fstat(&root)?;
            Ok((root, stat))
        });
        let (root, stat) = opened.map_err(|source| ShareError::Open {
            path: options.path.clone(),
            source: source.into(),
        })?;
        let descriptors = open("/proc/self/fd", flags, Mode::empty())
            .map_err(|source| ShareError::Proc { source: source.into() })?;
        Ok(Self {
            inodes: Inodes::new(root, &stat, budget),
            handles: Handles::default(),
            locks: Locks::default(),
            listings: Budget::new(directory::MAX_OPEN),
            descriptors,
            read_only: options.read_only,
            ids: Ids::of_this_process(),
        })
    }

    /// The guest has gone, or starts again: closes and forgets all that it had.
    pub fn clear(&self) {
        self.locks.clear();
        self.handles.clear();
        self.inodes.clear();
    }

    /// The guest forgets `lookups` of the times that it was told of a file.
    pub fn forget(&self, number: u64, lookups: u64) {
        self.inodes.forget(number, lookups);
    }

    /// # Errors
    /// EROFS for a read-only share.
    fn writable(&self) -> Result<(), Errno> {
        if self.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Opens a file that is held by an `O_PATH` descriptor. It must be a regular file or a directory:
    /// opening others can wait, or do something.
    fn reopen(&self, inode: &Inode, flags: OFlag) -> Result<OwnedFd, Errno> {
        match inode.kind() {
            SFlag::S_IFREG | SFlag::S_IFDIR => {}
            SFlag::S_IFLNK => return Err(Errno::ELOOP),
            _ => return Err(Errno::ENXIO),
        }
        let name = descriptor_name(inode);
        // A lease of another process would have us wait.
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        if !self.read_only {
            return openat(&self.descriptors, name.as_str(), flags, Mode::empty());
        }
        // Reading leaves no trace either, where the host lets us (open(2): the owner and root).
        let quiet = flags | OFlag::O_NOATIME;
        match openat(&self.descriptors, name.as_str(), quiet, Mode::empty()) {
            Err(Errno::EPERM) => openat(&self.descriptors, name.as_str(), flags, Mode::empty()),
            other => other,
        }
    }

    fn entry(&self, inode: &Arc<Inode>, stat: FileStat) -> Entry {
        Entry { number: inode.number(), attributes: self.for_guest(stat) }
    }

    fn for_guest(&self, mut stat: FileStat) -> FileStat {
        (stat.st_uid, stat.st_gid) = self.ids.to_guest(stat.st_uid, stat.st_gid);
        stat
    }
}

/// A descriptor's name in /proc/self/fd.
fn descriptor_name(file: &impl AsFd) -> String {
    file.as_fd().as_raw_fd().to_string()
}
