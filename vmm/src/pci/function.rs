//! What a device shows the bus.

use std::sync::{Arc, Mutex};

use super::ConfigSpace;

/// One function of a PCI device.
///
/// All calls come from vCPU threads under the function's own lock. Where BARs lie is the bus's
/// business: a function sees offsets only, and hears of addresses in [`PciFunction::bar_mapped`]
/// where it needs them (ioeventfds).
pub trait PciFunction: Send {
    /// The device's name in statistics and errors.
    fn name(&self) -> &'static str;

    /// The function's configuration space, to read.
    fn config(&self) -> &ConfigSpace;

    /// The configuration space, to be changed.
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// The guest reads configuration space; never across a dword. Override for registers with
    /// side effects.
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    /// Whether [`PciFunction::read_config`] reads no more than [`PciFunction::config`] has, so that
    /// the guest need not come here to read. Asked again after each write.
    fn reads_as_stored(&self) -> bool {
        true
    }

    /// The guest writes configuration space; never across a dword. Override to act on registers;
    /// BARs and decoding are taken care of by the bus afterwards.
    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config_mut().write(offset, data);
    }

    /// The guest reads at `offset` into BAR `bar`. What is left untouched reads as all ones.
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        let _ = (bar, offset, data);
    }

    /// The guest writes at `offset` into BAR `bar`.
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        let _ = (bar, offset, data);
    }

    /// BAR `bar` is now decoded at `address`.
    fn bar_mapped(&mut self, bar: usize, address: u64) {
        let _ = (bar, address);
    }

    /// BAR `bar` is no longer decoded.
    fn bar_unmapped(&mut self, bar: usize) {
        let _ = bar;
    }
}

/// A function that the bus, its BARs and perhaps its makers share.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;
