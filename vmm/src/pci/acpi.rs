//! What ACPI says of the PCI bus when there is no firmware to write it (ACPI 6.5, 6.2.13; PCI
//! Firmware specification 3.3, 4.1.2): windows, interrupts, and where ECAM is.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, Package, PackageBuilder,
    ResourceTemplate, Scope, ZERO,
};
use acpi_tables::mcfg::MCFG;

use super::bus::DEVICES;
use super::{ECAM_BASE, ECAM_SEGMENT, InterruptPin, MEMORY_WINDOW};
use crate::boot::acpi::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

const PINS: [InterruptPin; 4] =
    [InterruptPin::A, InterruptPin::B, InterruptPin::C, InterruptPin::D];

/// The legacy video memory, which a PC's bridge passes on.
pub const VIDEO_MEMORY: (u32, u32) = (0xA_0000, 0xB_FFFF);

/// The host bridge `\_SB.PCI0`, as AML. `segment` is the bus's segment group; `route` tells the global
/// system interrupt of a device's pin; `extra_window` is a further range (first and last address)
/// of memory.
pub fn host_bridge(
    segment: u16,
    route: impl Fn(u8, InterruptPin) -> u32,
    extra_window: Option<(u32, u32)>,
) -> Vec<u8> {
    let id = EISAName::new("PNP0A03");
    let hid = Name::new("_HID".into(), &id);
    let address = Name::new("_ADR".into(), &ZERO);
    let uid = Name::new("_UID".into(), &ZERO);
    let segment = Name::new("_SEG".into(), &segment);

    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let configuration = IO::new(0xCF8, 0xCF8, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, 0x0CF7, None);
    let high_ports = AddressSpace::new_io(0x0D00u16, 0xFFFF, None);
    let memory = |first, last| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
    };
    let window = memory(MEMORY_WINDOW.start as u32, (MEMORY_WINDOW.end - 1) as u32);
    let extra_window = extra_window.map(|(first, last)| memory(first, last));
    let mut resources: Vec<&dyn Aml> =
        vec![&buses, &configuration, &low_ports, &high_ports, &window];
    resources.extend(extra_window.as_ref().map(|window| window as &dyn Aml));
    let resources = ResourceTemplate::new(resources);
    let windows = Name::new("_CRS".into(), &resources);

    let table = routing_table(route);
    let routing = Name::new("_PRT".into(), &table);
    let bridge =
        Device::new("PCI0".into(), vec![&hid, &address, &uid, &segment, &windows, &routing]);
    let mut aml = Vec::new();
    Scope::new("\\_SB_".into(), vec![&bridge]).to_aml_bytes(&mut aml);
    aml
}

/// Every pin of every device but the host bridge; the interrupt is a global one, without a link
/// device.
fn routing_table(route: impl Fn(u8, InterruptPin) -> u32) -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for device in 1..DEVICES {
        for pin in PINS {
            let all_functions = u32::from(device) << 16 | 0xFFFF;
            let number = pin as u8 - 1;
            let interrupt = route(device, pin);
            table.add_element(&Package::new(vec![&all_functions, &number, &ZERO, &interrupt]));
        }
    }
    table
}

/// The MCFG table: ECAM of bus 0.
pub fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM_BASE, ECAM_SEGMENT, 0, 0);
    let mut bytes = Vec::new();
    mcfg.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_is_named_and_every_pin_is_routed() {
        let routed = std::cell::Cell::new(0);
        let route = |_, _| {
            routed.set(routed.get() + 1);
            16
        };
        let aml = host_bridge(0, route, Some(VIDEO_MEMORY));
        for name in [&b"PCI0"[..], b"_PRT", b"_CRS", b"_HID", b"_SEG"] {
            assert!(aml.windows(4).any(|w| w == name));
        }
        assert_eq!(routed.get(), 31 * 4);
    }

    #[test]
    fn mcfg_tells_where_ecam_is() {
        let table = mcfg();
        assert_eq!((&table[..4], table.len()), (&b"MCFG"[..], 60));
        assert_eq!(table[44..52], ECAM_BASE.to_le_bytes());
        assert_eq!(table[52..56], [1, 0, 0, 0]);
        assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
