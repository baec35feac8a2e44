//! A driver for tests: writes rings and descriptors into guest memory, right or wrong, and waits
//! for what the device does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::log::DeviceLog;
use super::worker::EventSources;
use super::{Activation, ActiveQueue};
use crate::irq::VirtioInterrupt;
use crate::memory::GuestRam;

/// How long a test waits before it calls a device hung. Generous: the machine may be busy.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// `VIRTQ_DESC_F_NEXT`.
pub const NEXT: u16 = VRING_DESC_F_NEXT as u16;
/// `VIRTQ_DESC_F_WRITE`.
pub const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// `VIRTQ_DESC_F_INDIRECT`.
pub const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// What a device told its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Used(u16),
    Configuration,
    NeedsReset,
}

/// A [`VirtioInterrupt`] that a test can wait on.
pub struct TestInterrupt(Sender<Signal>);

impl VirtioInterrupt for TestInterrupt {
    fn used_buffers(&self, queue: u16) {
        let _ = self.0.send(Signal::Used(queue));
    }
    fn configuration_changed(&self) {
        let _ = self.0.send(Signal::Configuration);
    }
    fn device_needs_reset(&self) {
        let _ = self.0.send(Signal::NeedsReset);
    }
}

/// The receiving end of [`TestInterrupt`].
pub struct Inbox(Receiver<Signal>);

impl Inbox {
    pub fn next(&self) -> Signal {
        self.0.recv_timeout(TIMEOUT).expect("the device said nothing")
    }

    /// What has come so far; meaningful only when the device's thread has been joined.
    pub fn drain(&self) -> Vec<Signal> {
        self.0.try_iter().collect()
    }
}

pub fn interrupt() -> (Arc<TestInterrupt>, Inbox) {
    let (sender, receiver) = channel();
    (Arc::new(TestInterrupt(sender)), Inbox(receiver))
}

/// 4 MiB of RAM in two regions with a hole, so that buffers can cross regions and miss RAM:
/// `[0, 2 MiB)` and `[2 MiB, 3 MiB)` adjoin, `[4 MiB, 5 MiB)` stands alone.
pub fn memory() -> GuestRam {
    GuestRam::from_ranges(&[
        (GuestAddress(0), 0x20_0000),
        (GuestAddress(0x20_0000), 0x10_0000),
        (GuestAddress(0x40_0000), 0x10_0000),
    ])
    .unwrap()
}

/// A buffer of a chain.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

pub fn readable(address: u64, length: u32) -> Buffer {
    Buffer { address, length, writable: false }
}

pub fn writable(address: u64, length: u32) -> Buffer {
    Buffer { address, length, writable: true }
}

/// The driver's side of one queue.
pub struct Driver {
    pub memory: GuestRam,
    pub notify: EventFd,
    base: u64,
    size: u16,
    start: u16,
    next_descriptor: u16,
    available: u16,
    used_seen: u16,
}

impl Driver {
    /// A queue of `size` (at most 256) entries whose rings take 0x4000 bytes from `base`.
    pub fn new(memory: &GuestRam, base: u64, size: u16) -> Self {
        let driver = Self {
            memory: memory.clone(),
            notify: EventFd::new(EFD_NONBLOCK).unwrap(),
            base,
            size,
            start: 0,
            next_descriptor: 0,
            available: 0,
            used_seen: 0,
        };
        memory.write_slice(&[0; 0x4000], GuestAddress(base)).unwrap();
        driver
    }

    fn available_ring(&self) -> u64 {
        self.base + 0x1000
    }

    fn used_ring(&self) -> u64 {
        self.base + 0x2000
    }

