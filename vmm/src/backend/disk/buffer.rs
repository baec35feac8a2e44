//! Where the data of a request is: guest memory as the kernel takes it, or an aligned buffer in
//! between where O_DIRECT cannot use guest memory as it lies.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;

use vm_memory::{Bytes, GuestMemoryBackend};

use super::GuestSegment;
use crate::memory::GuestRam;

/// `UIO_MAXIOV`: as many vectors as one system call takes.
const MAX_VECTORS: usize = 1024;
/// Enough for any O_DIRECT (the page size).
pub const BOUNCE_ALIGNMENT: usize = 4096;

/// The vectors of a transfer and how far it got.
#[derive(Default)]
pub struct Vectors {
    list: Vec<libc::iovec>,
    first: usize,
}

// SAFETY: the addresses point into guest RAM or a `BounceBuffer`, neither of which belongs to a
// thread; whoever passes them to the kernel vouches for their lifetime there.
unsafe impl Send for Vectors {}

impl Vectors {
    /// Translates guest addresses; a segment that crosses regions becomes several vectors.
    ///
    /// # Errors
    /// `EFAULT` where a segment is not all in guest RAM.
    pub fn guest(memory: &GuestRam, segments: &[GuestSegment]) -> io::Result<Self> {
        let mut list = Vec::with_capacity(segments.len());
        for segment in segments {
            let slices = memory.get_slices(segment.address, segment.length as usize);
            for slice in slices {
                let slice = slice.map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
                list.push(libc::iovec {
                    iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                    iov_len: slice.len(),
                });
            }
        }
        Ok(Self { list, first: 0 })
    }

    /// `length` bytes of `buffer`, which must be as long.
    pub fn bounce(buffer: &mut BounceBuffer, length: usize) -> Self {
        assert!(length <= buffer.layout.size());
        Self {
            list: vec![libc::iovec { iov_base: buffer.start.as_ptr().cast(), iov_len: length }],
            first: 0,
        }
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
    let length = data.len();
    for_each_piece(segments, skip, length, |address, range| {
        memory
            .read_slice(&mut data[range], address)
            .map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
    })
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
    for_each_piece(segments, skip, data.len(), |address, range| {
        memory
            .write_slice(&data[range], address)
            .map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
    })
}

fn for_each_piece(
    segments: &[GuestSegment],
    mut skip: u64,
    length: usize,
    mut copy: impl FnMut(vm_memory::GuestAddress, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    for segment in segments {
        let size = u64::from(segment.length);
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = ((size - skip) as usize).min(length - done);
        let start = segment.address.0.checked_add(skip);
        let start = start.ok_or(io::Error::from_raw_os_error(libc::EFAULT))?;
        copy(vm_memory::GuestAddress(start), done..done + take)?;
        skip = 0;
        done += take;
        if done == length {
            break;
        }
    }
    Ok(())
}
