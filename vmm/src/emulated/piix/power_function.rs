//! Power management: PIIX4 function 3 (data sheet 290562, chapter 7). Firmware sets here where the
//! ACPI registers are. Without firmware they are at [`acpi_pm::PORT`], where the tables say.

use std::sync::{Arc, Weak};

use crate::bus::{Bus, SharedDevice};
use crate::chipset::acpi_pm;
use crate::pci::{ConfigSpace, Identity, InterruptPin, PciFunction};

/// Base address of the power management registers, in units of 64 ports, and bit 0 of PMREGMISC:
/// they are decoded.
const PM_BASE: u8 = 0x40;
const PM_ENABLE: u8 = 0x80;
/// Device activity B, highest byte. Bit 1: SMIs from the APM port are on, which tells firmware
/// that system management mode has been set up. There is none, so that it must not try.
const DEVICE_ACTIVITY_B: u8 = 0x5b;
const APMC_ENABLED: u8 = 0x02;
/// SMBus base address and host configuration; there is no SMBus.
const SMBUS_BASE: u8 = 0x90;
const SMBUS_CONFIGURATION: u8 = 0xd2;

/// The PIIX4's power management as a PCI function: it says at which ports the registers are.
pub struct PowerFunction {
    config: ConfigSpace,
    // Which this function is on, through its PCI bus.
    ports: Weak<Bus>,
    registers: SharedDevice,
    /// Where we have put the registers, beside their place in the chipset.
    mapped: Option<u64>,
}

impl PowerFunction {
    /// The function that puts the ACPI `registers` onto `ports`. As after reset they are nowhere;
    /// with `at_usual_place` it says that they are where the chipset has them.
    pub fn new(ports: &Arc<Bus>, registers: SharedDevice, at_usual_place: bool) -> Self {
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
        config.set(PM_BASE, &[0x01]);
        config.set_writable(PM_BASE, &[0xc0, 0xff]);
        config.set_writable(PM_ENABLE, &[0x01]);
        config.set(DEVICE_ACTIVITY_B, &[APMC_ENABLED]);
        config.set(SMBUS_BASE, &[0x01]);
        config.set_writable(SMBUS_BASE, &[0xf0, 0xff]);
        config.set_writable(SMBUS_CONFIGURATION, &[0x0f]);
        if at_usual_place {
            config.set(PM_BASE, &(acpi_pm::PORT | 1).to_le_bytes());
            config.set(PM_ENABLE, &[0x01]);
        }
        Self { config, ports: Arc::downgrade(ports), registers, mapped: None }
    }

    fn map(&mut self) {
        let enabled = self.config.u8_at(PM_ENABLE) & 1 != 0;
        let base = u64::from(self.config.u16_at(PM_BASE) & !0x3f);
        let elsewhere = base != 0 && base != u64::from(acpi_pm::PORT);
        let wanted = (enabled && elsewhere).then_some(base);
        if wanted == self.mapped {
            return;
        }
        let Some(ports) = self.ports.upgrade() else { return };
        if let Some(old) = self.mapped.take() {
            ports.remove(old);
        }
        if let Some(base) = wanted {
            let registers = Arc::clone(&self.registers);
            // Over another device the guest has only itself to blame.
            let result = ports.insert("acpi-pm", base, acpi_pm::PORTS, registers);
            self.mapped = result.ok().map(|()| base);
        }
    }
}

impl PciFunction for PowerFunction {
    fn name(&self) -> &'static str {
        "power"
    }

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        self.map();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::bus::BusDevice;

    struct Registers;

    impl BusDevice for Registers {
        fn read(&mut self, _offset: u64, _data: &mut [u8]) {}
        fn write(&mut self, _offset: u64, _data: &[u8]) {}
    }

    #[test]
    fn the_registers_move_to_where_firmware_wants_them() {
        let ports = Arc::new(Bus::default());
        let registers: SharedDevice = Arc::new(Mutex::new(Registers));
        ports.insert("acpi-pm", acpi_pm::PORT.into(), acpi_pm::PORTS, registers.clone()).unwrap();
        ports.insert("other", 0xd000, 0x100, registers.clone()).unwrap();
        let mut function = PowerFunction::new(&ports, registers, false);
        function.write_config(0x40, &0xb001u32.to_le_bytes());
        assert!(ports.find(0xb008).is_none(), "not decoded yet");
        function.write_config(0x80, &[1]);
        assert_eq!(ports.find(0xb008).unwrap().2, 8);
        function.write_config(0x40, &0xb101u32.to_le_bytes());
        assert!(ports.find(0xb008).is_none() && ports.find(0xb108).is_some());
        for base in [0xd001u32, 0x0001, 0x0601, 0xffc1] {
            function.write_config(0x40, &base.to_le_bytes());
            assert_eq!(ports.find(0xd008).unwrap().1, "other");
            assert!(ports.find(0x608).is_some());
        }
    }
}