    pub fn queue(&self, index: u16, features: u64) -> ActiveQueue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.try_set_desc_table_address(GuestAddress(self.base)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(self.available_ring())).unwrap();
        queue.try_set_used_ring_address(GuestAddress(self.used_ring())).unwrap();
        queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        queue.set_next_avail(self.start);
        queue.set_next_used(self.start);
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        ActiveQueue { index, queue, notify: self.notify.try_clone().unwrap() }
    }

    /// Starts both indices at `index`, to test their wrapping. Before [`Driver::queue`].
    pub fn start_at(&mut self, index: u16) {
        self.start = index;
        self.available = index;
        self.used_seen = index;
        self.store(self.available_ring() + 2, index);
        self.store(self.used_ring() + 2, index);
    }

    fn store(&self, address: u64, value: u16) {
        self.memory
            .store(value.to_le(), GuestAddress(address), std::sync::atomic::Ordering::SeqCst)
            .unwrap();
    }

    fn load(&self, address: u64) -> u16 {
        let value: u16 =
            self.memory.load(GuestAddress(address), std::sync::atomic::Ordering::SeqCst).unwrap();
        u16::from_le(value)
    }

    pub fn write_descriptor_at(
        &self,
        table: u64,
        index: u16,
        buffer: Buffer,
        flags: u16,
        next: u16,
    ) {
        let flags = flags | if buffer.writable { WRITE } else { 0 };
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&buffer.address.to_le_bytes());
        raw[8..12].copy_from_slice(&buffer.length.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&raw, GuestAddress(table + u64::from(index) * 16)).unwrap();
    }

    pub fn write_descriptor(&self, index: u16, buffer: Buffer, flags: u16, next: u16) {
        self.write_descriptor_at(self.base, index, buffer, flags, next);
    }

    /// Writes a chain into the next descriptors of the table; returns its head.
    pub fn chain(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (number, &buffer) in buffers.iter().enumerate() {
            let next = (self.next_descriptor + 1) % self.size;
            let flags = if number + 1 < buffers.len() { NEXT } else { 0 };
            self.write_descriptor(self.next_descriptor, buffer, flags, next);
            self.next_descriptor = next;
        }
        head
    }

    /// Writes a chain into an indirect table at `table`; returns the head that refers to it.
    pub fn indirect_chain(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (number, &buffer) in buffers.iter().enumerate() {
            let number = u16::try_from(number).unwrap();
            let flags = if usize::from(number) + 1 < buffers.len() { NEXT } else { 0 };
            self.write_descriptor_at(table, number, buffer, flags, number + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let length = u32::try_from(buffers.len() * 16).unwrap();
        self.write_descriptor(head, readable(table, length), INDIRECT, 0);
        head
    }

    /// Makes a chain available, without notifying.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % self.size);
        self.store(self.available_ring() + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
        self.store(self.available_ring() + 2, self.available);
    }

    /// Claims `count` more chains than were written.
    pub fn jump(&mut self, count: u16) {
        self.available = self.available.wrapping_add(count);
        self.store(self.available_ring() + 2, self.available);
    }

    pub fn kick(&self) {
        self.notify.write(1).unwrap();
    }

    /// Offers a chain and notifies.
    pub fn send(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.chain(buffers);
        self.offer(head);
        self.kick();
        head
    }

    /// The device's used index.
    pub fn used_index(&self) -> u16 {
        self.load(self.used_ring() + 2)
    }

    /// Chains the device gave back since the last call: head and bytes written.
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let end = self.load(self.used_ring() + 2);
        let mut list = Vec::new();
        while self.used_seen != end {
            let slot = u64::from(self.used_seen % self.size);
            let mut raw = [0; 8];
            self.memory
                .read_slice(&mut raw, GuestAddress(self.used_ring() + 4 + 8 * slot))
                .unwrap();
            let (head, length) = raw.split_at(4);
            list.push((
                u32::from_le_bytes(head.try_into().unwrap()),
                u32::from_le_bytes(length.try_into().unwrap()),
            ));
            self.used_seen = self.used_seen.wrapping_add(1);
        }
        list
    }

    /// Waits until `count` chains came back, taking interrupts on the way.
    pub fn wait_used(&mut self, inbox: &Inbox, count: usize) -> Vec<(u32, u32)> {
        let mut list = self.used();
        while list.len() < count {
            let signal = inbox.next();
            assert!(matches!(signal, Signal::Used(_)), "the device said {signal:?}");
            list.extend(self.used());
        }
        list
    }

    /// Whether the device wants notifications, without EVENT_IDX.
    pub fn wants_notifications(&self) -> bool {
        self.load(self.used_ring()) & VRING_USED_F_NO_NOTIFY as u16 == 0
    }

    /// Where the device asks for the next notification (EVENT_IDX).
    pub fn avail_event(&self) -> u16 {
        self.load(self.used_ring() + 4 + 8 * u64::from(self.size))
    }

    /// Asks for an interrupt when the used index passes `index` (EVENT_IDX).
    pub fn set_used_event(&self, index: u16) {
        self.store(self.available_ring() + 4 + 2 * u64::from(self.size), index);
    }

    /// `VIRTQ_AVAIL_F_NO_INTERRUPT` and the like.
    pub fn set_available_flags(&self, flags: u16) {
        self.store(self.available_ring(), flags);
    }

    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(address)).unwrap();
    }
}

pub fn activation(
    memory: &GuestRam,
    features: u64,
    queues: Vec<ActiveQueue>,
    interrupt: Arc<TestInterrupt>,
) -> Activation {
    let log = Arc::new(DeviceLog::new("test"));
    Activation { memory: memory.clone(), features, queues, interrupt, log }
}

/// For a service without a thread: sources that say whether it is to end.
pub fn stopping_sources(stopping: bool) -> EventSources {
    EventSources::new(Arc::new(AtomicBool::new(stopping))).unwrap()
}
