use std::sync::Mutex;

use super::*;
use crate::bus::Bus;
use crate::pci::bus::{Address, PciBus};
use crate::pci::msi::MsiMessage;
use crate::pci::testing::{FakeLine, FakeRouter};
use crate::virtio::transport::testing::{FakeDevice, FakeRegistrar, Recorder, ram};

struct Machine {
    _ports: Arc<Bus>,
    memory: Arc<Bus>,
    pci: PciBus,
    device: Arc<Mutex<VirtioPci>>,
    router: FakeRouter,
    registrar: Arc<FakeRegistrar>,
    line: Arc<FakeLine>,
    recorder: Arc<Recorder>,
}

const AT: Address = Address { device: 1, function: 0 };
const BASE: u64 = 0xC000_0000;
const QUEUE_USED: u64 = 0x30;

fn machine() -> Machine {
    let (device, recorder) = FakeDevice::new();
    let router = FakeRouter::default();
    let registrar = Arc::new(FakeRegistrar::default());
    let line = Arc::new(FakeLine::default());
    let resources = Resources {
        memory: ram(),
        msi: &router,
        notify: registrar.clone(),
        intx: line.clone(),
        gsi: 17,
    };
    let device = Arc::new(Mutex::new(VirtioPci::new(Box::new(device), resources).unwrap()));
    let memory = Arc::new(Bus::default());
    let ports = Arc::default();
    let mut pci = PciBus::new(&ports, &memory);
    pci.add(AT, device.clone()).unwrap();
    pci.assign_addresses().unwrap();
    Machine { _ports: ports, memory, pci, device, router, registrar, line, recorder }
}

impl Machine {
    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0xFF; N];
        let (device, _, offset) = self.memory.find(BASE + offset).unwrap();
        device.lock().unwrap().read(offset, &mut data);
        data
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (device, _, offset) = self.memory.find(BASE + offset).unwrap();
        device.lock().unwrap().write(offset, data);
    }

    fn config<const N: usize>(&self, register: u16) -> [u8; N] {
        let mut data = [0; N];
        self.pci.read_config(AT, register, &mut data);
        data
    }

    fn status(&self) -> u8 {
        self.read::<1>(common::STATUS)[0]
    }

    /// All that a driver does, up to DRIVER_OK.
    fn start(&self) {
        self.write(common::STATUS, &[3]);
        self.write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes());
        self.write(common::DRIVER_FEATURE, &1u32.to_le_bytes());
        self.write(common::STATUS, &[11]);
        assert_eq!(self.status(), 11);
        for queue in 0..2u16 {
            self.write(common::QUEUE_SELECT, &queue.to_le_bytes());
            assert_eq!(self.read::<2>(common::QUEUE_SIZE), [16, 0]);
            self.write(common::QUEUE_SIZE, &8u16.to_le_bytes());
            let base = 0x1000 * (u64::from(queue) + 1);
            self.write(common::QUEUE_DESCRIPTORS, &base.to_le_bytes());
            self.write(common::QUEUE_AVAILABLE, &(base as u32 + 0x400).to_le_bytes());
            self.write(common::QUEUE_AVAILABLE + 4, &0u32.to_le_bytes());
            self.write(QUEUE_USED, &(base + 0x800).to_le_bytes());
            self.write(common::QUEUE_ENABLE, &1u16.to_le_bytes());
            assert_eq!(self.read::<2>(common::QUEUE_ENABLE), [1, 0]);
        }
        self.write(common::STATUS, &[15]);
        assert_eq!(self.status(), 15);
    }

    /// MSI-X on, vector n unmasked with message data 0x40 + n.
    fn use_msix(&mut self) {
        for vector in 0..3u32 {
            let entry = layout::MSIX_TABLE + u64::from(vector) * msix::ENTRY_LENGTH;
            self.write(entry, &0xFEE0_0000u32.to_le_bytes());
            self.write(entry + 8, &(0x40 + vector).to_le_bytes());
            self.write(entry + 12, &0u32.to_le_bytes());
        }
        let control = u16::from(self.device.lock().unwrap().msix_capability) + 2;
        self.pci.write_config(AT, control, &0x8000u16.to_le_bytes());
    }
}

fn message(vector: u32) -> MsiMessage {
    MsiMessage { address: 0xFEE0_0000, data: 0x40 + vector }
}

#[test]
fn the_function_is_a_modern_virtio_device() {
    let m = machine();
    assert_eq!(m.config::<4>(0), [0xF4, 0x1A, 0x41, 0x10]);
    assert_eq!(m.config::<4>(8), [1, 0, 0, 2]);
    assert_eq!(m.config::<2>(0x3C), [17, 1]);
    // Walk the capabilities as a driver does.
    let mut found = Vec::new();
    let mut at = m.config::<1>(0x34)[0];
    while at != 0 {
        let [id, next, length, kind] = m.config::<4>(at.into());
        if id == 9 {
            let offset = u32::from_le_bytes(m.config(u16::from(at) + 8));
            found.push((kind, length, offset));
        }
        at = next;
    }
    assert_eq!(found, [(1, 16, 0), (3, 16, 0x1000), (4, 16, 0x2000), (2, 20, 0x3000), (5, 20, 0)]);
}

