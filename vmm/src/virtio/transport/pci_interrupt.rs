//! How a virtio PCI device interrupts: MSI-X if the guest enabled it, else INTx with the ISR
//! status (virtio 1.2, 4.1.4.5 and 4.1.5).

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::handshake::Signals;
use crate::irq::{IrqLine, VirtioInterrupt};
use crate::pci::config_page::InterruptStatus;
use crate::pci::msi::MsiVector;
use crate::poison::unpoisoned;

/// No vector: no interrupt.
pub const NO_VECTOR: u16 = 0xFFFF;

/// ISR status bits.
const QUEUE: u8 = 1;
const CONFIGURATION: u8 = 2;

struct Intx {
    line: IrqLine,
    status: InterruptStatus,
    isr: u8,
    /// MSI-X is not used.
    used: bool,
    /// The command register's word.
    allowed: bool,
}

impl Intx {
    fn drive(&self) {
        let pending = self.used && self.isr != 0;
        self.status.set(pending);
        self.line.set(pending && self.allowed);
    }
}

/// Shared by the transport and the device's threads. With MSI-X, an interrupt costs two loads
/// and an eventfd write.
pub struct PciInterrupt {
    signals: Arc<Signals>,
    vectors: Vec<Arc<dyn MsiVector>>,
    msix_enabled: AtomicBool,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    intx: Mutex<Intx>,
}

impl PciInterrupt {
    pub fn new(
        signals: Arc<Signals>,
        vectors: Vec<Arc<dyn MsiVector>>,
        queues: usize,
        line: IrqLine,
        status: InterruptStatus,
    ) -> Self {
        Self {
            signals,
            vectors,
            msix_enabled: AtomicBool::new(false),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            intx: Mutex::new(Intx { line, status, isr: 0, used: true, allowed: true }),
        }
    }

    fn intx(&self) -> MutexGuard<'_, Intx> {
        unpoisoned(self.intx.lock())
    }

    /// The guest chose between MSI-X and INTx, and whether INTx may be asserted.
    pub fn set_mode(&self, msix_enabled: bool, intx_allowed: bool) {
        self.msix_enabled.store(msix_enabled, Ordering::Release);
        let mut intx = self.intx();
        (intx.used, intx.allowed) = (!msix_enabled, intx_allowed);
        intx.drive();
    }

    /// Reading the ISR status clears it and deasserts INTx.
    pub fn take_isr(&self) -> u8 {
        let mut intx = self.intx();
        let isr = std::mem::take(&mut intx.isr);
        intx.drive();
        isr
    }

    pub fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Relaxed)
    }

    pub fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.existing(vector), Ordering::Relaxed);
    }

    pub fn queue_vector(&self, queue: u16) -> u16 {
        let vector = self.queue_vectors.get(usize::from(queue));
        vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed))
    }

    pub fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(usize::from(queue)) {
            slot.store(self.existing(vector), Ordering::Relaxed);
        }
    }

    /// The driver reset the device: vectors are unmapped, nothing is pending.
    pub fn reset(&self) {
        self.config_vector.store(NO_VECTOR, Ordering::Relaxed);
        self.queue_vectors.iter().for_each(|v| v.store(NO_VECTOR, Ordering::Relaxed));
        self.take_isr();
    }

    /// Vectors that do not exist read back as none (4.1.5.1.2.1).
    fn existing(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.vectors.len() { vector } else { NO_VECTOR }
    }

    fn send(&self, isr: u8, vector: u16) {
        let msix = self.msix_enabled.load(Ordering::Acquire);
        // With MSI-X only the configuration bit is kept (4.1.4.5.1).
        if !msix || isr == CONFIGURATION {
            let mut intx = self.intx();
            intx.isr |= isr;
            intx.drive();
        }
        if msix && let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.trigger();
        }
    }
}

impl VirtioInterrupt for PciInterrupt {
    fn used_buffers(&self, queue: u16) {
        self.send(QUEUE, self.queue_vector(queue));
    }

    fn configuration_changed(&self) {
        self.signals.configuration_changed();
        self.send(CONFIGURATION, self.config_vector());
    }

    fn device_needs_reset(&self) {
        self.signals.set_needs_reset();
        self.send(CONFIGURATION, self.config_vector());
    }

    fn used_buffers_event(&self, queue: u16) -> Option<vmm_sys_util::eventfd::EventFd> {
        if !self.msix_enabled.load(Ordering::Acquire) {
            return None;
        }
        self.vectors.get(usize::from(self.queue_vector(queue)))?.event().try_clone().ok()
    }
}
