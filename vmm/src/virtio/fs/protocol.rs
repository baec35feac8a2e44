//! The words of FUSE (include/uapi/linux/fuse.h, version 7.38) as they go through the queues: numbers in
//! the guest's byte order, which virtio 1.2, 5.11.6 leaves to it and is little-endian on our machines.
//!
//! No crate serves for this: see ARCHITECTURE.md.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::backend::share::Entry;

/// The version that is spoken here. 5.4, the first Linux with virtio-fs, has 7.31.
pub const MAJOR: u32 = 7;
pub const MINOR: u32 = 38;
pub const OLDEST_MINOR: u32 = 31;

/// `enum fuse_opcode`.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
}

/// What both sides can do, of `fuse_init_in.flags` and, from bit 32 on, `flags2`.
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// `FATTR_…` of `fuse_setattr_in.valid`.
pub mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `fuse_open_out.open_flags`.
pub mod open {
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
}

/// `fuse_open_in.open_flags`: O_TRUNC takes the privileged bits away.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `fuse_write_in.write_flags`: so does this write.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `fuse_fsync_in.fsync_flags`: the content only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;

/// `fuse_lk_in.lk_flags`: of flock(2), not of fcntl(2).
pub const LK_FLOCK: u32 = 1 << 0;

/// `fuse_file_lock.type`, as Linux's fcntl(2) has them.
pub mod lock_type {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const UNLOCK: u32 = 2;
}

/// `struct fuse_in_header`.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Of the whole request, in bytes.
    pub length: u32,
    /// See [`opcode`].
    pub opcode: u32,
    /// The request's number, for the answer.
    pub unique: u64,
    /// The file that is meant, mostly.
    pub node: u64,
    /// File system user id of the process.
    pub uid: u32,
    /// And its group id.
    pub gid: u32,
}

impl Header {
    pub const LENGTH: usize = 40;

    pub fn parse(bytes: &[u8; Self::LENGTH]) -> Self {
        let u32_at = |at| u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let u64_at = |at| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        Self {
            length: u32_at(0),
            opcode: u32_at(4),
            unique: u64_at(8),
            node: u64_at(16),
            uid: u32_at(24),
            gid: u32_at(28),
        }
    }
}

/// What follows the header: taken from the front, EINVAL where there is not enough.
pub struct Arguments<'r>(&'r [u8]);

impl<'r> Arguments<'r> {
    pub fn new(bytes: &'r [u8]) -> Self {
        Self(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Errno> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*value))
    }

    pub fn u64(&mut self) -> Result<u64, Errno> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*value))
    }

    /// Leaves out reserved fields.
    pub fn skip(&mut self, count: usize) -> Result<(), Errno> {
        self.bytes(count).map(drop)
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'r [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A name or path, with the NUL at its end.
    pub fn text(&mut self) -> Result<&'r CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::EINVAL)?;
        self.0 = &self.0[text.count_bytes() + 1..];
        Ok(text)
    }
}

/// An answer in the making.
pub struct Reply<'r>(&'r mut Vec<u8>);

impl<'r> Reply<'r> {
    /// `struct fuse_out_header`.
    pub const HEADER: usize = 16;

    /// An empty one; what was in `bytes` is forgotten.
    pub fn new(bytes: &'r mut Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(Self::HEADER, 0);
        Self(bytes)
    }

    /// One that was begun already.
    pub fn begun(bytes: &'r mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Bytes behind the header.
    pub fn length(&self) -> usize {
        self.0.len() - Self::HEADER
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// So many zeroes.
    pub fn zeroes(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// Bytes with the header.
    pub fn total(&self) -> usize {
        self.0.len()
    }

    /// Fills in the header, for an answer that has `in_place` more bytes behind it already; the
    /// length that it says.
    pub fn finish(self, unique: u64, error: i32, in_place: u32) -> u32 {
        // Replies are bounded far below 2^32, and so is what is read at a time.
        let length = self.0.len() as u32 + in_place;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[4..8].copy_from_slice(&(-error).to_le_bytes());
        self.0[8..16].copy_from_slice(&unique.to_le_bytes());
        length
    }

    /// Takes back all but the first `length` bytes behind the header.
    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(Self::HEADER + length);
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, stat: &FileStat) {
        for value in [stat.st_ino, stat.st_size.cast_unsigned(), stat.st_blocks.cast_unsigned()] {
            self.u64(value);
        }
        for seconds in [stat.st_atime, stat.st_mtime, stat.st_ctime] {
            self.u64(seconds.cast_unsigned());
        }
        for nanoseconds in [stat.st_atime_nsec, stat.st_mtime_nsec, stat.st_ctime_nsec] {
            // Below 10^9.
            self.u32(nanoseconds as u32);
        }
        self.u32(stat.st_mode);
        self.u32(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX));
        self.u32(stat.st_uid);
        self.u32(stat.st_gid);
        self.u32(device(stat.st_rdev));
        self.u32(u32::try_from(stat.st_blksize).unwrap_or(4096));
        // Flags: no submounts, no DAX.
        self.u32(0);
    }

    /// `struct fuse_attr_out`.
    pub fn attributes_for(&mut self, stat: &FileStat, timeout: Duration) {
        self.u64(timeout.as_secs());
        self.u64(0);
        self.attributes(stat);
    }

    /// `struct fuse_entry_out`, whose numbers are never used again: generation 0.
    pub fn entry(&mut self, entry: &Entry, timeout: Duration) {
        self.u64(entry.number);
        self.u64(0);
        self.u64(timeout.as_secs());
        self.u64(timeout.as_secs());
        self.u64(0);
        self.attributes(&entry.attributes);
    }

    /// `struct fuse_dirent`, padded.
    pub fn directory_entry(&mut self, inode: u64, next: u64, kind: u8, name: &[u8]) {
        self.u64(inode);
        self.u64(next);
        // NAME_MAX is 255.
        self.u32(name.len() as u32);
        self.u32(kind.into());
        self.bytes(name);
        self.zeroes(self.length().next_multiple_of(8) - self.length());
    }

    /// `struct fuse_open_out`.
    pub fn opened(&mut self, handle: u64, flags: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(0);
    }

    /// A symbolic link's target.
    pub fn path(&mut self, path: &OsStr) {
        self.bytes(path.as_bytes());
    }
}

/// The number of a device as Linux's `new_encode_dev` has it; none is opened by it here.
fn device(device: u64) -> u32 {
    let (major, minor) = (nix::libc::major(device), nix::libc::minor(device));
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}
