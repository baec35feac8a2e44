//! Disks: a raw file or block device, an I/O engine and a cache mode.
//!
//! [`DiskOptions`] says which, [`DiskImage::open`] opens and locks it, [`DiskImage::engine`] makes
//! what a front end sends its requests to.

mod blocking;
mod buffer;
mod engine;
mod error;
mod format;
mod host_file;
mod image;
mod io_uring;
mod options;
mod sync;
#[cfg(test)]
mod tests;
mod traffic;

pub use error::DiskError;
pub use image::DiskImage;
pub use options::{DiskOptions, DiskOptionsError};
pub use traffic::{DiskCounters, DiskTraffic};

use std::io;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::memory::GuestRam;
use crate::segments::GuestSegment;

/// The unit of disk addresses in virtio (1.2, 5.2.4) and ATA.
pub const SECTOR_SIZE: u64 = 512;

/// What a guest's FLUSH means, and whether the host's page cache is used. QEMU's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Host page cache; FLUSH is fdatasync.
    #[default]
    Writeback,
    /// Host page cache; every write is durable before it completes.
    Writethrough,
    /// O_DIRECT; FLUSH is fdatasync.
    None,
}

/// How requests reach the host kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// preadv/pwritev on the device's thread, one request at a time.
    Sync,
    /// io_uring, as many at a time as the guest queues. Falls back to `sync` where the host
    /// kernel refuses io_uring.
    #[default]
    IoUring,
}

/// What a front end asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Host to guest.
    Read,
    /// Guest to host.
    Write,
    /// All completed writes become durable.
    Flush,
    /// The range's content is no longer needed.
    Discard,
    /// The range reads as zeroes; with `unmap` it may be deallocated.
    WriteZeroes {
        /// virtio 1.2, 5.2.6.2.
        unmap: bool,
    },
}

/// One request to an engine.
#[derive(Clone, Copy, Debug)]
pub struct DiskRequest<'a> {
    /// Comes back in [`DiskCompletion`]. The front end's own numbering: small, and each number that
    /// of one request at a time, because engines keep theirs by it.
    pub tag: u16,
    /// What is done with the bytes from `offset` on.
    pub operation: DiskOperation,
    /// Byte offset on the disk.
    pub offset: u64,
    /// Bytes; equals the sum of the segments for reads and writes.
    pub length: u64,
    /// Guest memory to read into or write from; empty for the other operations.
    pub segments: &'a [GuestSegment],
}

/// The end of one request.
#[derive(Debug)]
pub struct DiskCompletion {
    /// From [`DiskRequest::tag`].
    pub tag: u16,
    /// Whether the whole request was done. A short transfer is an error.
    pub result: io::Result<()>,
}

/// Runs disk requests. A front end owns one engine per queue and calls it from one thread.
pub trait DiskEngine: Send {
    /// Takes a request; its segments are not needed afterwards. Bad guest addresses, ranges beyond the end of the disk and writes to a
    /// read-only disk come back as failed completions, never as panics.
    fn submit(&mut self, memory: &GuestRam, request: DiskRequest<'_>);

    /// Hands what was submitted since the last call to the host kernel, in one go where possible.
    /// [`DiskEngine::completions`] must be asked afterwards: much is done already, and what is
    /// done by then is not told by an event, which would cost two system calls.
    fn kick(&mut self);

    /// Moves finished requests to `done`, in any order.
    fn completions(&mut self, done: &mut Vec<DiskCompletion>);

    /// Whether [`DiskEngine::completions`] has something to give. Cheap, for who looks often.
    fn has_completions(&mut self) -> bool;

    /// Readable (eventfd) when something is done after [`DiskEngine::arm`]; `completions` makes
    /// it unreadable again.
    fn completion_event(&self) -> RawFd;

    /// To be called before waiting for the event. `true`: something is done already, of which the
    /// event may not tell; `completions` has to be asked first.
    fn arm(&mut self) -> bool;

    /// Forgets all requests, taking back what the host has not begun. When it returns, none of them
    /// uses guest memory or changes the disk any more.
    fn abandon(&mut self);
}
