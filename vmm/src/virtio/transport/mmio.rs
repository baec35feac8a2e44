//! virtio over MMIO, version 2 (virtio 1.2, 4.2): for kernels without PCI.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::TransportError;
use super::handshake::{Handshake, QueueSetup, Signals, Transition};
use super::notify::{NotifyAddress, NotifyRegistrar};
use crate::bus::BusDevice;
use crate::irq::{IrqLine, VirtioInterrupt};
use crate::memory::GuestRam;
use crate::pci::{MEMORY_WINDOW, intx};
use crate::poison::unpoisoned;
use crate::virtio::VirtioDevice;

/// Bytes a device takes on the bus.
pub const LENGTH: u64 = 0x1000;

/// Where the guest finds a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Guest-physical address of its registers.
    pub address: u64,
    /// Its IOAPIC input, which it may share.
    pub gsi: u32,
}

/// The place of the device with number `index`. What the machine's ACPI tables say of it comes
/// from here, too ([`super::acpi`]).
pub const fn place(index: usize) -> Place {
    let index = index as u64;
    Place {
        // A machine without a PCI bus has its window free.
        address: MEMORY_WINDOW.start + index * LENGTH,
        gsi: intx::FIRST_GSI + (index % intx::GSIS as u64) as u32,
    }
}

/// Register offsets (4.2.2).
mod register {
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const VENDOR_ID: u64 = 0x0C;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
    pub const QUEUE_SELECT: u64 = 0x30;
    pub const QUEUE_SIZE_MAX: u64 = 0x34;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC_LOW: u64 = 0x80;
    pub const QUEUE_DESC_HIGH: u64 = 0x84;
    pub const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub const QUEUE_DEVICE_LOW: u64 = 0xA0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0xA4;
    pub const SHM_LENGTH_LOW: u64 = 0xB0;
    pub const SHM_BASE_HIGH: u64 = 0xBC;
    pub const CONFIG_GENERATION: u64 = 0xFC;
    pub const CONFIG: u64 = 0x100;
}

/// MagicValue: "virt", little-endian (4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// Nobody's; drivers do not look.
const VENDOR: u32 = 0x1AF4;

/// What kind of input the interrupt line leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A pulse for every interrupt.
    Edge,
    /// Asserted until the driver has acknowledged everything.
    Level,
}

/// Interrupt status and line, shared with the device's threads.
struct MmioInterrupt {
    signals: Arc<Signals>,
    line: IrqLine,
    trigger: Trigger,
    status: Mutex<u32>,
    used: AtomicU32,
}

impl MmioInterrupt {
    const QUEUE: u32 = 1;
    const CONFIGURATION: u32 = 2;

    fn send(&self, bit: u32) {
        let mut status = unpoisoned(self.status.lock());
        *status |= bit;
        self.used.store(*status, Ordering::Relaxed);
        match self.trigger {
            Trigger::Edge => self.line.pulse(),
            Trigger::Level => self.line.set(true),
        }
    }

    fn acknowledge(&self, bits: u32) {
        let mut status = unpoisoned(self.status.lock());
        *status &= !bits;
        self.used.store(*status, Ordering::Relaxed);
        if *status == 0 && self.trigger == Trigger::Level {
            self.line.set(false);
        }
    }
}

impl VirtioInterrupt for MmioInterrupt {
    fn used_buffers(&self, _queue: u16) {
        self.send(Self::QUEUE);
    }

    fn configuration_changed(&self) {
        self.signals.configuration_changed();
        self.send(Self::CONFIGURATION);
    }

    fn device_needs_reset(&self) {
        self.signals.set_needs_reset();
        self.send(Self::CONFIGURATION);
    }
}

/// What a device needs of the machine.
pub struct Resources {
    /// Guest RAM, in which the rings are.
    pub memory: GuestRam,
    /// Where the device will be inserted, for the ioeventfds.
    pub address: u64,
    /// Makes the ioeventfds.
    pub notify: Arc<dyn NotifyRegistrar>,
    /// The device's own interrupt.
    pub line: IrqLine,
    /// How the guest listens to it.
    pub trigger: Trigger,
}

/// A virtio device behind a page of registers.
pub struct VirtioMmio {
    handshake: Handshake,
    interrupt: Arc<MmioInterrupt>,
    signals: Arc<Signals>,
    notify: Arc<dyn NotifyRegistrar>,
    address: u64,
    registered: Vec<u32>,
}

