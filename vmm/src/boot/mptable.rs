//! Intel MultiProcessor Specification 1.4: how kernels without ACPI find CPUs and the IOAPIC.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{IO_APIC, LOCAL_APIC, MP_TABLE};
use crate::memory::GuestRam;

const REVISION_1_4: u8 = 4;
/// What the in-kernel local APIC and IOAPIC call themselves.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
const ISA_BUS: u8 = 0;
const ISA_INTERRUPTS: u8 = 16;
const INTERRUPT: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;

/// Writes the floating pointer and the configuration table.
///
/// # Errors
/// The place is RAM in every valid configuration, so none is expected.
pub fn write(ram: &GuestRam, cpus: u32) -> Result<(), GuestMemoryError> {
    ram.write_slice(&build(cpus), GuestAddress(MP_TABLE))
}

fn build(cpus: u32) -> Vec<u8> {
    let mut entries = Vec::new();
    for cpu in 0..cpus as u8 {
        const ENABLED: u8 = 1;
        const BOOT_CPU: u8 = 2;
        let flags = if cpu == 0 { ENABLED | BOOT_CPU } else { ENABLED };
        entries.push(vec![0, cpu, LOCAL_APIC_VERSION, flags]);
        if let Some(entry) = entries.last_mut() {
            entry.extend([0; 16]); // Signature, feature flags (the guest has CPUID), reserved.
        }
    }
    // An id that no local APIC has.
    let io_apic = cpus as u8;
    entries.push([&[1, ISA_BUS][..], b"ISA   "].concat());
    entries.push([&[2, io_apic, IO_APIC_VERSION, 1][..], &IO_APIC.to_le_bytes()].concat());
    for irq in 0..ISA_INTERRUPTS {
        entries.push(vec![3, INTERRUPT, 0, 0, ISA_BUS, irq, io_apic, irq]);
    }
    entries.push(vec![4, EXTERNAL, 0, 0, ISA_BUS, 0, 0, 0]);
    entries.push(vec![4, NMI, 0, 0, ISA_BUS, 0, 0xff, 1]);

    let pointer_length = 16;
    let table = MP_TABLE as u32 + pointer_length;
    let count = entries.len() as u16;
    let entries = entries.concat();
    let length = 44 + entries.len() as u16;

    let mut pointer = b"_MP_".to_vec();
    pointer.extend(table.to_le_bytes());
    pointer.extend([1, REVISION_1_4, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut pointer, 10);

    let mut header = b"PCMP".to_vec();
    header.extend(length.to_le_bytes());
    header.extend([REVISION_1_4, 0]);
    header.extend(b"ISOLAB  VM          ");
    header.extend([0; 6]); // No OEM table.
    header.extend(count.to_le_bytes());
    header.extend(LOCAL_APIC.to_le_bytes());
    header.extend([0; 4]); // No extended table.
    header.extend(entries);
    set_checksum(&mut header, 7);
    [pointer, header].concat()
}

fn set_checksum(table: &mut [u8], at: usize) {
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[at] = sum.wrapping_neg();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_structures_are_well_formed() {
        let image = build(3);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let (pointer, table) = image.split_at(16);
        assert_eq!((&pointer[..4], sum(pointer)), (&b"_MP_"[..], 0));
        assert_eq!(pointer[4..8], (MP_TABLE as u32 + 16).to_le_bytes());
        assert_eq!((&table[..4], sum(table)), (&b"PCMP"[..], 0));
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());

        let mut rest = &table[44..];
        let mut count = 0;
        while let Some(&kind) = rest.first() {
            rest = &rest[if kind == 0 { 20 } else { 8 }..];
            count += 1;
        }
        assert_eq!(count, u16::from_le_bytes([table[34], table[35]]));
        assert_eq!(count, 3 + 1 + 1 + 16 + 2);
    }
}
