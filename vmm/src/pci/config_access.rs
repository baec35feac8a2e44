//! How the guest reaches configuration space: configuration mechanism #1 (PCI Local Bus 3.0,
//! 3.2.2.3.2) and the memory-mapped ECAM (PCI Express base specification, 7.2.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::bus::{Address, PciBus};
use super::{ECAM_BASE, ECAM_LENGTH};
use crate::bus::{Bus, BusDevice, BusError};
use crate::poison::unpoisoned;

/// CONFIG_ADDRESS. One port only: 0xCF9 to 0xCFB belong to others unless accessed as a dword,
/// which arrives at 0xCF8.
const ADDRESS_PORT: u64 = 0xCF8;
/// CONFIG_DATA, four ports.
const DATA_PORT: u64 = 0xCFC;
/// CONFIG_ADDRESS bit 31: accesses to CONFIG_DATA are configuration accesses.
const ENABLE: u32 = 1 << 31;

/// Shows `pci` at ports 0xCF8 and 0xCFC.
///
/// # Errors
/// The ports are taken.
pub fn insert_ports(ports: &Bus, pci: &Arc<Mutex<PciBus>>) -> Result<(), BusError> {
    let latch = Arc::new(AtomicU32::new(0));
    let address = ConfigAddress(Arc::clone(&latch));
    ports.insert("pci-config", ADDRESS_PORT, 1, Arc::new(Mutex::new(address)))?;
    let data = ConfigData { latch, pci: Arc::clone(pci) };
    ports.insert("pci-config", DATA_PORT, 4, Arc::new(Mutex::new(data)))
}

/// Shows `pci` at [`ECAM_BASE`].
///
/// # Errors
/// The range is taken.
pub fn insert_ecam(memory: &Bus, pci: &Arc<Mutex<PciBus>>) -> Result<(), BusError> {
    let ecam = Ecam(Arc::clone(pci));
    memory.insert("pci-ecam", ECAM_BASE, ECAM_LENGTH, Arc::new(Mutex::new(ecam)))
}

/// The address latch; anything but a dword is an ordinary access to nothing.
struct ConfigAddress(Arc<AtomicU32>);

impl BusDevice for ConfigAddress {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Ok(dword) = <&mut [u8; 4]>::try_from(data) {
            *dword = self.0.load(Ordering::Relaxed).to_le_bytes();
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Ok(dword) = <[u8; 4]>::try_from(data) {
            // Bits 30:24 are reserved and 1:0 always zero.
            self.0.store(u32::from_le_bytes(dword) & 0x80FF_FFFC, Ordering::Relaxed);
        }
    }
}

/// The data window onto the latched register.
struct ConfigData {
    latch: Arc<AtomicU32>,
    pci: Arc<Mutex<PciBus>>,
}

impl ConfigData {
    /// The function and register, if the latch enables an access to bus 0.
    fn target(&self, offset: u64) -> Option<(Address, u16)> {
        let latch = self.latch.load(Ordering::Relaxed);
        let bus = latch >> 16 & 0xFF;
        let address =
            Address { device: (latch >> 11 & 31) as u8, function: (latch >> 8 & 7) as u8 };
        let register = (latch & 0xFC) as u16 + offset as u16;
        (latch & ENABLE != 0 && bus == 0).then_some((address, register))
    }
}

impl BusDevice for ConfigData {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        let length = within_dword(offset, data.len());
        if let Some((address, register)) = self.target(offset) {
            lock(&self.pci).read_config(address, register, &mut data[..length]);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let length = within_dword(offset, data.len());
        if let Some((address, register)) = self.target(offset) {
            lock(&self.pci).write_config(address, register, &data[..length]);
        }
    }
}

/// The flat mapping: 4 KiB per function.
struct Ecam(Arc<Mutex<PciBus>>);

/// The function and register, if `offset` has not run past bus 0.
fn ecam_target(offset: u64) -> Option<(Address, u16)> {
    let address = Address { device: (offset >> 15 & 31) as u8, function: (offset >> 12 & 7) as u8 };
    (offset < ECAM_LENGTH).then_some((address, (offset & 0xFFF) as u16))
}

impl BusDevice for Ecam {
    fn read(&mut self, mut offset: u64, mut data: &mut [u8]) {
        let pci = lock(&self.0);
        while !data.is_empty() {
            let length = within_dword(offset, data.len());
            let (dword, rest) = std::mem::take(&mut data).split_at_mut(length);
            match ecam_target(offset) {
                Some((address, register)) => pci.read_config(address, register, dword),
                None => dword.fill(0xFF),
            }
            (data, offset) = (rest, offset + length as u64);
        }
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        let mut pci = lock(&self.0);
        while !data.is_empty() {
            let length = within_dword(offset, data.len());
            let (dword, rest) = data.split_at(length);
            if let Some((address, register)) = ecam_target(offset) {
                pci.write_config(address, register, dword);
            }
            (data, offset) = (rest, offset + length as u64);
        }
    }
}

