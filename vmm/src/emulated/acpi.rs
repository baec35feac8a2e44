//! What the DSDT says of the PCI bus when there is no firmware to write one (ACPI 6.5, 6.2.13):
//! where its windows are, and which interrupt each pin ends at.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, Package, PackageBuilder,
    ResourceTemplate, Scope, ZERO,
};

use super::piix::isa_bridge::USUAL_ROUTES;
use super::piix::pirq::pirq;
use crate::pci::{InterruptPin, MEMORY_WINDOW, bus::DEVICES};

/// Interrupts that PCI uses as a machine without firmware sets them up: level-triggered.
pub const LEVEL_INTERRUPTS: [u8; 2] = [10, 11];

const PINS: [InterruptPin; 4] =
    [InterruptPin::A, InterruptPin::B, InterruptPin::C, InterruptPin::D];

/// The host bridge `\_SB.PCI0`, as AML.
pub fn pci_host_bridge() -> Vec<u8> {
    let id = EISAName::new("PNP0A03");
    let hid = Name::new("_HID".into(), &id);
    let address = Name::new("_ADR".into(), &ZERO);
    let uid = Name::new("_UID".into(), &ZERO);

    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let configuration = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, 0x0cf7, None);
    let high_ports = AddressSpace::new_io(0x0d00u16, 0xffff, None);
    let (start, end) = (MEMORY_WINDOW.start as u32, (MEMORY_WINDOW.end - 1) as u32);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let video = AddressSpace::new_memory(uncached, true, 0xa_0000u32, 0xb_ffff, None);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let memory = AddressSpace::new_memory(uncached, true, start, end, None);
    let resources = ResourceTemplate::new(vec![
        &buses,
        &configuration,
        &low_ports,
        &high_ports,
        &video,
        &memory,
    ]);
    let windows = Name::new("_CRS".into(), &resources);

    let table = routing_table();
    let routing = Name::new("_PRT".into(), &table);
    let bridge = Device::new("PCI0".into(), vec![&hid, &address, &uid, &windows, &routing]);
    let mut aml = Vec::new();
    Scope::new("\\_SB_".into(), vec![&bridge]).to_aml_bytes(&mut aml);
    aml
}

/// Every pin of every device; the interrupt is a global one, without a link device.
fn routing_table() -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for device in 1..DEVICES {
        for pin in PINS {
            let all_functions = u32::from(device) << 16 | 0xffff;
            let number = pin as u8 - 1;
            let interrupt = USUAL_ROUTES[pirq(device, pin)];
            table.add_element(&Package::new(vec![&all_functions, &number, &ZERO, &interrupt]));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_is_named_and_its_interrupts_are_the_level_triggered_ones() {
        let aml = pci_host_bridge();
        for name in [&b"PCI0"[..], b"_PRT", b"_CRS", b"_HID"] {
            assert!(aml.windows(4).any(|w| w == name));
        }
        assert!(USUAL_ROUTES.iter().all(|irq| LEVEL_INTERRUPTS.contains(irq)));
    }
}