#[test]
fn a_driver_starts_the_device_and_its_queues_are_notified_by_ioeventfd() {
    let m = machine();
    m.write(common::DEVICE_FEATURE_SELECT, &1u32.to_le_bytes());
    assert_eq!(m.read::<4>(common::DEVICE_FEATURE), [1, 0, 0, 0]);
    assert_eq!(m.read::<2>(common::QUEUES), [2, 0]);
    assert_eq!(m.registrar.registered.lock().unwrap().len(), 0);
    m.start();
    assert_eq!(m.recorder.activated(), [(1 << 32, vec![0, 1])]);
    let at = |offset| NotifyAddress { address: BASE + layout::NOTIFY + offset, value: None };
    assert_eq!(*m.registrar.registered.lock().unwrap(), [at(0), at(4)]);
    // The slow way works as well.
    m.write(layout::NOTIFY + 4, &1u16.to_le_bytes());
    m.write(layout::NOTIFY + 400, &100u16.to_le_bytes());
    let device = m.device.lock().unwrap();
    assert_eq!(device.handshake.queues()[1].notify.read().unwrap(), 1);
    assert!(device.handshake.queues()[0].notify.read().is_err());
}

#[test]
fn ioeventfds_follow_the_bar_and_go_at_reset() {
    let mut m = machine();
    m.start();
    m.pci.write_config(AT, 0x10, &0xD000_0000u32.to_le_bytes());
    let addresses = |m: &Machine| {
        m.registrar.registered.lock().unwrap().iter().map(|r| r.address).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&m), [0xD000_3000, 0xD000_3004]);
    m.pci.write_config(AT, 4, &[0, 0]);
    assert!(addresses(&m).is_empty());
    m.pci.write_config(AT, 0x10, &(BASE as u32).to_le_bytes());
    m.pci.write_config(AT, 4, &[2, 0]);
    assert_eq!(addresses(&m).len(), 2);
    m.write(common::STATUS, &[0]);
    assert_eq!((m.status(), m.recorder.resets()), (0, 1));
    assert!(addresses(&m).is_empty());
    assert_eq!(m.read::<2>(common::QUEUE_ENABLE), [0, 0]);
}

#[test]
fn intx_is_level_triggered_and_deasserted_by_reading_the_isr() {
    let mut m = machine();
    m.start();
    let interrupt = m.recorder.interrupt();
    assert!(interrupt.used_buffers_event(0).is_none());
    interrupt.used_buffers(0);
    interrupt.used_buffers(1);
    interrupt.configuration_changed();
    assert!(m.line.is_asserted());
    assert_eq!(m.config::<2>(6)[0] & 8, 8);
    assert_eq!(m.read::<1>(layout::ISR), [3]);
    assert!(!m.line.is_asserted());
    assert_eq!(m.read::<1>(layout::ISR), [0]);
    // INTx disabled: pending, but not asserted.
    m.pci.write_config(AT, 4, &0x0402u16.to_le_bytes());
    interrupt.used_buffers(0);
    assert!(!m.line.is_asserted());
    assert_eq!(m.config::<2>(6)[0] & 8, 8);
    m.pci.write_config(AT, 4, &0x0002u16.to_le_bytes());
    assert!(m.line.is_asserted());
    m.write(common::STATUS, &[0]);
    assert!(!m.line.is_asserted());
    assert_eq!(m.config::<2>(6)[0] & 8, 0);
}

#[test]
fn each_queue_has_its_vector() {
    let mut m = machine();
    m.use_msix();
    m.write(common::CONFIG_VECTOR, &0u16.to_le_bytes());
    for queue in 0..2u16 {
        m.write(common::QUEUE_SELECT, &queue.to_le_bytes());
        assert_eq!(m.read::<2>(common::QUEUE_VECTOR), [0xFF, 0xFF]);
        m.write(common::QUEUE_VECTOR, &(queue + 1).to_le_bytes());
        assert_eq!(m.read::<2>(common::QUEUE_VECTOR), (queue + 1).to_le_bytes());
    }
    m.start();
    let interrupt = m.recorder.interrupt();
    interrupt.used_buffers(1);
    assert_eq!(m.router.delivered(2), [message(2)]);
    assert_eq!(m.read::<1>(layout::ISR), [0]);
    interrupt.configuration_changed();
    assert_eq!(m.router.delivered(0), [message(0)]);
    assert_eq!(m.read::<1>(common::GENERATION), [1]);
    assert_eq!(m.read::<1>(layout::ISR), [2]);
    assert!(m.line.levels.lock().unwrap().iter().all(|level| !level));
    // What vhost uses: the same vector, written by the kernel.
    interrupt.used_buffers_event(0).unwrap().write(1).unwrap();
    assert_eq!(m.router.delivered(1), [message(1)]);
    // A vector that does not exist reads back as none, and interrupts nobody.
    m.write(common::QUEUE_VECTOR, &3u16.to_le_bytes());
    assert_eq!(m.read::<2>(common::QUEUE_VECTOR), [0xFF, 0xFF]);
    interrupt.used_buffers(1);
    interrupt.used_buffers(99);
    // Reset unmaps.
    m.write(common::STATUS, &[0]);
    assert_eq!(m.read::<2>(common::CONFIG_VECTOR), [0xFF, 0xFF]);
}