/// How many of `length` bytes at `offset` lie in the dword at `offset`.
fn within_dword(offset: u64, length: usize) -> usize {
    length.min(4 - (offset & 3) as usize)
}

fn lock(pci: &Mutex<PciBus>) -> MutexGuard<'_, PciBus> {
    unpoisoned(pci.lock())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::host_bridge::HostBridge;

    struct Machine {
        ports: Bus,
        memory: Bus,
    }

    fn machine() -> Machine {
        let mut pci = PciBus::new(&Arc::default(), &Arc::default());
        let bridge = Arc::new(Mutex::new(HostBridge::default()));
        pci.add(Address { device: 0, function: 0 }, bridge.clone()).unwrap();
        pci.add(Address { device: 31, function: 7 }, bridge).unwrap();
        let pci = Arc::new(Mutex::new(pci));
        let machine = Machine { ports: Bus::default(), memory: Bus::default() };
        insert_ports(&machine.ports, &pci).unwrap();
        insert_ecam(&machine.memory, &pci).unwrap();
        machine
    }

    fn read<const N: usize>(bus: &Bus, address: u64) -> [u8; N] {
        let mut data = [0xFF; N];
        let (device, _, offset) = bus.find(address).unwrap();
        device.lock().unwrap().read(offset, &mut data);
        data
    }

    fn write(bus: &Bus, address: u64, data: &[u8]) {
        let (device, _, offset) = bus.find(address).unwrap();
        device.lock().unwrap().write(offset, data);
    }

    #[test]
    fn mechanism_1_reads_every_width_and_offset() {
        let m = machine();
        for slot in [0x8000_0000u32, 0x8000_FF00] {
            write(&m.ports, 0xCF8, &slot.to_le_bytes());
            assert_eq!(read::<4>(&m.ports, 0xCF8), slot.to_le_bytes());
            assert_eq!(read::<4>(&m.ports, 0xCFC), [0x86, 0x80, 0x57, 0x0D]);
            assert_eq!(read::<2>(&m.ports, 0xCFE), [0x57, 0x0D]);
            assert_eq!(read::<2>(&m.ports, 0xCFD), [0x80, 0x57]);
            assert_eq!(read::<1>(&m.ports, 0xCFF), [0x0D]);
            // Beyond the window there is nothing.
            assert_eq!(read::<4>(&m.ports, 0xCFE), [0x57, 0x0D, 0xFF, 0xFF]);
        }
    }

    #[test]
    fn mechanism_1_needs_the_enable_bit_and_bus_0() {
        let m = machine();
        for address in [0x0000_0000u32, 0x8001_0000, 0x8000_0800] {
            write(&m.ports, 0xCF8, &address.to_le_bytes());
            assert_eq!(read::<4>(&m.ports, 0xCFC), [0xFF; 4]);
            write(&m.ports, 0xCFC, &[0; 4]);
        }
    }

    #[test]
    fn the_latch_takes_dwords_only() {
        let m = machine();
        write(&m.ports, 0xCF8, &0x8000_0007u32.to_le_bytes());
        write(&m.ports, 0xCF8, &[0x55]);
        write(&m.ports, 0xCF8, &[0x55, 0x55]);
        assert_eq!(read::<4>(&m.ports, 0xCF8), 0x8000_0004u32.to_le_bytes());
        assert_eq!(read::<1>(&m.ports, 0xCF8), [0xFF]);
        assert!(m.ports.find(0xCF9).is_none());
    }

    #[test]
    fn writes_reach_single_bytes() {
        let m = machine();
        write(&m.ports, 0xCF8, &0x8000_0004u32.to_le_bytes());
        write(&m.ports, 0xCFC, &[0x03, 0x04]);
        write(&m.ports, 0xCFD, &[0x00]);
        assert_eq!(read::<2>(&m.ports, 0xCFC), [0x03, 0x00]);
    }

    #[test]
    fn ecam_reaches_the_same_registers() {
        let m = machine();
        let last = ECAM_BASE + (31 << 15 | 7 << 12);
        for base in [ECAM_BASE, last] {
            assert_eq!(read::<4>(&m.memory, base), [0x86, 0x80, 0x57, 0x0D]);
            assert_eq!(read::<1>(&m.memory, base + 0xB), [6]);
            assert_eq!(read::<8>(&m.memory, base + 2)[..2], [0x57, 0x0D]);
            assert_eq!(read::<4>(&m.memory, base + 0x100), [0xFF; 4]);
        }
        write(&m.memory, last + 4, &[7, 0]);
        assert_eq!(read::<2>(&m.memory, last + 4), [7, 0]);
        assert_eq!(read::<4>(&m.memory, ECAM_BASE + (1 << 15)), [0xFF; 4]);
        // Across the end of a function, and of the whole range.
        write(&m.memory, ECAM_BASE + 0xFFC, &[0; 8]);
        assert_eq!(read::<8>(&m.memory, ECAM_BASE + ECAM_LENGTH - 4), [0xFF; 8]);
    }
}
