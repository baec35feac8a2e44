//! The way back: how a device interrupts the guest.
//!
//! Devices hold these traits, not KVM handles, so they are tested without /dev/kvm.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// One wire to the interrupt controllers (an ISA line, a PCI INTx pin, an IOAPIC input).
pub trait InterruptLine: Send + Sync {
    /// Level-triggered: drives the wire. Idempotent.
    fn set(&self, asserted: bool);

    /// Edge-triggered: one pulse.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// An [`InterruptLine`] that a device owns a share of.
pub type IrqLine = Arc<dyn InterruptLine>;

/// How a virtio device tells its driver that something happened; the transport decides whether
/// that is an MSI-X message, an INTx level or an edge (virtio 1.2, 4.1.4.5 and 4.2.2).
pub trait VirtioInterrupt: Send + Sync {
    /// Buffers of queue `queue` were used.
    fn used_buffers(&self, queue: u16);

    /// The device configuration changed.
    fn configuration_changed(&self);

    /// The driver did something the device cannot go on from: sets DEVICE_NEEDS_RESET and
    /// notifies the driver (virtio 1.2, 2.1.2).
    fn device_needs_reset(&self);

    /// An eventfd whose every write does what [`VirtioInterrupt::used_buffers`] does, for a host
    /// kernel that works the queue itself (vhost). None where the transport has to act in user
    /// space on every interrupt.
    fn used_buffers_event(&self, queue: u16) -> Option<EventFd> {
        let _ = queue;
        None
    }
}