#[test]
fn a_broken_device_tells_its_driver() {
    let m = machine();
    m.start();
    m.recorder.interrupt().device_needs_reset();
    assert_eq!(m.status(), 15 | 64);
    assert!(m.line.is_asserted());
    m.write(common::STATUS, &[0]);
    assert_eq!(m.status(), 0);
}

#[test]
fn hostile_queue_settings_need_a_reset() {
    let m = machine();
    m.write(common::STATUS, &[3]);
    m.write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes());
    m.write(common::DRIVER_FEATURE, &1u32.to_le_bytes());
    m.write(common::STATUS, &[11]);
    m.write(common::QUEUE_DESCRIPTORS, &0xFFFF_FFFF_FFFF_FFF0u64.to_le_bytes());
    m.write(common::QUEUE_ENABLE, &1u16.to_le_bytes());
    assert_eq!(m.read::<2>(common::QUEUE_ENABLE), [0, 0]);
    assert_eq!(m.status(), 11 | 64);
    m.write(common::STATUS, &[15]);
    assert!(m.recorder.activated().is_empty());
    // A queue that does not exist.
    m.write(common::QUEUE_SELECT, &7u16.to_le_bytes());
    assert_eq!(m.read::<2>(common::QUEUE_SIZE), [0, 0]);
    m.write(common::QUEUE_SIZE, &8u16.to_le_bytes());
    m.write(common::QUEUE_ENABLE, &1u16.to_le_bytes());
    assert_eq!(m.read::<8>(QUEUE_USED), [0; 8]);
}

#[test]
fn the_device_configuration_is_padded_with_zeroes() {
    let m = machine();
    assert_eq!(m.read::<8>(layout::DEVICE + 2), [3, 4, 0, 0, 0, 0, 0, 0]);
    m.write(layout::DEVICE, &[9]);
    assert_eq!(m.read::<2>(layout::DEVICE), [9, 2]);
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let mut m = machine();
    let cap = u16::from(m.device.lock().unwrap().window_capability);
    let select = |m: &mut Machine, offset: u32, length: u32| {
        m.pci.write_config(AT, cap + 8, &offset.to_le_bytes());
        m.pci.write_config(AT, cap + 12, &length.to_le_bytes());
    };
    let stored = |m: &Machine| m.device.lock().unwrap().reads_as_stored();
    assert!(stored(&m));
    select(&mut m, 0x2000, 4);
    assert!(!stored(&m));
    assert_eq!(m.config::<4>(cap + 16), [1, 2, 3, 4]);
    select(&mut m, common::STATUS as u32, 1);
    m.pci.write_config(AT, cap + 16, &[3]);
    assert_eq!(m.status(), 3);
    // Outside the BAR, unaligned, of a wrong length, or in another BAR: nothing happens.
    for (offset, length) in [(0x8000, 4), (u32::MAX, 1), (1, 4), (0x14, 3), (0x14, 0)] {
        select(&mut m, offset, length);
        m.pci.write_config(AT, cap + 16, &[0, 0, 0, 0]);
        m.config::<4>(cap + 16);
        assert!(stored(&m));
    }
    select(&mut m, common::STATUS as u32, 1);
    m.pci.write_config(AT, cap + 4, &[1]);
    m.pci.write_config(AT, cap + 16, &[0]);
    assert_eq!(m.status(), 3);
    // The rest of the capability is read-only.
    m.pci.write_config(AT, cap, &[0xFF; 4]);
    assert_eq!(m.config::<4>(cap)[2..], [20, 5]);
}

#[test]
fn accesses_of_odd_widths_do_nothing() {
    let m = machine();
    for offset in 0..layout::BAR_SIZE {
        if offset == common::STATUS {
            continue;
        }
        m.write(offset, &[0xFF]);
        m.write(offset, &[0xFF; 2]);
        m.read::<8>(offset);
    }
    m.write(common::STATUS, &[0, 0, 0, 0]);
    m.write(common::QUEUE_DESCRIPTORS + 2, &[0xFF; 4]);
    m.write(common::QUEUE_DESCRIPTORS + 4, &[0xFF; 8]);
    assert!(m.recorder.activated().is_empty());
}
