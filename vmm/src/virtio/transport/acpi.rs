//! What ACPI says of virtio devices over MMIO: `LNRO0005`, as Linux's virtio_mmio driver and QEMU's
//! microvm have agreed.

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Interrupt, Memory32Fixed, Name, Path, ResourceTemplate, Scope};

use super::mmio::{self, LENGTH};

/// `count` devices in their places, as AML.
pub fn mmio_devices(count: usize) -> Vec<u8> {
    let mut devices = Vec::new();
    for index in 0..count {
        let place = mmio::place(index);
        let hid = Name::new("_HID".into(), &"LNRO0005");
        let unique = index as u32;
        let uid = Name::new("_UID".into(), &unique);
        // The window for devices lies below 4 GiB.
        let registers = Memory32Fixed::new(true, place.address as u32, LENGTH as u32);
        // Level-triggered, active high, shared.
        let interrupt = Interrupt::new(true, false, false, true, place.gsi);
        let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
        let crs = Name::new("_CRS".into(), &resources);
        let name = Path::new(&format!("VR{index:02X}"));
        Device::new(name, vec![&hid, &uid, &crs]).to_aml_bytes(&mut devices);
    }
    Scope::raw("\\_SB_".into(), devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_its_page_and_its_interrupt() {
        let aml = mmio_devices(3);
        assert_eq!(aml.windows(8).filter(|w| w == b"LNRO0005").count(), 3);
        for index in 0..3 {
            let place = mmio::place(index);
            // Memory32Fixed (ACPI 6.5, 6.4.3.4), then an extended interrupt (6.4.3.6).
            let mut resources = vec![0x86, 9, 0, 1];
            resources.extend((place.address as u32).to_le_bytes());
            resources.extend((LENGTH as u32).to_le_bytes());
            resources.extend([0x89, 6, 0, 0b1001, 1]);
            resources.extend(place.gsi.to_le_bytes());
            assert!(aml.windows(resources.len()).any(|w| w == resources), "{index}");
        }
    }
}
