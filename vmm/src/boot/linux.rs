//! The 64-bit boot protocol (Documentation/arch/x86/boot.rst): zero page, memory map, command
//! line, initial RAM file system, page tables and the registers of the first CPU.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::bootparam::{
    CAN_USE_HEAP, LOADED_HIGH, boot_e820_entry, boot_params, setup_header,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use super::kernel::Kernel;
use super::layout::{BASE_MEMORY_END, CMDLINE, CMDLINE_MAX, GDT, HIGH_MEMORY, PML4, ZERO_PAGE};
use crate::backend::regular_file;
use crate::config::InitrdPart;
use crate::memory::{self, GuestRam, HOLE_START};

/// What does not fit, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// Beyond what this kernel takes.
    #[error("cmdline: {length} bytes is too long; this kernel takes {max}")]
    CmdlineTooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed, without the NUL.
        max: u64,
    },
    /// A part cannot be opened or read.
    #[error("cannot read initrd {path}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Kernel and initrd together are larger than RAM.
    #[error(
        "memory: an initrd of {} MiB does not fit between the kernel's end at {} MiB and the end \
         of usable memory at {} MiB; raise memory",
        length.div_ceil(1 << 20),
        kernel_end.div_ceil(1 << 20),
        limit >> 20
    )]
    InitrdTooLarge {
        /// Bytes of all parts.
        length: u64,
        /// End of the kernel.
        kernel_end: u64,
        /// Where the initrd has to end.
        limit: u64,
    },
    /// The fixed places of [`super::layout`] are RAM in every valid configuration.
    #[error("cannot write boot structures to guest memory")]
    Guest(#[from] GuestMemoryError),
}

const SETUP_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_FLAG: u16 = 0xaa55;
/// A boot loader without an id of its own.
const UNREGISTERED_LOADER: u8 = 0xff;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// Linux's COMMAND_LINE_SIZE on x86, for a vmlinux that has no setup header to say it.
const DEFAULT_CMDLINE_MAX: u32 = 2047;
/// The last address that a kernel without a setup header takes an initrd at.
const DEFAULT_INITRD_MAX: u32 = 0x7fff_ffff;

/// Writes everything that `kernel` reads at its start.
///
/// `acpi` is the address of the RSDP, if there is one; `reserved` are ranges (start, length) that
/// the guest must not take for RAM.
///
/// # Errors
/// [`LinuxError`].
pub fn prepare(
    ram: &GuestRam,
    kernel: &Kernel,
    cmdline: &str,
    initrd: &[InitrdPart],
    acpi: Option<u64>,
    reserved: &[(u64, u64)],
) -> Result<(), LinuxError> {
    let mut params = boot_params { hdr: header(kernel), ..boot_params::default() };
    let cmdline_max = u64::from(params.hdr.cmdline_size).min(CMDLINE_MAX - 1);
    if cmdline.len() as u64 > cmdline_max {
        return Err(LinuxError::CmdlineTooLong { length: cmdline.len(), max: cmdline_max });
    }
    ram.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE))?;
    ram.write_obj(0u8, GuestAddress(CMDLINE + cmdline.len() as u64))?;
    params.hdr.cmd_line_ptr = CMDLINE as u32;

    let limit = u64::from(params.hdr.initrd_addr_max) + 1;
    if let Some((address, length)) = load_initrd(ram, initrd, kernel.end, limit)? {
        // Both are below 4 GiB: `initrd_addr_max` has 32 bits.
        params.hdr.ramdisk_image = address as u32;
        params.hdr.ramdisk_size = length as u32;
    }

    params.acpi_rsdp_addr = acpi.unwrap_or(0);
    let map = memory_map(ram.iter_sizes(), reserved);
    for (entry, &(addr, size, r#type)) in params.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr, size, r#type };
        params.e820_entries += 1;
    }
    ram.write_obj(params, GuestAddress(ZERO_PAGE))?;
    write_page_tables(ram)?;
    write_gdt(ram)?;
    Ok(())
}

/// Total RAM of a [`GuestRam`].
trait Size {
    fn iter_sizes(&self) -> u64;
}

impl Size for GuestRam {
    fn iter_sizes(&self) -> u64 {
        use vm_memory::GuestMemoryRegion;
        self.iter().map(|region| region.len()).sum()
    }
}

fn header(kernel: &Kernel) -> setup_header {
    let mut header = kernel.setup_header.unwrap_or_else(|| setup_header {
        boot_flag: BOOT_FLAG,
        header: SETUP_MAGIC,
        version: 0x020f,
        cmdline_size: DEFAULT_CMDLINE_MAX,
        initrd_addr_max: DEFAULT_INITRD_MAX,
        kernel_alignment: 0x20_0000,
        ..setup_header::default()
    });
    header.type_of_loader = UNREGISTERED_LOADER;
    header.loadflags = header.loadflags & !CAN_USE_HEAP | LOADED_HIGH;
    header.ramdisk_image = 0;
    header.ramdisk_size = 0;
    header.setup_data = 0;
    header
}

