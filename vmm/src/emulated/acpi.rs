//! What the DSDT says of the PCI bus when there is no firmware to write one.

use super::piix::isa_bridge::USUAL_ROUTES;
use super::piix::pirq::pirq;
use crate::pci::acpi::{VIDEO_MEMORY, host_bridge};

/// Interrupts that PCI uses as a machine without firmware sets them up: level-triggered.
pub const LEVEL_INTERRUPTS: [u8; 2] = [10, 11];

/// The host bridge `\_SB.PCI0`, as AML, with the PIIX3's interrupts.
pub fn pci_host_bridge() -> Vec<u8> {
    host_bridge(0, |device, pin| USUAL_ROUTES[pirq(device, pin)].into(), Some(VIDEO_MEMORY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interrupts_are_the_level_triggered_ones() {
        assert!(!pci_host_bridge().is_empty());
        assert!(USUAL_ROUTES.iter().all(|irq| LEVEL_INTERRUPTS.contains(irq)));
    }
}
