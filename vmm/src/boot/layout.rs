//! Where boot structures lie in the guest's first MiB.
//!
//! ```text
//! 0x00500  GDT
//! 0x07000  zero page (boot_params), or other boot information
//! 0x09000  page tables: PML4, PDPT, PD
//! 0x20000  command line
//! 0x9fc00  end of base memory
//! 0xe0000  ACPI tables, RSDP first
//! 0xf0000  MP table, where the BIOS would be
//! 0xffff0  reset vector
//! 0x100000 end of the first MiB
//! ```

/// Global descriptor table, for the kernel's entry.
pub const GDT: u64 = 0x500;
/// What the kernel is told: Linux's `struct boot_params` or another protocol's, in 8 KiB.
pub const BOOT_INFO: u64 = 0x7000;
/// Top-level page table; the two others follow.
pub const PML4: u64 = 0x9000;
/// Kernel command line, NUL-terminated.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes that the command line may take there, with its NUL.
pub const CMDLINE_MAX: u64 = 0x1_0000;
/// End of the RAM below the legacy video memory and BIOS.
pub const BASE_MEMORY_END: u64 = 0x9_fc00;
/// ACPI's RSDP; firmware tables are searched for from here on.
pub const ACPI: u64 = 0xe_0000;
/// Room for all ACPI tables.
pub const ACPI_MAX: u64 = 0x1_0000;
/// The MP floating pointer structure.
pub const MP_TABLE: u64 = 0xf_0000;
/// Where a processor in real mode starts: F000:FFF0, or FFFF:0000.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// The first byte above legacy memory.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Local APIC of every CPU.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// The in-kernel IOAPIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// KVM_SET_IDENTITY_MAP_ADDR: one page, for real mode on older Intel CPUs.
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// KVM_SET_TSS_ADDR: the three pages after it.
pub const TSS: u64 = 0xfffb_d000;
