//! Reset control register at port 0xCF9, as in Intel's PIIX3 (datasheet 290550, 2.4.3). The ACPI
//! FADT names it as the reset register.

use crate::bus::BusDevice;
use crate::control::{Control, EndReason};

/// I/O port of the register.
pub const PORT: u16 = 0xcf9;
/// What resets the machine: a hard reset (bit 1), triggered (bit 2).
pub const HARD_RESET: u8 = 0x06;

/// Reset CPU: the 0 to 1 transition triggers.
const TRIGGER: u8 = 0x04;

/// The register at [`PORT`].
pub struct ResetControl {
    register: u8,
    control: Control,
}

impl ResetControl {
    /// A register that resets the machine of `control`.
    pub fn new(control: Control) -> Self {
        Self { register: 0, control }
    }
}

impl BusDevice for ResetControl {
    // A wider access to 0xCF8 is PCI's configuration mechanism #1 and does not arrive here.
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [value] = data {
            *value = self.register;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let &[value] = data else { return };
        if value & TRIGGER != 0 && self.register & TRIGGER == 0 {
            self.control.end(Ok(EndReason::Reset));
        }
        self.register = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_trigger_resets() {
        let control = Control::default();
        let mut reset = ResetControl::new(control.clone());
        reset.write(0, &[0x02]);
        assert!(!control.has_ended());
        let mut value = [0];
        reset.read(0, &mut value);
        assert_eq!(value, [2]);
        reset.write(0, &[HARD_RESET]);
        assert_eq!(control.wait().unwrap(), EndReason::Reset);
    }
}
