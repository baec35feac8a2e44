//! ACPI fixed hardware (ACPI 6.5, 4.8): PM1 status, enable and control registers, and the PM
//! timer.

use std::sync::{Arc, Mutex};

use crate::bus::BusDevice;
use crate::control::{Control, EndReason};
use crate::irq::IrqLine;
use crate::poison::unpoisoned;
use crate::timeline::monotonic_nanoseconds;

/// Where the block is.
pub const PORT: u16 = 0x600;
/// How long it is.
pub const PORTS: u64 = 12;
/// PM1a event block: status, then enable, 2 bytes each.
pub const EVENT_BLOCK: u16 = PORT;
/// PM1a control block.
pub const CONTROL_BLOCK: u16 = PORT + 4;
/// PM timer.
pub const TIMER_BLOCK: u16 = PORT + 8;
/// The interrupt of all of it, level-triggered.
pub const SCI: u32 = 9;
/// The sleep type of soft-off, as the DSDT's `_S5` says.
pub const SLEEP_TYPE_S5: u8 = 5;
/// The PIIX4's sleep type of soft-off (data sheet 290562, 7.2.3), which SeaBIOS's `_S5` names.
const PIIX4_SOFT_OFF: u16 = 0;

const STATUS: u64 = 0;
const ENABLE: u64 = 2;
const CONTROL: u64 = 4;
const TIMER: u64 = 8;

/// Bit 8 of status and enable: the power button (ACPI 6.5, 4.8.3.1.1).
const POWER_BUTTON: u16 = 1 << 8;
/// The status bits that writing 1 clears; the others are not implemented.
const STATUS_BITS: u16 = POWER_BUTTON;

/// Bit 0 of control: the hardware is in ACPI mode, always.
const SCI_ENABLED: u16 = 1;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 7;
const SLEEP_ENABLE: u16 = 1 << 13;

/// ACPI 6.5, 4.8.2.1.
const TIMER_HZ: u128 = 3_579_545;

/// What there is besides status, enable and control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PmModel {
    /// Nothing. A paravirtual guest has better clocks than the PM timer, every reading of which is
    /// an exit.
    Minimal,
    /// The PM timer, and the PIIX4's own sleep type of soft-off.
    Piix4,
}

/// The registers of ACPI's fixed hardware, at [`PORT`].
pub struct AcpiPm {
    status: u16,
    enable: u16,
    sleep_type: u16,
    model: PmModel,
    sci: IrqLine,
    control: Control,
}

impl AcpiPm {
    /// The registers as after a reset; `sci` is their interrupt, and `control` ends the machine.
    pub fn new(sci: IrqLine, control: Control, model: PmModel) -> Self {
        Self { status: 0, enable: 0, sleep_type: 0, model, sci, control }
    }

    fn update_interrupt(&self) {
        self.sci.set(self.status & self.enable != 0);
    }

    fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
        self.update_interrupt();
    }

    fn register(&self, offset: u64) -> Option<u32> {
        match offset {
            STATUS => Some(self.status.into()),
            ENABLE => Some(self.enable.into()),
            CONTROL => Some((SCI_ENABLED | self.sleep_type << SLEEP_TYPE_SHIFT).into()),
            TIMER if self.model == PmModel::Piix4 => {
                let ticks = u128::from(monotonic_nanoseconds()) * TIMER_HZ / 1_000_000_000;
                Some(ticks as u32)
            }
            _ => None,
        }
    }

    fn write_control(&mut self, value: u16) {
        self.sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        let soft_off = self.sleep_type == u16::from(SLEEP_TYPE_S5)
            || self.model == PmModel::Piix4 && self.sleep_type == PIIX4_SOFT_OFF;
        if value & SLEEP_ENABLE != 0 && soft_off {
            self.control.end(Ok(EndReason::PowerOff));
        }
    }
}

impl BusDevice for AcpiPm {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let Some(value) = self.register(offset) else { return };
        let bytes = value.to_le_bytes();
        let length = data.len().min(bytes.len());
        data[..length].copy_from_slice(&bytes[..length]);
    }

    // ACPICA writes these registers with 16 bits; other widths are not needed and ignored.
    fn write(&mut self, offset: u64, data: &[u8]) {
        let &[low, high] = data else { return };
        let value = u16::from_le_bytes([low, high]);
        match offset {
            STATUS => self.status &= !(value & STATUS_BITS),
            ENABLE => self.enable = value,
            CONTROL => self.write_control(value),
            _ => {}
        }
        self.update_interrupt();
    }
}

/// The machine's power button.
#[derive(Clone)]
pub struct PowerButton(pub(super) Arc<Mutex<AcpiPm>>);

impl PowerButton {
    /// Presses and releases it. What follows is up to the guest.
    pub fn press(&self) {
        unpoisoned(self.0.lock()).press_power_button();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::irq::InterruptLine;

    #[derive(Default)]
    struct Level(AtomicBool);

    impl InterruptLine for Level {
        fn set(&self, asserted: bool) {
            self.0.store(asserted, Ordering::Relaxed);
        }
    }

    fn word(pm: &mut AcpiPm, offset: u64) -> u16 {
        let mut data = [0xff; 2];
        pm.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn the_power_button_interrupts_until_it_is_acknowledged() {
        let line = Arc::new(Level::default());
        let mut pm = AcpiPm::new(line.clone(), Control::default(), PmModel::Minimal);
        pm.press_power_button();
        assert!(!line.0.load(Ordering::Relaxed));
        pm.write(ENABLE, &POWER_BUTTON.to_le_bytes());
        assert!(line.0.load(Ordering::Relaxed));
        assert_eq!(word(&mut pm, STATUS), POWER_BUTTON);
        pm.write(STATUS, &POWER_BUTTON.to_le_bytes());
        assert!(!line.0.load(Ordering::Relaxed));
        assert_eq!(word(&mut pm, STATUS), 0);
    }

    #[test]
    fn entering_s5_powers_off_and_other_sleep_types_do_not() {
        let control = Control::default();
        let mut pm = AcpiPm::new(Arc::new(Level::default()), control.clone(), PmModel::Minimal);
        assert_eq!(word(&mut pm, CONTROL), SCI_ENABLED);
        pm.write(CONTROL, &(5u16 << 10).to_le_bytes());
        pm.write(CONTROL, &(1u16 << 10 | SLEEP_ENABLE).to_le_bytes());
        assert!(!control.has_ended());
        pm.write(CONTROL, &(5u16 << 10 | SLEEP_ENABLE).to_le_bytes());
        assert_eq!(control.wait().unwrap(), EndReason::PowerOff);
    }

    #[test]
    fn the_timer_runs_where_there_is_one() {
        let make = |devices| AcpiPm::new(Arc::new(Level::default()), Control::default(), devices);
        let mut data = [0xff; 4];
        make(PmModel::Minimal).read(TIMER, &mut data);
        assert_eq!(data, [0xff; 4]);
        let pm = make(PmModel::Piix4);
        let first = pm.register(TIMER).unwrap();
        while pm.register(TIMER) == Some(first) {}
    }
}
