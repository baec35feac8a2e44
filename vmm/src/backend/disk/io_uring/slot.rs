//! One request of the io_uring engine, from step to step.

use std::io;
use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};
use nix::fcntl::FallocateFlags;

use super::super::blocking::{
    PUNCH, ZERO, end_of_file, is_unsupported, perform, transfer_vectors, write_flags,
};
use super::super::buffer::{BounceBuffer, Vectors, scatter};
use super::super::image::DiskImage;
use super::super::{DiskOperation, DiskRequest};
use crate::memory::GuestRam;
use crate::segments::GuestSegment;

/// One request in the kernel's hands, or on its way there.
pub struct Slot {
    pub state: State,
    pub operation: DiskOperation,
    pub offset: u64,
    pub length: u64,
    pub fd: RawFd,
    /// Bytes transferred by earlier, short steps.
    pub done: u64,
    /// The operation is done; what is under way is the fdatasync that makes it durable.
    pub syncing: bool,
    pub vectors: Vectors,
    /// Where the data is when O_DIRECT could not use guest memory.
    pub bounce: Option<BounceBuffer>,
    /// Guest memory, while `bounce` stands in for it.
    pub segments: Vec<GuestSegment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Kept for its allocations.
    Free,
    Taken,
    /// Nobody waits for it: whatever the kernel answers is its end.
    Abandoned,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            state: State::Free,
            operation: DiskOperation::Flush,
            offset: 0,
            length: 0,
            fd: -1,
            done: 0,
            syncing: false,
            vectors: Vectors::default(),
            bounce: None,
            segments: Vec::new(),
        }
    }
}

impl Slot {
    /// Neither uses guest memory nor changes the disk.
    pub fn is_harmless(&self) -> bool {
        self.syncing || self.operation == DiskOperation::Flush
    }

    pub fn is_transfer(&self) -> bool {
        matches!(self.operation, DiskOperation::Read | DiskOperation::Write)
    }

    pub fn is_free(&self) -> bool {
        self.state == State::Free
    }
}

/// The ring entry for a slot's next step.
pub fn entry(slot: &Slot, image: &DiskImage) -> squeue::Entry {
    let fd = types::Fd(slot.fd);
    let sync = || opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
    if slot.syncing {
        return sync();
    }
    let window = slot.vectors.window();
    // At most UIO_MAXIOV.
    let count = window.len() as u32;
    let offset = slot.offset + slot.done;
    let allocate = |mode: FallocateFlags| {
        opcode::Fallocate::new(fd, slot.length).offset(slot.offset).mode(mode.bits()).build()
    };
    match slot.operation {
        DiskOperation::Read => {
            opcode::Readv::new(fd, window.as_ptr(), count).offset(offset).build()
        }
        DiskOperation::Write => opcode::Writev::new(fd, window.as_ptr(), count)
            .offset(offset)
            .rw_flags(write_flags(image))
            .build(),
        DiskOperation::Flush => sync(),
        DiskOperation::Discard | DiskOperation::WriteZeroes { unmap: true } => allocate(PUNCH),
        DiskOperation::WriteZeroes { unmap: false } => allocate(ZERO),
    }
}

/// Takes the kernel's answer to a slot's step: the request's end, or `None` if a further step
/// must follow.
pub fn step(
    slot: &mut Slot,
    result: i32,
    image: &DiskImage,
    memory: Option<&GuestRam>,
) -> Option<io::Result<()>> {
    let Ok(count) = usize::try_from(result) else {
        return refused(slot, io::Error::from_raw_os_error(result.saturating_neg()), image, memory);
    };
    let write = match slot.operation {
        DiskOperation::Read => false,
        DiskOperation::Write => true,
        DiskOperation::Flush => return Some(Ok(())),
        DiskOperation::Discard | DiskOperation::WriteZeroes { .. } => {
            if slot.syncing || !image.durable_writes() {
                return Some(Ok(()));
            }
            slot.syncing = true;
            return None;
        }
    };
    if count == 0 {
        return Some(Err(end_of_file(write)));
    }
    slot.vectors.advance(count);
    slot.done += count as u64;
    slot.vectors.is_empty().then(|| transferred(slot, memory))
}

/// All is read or written; what was read may have to go where it belongs.
fn transferred(slot: &mut Slot, memory: Option<&GuestRam>) -> io::Result<()> {
    match (&mut slot.bounce, memory) {
        (Some(buffer), Some(memory)) if slot.operation == DiskOperation::Read => {
            scatter(memory, &slot.segments, 0, buffer.bytes())
        }
        _ => Ok(()),
    }
}

/// What the kernel does not do asynchronously, or not at all, is done here.
fn refused(
    slot: &mut Slot,
    error: io::Error,
    image: &DiskImage,
    memory: Option<&GuestRam>,
) -> Option<io::Result<()>> {
    let again = error.raw_os_error() == Some(libc::EAGAIN);
    if error.raw_os_error() == Some(libc::EINTR) {
        return None;
    }
    if again && slot.is_transfer() {
        let (write, at) = (slot.operation == DiskOperation::Write, slot.offset + slot.done);
        let rest = transfer_vectors(image, slot.fd, write, at, &mut slot.vectors);
        return Some(rest.and_then(|()| transferred(slot, memory)));
    }
    let allocates = !slot.is_transfer() && slot.operation != DiskOperation::Flush;
    let possible = again || allocates && !slot.syncing && is_unsupported(&error);
    let Some(memory) = memory.filter(|_| possible) else {
        return Some(Err(error));
    };
    let (operation, offset, length) = (slot.operation, slot.offset, slot.length);
    let request = DiskRequest { tag: 0, operation, offset, length, segments: &[] };
    Some(perform(image, memory, &request, &mut slot.vectors))
}
