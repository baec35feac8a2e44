//! Giving guest pages back to the host.

use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::PAGE_SIZE;
use crate::memory::GuestRam;

/// Lets the host reuse the whole pages inside `[start, start + length)`; they read as zeroes (or,
/// in a private mapping of a file, as the file) when the guest touches them again. What is not
/// RAM is left out.
///
/// # Errors
/// The host's, from `madvise`.
pub fn discard(memory: &GuestRam, start: u64, length: u64) -> io::Result<()> {
    let end = start.saturating_add(length);
    for region in memory.iter() {
        let first = region.start_addr().0;
        // Regions lie below 2^64 and are not empty.
        let last = first.saturating_add(region.len());
        let from = start.max(first).next_multiple_of(PAGE_SIZE);
        let to = end.min(last) / PAGE_SIZE * PAGE_SIZE;
        if from >= to {
            continue;
        }
        // Within one region, by the clamping above.
        let Ok(slice) = memory.get_slice(GuestAddress(from), (to - from) as usize) else {
            continue;
        };
        // A shared mapping (memfd) keeps its pages unless they are removed from the file too.
        let shared = region.flags() & libc::MAP_SHARED != 0;
        let advice = if shared { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
        let address = slice.ptr_guard_mut().as_ptr();
        // SAFETY: the range lies in a mapping that `memory` keeps alive. Nobody holds Rust
        // references into guest RAM; that its content changes is what the guest asked for.
        let result = unsafe { libc::madvise(address.cast(), slice.len(), advice) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
