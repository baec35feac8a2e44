//! Guest-physical memory.
//!
//! ```text
//! 0x0_0000_0000  RAM    boot structures below 640 KiB (boot::layout), kernel from 16 MiB
//! 0x0_C000_0000  hole   PCI memory windows and ECAM
//! 0x0_FEC0_0000         IOAPIC
//! 0x0_FEE0_0000         local APICs
//! 0x0_FFFB_C000         identity map page and TSS that KVM needs on Intel hosts
//! 0x1_0000_0000  RAM    what does not fit below the hole
//! ```

use std::io;
use std::ptr;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

/// The guest's RAM. Cloning shares the mapping; every access is bounds-checked against it.
pub type GuestRam = GuestMemoryMmap<()>;

/// End of the RAM below 4 GiB: the last GiB of 32-bit addresses belongs to devices.
pub const HOLE_START: u64 = 0xC000_0000;
/// Start of the RAM above the hole.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// x86's huge page: host memory aligned to it lets KVM map the guest by 2 MiB entries.
const HUGE_PAGE: usize = 2 << 20;

/// RAM that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused the mapping.
    #[error("memory: cannot map {} MiB of guest RAM", size >> 20)]
    Map {
        /// Bytes of RAM that were asked for.
        size: u64,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The mapping cannot be used as guest RAM.
    #[error("memory: cannot use the mapping as guest RAM: {0}")]
    Region(String),
}

/// Where RAM of `size` bytes lies: guest-physical start and length of each piece.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= HOLE_START {
        vec![(0, size)]
    } else {
        vec![(0, HOLE_START), (HOLE_END, size - HOLE_START)]
    }
}

/// Maps guest RAM of `size` bytes, zeroed and not yet backed by pages.
///
/// The mapping is never unmapped, because device threads hold clones of [`GuestRam`];
/// [`release`] gives the pages back.
///
/// # Errors
/// [`MemoryError`] when the host refuses.
pub fn allocate(size: u64) -> Result<GuestRam, MemoryError> {
    let regions = ranges(size).into_iter().map(|(start, length)| {
        let length = usize::try_from(length).map_err(|_| MemoryError::Map {
            size,
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        })?;
        let host = map_aligned(length).map_err(|source| MemoryError::Map { size, source })?;
        // SAFETY: `host..host + length` is a mapping made just now and never unmapped.
        let builder = unsafe { MmapRegionBuilder::<()>::new(length).with_raw_mmap_pointer(host) };
        let region = builder
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()
            .map_err(|e| MemoryError::Region(e.to_string()))?;
        GuestRegionMmap::new(region, GuestAddress(start))
            .ok_or_else(|| MemoryError::Region(format!("it wraps around at {start:#x}")))
    });
    let regions = regions.collect::<Result<Vec<_>, _>>()?;
    GuestRam::from_regions(regions).map_err(|e| MemoryError::Region(e.to_string()))
}

/// Maps `length` bytes of private anonymous memory on a 2 MiB boundary of the host.
fn map_aligned(length: usize) -> io::Result<*mut u8> {
    let too_big = || io::Error::from_raw_os_error(libc::ENOMEM);
    let padded = length.checked_add(HUGE_PAGE).ok_or_else(too_big)?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let raw = unsafe {
        libc::mmap(
            ptr::null_mut(),
            padded,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let head = raw.align_offset(HUGE_PAGE);
    let start = raw.cast::<u8>().wrapping_add(head);
    let end = start.wrapping_add(length);
    // SAFETY: head and tail are whole pages inside the mapping made above (`raw` and `length` are
    // page-aligned, head < HUGE_PAGE), outside the part that is kept, and nothing refers to them.
    // A failure would only leave them mapped. `madvise` changes no content.
    unsafe {
        if head > 0 {
            libc::munmap(raw, head);
        }
        libc::munmap(end.cast(), HUGE_PAGE - head);
        // For hosts that give huge pages on request only; elsewhere it changes nothing.
        libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE);
    }
    Ok(start)
}

/// Gives the pages of `ram` back to the host. What is read afterwards is zero, so that a thread
/// that still holds a clone does no harm.
pub fn release(ram: &GuestRam) {
    for region in ram.iter() {
        let Ok(host) = region.get_host_address(vm_memory::MemoryRegionAddress(0)) else { continue };
        // SAFETY: the range is a private mapping that stays mapped, and guest RAM is only ever
        // accessed as volatile memory, so a change of content is expected.
        unsafe { libc::madvise(host.cast(), region.len() as usize, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn ram_lies_around_the_hole() {
        assert_eq!(ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ranges(3 << 30), [(0, 3 << 30)]);
        assert_eq!(ranges((3 << 30) + 4096), [(0, 3 << 30), (4 << 30, 4096)]);
        assert_eq!(ranges(8 << 30), [(0, 3 << 30), (4 << 30, 5 << 30)]);
    }

    #[test]
    fn ram_is_zeroed_aligned_and_bounded() {
        let ram = allocate((3 << 30) + (64 << 20)).unwrap();
        for region in ram.iter() {
            let host = region.get_host_address(vm_memory::MemoryRegionAddress(0)).unwrap();
            assert_eq!(host as usize % HUGE_PAGE, 0);
        }
        ram.write_obj(7u32, GuestAddress(HOLE_END)).unwrap();
        assert_eq!(ram.read_obj::<u32>(GuestAddress(HOLE_END)).unwrap(), 7);
        assert!(ram.read_obj::<u32>(GuestAddress(HOLE_START - 2)).is_err());
        assert_eq!(ram.last_addr().0, HOLE_END + (64 << 20) - 1);
        release(&ram);
        assert_eq!(ram.read_obj::<u32>(GuestAddress(HOLE_END)).unwrap(), 0);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(matches!(allocate(1 << 60), Err(MemoryError::Map { .. })));
    }
}
