//! Guest-physical memory.

use vm_memory::GuestMemoryMmap;

/// The guest's RAM. Cloning shares the mapping; every access is bounds-checked against it.
pub type GuestRam = GuestMemoryMmap<()>;