/// (start, length, type) of each range, without overlaps as long as `reserved` lies in the hole.
fn memory_map(ram: u64, reserved: &[(u64, u64)]) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, BASE_MEMORY_END, E820_RAM),
        (BASE_MEMORY_END, HIGH_MEMORY - BASE_MEMORY_END, E820_RESERVED),
    ];
    for (start, length) in memory::ranges(ram) {
        let from = start.max(HIGH_MEMORY);
        map.push((from, start + length - from, E820_RAM));
    }
    map.extend(reserved.iter().map(|&(start, length)| (start, length, E820_RESERVED)));
    map
}

/// An opened part of the initrd.
enum Source<'a> {
    File(File, u64, &'a PathBuf),
    Bytes(&'a [u8]),
}

impl Source<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::File(_, length, _) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// Loads all parts one after the other, as high as `limit` and RAM allow, and returns address and
/// length. Linux skips zeroes between archives, which start on 4-byte boundaries.
fn load_initrd(
    ram: &GuestRam,
    parts: &[InitrdPart],
    kernel_end: u64,
    limit: u64,
) -> Result<Option<(u64, u64)>, LinuxError> {
    let sources = parts.iter().map(open_part).collect::<Result<Vec<_>, _>>()?;
    let limit = limit.min(HOLE_START).min(ram.last_addr().0 + 1);
    let too_large = |length| LinuxError::InitrdTooLarge { length, kernel_end, limit };
    let mut length = 0u64;
    for source in &sources {
        length = length
            .checked_next_multiple_of(4)
            .and_then(|start| start.checked_add(source.length()))
            .ok_or_else(|| too_large(u64::MAX))?;
    }
    if length == 0 {
        return Ok(None);
    }
    let start = limit.checked_sub(length).ok_or_else(|| too_large(length))? & !0xfff;
    if start < kernel_end.next_multiple_of(4096) {
        return Err(too_large(length));
    }
    let mut address = start;
    for source in sources {
        address = address.next_multiple_of(4);
        let size = source.length();
        match source {
            Source::Bytes(bytes) => ram.write_slice(bytes, GuestAddress(address))?,
            Source::File(mut file, _, path) => ram
                .read_exact_volatile_from(GuestAddress(address), &mut file, size as usize)
                .map_err(|e| LinuxError::Initrd {
                    path: path.clone(),
                    source: io::Error::other(e),
                })?,
        }
        address += size;
    }
    Ok(Some((start, length)))
}

fn open_part(part: &InitrdPart) -> Result<Source<'_>, LinuxError> {
    match part {
        InitrdPart::Bytes(bytes) => Ok(Source::Bytes(bytes)),
        InitrdPart::File(path) => {
            let (file, length) = regular_file::open(path)
                .map_err(|source| LinuxError::Initrd { path: path.clone(), source })?;
            Ok(Source::File(file, length, path))
        }
    }
}

/// Maps the first GiB to itself with 2 MiB pages: kernel, zero page and command line are there,
/// and Linux makes its own tables first thing.
fn write_page_tables(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 0x3;
    const HUGE: u64 = 0x80;
    let pdpt = PML4 + 0x1000;
    let pd = PML4 + 0x2000;
    ram.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(PML4))?;
    ram.write_obj(pd | PRESENT_WRITABLE, GuestAddress(pdpt))?;
    let entries: Vec<u8> =
        (0..512u64).flat_map(|i| (i << 21 | HUGE | PRESENT_WRITABLE).to_le_bytes()).collect();
    ram.write_slice(&entries, GuestAddress(pd))
}

/// `__BOOT_CS` and `__BOOT_DS` of the boot protocol, as flat 64-bit code and data.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;
const DESCRIPTORS: [u64; 4] = [0, 0, CODE_DESCRIPTOR, DATA_DESCRIPTOR];

fn write_gdt(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    for (address, descriptor) in (GDT..).step_by(8).zip(DESCRIPTORS) {
        ram.write_obj(descriptor, GuestAddress(address))?;
    }
    Ok(())
}

/// Turns a segment descriptor into KVM's form (Intel SDM 3A, 3.4.5).
fn segment(selector: u16, descriptor: u64) -> kvm_segment {
    let bit = |n: u32| (descriptor >> n & 1) as u8;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: (descriptor >> 40 & 0xf) as u8,
        s: bit(44),
        dpl: (descriptor >> 45 & 3) as u8,
        present: bit(47),
        avl: bit(52),
        l: bit(53),
        db: bit(54),
        g: bit(55),
        ..kvm_segment::default()
    }
}

/// Puts a CPU into 64-bit mode with the tables that [`prepare`] wrote. `sregs` is what KVM
/// reports after the CPU's reset.
pub fn system_registers(mut sregs: kvm_sregs) -> kvm_sregs {
    const CR0_PE_ET_NE_PG: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 31;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
    let data = segment(DATA_SELECTOR, DATA_DESCRIPTOR);
    sregs.cs = segment(CODE_SELECTOR, CODE_DESCRIPTOR);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    let limit = (size_of_val(&DESCRIPTORS) - 1) as u16;
    sregs.gdt = kvm_dtable { base: GDT, limit, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable::default();
    sregs.cr0 = CR0_PE_ET_NE_PG;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME_LMA;
    sregs
}

/// At the entry point, RSI holds the zero page's address and interrupts are off.
pub fn general_registers(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsi: ZERO_PAGE, rflags: 2, ..kvm_regs::default() }
}

#[cfg(test)]
mod tests;
