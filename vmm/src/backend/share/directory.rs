//! Directories' contents.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{Whence, fdatasync, fsync, lseek};

use super::budget::Permit;
use super::name::Name;
use super::{Entry, Share};
use crate::poison::unpoisoned;

/// Most that getdents64(2) is asked for at a time, which an open directory keeps what is left of.
const MAX_BUFFER: usize = 8 << 10;
/// Enough for an entry of the longest name.
const MIN_BUFFER: usize = 512;
/// Most directories that a guest has open, for the sake of those buffers.
pub const MAX_OPEN: usize = 4096;

/// Bytes in front of the name of a `linux_dirent64` (getdents(2)).
const NAME: usize = 19;

/// A share of the descriptors that a listing leaves, so that a few large ones do not take the last: the
/// names beyond come without their files' attributes, and the guest asks for those that it wants.
const LEAVE: usize = 4096;

/// An open directory, read from one place at a time.
#[derive(Debug)]
pub struct Directory {
    listing: Mutex<Listing>,
    _permit: Permit,
}

/// Where the reading is. Entries that the guest had no room for are kept and not sought again: where
/// names go while it reads, as rm(1) has them, a place on a tmpfs before Linux 6.6 is another's by then.
#[derive(Debug)]
struct Listing {
    file: OwnedFd,
    unread: Vec<u8>,
    /// Where the first of them is, or the file is if there are none.
    next: u64,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntry<'b> {
    /// The host's inode number.
    pub inode: u64,
    /// Where the next entry is.
    pub next: u64,
    /// `DT_…`.
    pub kind: u8,
    /// As the host has it; `.` and `..` are among them.
    pub name: &'b CStr,
}

impl Share {
    /// Opens a directory to be read.
    ///
    /// # Errors
    /// The host's; ENOTDIR, ENFILE.
    pub fn open_directory(&self, number: u64) -> Result<u64, Errno> {
        let inode = self.inodes.get(number)?;
        let (permit, listings) = (self.inodes.permit()?, self.listings.take()?);
        let directory = self.reopen(&inode, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let listing = Listing { file: directory, unread: Vec::new(), next: 0 };
        let directory = Directory { listing: Mutex::new(listing), _permit: listings };
        Ok(self.handles.add_directory(directory, permit))
    }

    /// Has the host's disk keep a directory's entries.
    ///
    /// # Errors
    /// The host's.
    pub fn synchronize_directory(&self, handle: u64, content_only: bool) -> Result<(), Errno> {
        let directory = self.handles.directory(handle)?;
        let file = &unpoisoned(directory.listing.lock()).file;
        if content_only { fdatasync(file) } else { fsync(file) }
    }

    /// Gives `take` entries from `offset` on, some `room` bytes of them, until it says that the last
    /// one did not fit.
    ///
    /// # Errors
    /// The host's, or what `take` says of the first.
    pub fn read_directory(
        &self,
        handle: u64,
        offset: u64,
        room: usize,
        mut take: impl FnMut(DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        let directory = self.handles.directory(handle)?;
        let listing = &mut *unpoisoned(directory.listing.lock());
        // From the start the names are read anew (rewinddir(3)).
        if offset != listing.next || offset == 0 {
            let place = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
            lseek(&listing.file, place, Whence::SeekSet)?;
            (listing.unread, listing.next) = (Vec::new(), offset);
        }
        if listing.unread.is_empty() {
            let mut buffer = vec![0; room.clamp(MIN_BUFFER, MAX_BUFFER)];
            let length = get_entries(&listing.file, &mut buffer)?;
            buffer.truncate(length);
            listing.unread = buffer;
        }
        let mut rest = &listing.unread[..];
        while let Some((entry, behind)) = parse(rest) {
            if !take(entry) {
                break;
            }
            listing.next = entry.next;
            rest = behind;
        }
        // Nothing but what the guest has yet to read.
        listing.unread = rest.to_vec();
        Ok(())
    }

    /// The file of an entry that was read. `None` for `.` and `..`, for one that is gone again, and where
    /// descriptors are getting scarce: the guest looks those up that it wants.
    pub fn entry_in(&self, number: u64, entry: &DirectoryEntry<'_>) -> Option<Entry> {
        let name = Name::new(entry.name).ok()?;
        let inode = self.inodes.get(number).ok()?;
        let is_plenty = self.inodes.left() > LEAVE;
        is_plenty.then(|| self.look_up_in(inode.as_fd(), name).ok()).flatten()
    }
}

fn get_entries(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most the buffer's length to it.
    let length = unsafe {
        libc::syscall(libc::SYS_getdents64, file.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    };
    // A length is never negative, and at most the buffer's.
    Errno::result(length).map(|length| length as usize)
}

/// The first `linux_dirent64` of what the kernel wrote, and what follows it.
fn parse(bytes: &[u8]) -> Option<(DirectoryEntry<'_>, &[u8])> {
    let (inode, rest) = bytes.split_first_chunk()?;
    let (next, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let kind = *rest.first()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let name = CStr::from_bytes_until_nul(bytes.get(NAME..length)?).ok()?;
    let (inode, next) = (u64::from_ne_bytes(*inode), u64::from_ne_bytes(*next));
    Some((DirectoryEntry { inode, next, kind, name }, &bytes[length..]))
}
