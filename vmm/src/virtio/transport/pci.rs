//! virtio over PCI, modern only (virtio 1.2, 4.1).

use std::sync::Arc;

use super::TransportError;
use super::handshake::{Handshake, Signals, Transition};
use super::notify::{NotifyAddress, NotifyRegistrar};
use super::pci_capabilities::{self as layout, window};
use super::pci_interrupt::PciInterrupt;
use crate::irq::IrqLine;
use crate::memory::GuestRam;
use crate::pci::config_space::{ConfigSpace, Identity, InterruptPin};
use crate::pci::function::PciFunction;
use crate::pci::msi::MsiRouter;
use crate::pci::msix::{self, Msix};
use crate::virtio::VirtioDevice;

/// Red Hat's vendor id, which virtio uses.
const VENDOR: u16 = 0x1AF4;
/// Device ids are this plus the device type (4.1.2).
const FIRST_DEVICE: u16 = 0x1040;

/// Offsets in `struct virtio_pci_common_cfg` (4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0C;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const QUEUES: u64 = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1A;
    pub const QUEUE_ENABLE: u64 = 0x1C;
    pub const QUEUE_NOTIFY: u64 = 0x1E;
    pub const QUEUE_DESCRIPTORS: u64 = 0x20;
    pub const QUEUE_AVAILABLE: u64 = 0x28;
    // queue_used at 0x30 is what is left of the range.
    pub const END: u64 = 0x38;
}

/// What a device needs of the machine.
pub struct Resources<'a> {
    /// Guest RAM, in which the rings are.
    pub memory: GuestRam,
    /// Makes the MSI-X vectors.
    pub msi: &'a dyn MsiRouter,
    /// Makes the ioeventfds.
    pub notify: Arc<dyn NotifyRegistrar>,
    /// For guests that do not use MSI-X; not driven by anything else
    /// ([`SharedWire`](crate::irq::SharedWire)).
    pub intx: IrqLine,
    /// The IOAPIC input behind `intx`, for the interrupt line register.
    pub gsi: u32,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    config: ConfigSpace,
    handshake: Handshake,
    msix: Msix,
    msix_capability: u8,
    window_capability: u8,
    interrupt: Arc<PciInterrupt>,
    signals: Arc<Signals>,
    notify: Arc<dyn NotifyRegistrar>,
    bar_address: Option<u64>,
    /// Queues whose ioeventfd is registered, and where.
    registered: Vec<(usize, NotifyAddress)>,
}

