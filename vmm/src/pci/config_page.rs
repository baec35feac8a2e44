//! The memory behind a configuration space.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::config_registers::{LENGTH, register, status};

/// Bytes of a function in ECAM (PCI Express base specification, 7.2.2).
pub const PAGE: usize = 4096;

/// A function's page of ECAM: its configuration space, and all ones, for a conventional function
/// has no more. It is a page of host memory as well, so that KVM can show the guest this very one.
///
/// vCPU threads and the device's threads change it, and the guest may read it meanwhile.
pub struct ConfigPage(Box<Bytes>);

#[repr(C, align(4096))]
struct Bytes([AtomicU8; PAGE]);

impl Default for ConfigPage {
    /// A configuration space of zeros.
    fn default() -> Self {
        let byte = |at| AtomicU8::new(if at < LENGTH { 0 } else { 0xFF });
        Self(Box::new(Bytes(array::from_fn(byte))))
    }
}

impl ConfigPage {
    /// The byte at `at`, all ones beyond the page.
    pub fn load(&self, at: usize) -> u8 {
        self.0.0.get(at).map_or(0xFF, |byte| byte.load(Ordering::Relaxed))
    }

    /// Stores the byte at `at`, nothing beyond configuration space.
    pub fn store(&self, at: usize, value: u8) {
        if let Some(byte) = self.0.0[..LENGTH].get(at) {
            byte.store(value, Ordering::Relaxed);
        }
    }

    /// Where it is in this process, on a page boundary, until it is dropped.
    pub fn host_address(&self) -> u64 {
        self.0.0.as_ptr() as u64
    }
}

/// The bit of the status register that shows whether a function wants INTx asserted (PCI Local
/// Bus 3.0, 6.2.3), for whoever drives the wire.
#[derive(Clone)]
pub struct InterruptStatus(pub(super) Arc<ConfigPage>);

impl InterruptStatus {
    /// Shows it. The guest sees the wire and the bit change one after the other, as on a PC.
    pub fn set(&self, pending: bool) {
        let byte = &self.0.0.0[usize::from(register::STATUS)];
        let bit = status::INTERRUPT as u8;
        if pending {
            byte.fetch_or(bit, Ordering::Relaxed);
        } else {
            byte.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

/// Lets the guest read configuration space in ECAM where it is stored, without an exit.
pub trait DirectReads: Send {
    /// Shows `page` at `offset` into ECAM. Where that cannot be done, reads go on as before.
    fn show(&mut self, offset: u64, page: &Arc<ConfigPage>);

    /// Reads at `offset` exit again.
    fn hide(&mut self, offset: u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_ecam_has_of_a_conventional_function() {
        let page = ConfigPage::default();
        assert_eq!(page.host_address() % PAGE as u64, 0);
        page.store(LENGTH - 1, 7);
        page.store(LENGTH, 7);
        page.store(PAGE, 7);
        let read = [0, LENGTH - 1, LENGTH, PAGE - 1, PAGE].map(|at| page.load(at));
        assert_eq!(read, [0, 7, 0xFF, 0xFF, 0xFF]);
    }

    #[test]
    fn the_interrupt_bit_leaves_its_neighbours_alone() {
        let page = Arc::new(ConfigPage::default());
        let at = usize::from(register::STATUS);
        page.store(at, status::CAPABILITIES as u8);
        let interrupt = InterruptStatus(Arc::clone(&page));
        interrupt.set(true);
        assert_eq!(page.load(at), (status::CAPABILITIES | status::INTERRUPT) as u8);
        interrupt.set(false);
        assert_eq!(page.load(at), status::CAPABILITIES as u8);
    }
}
