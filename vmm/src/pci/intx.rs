//! INTx: which wire a device's pin drives (PCI Local Bus 3.0, 2.2.6). Wires are level-triggered and
//! shared ([`SharedWire`](crate::irq::SharedWire)).

use super::config_space::InterruptPin;

/// The first IOAPIC input that PCI uses; below are the ISA interrupts.
pub const FIRST_GSI: u32 = 16;
/// Inputs that PCI uses: the rest of the 24.
pub const GSIS: u32 = 8;

/// The IOAPIC input that `pin` of `device` is wired to in the paravirtual machine. The DSDT's
/// _PRT must say the same.
pub const fn gsi(device: u8, pin: InterruptPin) -> u32 {
    FIRST_GSI + (device as u32 + pin as u32 - 1) % GSIS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_spread_over_the_upper_inputs() {
        assert_eq!(gsi(0, InterruptPin::A), 16);
        assert_eq!(gsi(7, InterruptPin::A), 23);
        assert_eq!(gsi(7, InterruptPin::B), 16);
        assert!((0..32).all(|d| (16..24).contains(&gsi(d, InterruptPin::D))));
    }
}
