//! How a port or memory access of the guest reaches a device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use crate::poison::unpoisoned;

/// A device behind a range of I/O ports or of guest-physical addresses.
///
/// Offsets are relative to the start of the range the device was inserted at, so a device never
/// knows, and cannot get wrong, where it sits. Accesses are 1, 2, 4 or 8 bytes, little-endian.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes at `offset`. What is left untouched reads as all ones.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);

    /// `rep ins`: `data` holds consecutive accesses of `width` bytes to one port.
    ///
    /// Worth overriding where a block of data moves through a single port (the IDE data register).
    fn read_repeated(&mut self, offset: u64, width: usize, data: &mut [u8]) {
        for access in data.chunks_mut(width) {
            self.read(offset, access);
        }
    }

    /// `rep outs`: `data` holds consecutive accesses of `width` bytes to one port.
    fn write_repeated(&mut self, offset: u64, width: usize, data: &[u8]) {
        for access in data.chunks(width) {
            self.write(offset, access);
        }
    }
}

/// A device that a bus and its own threads share.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// A range that cannot be put on the bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The range is empty or runs past the end of the address space.
    #[error("cannot place `{name}` at {base:#x}: a length of {length:#x} is empty or wraps around")]
    BadRange {
        /// The device's name in statistics.
        name: &'static str,
        /// First address of the range that was asked for.
        base: u64,
        /// Length of that range: ports, or bytes.
        length: u64,
    },
    /// Another device is there already.
    #[error("cannot place `{name}` at {base:#x}+{length:#x}: `{other}` is there already")]
    Overlap {
        /// The device's name in statistics.
        name: &'static str,
        /// First address of the range that was asked for.
        base: u64,
        /// Length of that range: ports, or bytes.
        length: u64,
        /// The device that was there first.
        other: &'static str,
    },
}

struct Slot {
    length: u64,
    name: &'static str,
    device: SharedDevice,
}

/// One address space: the I/O ports, or the guest-physical addresses that are not RAM.
///
/// Ranges come and go while the machine runs (PCI BARs are programmed by the guest), hence the
/// reader-writer lock; it is held for the look-up only, never while a device works.
#[derive(Default)]
pub struct Bus {
    slots: RwLock<BTreeMap<u64, Slot>>,
}

impl Bus {
    /// Puts `device` at `base..base + length`.
    ///
    /// # Errors
    /// [`BusError`] when the range is unusable or taken.
    pub fn insert(
        &self,
        name: &'static str,
        base: u64,
        length: u64,
        device: SharedDevice,
    ) -> Result<(), BusError> {
        let bad = BusError::BadRange { name, base, length };
        let Some(last) = length.checked_sub(1).and_then(|l| base.checked_add(l)) else {
            return Err(bad);
        };
        let mut slots = unpoisoned(self.slots.write());
        // The slot that starts last among those starting at or before our end is the only one
        // that can reach into our range without starting in it.
        if let Some((&start, slot)) = slots.range(..=last).next_back()
            && start + (slot.length - 1) >= base
        {
            let other = slot.name;
            return Err(BusError::Overlap { name, base, length, other });
        }
        slots.insert(base, Slot { length, name, device });
        Ok(())
    }

    /// Takes away the device that starts at `base`, and tells whether there was one.
    pub fn remove(&self, base: u64) -> bool {
        let mut slots = unpoisoned(self.slots.write());
        slots.remove(&base).is_some()
    }

    /// The device at `address`, its name and the offset into its range.
    pub fn find(&self, address: u64) -> Option<(SharedDevice, &'static str, u64)> {
        let slots = unpoisoned(self.slots.read());
        let (&base, slot) = slots.range(..=address).next_back()?;
        let offset = address - base;
        (offset < slot.length).then(|| (Arc::clone(&slot.device), slot.name, offset))
    }
}

/// Where a guest's accesses go.
#[derive(Clone, Default)]
pub struct Buses {
    /// The I/O port space, 64 Ki ports.
    pub ports: Arc<Bus>,
    /// Guest-physical addresses that are not RAM.
    pub mmio: Arc<Bus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<(u64, Vec<u8>)>);

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0.push((offset, data.to_vec()));
        }
    }

    fn echo() -> Arc<Mutex<Echo>> {
        Arc::new(Mutex::new(Echo(Vec::new())))
    }

    #[test]
    fn a_device_sees_offsets_into_its_own_range() {
        let bus = Bus::default();
        bus.insert("a", 0x3f8, 8, echo()).unwrap();
        bus.insert("b", 0x400, 1, echo()).unwrap();
        let (device, name, offset) = bus.find(0x3fd).unwrap();
        assert_eq!((name, offset), ("a", 5));
        let mut data = [0; 2];
        device.lock().unwrap().read(offset, &mut data);
        assert_eq!(data, [5, 5]);
        assert!(bus.find(0x3f7).is_none());
        assert!(bus.find(0x401).is_none());
    }

    #[test]
    fn overlapping_and_wrapping_ranges_are_refused() {
        let bus = Bus::default();
        bus.insert("a", 0x100, 0x10, echo()).unwrap();
        for (base, length) in [(0x100, 1), (0x0, 0x101), (0x10f, 2), (0xf0, 0x100)] {
            assert!(matches!(
                bus.insert("b", base, length, echo()),
                Err(BusError::Overlap { other: "a", .. })
            ));
        }
        for (base, length) in [(0x200, 0), (u64::MAX, 2)] {
            assert!(matches!(
                bus.insert("b", base, length, echo()),
                Err(BusError::BadRange { .. })
            ));
        }
        bus.insert("b", 0x110, 1, echo()).unwrap();
        bus.insert("top", u64::MAX, 1, echo()).unwrap();
        assert!(bus.remove(0x100));
        assert!(!bus.remove(0x100));
        assert!(bus.find(0x100).is_none());
    }

    #[test]
    fn repeated_accesses_fall_apart_into_single_ones() {
        let device = echo();
        device.lock().unwrap().write_repeated(0, 2, &[1, 2, 3, 4]);
        assert_eq!(device.lock().unwrap().0, [(0, vec![1, 2]), (0, vec![3, 4])]);
    }
}
