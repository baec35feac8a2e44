//! Files' content.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, copy_file_range, fallocate};
use nix::sys::stat::SFlag;
use nix::unistd::{Whence, close, dup, fdatasync, fsync, lseek, syncfs};

use super::Share;
use crate::backend::vectors::VectorBuffer;
use crate::memory::GuestRam;
use crate::segments::GuestSegment;

/// Most that is copied by one request, so that others have their turn; the guest asks again.
const MAX_COPY: u64 = 16 << 20;

impl Share {
    /// What of open(2)'s flags the guest decides. O_DIRECT is not among them: the host's limits of
    /// alignment are unknown to the guest, and its own cache is bypassed all the same.
    pub(super) fn open_flags(flags: OFlag) -> OFlag {
        let kept = OFlag::O_ACCMODE
            | OFlag::O_APPEND
            | OFlag::O_TRUNC
            | OFlag::O_SYNC
            | OFlag::O_DSYNC
            | OFlag::O_NOATIME;
        (flags & kept) | OFlag::O_CLOEXEC
    }

    /// Opens a regular file. `drop_privileges`: what O_TRUNC takes away includes the set-user-ID and
    /// set-group-ID bits.
    ///
    /// # Errors
    /// The host's; EROFS, ENFILE.
    pub fn open_file(
        &self,
        number: u64,
        flags: OFlag,
        drop_privileges: bool,
    ) -> Result<u64, Errno> {
        let flags = Self::open_flags(flags);
        if flags & OFlag::O_ACCMODE != OFlag::O_RDONLY || flags.contains(OFlag::O_TRUNC) {
            self.writable()?;
        }
        let inode = self.inodes.get(number)?;
        if inode.kind() == SFlag::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        let permit = self.inodes.permit()?;
        let file = self.reopen(&inode, flags)?;
        if drop_privileges {
            self.drop_privileges(file.as_fd())?;
        }
        Ok(self.handles.add_file(file, permit))
    }

    /// Closes a file or directory.
    ///
    /// # Errors
    /// EBADF.
    pub fn release(&self, handle: u64) -> Result<(), Errno> {
        self.locks.released(handle);
        self.handles.remove(handle)
    }

    /// `owner`, a process of the guest, has closed one of its descriptors of the open file: its locks on the file
    /// go, and what a file system has to say only then, as NFS does, the guest hears.
    ///
    /// # Errors
    /// The host's.
    pub fn flush(&self, number: u64, handle: u64, owner: u64) -> Result<(), Errno> {
        self.locks.closed(number, owner);
        close(dup(&*self.handles.file(handle)?)?)
    }

    /// Reads into the guest's memory; the number of bytes, less than there is room for at the end of
    /// the file only.
    ///
    /// # Errors
    /// The host's; EFAULT where a segment is not all in RAM.
    pub fn read(
        &self,
        handle: u64,
        offset: u64,
        memory: &GuestRam,
        segments: &[GuestSegment],
        vectors: &mut VectorBuffer,
    ) -> Result<usize, Errno> {
        let file = self.handles.file(handle)?;
        let mut to = vectors.scatter();
        to.add_guest(memory, segments).ok_or(Errno::EFAULT)?;
        to.read_at(file.as_fd(), offset_of(offset)?).map_err(errno)
    }

    /// Writes from the guest's memory; the number of bytes.
    ///
    /// # Errors
    /// The host's, ENOSPC and EIO among them; EFAULT where a segment is not all in RAM.
    pub fn write(
        &self,
        handle: u64,
        offset: u64,
        drop_privileges: bool,
        (memory, segments): (&GuestRam, &[GuestSegment]),
        vectors: &mut VectorBuffer,
    ) -> Result<usize, Errno> {
        self.writable()?;
        let file = self.handles.file(handle)?;
        let mut from = vectors.gather();
        from.add_guest(memory, segments).ok_or(Errno::EFAULT)?;
        if drop_privileges {
            self.drop_privileges(file.as_fd())?;
        }
        from.write_at(file.as_fd(), offset_of(offset)?).map_err(errno)
    }

    /// Has the host's disk keep a file's content, and its attributes unless `content_only`.
    ///
    /// # Errors
    /// The host's.
    pub fn synchronize(&self, handle: u64, content_only: bool) -> Result<(), Errno> {
        let file = self.handles.file(handle)?;
        if content_only { fdatasync(&*file) } else { fsync(&*file) }
    }

    /// Has the host's disk keep all of the file system that a file is on.
    ///
    /// # Errors
    /// The host's.
    pub fn synchronize_all(&self, number: u64) -> Result<(), Errno> {
        let inode = self.inodes.get(number)?;
        // An O_PATH descriptor will not do.
        syncfs(self.reopen(&inode, OFlag::O_RDONLY)?)
    }

    /// Finds the next data or hole from `offset` on (lseek(2)).
    ///
    /// # Errors
    /// EINVAL for anything else; the host's, ENXIO behind the end.
    pub fn seek(&self, handle: u64, offset: u64, whence: u32) -> Result<u64, Errno> {
        let whence = match i32::try_from(whence) {
            Ok(nix::libc::SEEK_DATA) => Whence::SeekData,
            Ok(nix::libc::SEEK_HOLE) => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        let file = self.handles.file(handle)?;
        let found = lseek(&*file, offset_of(offset)?, whence)?;
        // Never negative.
        Ok(found.unsigned_abs())
    }

    /// Makes room, or holes (fallocate(2)).
    ///
    /// # Errors
    /// EOPNOTSUPP for modes that move content; the host's; EROFS.
    pub fn allocate(&self, handle: u64, offset: u64, length: u64, mode: u32) -> Result<(), Errno> {
        self.writable()?;
        let known = FallocateFlags::FALLOC_FL_KEEP_SIZE
            | FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | FallocateFlags::FALLOC_FL_ZERO_RANGE;
        let mode = FallocateFlags::from_bits_retain(mode.cast_signed());
        if !known.contains(mode) {
            return Err(Errno::EOPNOTSUPP);
        }
        let file = self.handles.file(handle)?;
        fallocate(&*file, mode, offset_of(offset)?, offset_of(length)?)
    }

    /// Copies between open files on the host; the number of bytes, perhaps less than `length`.
    ///
    /// # Errors
    /// The host's; EROFS.
    pub fn copy(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<usize, Errno> {
        self.writable()?;
        let (source, target) = (self.handles.file(from.0)?, self.handles.file(to.0)?);
        let (mut from, mut to) = (offset_of(from.1)?, offset_of(to.1)?);
        let length = length.min(MAX_COPY) as usize;
        copy_file_range(&*source, Some(&mut from), &*target, Some(&mut to), length)
    }
}

fn offset_of(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
