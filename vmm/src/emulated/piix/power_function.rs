//! Power management: PIIX4 function 3 (data sheet 290562, chapter 7). Firmware reads and sets
//! here where the ACPI registers are; ours are at [`acpi_pm::PORT`] and stay there, which is where
//! SeaBIOS puts them.

use crate::chipset::acpi_pm;
use crate::pci::{ConfigSpace, Identity, InterruptPin, PciFunction};

/// Base address of the power management registers, and bit 0 of PMREGMISC: they are decoded.
const PM_BASE: u8 = 0x40;
const PM_ENABLE: u8 = 0x80;
/// Device activity B, highest byte. Bit 1: SMIs from the APM port are on, which tells firmware
/// that system management mode has been set up. There is none, so that it must not try.
const DEVICE_ACTIVITY_B: u8 = 0x5b;
const APMC_ENABLED: u8 = 0x02;
/// SMBus base address and host configuration; there is no SMBus.
const SMBUS_BASE: u8 = 0x90;
const SMBUS_CONFIGURATION: u8 = 0xd2;

/// The function.
pub struct PowerFunction(ConfigSpace);

impl Default for PowerFunction {
    fn default() -> Self {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x7113,
            revision: 3,
            class: 0x06,
            subclass: 0x80,
            ..Identity::default()
        });
        config.set(0x06, &[0x80, 0x02]);
        config.set_interrupt(InterruptPin::A, acpi_pm::SCI as u8);
        config.set(PM_BASE, &(acpi_pm::PORT | 1).to_le_bytes());
        config.set_writable(PM_BASE, &[0xc0, 0xff]);
        config.set(PM_ENABLE, &[0x01]);
        config.set_writable(PM_ENABLE, &[0x01]);
        config.set(DEVICE_ACTIVITY_B, &[APMC_ENABLED]);
        config.set(SMBUS_BASE, &[0x01]);
        config.set_writable(SMBUS_BASE, &[0xf0, 0xff]);
        config.set_writable(SMBUS_CONFIGURATION, &[0x0f]);
        Self(config)
    }
}

impl PciFunction for PowerFunction {
    fn name(&self) -> &'static str {
        "power"
    }

    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.0
    }
}
