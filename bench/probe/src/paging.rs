//! Address space: mappings made and taken away, pages given on the first touch.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Instant;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::clock::each;

/// Bytes of a page on x86.
pub const PAGE: usize = 4096;
/// What [`map`] maps.
const MAPPED: usize = 16 * PAGE;
/// What [`fault`] touches before it gives the pages back: less than the memory of any instance.
const TOUCHED: usize = 1024;

/// Private anonymous memory, given back when this is dropped.
pub struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
}

impl Mapping {
    /// `bytes` bytes, more than none, of zeroes.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: the kernel chooses a place where nothing is.
        let start = unsafe { mmap_anonymous(None, length, access, flags) }?;
        Ok(Self { start, bytes })
    }

    /// Asks for pages of 2 MiB, or for none of them. A kernel without them refuses both, and has none.
    pub fn huge_pages(&self, wanted: bool) {
        let advice = if wanted { MmapAdvise::MADV_HUGEPAGE } else { MmapAdvise::MADV_NOHUGEPAGE };
        // SAFETY: the range is this mapping's, whose content the advice does not change.
        let _ = unsafe { madvise(self.start, self.bytes, advice) };
    }

    /// All of it.
    pub fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: it is mapped for reading and writing as long as `self` lives, initialised to zeroes, and nobody
        // else has it: the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's, to which no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        // It fails for ranges that are none only.
        debug_assert!(unmapped.is_ok());
    }
}

/// mmap(2) and munmap(2) of 64 KiB that nobody touches.
pub fn map(operations: u32) -> io::Result<f64> {
    each(operations, || Mapping::new(MAPPED).map(drop))
}

/// The first write to a page of 4 KiB.
pub fn fault(operations: u32) -> io::Result<f64> {
    let (mut left, mut nanoseconds) = (operations as usize, 0);
    while left > 0 {
        let pages = left.min(TOUCHED);
        let mut mapping = Mapping::new(pages * PAGE)?;
        mapping.huge_pages(false);
        let begun = Instant::now();
        for page in mapping.as_mut().chunks_mut(PAGE) {
            page[0] = 1;
        }
        nanoseconds += begun.elapsed().as_nanos();
        left -= pages;
    }
    Ok(nanoseconds as f64 / f64::from(operations))
}
