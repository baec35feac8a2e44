//! The ACPI general-purpose event block, where SeaBIOS's own ACPI tables say that it is. No event
//! ever happens; but were nothing here, drivers would read that all of them have.

use crate::bus::BusDevice;

/// Where SeaBIOS says it is (src/fw/dev-piix.h).
pub const PORT: u64 = 0xafe0;
/// Two bytes of status, two of enable.
pub const PORTS: u64 = 4;
const ENABLE: usize = 2;

/// See the module.
#[derive(Default)]
pub struct GeneralPurposeEvents {
    enable: [u8; 2],
}

impl BusDevice for GeneralPurposeEvents {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let registers = [0, 0, self.enable[0], self.enable[1]];
        for (byte, value) in data.iter_mut().zip(registers.iter().skip(offset as usize)) {
            *byte = *value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, value) in (offset as usize..).zip(data) {
            if let Some(byte) = at.checked_sub(ENABLE).and_then(|at| self.enable.get_mut(at)) {
                *byte = *value;
            }
        }
    }
}
