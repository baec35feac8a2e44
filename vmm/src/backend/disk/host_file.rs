//! What the host says of an open disk: its lock, its blocks, what O_DIRECT demands.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, fcntl};

use super::SECTOR_SIZE;
use super::buffer::{BOUNCE_ALIGNMENT, BounceBuffer};
use crate::backend::handover;

/// What O_DIRECT demands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of addresses and lengths of buffers.
    pub memory: u32,
    /// Of offsets and lengths on the disk.
    pub offset: u32,
}

/// Locks the whole file for its open file description, shared or alone; waits a moment for who is about to give it up.
///
/// # Errors
/// EAGAIN or EACCES when another holds it; others where there are no locks.
pub fn lock(file: &File, shared: bool) -> io::Result<()> {
    handover::take(|| try_lock(file, shared), is_held)
}

/// Whether a lock is refused because another has it.
pub fn is_held(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

fn try_lock(file: &File, shared: bool) -> io::Result<()> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        // To the end, wherever that is.
        l_len: 0,
        // As locks of open file descriptions demand.
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&range))?;
    Ok(())
}

/// The unit of a block device's addresses.
///
/// # Errors
/// The host's.
pub fn logical_block_size(file: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, which `size` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &raw mut size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(size).unwrap_or(0).max(SECTOR_SIZE as u32))
}

/// `losetup -r`, `blockdev --setro`, a write-protected card.
///
/// # Errors
/// The host's.
pub fn device_is_read_only(file: &File) -> io::Result<bool> {
    let mut read_only: libc::c_int = 0;
    // SAFETY: BLKROGET writes one int, which `read_only` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKROGET, &raw mut read_only) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(read_only != 0) }
}

/// linux/fs.h: `_IO(0x12, 94)`.
const BLKROGET: libc::Ioctl = 0x125e;
/// linux/fs.h: `_IO(0x12, 104)`.
const BLKSSZGET: libc::Ioctl = 0x1268;

/// What the kernel says (since 6.1), or else what a trial read shows.
pub fn direct_alignment(file: &File, logical_block: u32) -> DirectAlignment {
    let mut alignment = reported_alignment(file).unwrap_or_else(|| {
        let unit = if logical_block > SECTOR_SIZE as u32 {
            logical_block
        } else if reads_one_sector(file) {
            SECTOR_SIZE as u32
        } else {
            BOUNCE_ALIGNMENT as u32
        };
        DirectAlignment { memory: unit, offset: unit }
    });
    if u64::from(alignment.offset) > SECTOR_SIZE {
        // Direct and other transfers must not share a page, or the page cache could write old
        // data over new.
        alignment.offset = alignment.offset.max(BOUNCE_ALIGNMENT as u32);
    }
    alignment.offset = alignment.offset.max(SECTOR_SIZE as u32);
    alignment
}

fn reported_alignment(file: &File) -> Option<DirectAlignment> {
    // SAFETY: `statx` is plain integers, for which zeroes are valid.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a valid descriptor, an empty terminated path, and a `statx` to write to.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut status,
        )
    };
    let known = result == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0;
    let alignment =
        DirectAlignment { memory: status.stx_dio_mem_align, offset: status.stx_dio_offset_align };
    let sane = alignment.memory.is_power_of_two() && alignment.offset.is_power_of_two();
    let bounded = alignment.memory as usize <= BOUNCE_ALIGNMENT;
    (known && sane && bounded).then_some(alignment)
}

fn reads_one_sector(file: &File) -> bool {
    let mut buffer = BounceBuffer::new(SECTOR_SIZE as usize);
    file.read_at(buffer.bytes(), 0).is_ok()
}
