//! Descriptor rings (manual 3.2.5 and 3.4): where they are, and what of them is the device's.

use vm_memory::{Bytes, GuestAddress};

use super::registers::{Store, offset};
use crate::memory::GuestRam;

/// Bytes per descriptor.
const DESCRIPTOR: u64 = 16;
/// The byte of a descriptor whose lowest bit says that the device is done with it.
const STATUS: u64 = 12;

/// Descriptor done.
pub const STATUS_DD: u8 = 1 << 0;

/// A ring as the registers described it at one moment; `head` and `tail` are within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    base: u64,
    count: u32,
    /// The next descriptor that is the device's.
    pub head: u32,
    tail: u32,
}

impl Ring {
    /// The receive ring, or `None` when the registers describe none: length zero, head or tail
    /// beyond the end.
    pub fn receive(store: &Store) -> Option<Self> {
        Self::new(store, offset::RDBAL, offset::RDLEN, offset::RDH, offset::RDT)
    }

    /// The transmit ring, likewise.
    pub fn transmit(store: &Store) -> Option<Self> {
        Self::new(store, offset::TDBAL, offset::TDLEN, offset::TDH, offset::TDT)
    }

    fn new(store: &Store, base: u32, length: u32, head: u32, tail: u32) -> Option<Self> {
        let ring = Self {
            base: u64::from(store.get(base)) | u64::from(store.get(base + 4)) << 32,
            count: store.get(length) / DESCRIPTOR as u32,
            head: store.get(head),
            tail: store.get(tail),
        };
        (ring.head < ring.count && ring.tail < ring.count).then_some(ring)
    }

    /// How many descriptors are the device's: from head up to, not including, tail.
    pub fn available(&self) -> u32 {
        (self.tail + self.count - self.head) % self.count
    }

    /// How many descriptors the ring has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Moves the head on by one.
    pub fn advance(&mut self) {
        self.head = (self.head + 1) % self.count;
    }

    fn address(&self, index: u32) -> Option<GuestAddress> {
        self.base.checked_add(u64::from(index) * DESCRIPTOR).map(GuestAddress)
    }

    /// The descriptor at the head as two little-endian halves; `None` outside of memory.
    pub fn read(&self, memory: &GuestRam) -> Option<(u64, u64)> {
        let address = self.address(self.head)?;
        let descriptor: u128 = memory.read_obj(address).ok()?;
        Some((descriptor as u64, (descriptor >> 64) as u64))
    }

    /// Writes the status byte of the descriptor at the head. It goes last: with it the descriptor
    /// is the driver's again.
    pub fn write_status(&self, memory: &GuestRam, status: u8) {
        if let Some(at) = self.address(self.head).and_then(|a| a.0.checked_add(STATUS)) {
            // A ring outside of memory has nobody waiting for it.
            let _ = memory.store(status, GuestAddress(at), std::sync::atomic::Ordering::Release);
        }
    }

    /// Writes the second half of the descriptor at the head, its status byte last.
    pub fn write_back(&self, memory: &GuestRam, half: u64) {
        let [l0, l1, c0, c1, status, errors, s0, s1] = half.to_le_bytes();
        let Some(at) = self.address(self.head).and_then(|a| a.0.checked_add(8)) else { return };
        // As in `write_status`.
        let _ = memory.write_obj([l0, l1, c0, c1], GuestAddress(at));
        let _ = memory.write_obj([errors, s0, s1], GuestAddress(at.wrapping_add(5)));
        self.write_status(memory, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rings_that_hold_their_pointers_exist() {
        let mut store = Store::new();
        assert_eq!(Ring::transmit(&store), None, "length zero");
        store.write_plain(offset::TDLEN, 128 + 100);
        store.write_plain(offset::TDH, 6);
        store.write_plain(offset::TDT, 2);
        let ring = Ring::transmit(&store).unwrap();
        assert_eq!((ring.count(), ring.available()), (8, 4));
        store.write_plain(offset::TDT, 8);
        assert_eq!(Ring::transmit(&store), None);
        store.write_plain(offset::TDT, 7);
        store.write_plain(offset::TDH, 0xffff_ffff);
        assert_eq!(Ring::transmit(&store), None);
    }

    #[test]
    fn a_ring_at_the_end_of_the_address_space_is_nowhere() {
        let mut store = Store::new();
        store.write_plain(offset::TDBAL, !0);
        store.write_plain(offset::TDBAH, !0);
        store.write_plain(offset::TDLEN, 128);
        store.write_plain(offset::TDT, 7);
        let mut ring = Ring::transmit(&store).unwrap();
        let memory = crate::emulated::testing::ram(0x1000);
        for _ in 0..8 {
            assert_eq!(ring.read(&memory), None);
            ring.write_back(&memory, u64::MAX);
            ring.advance();
        }
    }
}
