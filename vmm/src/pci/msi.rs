//! Message-signalled interrupts: who delivers them. Devices see traits, so they are tested
//! without /dev/kvm; [`super::kvm_msi`] delivers through KVM.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// The memory write that is the interrupt (PCI Local Bus 3.0, 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where to; the local APICs on x86.
    pub address: u64,
    /// The value written there.
    pub data: u32,
}

/// Makes interrupt vectors.
pub trait MsiRouter: Send + Sync {
    /// A new vector, not connected.
    ///
    /// # Errors
    /// The host is out of file descriptors or interrupt numbers.
    fn allocate(&self) -> io::Result<Arc<dyn MsiVector>>;
}

/// One interrupt that a device can send: an eventfd which, while connected, turns every write
/// into a message. What is written while it is not connected stays in the eventfd, so the eventfd
/// is the pending bit, and masking needs no lock on the way of an interrupt.
pub trait MsiVector: Send + Sync {
    /// With a message: delivers from now on, and delivers now if it was pending. With none
    /// (masked): does not deliver.
    ///
    /// # Errors
    /// The hypervisor refuses the message; the vector is then not connected.
    fn connect(&self, message: Option<MsiMessage>) -> io::Result<()>;

    /// The eventfd, to be written by whoever has the interrupt: the device or the host kernel
    /// (vhost).
    fn event(&self) -> &EventFd;

    /// Interrupts the guest, or becomes pending.
    fn trigger(&self) {
        // Fails only when the counter is full: then it is pending already.
        let _ = self.event().write(1);
    }
}
