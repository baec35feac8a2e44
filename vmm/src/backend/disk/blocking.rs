//! Requests done on the calling thread, start to end: the sync engine's way, and where io_uring's
//! requests go that need more than one step.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer::{BounceBuffer, Vectors, gather, scatter};
use super::image::{DiskImage, Route};
use super::{DiskOperation, DiskRequest};
use crate::memory::GuestRam;

/// The most memory one request takes to get around O_DIRECT's alignment, in bytes.
pub const MAX_BOUNCE: usize = 1 << 20;

/// Does `request`, all of it or none that counts.
pub fn perform(image: &DiskImage, memory: &GuestRam, request: &DiskRequest) -> io::Result<()> {
    image.check(request)?;
    match request.operation {
        DiskOperation::Read | DiskOperation::Write => transfer(image, memory, request),
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

fn transfer(image: &DiskImage, memory: &GuestRam, request: &DiskRequest) -> io::Result<()> {
    let mut vectors = Vectors::guest(memory, &request.segments)?;
    let write = request.operation == DiskOperation::Write;
    match image.route(request, &vectors) {
        Route::Straight(fd) => transfer_vectors(image, fd, write, request.offset, &mut vectors),
        Route::Bounce(fd) => bounce(image, fd, write, memory, request),
    }
}

fn bounce(
    image: &DiskImage,
    fd: RawFd,
    write: bool,
    memory: &GuestRam,
    request: &DiskRequest,
) -> io::Result<()> {
    let size = usize::try_from(request.length).map_or(MAX_BOUNCE, |length| length.min(MAX_BOUNCE));
    let mut buffer = BounceBuffer::new(size);
    let mut done = 0;
    while done < request.length {
        let left = request.length - done;
        let length = usize::try_from(left).map_or(size, |left| left.min(size));
        if write {
            gather(memory, &request.segments, done, &mut buffer.bytes()[..length])?;
        }
        let mut vectors = Vectors::bounce(&mut buffer, length);
        transfer_vectors(image, fd, write, request.offset + done, &mut vectors)?;
        if !write {
            scatter(memory, &request.segments, done, &buffer.bytes()[..length])?;
        }
        done += length as u64;
    }
    Ok(())
}

fn transfer_vectors(
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
        let result = if write {
            // SAFETY: the vectors lie in guest RAM or a bounce buffer, which the caller keeps
            // mapped during this call; the kernel only reads them.
            unsafe { libc::pwritev2(fd, window.as_ptr(), count, start, write_flags(image)) }
        } else {
            // SAFETY: as above. The kernel writes there, as a guest's own device would: guest
            // RAM is never borrowed as Rust memory, a bounce buffer not during this call.
            unsafe { libc::preadv(fd, window.as_ptr(), count, start) }
        };
        match result {
            0 => return Err(end_of_file(write)),
            // Not negative in this arm.
            1.. => {
                vectors.advance(result as usize);
                offset += result as u64;
            }
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
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
    // SAFETY: a valid descriptor; nothing else is passed.
    retry(|| unsafe { libc::fdatasync(image.fd()) })
}

/// `fallocate` modes; the size never changes.
pub const PUNCH: libc::c_int = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// See [`PUNCH`].
pub const ZERO: libc::c_int = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

fn allocate(image: &DiskImage, mode: libc::c_int, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: a valid descriptor and integers, checked to lie within the file.
    retry(|| unsafe {
        libc::fallocate(image.fd(), mode, offset as libc::off_t, length as libc::off_t)
    })
}

fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        if call() == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
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
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).map_or(size, |left| left.min(size));
        let mut vectors = Vectors::bounce(&mut zeroes, step);
        let request = DiskRequest {
            tag: 0,
            operation: DiskOperation::Write,
            offset: offset + done,
            length: step as u64,
            segments: Vec::new(),
        };
        let (Route::Straight(fd) | Route::Bounce(fd)) = image.route(&request, &vectors);
        transfer_vectors(image, fd, true, request.offset, &mut vectors)?;
        done += step as u64;
    }
    Ok(())
}
