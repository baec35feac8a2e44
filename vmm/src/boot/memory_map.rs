//! What of the guest-physical address space is RAM, in the types that e820, PVH and multiboot share.

use super::layout::{BASE_MEMORY_END, HIGH_MEMORY};
use crate::memory;

/// Usable memory: type 1 of E820 (ACPI 6.5, table 15.4).
pub const RAM: u32 = 1;
/// Not to be used, not even if nothing is there.
pub const RESERVED: u32 = 2;

/// A range of the memory map that the guest is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Guest-physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// [`RAM`] or [`RESERVED`].
    pub kind: u32,
}

/// The map of a machine with `ram` bytes. There are no overlaps as long as `reserved` (start and
/// length of each) lies in the hole.
pub fn memory_map(ram: u64, reserved: &[(u64, u64)]) -> Vec<MemoryRange> {
    let range = |start, length, kind| MemoryRange { start, length, kind };
    let mut map = vec![
        range(0, BASE_MEMORY_END, RAM),
        range(BASE_MEMORY_END, HIGH_MEMORY - BASE_MEMORY_END, RESERVED),
    ];
    for (start, length) in memory::ranges(ram) {
        let from = start.max(HIGH_MEMORY);
        map.push(range(from, start + length - from, RAM));
    }
    map.extend(reserved.iter().map(|&(start, length)| range(start, length, RESERVED)));
    map
}
