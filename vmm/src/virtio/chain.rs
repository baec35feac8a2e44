//! Descriptor chains as devices want them: what to read and what to write, nothing trusted.

use crate::memory::GuestRam;
use crate::segments::{GuestSegment, length};

/// Longest chain taken, in descriptors. Indirect tables may be longer than the ring when the
/// driver chose a small ring, but none of our devices invites more than this.
pub const MAX_CHAIN_LENGTH: usize = 1024;

/// Why a chain cannot be used. What was read of it before the fault is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// It loops, leaves its table, nests indirect tables, or is longer than 2^32 bytes; where it
    /// would have ended is unknown.
    #[error("the descriptor chain has no end")]
    Endless,
    /// A device-readable descriptor follows a device-writable one (virtio 1.2, 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
}

/// One request: a descriptor chain taken apart.
///
/// Addresses are the driver's word; every access goes through [`GuestRam`], which checks them.
/// [`DeviceQueue`](super::queue::DeviceQueue) gives it and takes it back, once.
#[derive(Debug, Default)]
pub struct Chain {
    /// The head's index, to give back in the used ring.
    pub head: u16,
    /// Device-readable buffers. None is empty.
    pub readable: Vec<GuestSegment>,
    /// Device-writable buffers. None is empty.
    pub writable: Vec<GuestSegment>,
    /// What is wrong with it, if anything.
    pub fault: Option<ChainFault>,
}

impl Chain {
    /// Becomes the chain that `descriptors` is, in the allocations of the one it was.
    pub(super) fn parse(&mut self, mut descriptors: virtio_queue::DescriptorChain<&GuestRam>) {
        self.head = descriptors.head_index();
        self.readable.clear();
        self.writable.clear();
        self.fault = None;
        let mut unfinished = true;
        for descriptor in descriptors.by_ref().take(MAX_CHAIN_LENGTH) {
            unfinished = descriptor.has_next();
            if !descriptor.is_write_only() && !self.writable.is_empty() {
                self.fault = Some(ChainFault::Order);
            }
            // Nothing forbids empty buffers, and they say nothing.
            if descriptor.len() == 0 {
                continue;
            }
            let segment = GuestSegment { address: descriptor.addr(), length: descriptor.len() };
            if descriptor.is_write_only() {
                self.writable.push(segment);
            } else {
                self.readable.push(segment);
            }
        }
        if unfinished {
            self.fault = Some(ChainFault::Endless);
        }
    }

    /// Bytes the device may read.
    pub fn readable_length(&self) -> u64 {
        length(&self.readable)
    }

    /// Bytes the device may write.
    pub fn writable_length(&self) -> u64 {
        length(&self.writable)
    }

    /// How many segments it has memory for.
    pub(super) fn capacity(&self) -> usize {
        self.readable.capacity().max(self.writable.capacity())
    }
}