impl VirtioMmio {
    /// Puts `device` behind registers.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        device: Box<dyn VirtioDevice>,
        resources: Resources,
    ) -> Result<Self, TransportError> {
        let Resources { memory, address, notify, line, trigger } = resources;
        let signals = Arc::new(Signals::default());
        let interrupt = Arc::new(MmioInterrupt {
            signals: Arc::clone(&signals),
            line,
            trigger,
            status: Mutex::new(0),
            used: AtomicU32::new(0),
        });
        let handshake = Handshake::new(device, memory, interrupt.clone(), Arc::clone(&signals))?;
        Ok(Self { handshake, interrupt, signals, notify, address, registered: Vec::new() })
    }

    /// The device's name in statistics.
    pub fn name(&self) -> &'static str {
        self.handshake.device().name()
    }

    fn read_register(&self, offset: u64) -> u32 {
        let h = &self.handshake;
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => 2,
            register::DEVICE_ID => h.device().device_type(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => h.device_features(),
            register::QUEUE_SIZE_MAX => h.queue().map_or(0, |q| q.max_size).into(),
            register::QUEUE_READY => h.queue().is_some_and(|q| q.enabled).into(),
            register::INTERRUPT_STATUS => self.interrupt.used.load(Ordering::Relaxed),
            register::STATUS => h.status().into(),
            // No shared memory regions: length and base read as all ones (4.2.2.1).
            register::SHM_LENGTH_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.signals.generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let h = &mut self.handshake;
        let low = |address: &mut u64| *address = *address & !0xFFFF_FFFF | u64::from(value);
        let high = |address: &mut u64| *address = *address & 0xFFFF_FFFF | u64::from(value) << 32;
        let mut queue = |change: &dyn Fn(&mut QueueSetup)| {
            if let Some(queue) = h.queue_mut() {
                change(queue);
            }
        };
        match offset {
            register::QUEUE_SIZE => {
                // What does not fit is as wrong as 0, and refused when the queue is enabled.
                queue(&|q| q.size = u16::try_from(value).unwrap_or(0));
            }
            register::QUEUE_DESC_LOW => queue(&|q| low(&mut q.descriptors)),
            register::QUEUE_DESC_HIGH => queue(&|q| high(&mut q.descriptors)),
            register::QUEUE_DRIVER_LOW => queue(&|q| low(&mut q.available)),
            register::QUEUE_DRIVER_HIGH => queue(&|q| high(&mut q.available)),
            register::QUEUE_DEVICE_LOW => queue(&|q| low(&mut q.used)),
            register::QUEUE_DEVICE_HIGH => queue(&|q| high(&mut q.used)),
            register::DEVICE_FEATURES_SELECT => h.device_feature_select = value,
            register::DRIVER_FEATURES_SELECT => h.driver_feature_select = value,
            register::DRIVER_FEATURES => h.accept_features(value),
            register::QUEUE_SELECT => h.queue_select = u16::try_from(value).unwrap_or(u16::MAX),
            register::QUEUE_READY if value & 1 == 1 => h.enable_queue(),
            register::QUEUE_READY => h.disable_queue(),
            register::QUEUE_NOTIFY => h.notify(u16::try_from(value).unwrap_or(u16::MAX)),
            register::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            register::STATUS => self.write_status(value),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        match self.handshake.write_status(value as u8) {
            Transition::None => {}
            Transition::Activated => self.register_notifications(),
            Transition::Reset => {
                self.unregister_notifications();
                self.interrupt.acknowledge(u32::MAX);
            }
        }
    }

    fn notify_address(&self, queue: u32) -> NotifyAddress {
        NotifyAddress { address: self.address + register::QUEUE_NOTIFY, value: Some(queue) }
    }

    fn register_notifications(&mut self) {
        for (index, queue) in (0..).zip(self.handshake.queues()) {
            let address = self.notify_address(index);
            if queue.enabled && self.notify.register(&queue.notify, address).is_ok() {
                self.registered.push(index);
            }
        }
    }

    fn unregister_notifications(&mut self) {
        for index in std::mem::take(&mut self.registered) {
            let queue = &self.handshake.queues()[index as usize];
            // It was registered with these arguments, so this cannot fail in a way that matters.
            let _ = self.notify.unregister(&queue.notify, self.notify_address(index));
        }
    }
}

impl BusDevice for VirtioMmio {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= register::CONFIG {
            self.handshake.read_config(offset - register::CONFIG, data);
        } else if let (Ok(dword), 0) = (<&mut [u8; 4]>::try_from(data), offset % 4) {
            *dword = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= register::CONFIG {
            self.handshake.write_config(offset - register::CONFIG, data);
        } else if let (Ok(dword), 0) = (<[u8; 4]>::try_from(data), offset % 4) {
            self.write_register(offset, u32::from_le_bytes(dword));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::testing::FakeLine;
    use crate::virtio::transport::testing::{FakeDevice, FakeRegistrar, Recorder, ram};

    struct Machine {
        device: VirtioMmio,
        recorder: Arc<Recorder>,
        registrar: Arc<FakeRegistrar>,
        line: Arc<FakeLine>,
    }

    fn machine(trigger: Trigger) -> Machine {
        let (device, recorder) = FakeDevice::new();
        let registrar = Arc::new(FakeRegistrar::default());
        let line = Arc::new(FakeLine::default());
        let resources = Resources {
            memory: ram(),
            address: 0xD000_0000,
            notify: registrar.clone(),
            line: line.clone(),
            trigger,
        };
        let device = VirtioMmio::new(Box::new(device), resources).unwrap();
        Machine { device, recorder, registrar, line }
    }

    impl Machine {
        fn read(&mut self, offset: u64) -> u32 {
            let mut data = [0xFF; 4];
            self.device.read(offset, &mut data);
            u32::from_le_bytes(data)
        }

        fn write(&mut self, offset: u64, value: u32) {
            self.device.write(offset, &value.to_le_bytes());
        }

        fn start(&mut self) {
            self.write(register::STATUS, 3);
            self.write(register::DRIVER_FEATURES_SELECT, 1);
            self.write(register::DRIVER_FEATURES, 1);
            self.write(register::STATUS, 11);
            self.write(register::QUEUE_SELECT, 1);
            self.write(register::QUEUE_SIZE, 8);
            self.write(register::QUEUE_DESC_LOW, 0x1000);
            self.write(register::QUEUE_DRIVER_LOW, 0x1400);
            self.write(register::QUEUE_DEVICE_LOW, 0x1800);
            self.write(register::QUEUE_READY, 1);
            assert_eq!(self.read(register::QUEUE_READY), 1);
            self.write(register::STATUS, 15);
            assert_eq!(self.read(register::STATUS), 15);
        }
    }

    #[test]
    fn a_driver_finds_and_starts_the_device() {
        let mut m = machine(Trigger::Edge);
        assert_eq!(m.read(0).to_le_bytes(), *b"virt");
        assert_eq!((m.read(4), m.read(8)), (2, 1));
        assert_eq!(m.read(register::QUEUE_SIZE_MAX), 16);
        assert_eq!(m.read(register::SHM_LENGTH_LOW), u32::MAX);
        m.start();
        assert_eq!(m.recorder.activated(), [(1 << 32, vec![1])]);
        let registered = NotifyAddress { address: 0xD000_0050, value: Some(1) };
        assert_eq!(*m.registrar.registered.lock().unwrap(), [registered]);
        m.write(register::QUEUE_NOTIFY, 1);
        assert_eq!(m.device.handshake.queues()[1].notify.read().unwrap(), 1);
        m.write(register::STATUS, 0);
        assert_eq!(m.registrar.registered.lock().unwrap().len(), 0);
        assert_eq!((m.read(register::STATUS), m.recorder.resets()), (0, 1));
    }

    #[test]
    fn a_level_stays_until_everything_is_acknowledged() {
        let mut m = machine(Trigger::Level);
        m.start();
        let interrupt = m.recorder.interrupt();
        interrupt.used_buffers(1);
        interrupt.configuration_changed();
        assert_eq!(m.read(register::INTERRUPT_STATUS), 3);
        assert_eq!(m.read(register::CONFIG_GENERATION), 1);
        m.write(register::INTERRUPT_ACK, 1);
        assert!(m.line.is_asserted());
        m.write(register::INTERRUPT_ACK, 2);
        assert!(!m.line.is_asserted());
        interrupt.used_buffers(1);
        m.write(register::STATUS, 0);
        assert!(!m.line.is_asserted());
    }

    #[test]
    fn every_interrupt_is_an_edge() {
        let mut m = machine(Trigger::Edge);
        m.start();
        let interrupt = m.recorder.interrupt();
        interrupt.used_buffers(1);
        interrupt.device_needs_reset();
        assert_eq!(*m.line.levels.lock().unwrap(), [true, false, true, false]);
        assert_eq!(m.read(register::STATUS), 15 | 64);
    }

    #[test]
    fn hostile_settings_need_a_reset() {
        for (offset, value) in [
            (register::QUEUE_SIZE, 0x1_0008),
            (register::QUEUE_SIZE, 3),
            (register::QUEUE_DESC_HIGH, u32::MAX),
            (register::QUEUE_DEVICE_LOW, 0x1801),
        ] {
            let mut m = machine(Trigger::Edge);
            m.write(register::QUEUE_SIZE, 8);
            m.write(register::QUEUE_DESC_LOW, 0x1000);
            m.write(register::QUEUE_DRIVER_LOW, 0x1400);
            m.write(register::QUEUE_DEVICE_LOW, 0x1800);
            m.write(offset, value);
            m.write(register::QUEUE_READY, 1);
            assert_eq!(m.read(register::QUEUE_READY), 0);
            assert_eq!(m.read(register::STATUS), 64);
        }
        let mut m = machine(Trigger::Edge);
        m.write(register::QUEUE_SELECT, 0x1_0000);
        assert_eq!(m.read(register::QUEUE_SIZE_MAX), 0);
        m.write(register::QUEUE_NOTIFY, u32::MAX);
    }

    #[test]
    fn configuration_takes_any_width_and_registers_only_dwords() {
        let mut m = machine(Trigger::Edge);
        let mut byte = [0];
        m.device.read(0x101, &mut byte);
        assert_eq!(byte, [2]);
        m.device.write(0x101, &[7]);
        assert_eq!(m.read(0x100), 0x0403_0701);
        assert_eq!(m.read(0xFFC), 0);
        let mut short = [0xFF; 2];
        m.device.read(register::STATUS, &mut short);
        assert_eq!(short, [0xFF; 2]);
        m.device.write(register::STATUS, &[3]);
        m.device.write(register::STATUS + 1, &[3, 0, 0, 0]);
        assert_eq!(m.read(register::STATUS), 0);
    }
}
