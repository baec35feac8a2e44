//! Where the data of a request is: guest memory as the kernel takes it, or an aligned buffer in
//! between where O_DIRECT cannot use guest memory as it lies.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;

use vm_memory::Permissions;

use crate::backend::vectors::{MAX_VECTORS, translate};
use crate::memory::GuestRam;
use crate::segments::{self, GuestSegment};

/// Enough for any O_DIRECT (the page size).
pub const BOUNCE_ALIGNMENT: usize = 4096;

/// The vectors of a transfer and how far it got. The allocation serves one after the other.
#[derive(Default)]
pub struct Vectors {
    list: Vec<libc::iovec>,
    first: usize,
}

// SAFETY: the addresses point into guest RAM or a `BounceBuffer`, neither of which belongs to a
// thread; whoever passes them to the kernel vouches for their lifetime there.
unsafe impl Send for Vectors {}

impl Vectors {
    /// Becomes the vectors of guest memory; a segment that crosses regions is several.
    ///
    /// # Errors
    /// `EFAULT` where a segment is not all in guest RAM.
    pub fn set_guest(&mut self, memory: &GuestRam, segments: &[GuestSegment]) -> io::Result<()> {
        self.list.clear();
        self.first = 0;
        // A disk may be read into any RAM and written from any.
        let access = Permissions::ReadWrite;
        translate(&mut self.list, memory, segments, access).ok_or_else(outside_ram)
    }

    /// Becomes the first `length` bytes of `buffer`, which must have as many.
    pub fn set_bounce(&mut self, buffer: &mut BounceBuffer, length: usize) {
        assert!(length <= buffer.layout.size());
        self.list.clear();
        self.first = 0;
        let iov_base = buffer.start.as_ptr().cast();
        self.list.push(libc::iovec { iov_base, iov_len: length });
    }

    /// What the next system call may take.
    pub fn window(&self) -> &[libc::iovec] {
        let end = self.list.len().min(self.first + MAX_VECTORS);
        &self.list[self.first..end]
    }

    /// Whether all is transferred.
    pub fn is_empty(&self) -> bool {
        self.first == self.list.len()
    }

    /// Takes `count` transferred bytes off the front.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(vector) = self.list.get_mut(self.first) {
            if count < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(count);
                vector.iov_len -= count;
                return;
            }
            count -= vector.iov_len;
            self.first += 1;
        }
    }

    /// Whether address and length of each vector are multiples of `alignment`.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.list.iter().all(|vector| {
            vector.iov_base.addr().is_multiple_of(alignment)
                && vector.iov_len.is_multiple_of(alignment)
        })
    }
}

/// Page-aligned memory of the VMM's own.
pub struct BounceBuffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its allocation, like a Vec.
unsafe impl Send for BounceBuffer {}

impl BounceBuffer {
    /// `size` zeroes.
    pub fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size.max(1), BOUNCE_ALIGNMENT)
            .expect("sizes are bounded by MAX_BOUNCE, far below isize::MAX");
        // SAFETY: the size of `layout` is at least 1.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout);
        };
        Self { start, layout }
    }

    /// The content. Not while the kernel has it.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `start` is an initialised allocation of this size that `self` owns; the borrow
        // is exclusive, and engines look only after the kernel is done with it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for BounceBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Copies guest memory into `data`, from `skip` bytes into `segments`.
///
/// # Errors
/// `EFAULT` outside guest RAM.
pub fn gather(
    memory: &GuestRam,
    segments: &[GuestSegment],
    skip: u64,
    data: &mut [u8],
) -> io::Result<()> {
    segments::read(memory, segments, skip, data).map(drop).ok_or_else(outside_ram)
}

/// Copies `data` into guest memory, from `skip` bytes into `segments`.
///
/// # Errors
/// `EFAULT` outside guest RAM.
pub fn scatter(
    memory: &GuestRam,
    segments: &[GuestSegment],
    skip: u64,
    data: &[u8],
) -> io::Result<()> {
    segments::write(memory, segments, skip, data).map(drop).ok_or_else(outside_ram)
}

fn outside_ram() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}
