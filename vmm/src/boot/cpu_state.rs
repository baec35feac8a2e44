//! The registers of the first CPU at a kernel's entry point, and the tables that they point to.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::kernel::{Kernel, Protocol};
use super::layout::{BOOT_INFO, GDT, PML4};
use super::multiboot;
use crate::memory::GuestRam;

/// `__BOOT_CS` and `__BOOT_DS` of Linux's boot protocols; the others only want flat segments.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;

const CR0_PE: u64 = 1;
const CR0_ET_NE: u64 = 1 << 4 | 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;

/// Writes the tables that the registers for `protocol` point to.
///
/// # Errors
/// The first MiB is RAM in every valid configuration.
pub fn write_tables(ram: &GuestRam, protocol: Protocol) -> Result<(), GuestMemoryError> {
    for (address, descriptor) in (GDT..).step_by(8).zip([0, 0, code(protocol), DATA]) {
        ram.write_obj(descriptor, GuestAddress(address))?;
    }
    match protocol {
        Protocol::Linux64 => write_page_tables(ram),
        Protocol::Linux32 | Protocol::Pvh | Protocol::Multiboot => Ok(()),
    }
}

fn code(protocol: Protocol) -> u64 {
    match protocol {
        Protocol::Linux64 => CODE_64,
        Protocol::Linux32 | Protocol::Pvh | Protocol::Multiboot => CODE_32,
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

/// Puts a CPU into the mode that `protocol` wants: 64-bit, or protected without paging. `sregs` is
/// what KVM reports after the CPU's reset.
pub fn system_registers(protocol: Protocol, mut sregs: kvm_sregs) -> kvm_sregs {
    let data = segment(DATA_SELECTOR, DATA);
    sregs.cs = segment(CODE_SELECTOR, code(protocol));
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    let limit = 4 * 8 - 1;
    sregs.gdt = kvm_dtable { base: GDT, limit, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable::default();
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = match protocol {
        Protocol::Linux64 => (CR0_PE | CR0_ET_NE | CR0_PG, PML4, CR4_PAE, EFER_LME_LMA),
        Protocol::Linux32 | Protocol::Pvh | Protocol::Multiboot => (CR0_PE | CR0_ET_NE, 0, 0, 0),
    };
    sregs
}

/// Where the kernel finds what it is told: by RSI or ESI (Linux), EBX (PVH; multiboot, with its magic
/// number in EAX). Interrupts are off.
pub fn general_registers(kernel: &Kernel) -> kvm_regs {
    let base = kvm_regs { rip: kernel.entry, rflags: 2, ..kvm_regs::default() };
    match kernel.protocol {
        Protocol::Linux64 | Protocol::Linux32 => kvm_regs { rsi: BOOT_INFO, ..base },
        Protocol::Pvh => kvm_regs { rbx: BOOT_INFO, ..base },
        Protocol::Multiboot => {
            kvm_regs { rax: multiboot::BOOTLOADER_MAGIC.into(), rbx: BOOT_INFO, ..base }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn segments_follow_from_their_descriptors() {
        let code = segment(CODE_SELECTOR, CODE_64);
        let flags = (code.type_, code.s, code.present, code.l, code.db, code.g);
        assert_eq!(flags, (0xb, 1, 1, 1, 0, 1));
        let code = segment(CODE_SELECTOR, CODE_32);
        let flags = (code.type_, code.s, code.present, code.l, code.db, code.g);
        assert_eq!(flags, (0xb, 1, 1, 0, 1, 1));
        let data = segment(DATA_SELECTOR, DATA);
        let flags = (data.type_, data.s, data.present, data.l, data.db, data.g);
        assert_eq!(flags, (3, 1, 1, 0, 1, 1));
    }

    #[test]
    fn the_page_tables_map_the_first_gib_to_itself() {
        let ram = memory::allocate(16 << 20).unwrap();
        write_tables(&ram, Protocol::Linux64).unwrap();
        let walk = |address: u64| {
            let entry = |table: u64, index: u64| -> u64 {
                ram.read_obj(GuestAddress((table & !0xfff) + (index & 511) * 8)).unwrap()
            };
            let page = entry(entry(entry(PML4, address >> 39), address >> 30), address >> 21);
            (page & !0x1f_ffff) + (address & 0x1f_ffff)
        };
        for address in [0, BOOT_INFO, 0x100_0000, 0x3fff_ffff] {
            assert_eq!(walk(address), address);
        }
    }
}
