//! Linux's boot protocols (Documentation/arch/x86/boot.rst): the zero page.

use linux_loader::loader::bootparam::{
    CAN_USE_HEAP, LOADED_HIGH, boot_e820_entry, boot_params, setup_header,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::kernel::Kernel;
use super::layout::{BOOT_INFO, CMDLINE};
use super::memory_map::MemoryRange;
use crate::memory::GuestRam;

const SETUP_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_FLAG: u16 = 0xaa55;
/// A boot loader without an id of its own.
const UNREGISTERED_LOADER: u8 = 0xff;
/// Linux's COMMAND_LINE_SIZE on x86, for a vmlinux that has no setup header to say it.
const DEFAULT_CMDLINE_MAX: u32 = 2047;
/// The last address that a kernel without a setup header takes an initrd at.
const DEFAULT_INITRD_MAX: u32 = 0x7fff_ffff;
/// What setup headers say nothing of before protocols 2.06 and 2.03.
const OLD_CMDLINE_MAX: u32 = 255;
const OLD_INITRD_MAX: u32 = 0x37ff_ffff;

/// Writes the zero page. The command line is in its place already; `initrd` is address and length,
/// `acpi` the address of the RSDP.
///
/// # Errors
/// The first MiB is RAM in every valid configuration.
pub fn write_zero_page(
    ram: &GuestRam,
    mut header: setup_header,
    map: &[MemoryRange],
    initrd: Option<(u64, u64)>,
    acpi: Option<u64>,
) -> Result<(), GuestMemoryError> {
    header.cmd_line_ptr = CMDLINE as u32;
    if let Some((address, length)) = initrd {
        // Both are below 4 GiB: `initrd_addr_max` has 32 bits.
        header.ramdisk_image = address as u32;
        header.ramdisk_size = length as u32;
    }
    let mut params = boot_params { hdr: header, ..boot_params::default() };
    params.acpi_rsdp_addr = acpi.unwrap_or(0);
    for (entry, range) in params.e820_table.iter_mut().zip(map) {
        let (addr, size, r#type) = (range.start, range.length, range.kind);
        *entry = boot_e820_entry { addr, size, r#type };
        params.e820_entries += 1;
    }
    ram.write_obj(params, GuestAddress(BOOT_INFO))
}

/// What the zero page says of the kernel, and the kernel of itself.
pub fn header(kernel: &Kernel) -> setup_header {
    let mut header = kernel.setup_header.unwrap_or_else(|| setup_header {
        boot_flag: BOOT_FLAG,
        header: SETUP_MAGIC,
        version: 0x020f,
        cmdline_size: DEFAULT_CMDLINE_MAX,
        initrd_addr_max: DEFAULT_INITRD_MAX,
        kernel_alignment: 0x20_0000,
        ..setup_header::default()
    });
    if header.version < 0x0206 {
        header.cmdline_size = OLD_CMDLINE_MAX;
    }
    if header.version < 0x0203 {
        header.initrd_addr_max = OLD_INITRD_MAX;
    }
    header.type_of_loader = UNREGISTERED_LOADER;
    header.loadflags = header.loadflags & !CAN_USE_HEAP | LOADED_HIGH;
    header.ramdisk_image = 0;
    header.ramdisk_size = 0;
    header.setup_data = 0;
    header
}
