//! The way back: how a device interrupts the guest.
//!
//! Devices hold these traits, not KVM handles, so they are tested without /dev/kvm.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use crate::poison::unpoisoned;

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

/// One wire with several drivers: it is up while any of them asserts it (COM1 and COM3 share an
/// interrupt).
#[derive(Clone)]
pub struct SharedWire(Arc<WiredOr>);

struct WiredOr {
    line: IrqLine,
    /// How many drivers assert it.
    asserted: Mutex<usize>,
}

impl SharedWire {
    /// Shares `line` among drivers: it is asserted while one of them asserts it.
    pub fn new(line: IrqLine) -> Self {
        Self(Arc::new(WiredOr { line, asserted: Mutex::new(0) }))
    }

    /// One more driver.
    pub fn driver(&self) -> IrqLine {
        Arc::new(WireDriver { wire: Arc::clone(&self.0), asserted: Mutex::new(false) })
    }
}

struct WireDriver {
    wire: Arc<WiredOr>,
    asserted: Mutex<bool>,
}

impl InterruptLine for WireDriver {
    fn set(&self, asserted: bool) {
        let mut before = unpoisoned(self.asserted.lock());
        if *before == asserted {
            return;
        }
        *before = asserted;
        // Under the lock, so that two drivers cannot overtake each other.
        let mut count = unpoisoned(self.wire.asserted.lock());
        if asserted {
            *count += 1;
        } else {
            *count -= 1; // this driver was counted when it asserted the wire
        }
        match (asserted, *count) {
            (true, 1) => self.wire.line.set(true),
            (false, 0) => self.wire.line.set(false),
            _ => {}
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<bool>>);

    impl InterruptLine for Log {
        fn set(&self, asserted: bool) {
            self.0.lock().unwrap().push(asserted);
        }
    }

    #[test]
    fn a_shared_wire_is_up_while_anybody_asserts_it() {
        let log = Arc::new(Log::default());
        let wire = SharedWire::new(log.clone());
        let (first, second) = (wire.driver(), wire.driver());
        first.set(true);
        first.set(true);
        second.set(true);
        first.set(false);
        first.set(false);
        assert_eq!(*log.0.lock().unwrap(), [true]);
        second.set(false);
        assert_eq!(*log.0.lock().unwrap(), [true, false]);
    }
}
