//! Attributes of files, and of the file system.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, utimensat,
};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::sys::time::TimeSpec;
use nix::unistd::{fchownat, ftruncate};

use super::inodes::kind;
use super::{Share, descriptor_name};

/// What a time is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// The host's time.
    Now,
    /// Since the epoch.
    At {
        /// Before it, if negative.
        seconds: i64,
        /// Below 10^9.
        nanoseconds: u32,
    },
}

impl Timestamp {
    fn as_time_spec(change: Option<Self>) -> Result<TimeSpec, Errno> {
        match change {
            None => Ok(TimeSpec::UTIME_OMIT),
            Some(Self::Now) => Ok(TimeSpec::UTIME_NOW),
            // The two above are numbers beyond.
            Some(Self::At { nanoseconds: 1_000_000_000.., .. }) => Err(Errno::EINVAL),
            Some(Self::At { seconds, nanoseconds }) => {
                Ok(TimeSpec::new(seconds, nanoseconds.into()))
            }
        }
    }
}

/// What of a file's attributes is to change, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// The guest's user id.
    pub uid: Option<u32>,
    /// The guest's group id.
    pub gid: Option<u32>,
    /// The length in bytes.
    pub size: Option<u64>,
    /// Last read.
    pub accessed: Option<Timestamp>,
    /// Last written.
    pub modified: Option<Timestamp>,
    /// A change of size takes the set-user-ID and set-group-ID bits away.
    pub drop_privileges: bool,
}

impl Share {
    /// A file's attributes.
    ///
    /// # Errors
    /// The host's.
    pub fn attributes(&self, number: u64) -> Result<FileStat, Errno> {
        let inode = self.inodes.get(number)?;
        Ok(self.for_guest(fstat(&*inode)?))
    }

    /// Changes attributes, and tells what they are then. `handle` is of the file where it is open.
    ///
    /// # Errors
    /// The host's, with those before it changed; EROFS.
    pub fn change(
        &self,
        number: u64,
        handle: Option<u64>,
        changes: &Changes,
    ) -> Result<FileStat, Errno> {
        self.writable()?;
        let inode = self.inodes.get(number)?;
        if let Some(mode) = changes.mode {
            self.change_mode(&*inode, Mode::from_bits_truncate(mode))?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = self.ids.to_host(changes.uid, changes.gid)?;
            fchownat(&*inode, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        if let Some(size) = changes.size {
            let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
            let opened;
            let open: OwnedFd;
            let file: BorrowedFd<'_> = match handle {
                Some(handle) => {
                    opened = self.handles.file(handle)?;
                    opened.as_fd()
                }
                None => {
                    open = self.reopen(&inode, OFlag::O_WRONLY)?;
                    open.as_fd()
                }
            };
            if changes.drop_privileges {
                self.drop_privileges(file)?;
            }
            ftruncate(file, size)?;
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            let accessed = Timestamp::as_time_spec(changes.accessed)?;
            let modified = Timestamp::as_time_spec(changes.modified)?;
            let name = descriptor_name(&*inode);
            // Follows the link of /proc, to the file.
            let follow = UtimensatFlags::FollowSymlink;
            utimensat(&self.descriptors, name.as_str(), &accessed, &modified, follow)?;
        }
        Ok(self.for_guest(fstat(&*inode)?))
    }

    fn change_mode(&self, file: &impl AsFd, mode: Mode) -> Result<(), Errno> {
        let name = descriptor_name(file);
        fchmodat(&self.descriptors, name.as_str(), mode, FchmodatFlags::FollowSymlink)
    }

    /// Takes the set-user-ID bit away, and the set-group-ID bit of what a group may execute, as the
    /// kernel does before it writes for who is not root. Here the writer is, for all that it knows.
    pub(super) fn drop_privileges(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let stat = fstat(file)?;
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let mut left = mode - Mode::S_ISUID;
        if mode.contains(Mode::S_IXGRP) {
            left -= Mode::S_ISGID;
        }
        if left == mode || kind(&stat) != SFlag::S_IFREG {
            return Ok(());
        }
        self.change_mode(&file, left)
    }

    /// Size and room of the file system that a file is on.
    ///
    /// # Errors
    /// The host's.
    pub fn file_system(&self, number: u64) -> Result<Statvfs, Errno> {
        fstatvfs(&*self.inodes.get(number)?)
    }
}