impl VirtioPci {
    /// Puts `device` behind a PCI function: one vector for the configuration and one per queue.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        device: Box<dyn VirtioDevice>,
        resources: Resources<'_>,
    ) -> Result<Self, TransportError> {
        let queues = device.queue_sizes().len();
        let name = device.name();
        let device_type = device.device_type() as u16;
        let Resources { memory, msi, notify, intx, gsi } = resources;

        let vectors = queues.min(super::handshake::MAX_QUEUES) as u16 + 1;
        let msix = Msix::new(msi, vectors).map_err(|source| TransportError::Host {
            device: name,
            what: "its MSI-X vectors",
            source,
        })?;
        let (class, subclass) = class(device_type);
        let id = FIRST_DEVICE + device_type;
        let mut config = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: id,
            revision: 1,
            class,
            subclass,
            interface: 0,
            subsystem_vendor: VENDOR,
            subsystem: id,
        });
        config.set_interrupt(InterruptPin::A, gsi as u8);
        let offsets = layout::add(&mut config, &msix)?;
        let signals = Arc::new(Signals::default());
        let interrupt = Arc::new(PciInterrupt::new(
            Arc::clone(&signals),
            msix.vectors(),
            queues,
            intx,
            config.interrupt_status(),
        ));
        let handshake = Handshake::new(device, memory, interrupt.clone(), Arc::clone(&signals))?;
        Ok(Self {
            config,
            handshake,
            msix,
            msix_capability: offsets.msix,
            window_capability: offsets.window,
            interrupt,
            signals,
            notify,
            bar_address: None,
            registered: Vec::new(),
        })
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        let h = &self.handshake;
        let queue = h.queue();
        let value: u64 = match offset {
            common::DEVICE_FEATURE_SELECT => h.device_feature_select.into(),
            common::DEVICE_FEATURE => h.device_features().into(),
            common::DRIVER_FEATURE_SELECT => h.driver_feature_select.into(),
            common::DRIVER_FEATURE => h.driver_features().into(),
            common::CONFIG_VECTOR => self.interrupt.config_vector().into(),
            common::QUEUES => h.queues().len() as u64,
            common::STATUS => h.status().into(),
            common::GENERATION => (self.signals.generation() & 0xFF).into(),
            common::QUEUE_SELECT => h.queue_select.into(),
            // A queue that does not exist has size 0 (4.1.4.3.1).
            common::QUEUE_SIZE => queue.map_or(0, |q| q.size).into(),
            common::QUEUE_VECTOR => self.interrupt.queue_vector(h.queue_select).into(),
            common::QUEUE_ENABLE => queue.is_some_and(|q| q.enabled).into(),
            common::QUEUE_NOTIFY => h.queue_select.into(),
            common::QUEUE_DESCRIPTORS..common::END => {
                let address = queue.map_or(0, |q| match offset & !7 {
                    common::QUEUE_DESCRIPTORS => q.descriptors,
                    common::QUEUE_AVAILABLE => q.available,
                    _ => q.used,
                });
                // Halves may be read on their own.
                address >> (8 * (offset & 7))
            }
            // queue_notify_data and queue_reset: features that are not offered.
            _ => 0,
        };
        for (byte, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = from;
        }
    }

    fn write_common(&mut self, offset: u64, data: &[u8]) {
        let h = &mut self.handshake;
        let Some(value) = integer(data) else { return };
        match (offset, data.len()) {
            (common::DEVICE_FEATURE_SELECT, 4) => h.device_feature_select = value as u32,
            (common::DRIVER_FEATURE_SELECT, 4) => h.driver_feature_select = value as u32,
            (common::DRIVER_FEATURE, 4) => h.accept_features(value as u32),
            (common::CONFIG_VECTOR, 2) => self.interrupt.set_config_vector(value as u16),
            (common::STATUS, 1) => self.write_status(value as u8),
            (common::QUEUE_SELECT, 2) => h.queue_select = value as u16,
            (common::QUEUE_SIZE, 2) => {
                if let Some(queue) = h.queue_mut() {
                    queue.size = value as u16;
                }
            }
            (common::QUEUE_VECTOR, 2) => {
                self.interrupt.set_queue_vector(h.queue_select, value as u16);
            }
            (common::QUEUE_ENABLE, 2) if value == 1 => h.enable_queue(),
            (common::QUEUE_DESCRIPTORS..common::END, 4 | 8) => {
                let Some(queue) = h.queue_mut() else { return };
                let address = match offset & !7 {
                    common::QUEUE_DESCRIPTORS => &mut queue.descriptors,
                    common::QUEUE_AVAILABLE => &mut queue.available,
                    _ => &mut queue.used,
                };
                match (offset & 7, data.len()) {
                    (0, 8) => *address = value,
                    (0, _) => *address = *address & !0xFFFF_FFFF | value,
                    (4, 4) => *address = *address & 0xFFFF_FFFF | value << 32,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn write_status(&mut self, value: u8) {
        match self.handshake.write_status(value) {
            Transition::None => {}
            Transition::Activated => self.register_notifications(),
            Transition::Reset => {
                self.unregister_notifications();
                self.interrupt.reset();
            }
        }
    }

    /// Registers the ioeventfds of the enabled queues, as soon as both the device works and the
    /// BAR has an address: not earlier, because each registration stops all vCPUs for a moment.
    fn register_notifications(&mut self) {
        let Some(base) = self.bar_address.filter(|_| self.handshake.is_active()) else { return };
        for (index, queue) in self.handshake.queues().iter().enumerate() {
            let offset = index as u64 * u64::from(layout::NOTIFY_MULTIPLIER);
            let address = NotifyAddress { address: base + layout::NOTIFY + offset, value: None };
            if queue.enabled && self.notify.register(&queue.notify, address).is_ok() {
                self.registered.push((index, address));
            }
        }
    }

    fn unregister_notifications(&mut self) {
        for (index, address) in std::mem::take(&mut self.registered) {
            // It was registered with these arguments, so this cannot fail in a way that matters.
            let _ = self.notify.unregister(&self.handshake.queues()[index].notify, address);
        }
    }

    /// The BAR range that the driver selected in the window capability (4.1.4.9), if allowed.
    fn window(&self) -> Option<(u64, usize)> {
        let at = self.window_capability;
        let bar = self.config.u8_at(at + window::BAR);
        let offset = u64::from(self.config.u32_at(at + window::OFFSET));
        let length = self.config.u32_at(at + window::LENGTH);
        let allowed = usize::from(bar) == layout::BAR
            && matches!(length, 1 | 2 | 4)
            && offset & u64::from(length - 1) == 0
            && offset < layout::BAR_SIZE;
        allowed.then_some((offset, length as usize))
    }

    fn is_window_data(&self, offset: u16) -> bool {
        let data = u16::from(self.window_capability + window::DATA);
        (data..data + 4).contains(&offset)
    }
}

impl PciFunction for VirtioPci {
    fn name(&self) -> &'static str {
        self.handshake.device().name()
    }

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if self.is_window_data(offset)
            && let Some((at, length)) = self.window()
        {
            let mut value = [0; 4];
            self.read_bar(layout::BAR, at, &mut value[..length]);
            self.config.set(self.window_capability + window::DATA, &value);
        }
        self.config.read(offset, data);
    }

    fn reads_as_stored(&self) -> bool {
        // What is in the window changes by itself.
        self.window().is_none()
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        if self.is_window_data(offset)
            && let Some((at, length)) = self.window()
        {
            let value = self.config.u32_at(self.window_capability + window::DATA).to_le_bytes();
            self.write_bar(layout::BAR, at, &value[..length]);
        }
        self.msix.set_control(self.config.u16_at(self.msix_capability + msix::CONTROL_OFFSET));
        self.interrupt.set_mode(self.msix.is_enabled(), !self.config.is_intx_disabled());
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match (offset / layout::PART * layout::PART, offset % layout::PART) {
            (layout::COMMON, at) => self.read_common(at, data),
            (layout::ISR, 0) => data[0] = self.interrupt.take_isr(),
            (layout::DEVICE, at) => self.handshake.read_config(at, data),
            (layout::MSIX_TABLE, at) => self.msix.read_table(at, data),
            (layout::MSIX_PENDING, at) => self.msix.read_pending(at, data),
            _ => {}
        }
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        match (offset / layout::PART * layout::PART, offset % layout::PART) {
            (layout::COMMON, at) => self.write_common(at, data),
            (layout::DEVICE, at) => self.handshake.write_config(at, data),
            (layout::NOTIFY, at) => {
                self.handshake.notify((at / u64::from(layout::NOTIFY_MULTIPLIER)) as u16);
            }
            (layout::MSIX_TABLE, at) => self.msix.write_table(at, data),
            _ => {}
        }
    }

    fn bar_mapped(&mut self, _bar: usize, address: u64) {
        self.bar_address = Some(address);
        self.register_notifications();
    }

    fn bar_unmapped(&mut self, _bar: usize) {
        self.unregister_notifications();
        self.bar_address = None;
    }
}

/// A little-endian integer of 1, 2, 4 or 8 bytes.
fn integer(data: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..data.len())?.copy_from_slice(data);
    Some(u64::from_le_bytes(bytes))
}

/// PCI class codes of the virtio devices that have an obvious one.
fn class(device_type: u16) -> (u8, u8) {
    match device_type {
        1 => (0x02, 0x00), // Network controller, Ethernet.
        2 => (0x01, 0x80), // Mass storage, other.
        3 => (0x07, 0x80), // Communication, other.
        _ => (0xFF, 0x00), // Unassigned.
    }
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;
