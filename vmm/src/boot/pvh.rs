//! What a PVH guest is told (xen/include/public/arch-x86/hvm/start_info.h).

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{BOOT_INFO, CMDLINE};
use super::memory_map::MemoryRange;
use crate::memory::GuestRam;

const MODULE: u64 = BOOT_INFO + 0x80;
const MEMORY_MAP: u64 = BOOT_INFO + 0x100;

/// Writes the start info. The command line is in its place already; `module` is the address and
/// length of the initrd, `acpi` the address of the RSDP.
///
/// # Errors
/// The first MiB is RAM in every valid configuration.
pub fn write_start_info(
    ram: &GuestRam,
    map: &[MemoryRange],
    module: Option<(u64, u64)>,
    acpi: Option<u64>,
) -> Result<(), GuestMemoryError> {
    for (at, range) in (MEMORY_MAP..).step_by(size_of::<hvm_memmap_table_entry>()).zip(map) {
        let (addr, size, type_) = (range.start, range.length, range.kind);
        let entry = hvm_memmap_table_entry { addr, size, type_, reserved: 0 };
        ram.write_obj(entry, GuestAddress(at))?;
    }
    if let Some((paddr, size)) = module {
        let entry = hvm_modlist_entry { paddr, size, ..Default::default() };
        ram.write_obj(entry, GuestAddress(MODULE))?;
    }
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1, // With a memory map.
        nr_modules: module.is_some().into(),
        modlist_paddr: module.map_or(0, |_| MODULE),
        cmdline_paddr: CMDLINE,
        rsdp_paddr: acpi.unwrap_or(0),
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    ram.write_obj(info, GuestAddress(BOOT_INFO))
}
