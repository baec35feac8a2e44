//! The driver's side of one virtqueue, written into memory as a guest would.

use std::sync::Arc;

use isolab_vmm::irq::VirtioInterrupt;
use isolab_vmm::memory::GuestRam;
use isolab_vmm::virtio::log::DeviceLog;
use isolab_vmm::virtio::{Activation, ActiveQueue, BASE_FEATURES};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

/// Entries of the ring.
pub const SIZE: u16 = 256;
/// Free for buffers and indirect tables.
pub const BUFFERS: u64 = 0x10_0000;
const RAM: usize = 16 << 20;

const DESCRIPTORS: u64 = 0x0000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

/// Descriptor flags (virtio 1.2, 2.7.5).
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub struct Driver {
    memory: GuestRam,
    notify: EventFd,
    available: u16,
}

impl Driver {
    /// RAM with an empty ring in it.
    pub fn new() -> Self {
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).expect("there is memory");
        Self { memory, notify: EventFd::new(0).expect("there are descriptors"), available: 0 }
    }

    /// What a device is given when the driver is ready.
    pub fn activation(&self, interrupt: Arc<dyn VirtioInterrupt>) -> Activation {
        let mut queue = Queue::new(SIZE).expect("a power of two");
        let aligned = "the rings are aligned";
        queue.try_set_desc_table_address(GuestAddress(DESCRIPTORS)).expect(aligned);
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).expect(aligned);
        queue.try_set_used_ring_address(GuestAddress(USED)).expect(aligned);
        queue.set_event_idx(true);
        queue.set_ready(true);
        let notify = self.notify.try_clone().expect("there are descriptors");
        Activation {
            memory: self.memory.clone(),
            features: BASE_FEATURES,
            queues: vec![ActiveQueue { index: 0, queue, notify }],
            interrupt,
            log: Arc::new(DeviceLog::new("bench")),
        }
    }

    /// Writes descriptor `index` of the ring's table.
    pub fn describe(&self, index: u16, address: u64, length: u32, flags: u16) {
        self.describe_in(DESCRIPTORS, index, address, length, flags);
    }

    /// Writes descriptor `index` of the table at `table`; the one after it is its next.
    pub fn describe_in(&self, table: u64, index: u16, address: u64, length: u32, flags: u16) {
        let low = u128::from(address) | u128::from(length) << 64;
        let descriptor = low | u128::from(flags) << 96 | u128::from(index + 1) << 112;
        let place = GuestAddress(table + 16 * u64::from(index));
        self.write(&descriptor.to_le_bytes(), place);
    }

    /// Offers the chains that begin at `heads`, all at once. The driver wants an interrupt for the
    /// last of them (VIRTIO_F_EVENT_IDX).
    pub fn offer(&mut self, heads: impl Iterator<Item = u16>) {
        for head in heads {
            let slot = u64::from(self.available % SIZE);
            self.write(&head.to_le_bytes(), GuestAddress(AVAILABLE + 4 + 2 * slot));
            self.available = self.available.wrapping_add(1);
        }
        let used_event = GuestAddress(AVAILABLE + 4 + 2 * u64::from(SIZE));
        self.write(&self.available.wrapping_sub(1).to_le_bytes(), used_event);
        self.write(&self.available.to_le_bytes(), GuestAddress(AVAILABLE + 2));
    }

    /// Tells the device that chains were offered.
    pub fn notify(&self) {
        self.notify.write(1).expect("the counter is not full");
    }

    /// Writes to guest memory.
    pub fn write(&self, bytes: &[u8], place: GuestAddress) {
        self.memory.write_slice(bytes, place).expect("it is RAM");
    }

    /// The byte at `place`.
    pub fn byte(&self, place: u64) -> u8 {
        self.memory.read_obj(GuestAddress(place)).expect("it is RAM")
    }
}
