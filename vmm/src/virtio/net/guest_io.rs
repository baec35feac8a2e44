//! Guest buffers for readv and writev, without a copy in between.

use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;

use vm_memory::{GuestMemory, Permissions};

use crate::backend::disk::GuestSegment;
use crate::memory::GuestRam;

/// A list of host ranges, reused from frame to frame.
///
/// `'m` is the borrow of the guest RAM they lie in.
#[derive(Default)]
pub struct GuestIo<'m> {
    ranges: Vec<libc::iovec>,
    memory: PhantomData<&'m GuestRam>,
}

/// The allocation of a [`GuestIo`], to be used again with other memory.
#[derive(Default)]
pub struct IoVectors(Vec<libc::iovec>);

// SAFETY: the vector is empty whenever nobody borrows it, so no pointer crosses threads.
unsafe impl Send for IoVectors {}

impl IoVectors {
    /// An empty list that uses this allocation.
    pub fn list<'m>(&mut self) -> GuestIo<'m> {
        GuestIo { ranges: std::mem::take(&mut self.0), memory: PhantomData }
    }

    /// Takes the allocation back.
    pub fn keep(&mut self, list: GuestIo<'_>) {
        self.0 = list.ranges;
        self.0.clear();
    }
}

impl<'m> GuestIo<'m> {
    /// Appends `segments`; `None` where one lies outside RAM.
    #[must_use]
    pub fn add_guest(
        &mut self,
        memory: &'m GuestRam,
        segments: &[GuestSegment],
        access: Permissions,
    ) -> Option<()> {
        for segment in segments {
            let length = segment.length as usize;
            for slice in memory.get_slices(segment.address, length, access).ok()? {
                let slice = slice.ok()?;
                let base = slice.ptr_guard_mut().as_ptr().cast();
                self.ranges.push(libc::iovec { iov_base: base, iov_len: slice.len() });
            }
        }
        Some(())
    }

    /// Appends memory of our own.
    pub fn add_host(&mut self, buffer: &'m mut [u8]) {
        let iov_base = buffer.as_mut_ptr().cast();
        self.ranges.push(libc::iovec { iov_base, iov_len: buffer.len() });
    }

    /// To write from.
    pub fn as_slices(&self) -> &[IoSlice<'_>] {
        // SAFETY: `IoSlice` has the layout of `iovec` (guaranteed on Unix). Every range is valid
        // for the borrow 'm, which outlives self: it lies in guest RAM, which stays mapped while
        // borrowed, or in a buffer borrowed mutably. The guest may change its RAM at any time;
        // back ends pass the ranges to the kernel, and what it reads of them is checked by
        // nobody here, so a change can only change the guest's own frame.
        unsafe { std::slice::from_raw_parts(self.ranges.as_ptr().cast(), self.ranges.len()) }
    }

    /// To read into.
    pub fn as_slices_mut(&mut self) -> &mut [IoSliceMut<'_>] {
        // SAFETY: as in `as_slices`, with `IoSliceMut`. Ranges may overlap if the driver made its
        // buffers overlap; they are written by the kernel only, never through references here.
        unsafe {
            std::slice::from_raw_parts_mut(self.ranges.as_mut_ptr().cast(), self.ranges.len())
        }
    }
}
