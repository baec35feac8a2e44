//! Requests done on the calling thread, start to end: the sync engine's way, and where io_uring's
//! requests go that need more than one step.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::fdatasync;

use super::buffer::{BounceBuffer, Vectors, gather, scatter};
use super::image::{DiskImage, Route};
use super::{DiskOperation, DiskRequest};
use crate::eintr::retry;
use crate::memory::GuestRam;

/// The most memory one request takes to get around O_DIRECT's alignment, in bytes.
pub const MAX_BOUNCE: usize = 1 << 20;

/// Does `request`, all of it or none that counts. `vectors` is room for its own.
pub fn perform(
    image: &DiskImage,
    memory: &GuestRam,
    request: &DiskRequest<'_>,
    vectors: &mut Vectors,
) -> io::Result<()> {
    image.check(request)?;
    match request.operation {
        DiskOperation::Read | DiskOperation::Write => transfer(image, memory, request, vectors),
        DiskOperation::Flush => sync_data(image),
        DiskOperation::Discard => {
            discard(image, request.offset, request.length)?;
            sync_if_durable(image)
        }
        DiskOperation::WriteZeroes { unmap } => {
            write_zeroes(image, request.offset, request.length, unmap)?;
            sync_if_durable(image)
        }
    }
}

fn transfer(
    image: &DiskImage,
    memory: &GuestRam,
    request: &DiskRequest<'_>,
    vectors: &mut Vectors,
) -> io::Result<()> {
    vectors.set_guest(memory, request.segments)?;
    let write = request.operation == DiskOperation::Write;
    match image.route(request.offset, request.length, vectors) {
        Route::Straight(fd) => transfer_vectors(image, fd, write, request.offset, vectors),
        Route::Bounce(fd) => bounce(image, fd, write, memory, request),
    }
}

fn bounce(
    image: &DiskImage,
    fd: RawFd,
    write: bool,
    memory: &GuestRam,
    request: &DiskRequest<'_>,
) -> io::Result<()> {
    let mut vectors = Vectors::default();
    let size = usize::try_from(request.length).map_or(MAX_BOUNCE, |length| length.min(MAX_BOUNCE));
    let mut buffer = BounceBuffer::new(size);
    let mut done = 0;
    while done < request.length {
        let left = request.length - done;
        let length = usize::try_from(left).map_or(size, |left| left.min(size));
        if write {
            gather(memory, request.segments, done, &mut buffer.bytes()[..length])?;
        }
        vectors.set_bounce(&mut buffer, length);
        transfer_vectors(image, fd, write, request.offset + done, &mut vectors)?;
        if !write {
            scatter(memory, request.segments, done, &buffer.bytes()[..length])?;
        }
        done += length as u64;
    }
    Ok(())
}

/// Transfers what is left of `vectors`, at `offset`.
pub fn transfer_vectors(
    image: &DiskImage,
    fd: RawFd,
    write: bool,
    mut offset: u64,
    vectors: &mut Vectors,
) -> io::Result<()> {
    while !vectors.is_empty() {
        let window = vectors.window();
        // Both fit: offsets end within a file, windows within UIO_MAXIOV.
        let (start, count) = (offset as libc::off_t, window.len() as libc::c_int);
        let moved = retry(|| {
            let result = if write {
                // SAFETY: the vectors lie in guest RAM or a bounce buffer, which the caller keeps
                // mapped during this call; the kernel only reads them.
                unsafe { libc::pwritev2(fd, window.as_ptr(), count, start, write_flags(image)) }
            } else {
                // SAFETY: as above. The kernel writes there, as a guest's own device would: guest
                // RAM is never borrowed as Rust memory, a bounce buffer not during this call.
                unsafe { libc::preadv(fd, window.as_ptr(), count, start) }
            };
            usize::try_from(result).map_err(|_| io::Error::last_os_error())
        })?;
        if moved == 0 {
            return Err(end_of_file(write));
        }
        vectors.advance(moved);
        offset += moved as u64;
    }
    Ok(())
}

/// Flags for `pwritev2`, in either engine.
pub fn write_flags(image: &DiskImage) -> libc::c_int {
    if image.durable_writes() { libc::RWF_DSYNC } else { 0 }
}

/// The file is shorter than it was when it was opened, or takes no more.
pub fn end_of_file(write: bool) -> io::Error {
    if write { io::ErrorKind::WriteZero.into() } else { io::ErrorKind::UnexpectedEof.into() }
}

fn sync_if_durable(image: &DiskImage) -> io::Result<()> {
    if image.durable_writes() { sync_data(image) } else { Ok(()) }
}

fn sync_data(image: &DiskImage) -> io::Result<()> {
    retry(|| Ok(fdatasync(image.file())?))
}

/// `fallocate` modes; the size never changes.
pub const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
/// See [`PUNCH`].
pub const ZERO: FallocateFlags =
    FallocateFlags::FALLOC_FL_ZERO_RANGE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

fn allocate(image: &DiskImage, mode: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
    // Both fit: checked to lie within the file.
    let (offset, length) = (offset as libc::off_t, length as libc::off_t);
    retry(|| Ok(fallocate(image.file(), mode, offset, length)?))
}

/// Never again, unless it was just this range that does not suit the host's blocks (`EINVAL`).
fn remember(possible: &AtomicBool, error: &io::Error) {
    if error.raw_os_error() != Some(libc::EINVAL) {
        possible.store(false, Ordering::Relaxed);
    }
}

/// Whether the host cannot do such a thing, as opposed to having failed at it.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

/// Discarding is advice: where the host cannot, the content just stays.
fn discard(image: &DiskImage, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 || !image.can_punch.load(Ordering::Relaxed) {
        return Ok(());
    }
    match allocate(image, PUNCH, offset, length) {
        Err(error) if is_unsupported(&error) => {
            remember(&image.can_punch, &error);
            Ok(())
        }
        result => result,
    }
}

fn write_zeroes(image: &DiskImage, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let ways = [(PUNCH, &image.can_punch, unmap), (ZERO, &image.can_zero, true)];
    for (mode, possible, wanted) in ways {
        if !wanted || !possible.load(Ordering::Relaxed) {
            continue;
        }
        match allocate(image, mode, offset, length) {
            Err(error) if is_unsupported(&error) => remember(possible, &error),
            result => return result,
        }
    }
    let size = usize::try_from(length).map_or(MAX_BOUNCE, |length| length.min(MAX_BOUNCE));
    let mut zeroes = BounceBuffer::new(size);
    let mut vectors = Vectors::default();
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).map_or(size, |left| left.min(size));
        vectors.set_bounce(&mut zeroes, step);
        let at = offset + done;
        let (Route::Straight(fd) | Route::Bounce(fd)) = image.route(at, step as u64, &vectors);
        transfer_vectors(image, fd, true, at, &mut vectors)?;
        done += step as u64;
    }
    Ok(())
}
