//! The firmware configuration device (QEMU's docs/specs/fw_cfg.rst): how SeaBIOS learns of memory,
//! processors and boot order. Items are found by number, files by name through a directory.

use std::collections::BTreeMap;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::bus::BusDevice;
use crate::memory::GuestRam;

/// First port: selector, data, and the DMA address register.
pub const PORT: u64 = 0x510;
/// Ports, with the gap between data and DMA.
pub const PORTS: u64 = 12;

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;

/// Items with fixed numbers.
pub mod key {
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const RAM_SIZE: u16 = 0x03;
    pub const CPU_COUNT: u16 = 0x05;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const FILE_DIRECTORY: u16 = 0x19;
    pub const FIRST_FILE: u16 = 0x20;
}

/// Revision: the traditional interface and DMA.
const ID: u32 = 0b11;
/// What the DMA address register reads as: "QEMU CFG".
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Longest file name, NUL included.
const MAX_NAME: usize = 56;

/// DMA control bits.
mod control {
    pub const ERROR: u32 = 1;
    pub const READ: u32 = 2;
    pub const SKIP: u32 = 4;
    pub const SELECT: u32 = 8;
    pub const WRITE: u32 = 16;
}

/// The device: a selector, and the files that firmware reads.
pub struct FwCfg {
    memory: GuestRam,
    items: BTreeMap<u16, Vec<u8>>,
    directory: Vec<(String, u16)>,
    selected: u16,
    position: usize,
    dma_address: u64,
}

impl FwCfg {
    /// A device with nothing but its signature.
    pub fn new(memory: GuestRam) -> Self {
        let mut device = Self {
            memory,
            items: BTreeMap::new(),
            directory: Vec::new(),
            selected: 0,
            position: 0,
            dma_address: 0,
        };
        device.add_item(key::SIGNATURE, b"QEMU".to_vec());
        device.add_item(key::ID, ID.to_le_bytes().to_vec());
        device.write_directory();
        device
    }

    /// Adds the item `key`.
    pub fn add_item(&mut self, key: u16, data: Vec<u8>) {
        self.items.insert(key, data);
    }

    /// Adds a file; names longer than 55 bytes are cut.
    pub fn add_file(&mut self, name: &str, data: Vec<u8>) {
        let key = key::FIRST_FILE + self.directory.len() as u16;
        let name = name.chars().filter(char::is_ascii).take(MAX_NAME - 1).collect();
        self.directory.push((name, key));
        self.items.insert(key, data);
        self.write_directory();
    }

    /// Adds a file that holds a number.
    pub fn add_number(&mut self, name: &str, value: u64) {
        self.add_file(name, value.to_le_bytes().to_vec());
    }

    fn write_directory(&mut self) {
        self.directory.sort_unstable();
        let mut data = (self.directory.len() as u32).to_be_bytes().to_vec();
        for (name, key) in &self.directory {
            let length = self.items.get(key).map_or(0, Vec::len) as u32;
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(&key.to_be_bytes());
            data.extend_from_slice(&[0, 0]);
            let mut field = [0; MAX_NAME];
            field[..name.len()].copy_from_slice(name.as_bytes());
            data.extend_from_slice(&field);
        }
        self.items.insert(key::FILE_DIRECTORY, data);
    }

    fn select(&mut self, key: u16) {
        self.selected = key;
        self.position = 0;
    }

    /// The next bytes of the selected item; beyond its end there are zeroes.
    fn take(&mut self, data: &mut [u8]) {
        data.fill(0);
        let rest = self.items.get(&self.selected).and_then(|i| i.get(self.position..));
        let rest = rest.unwrap_or_default();
        let length = rest.len().min(data.len());
        data[..length].copy_from_slice(&rest[..length]);
        self.position = self.position.saturating_add(data.len());
    }

    /// Runs the command whose address the guest wrote, and writes back how it went.
    fn run_dma(&mut self) {
        let at = GuestAddress(std::mem::take(&mut self.dma_address));
        let mut command = [0; 16];
        if self.memory.read_slice(&mut command, at).is_err() {
            return; // nowhere to report to
        }
        let [control, length, high, low] = [0, 4, 8, 12].map(|at| {
            u32::from_be_bytes([command[at], command[at + 1], command[at + 2], command[at + 3]])
        });
        let address = GuestAddress(u64::from(high) << 32 | u64::from(low));
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & control::READ != 0 {
            self.read_to(address, length)
        } else if control & control::SKIP != 0 {
            self.position = self.position.saturating_add(length as usize);
            true
        } else {
            control & control::WRITE == 0 // no item can be written
        };
        let result = if done { 0 } else { control::ERROR };
        // The place was readable, so it is writable.
        let _ = self.memory.write_obj(result.to_be(), at);
    }

    fn read_to(&mut self, address: GuestAddress, length: u32) -> bool {
        // Checked as a whole, so that a length beyond memory costs nothing.
        if !self.memory.check_range(address, length as usize) {
            return false;
        }
        let mut buffer = [0; 4096];
        let mut at = address;
        let mut left = length as usize;
        while left > 0 {
            let piece = &mut buffer[..left.min(4096)];
            self.take(piece);
            if self.memory.write_slice(piece, at).is_err() {
                return false;
            }
            left -= piece.len();
            at = GuestAddress(at.0 + piece.len() as u64);
        }
        true
    }
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            DATA => self.take(data),
            DMA_HIGH.. => {
                let bytes = DMA_SIGNATURE.to_be_bytes();
                for (byte, value) in data.iter_mut().zip(&bytes[(offset - DMA_HIGH) as usize..]) {
                    *byte = *value;
                }
            }
            _ => {}
        }
    }

    fn read_repeated(&mut self, offset: u64, width: usize, data: &mut [u8]) {
        if offset == DATA {
            return self.take(data);
        }
        for access in data.chunks_mut(width.max(1)) {
            self.read(offset, access);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (DMA_HIGH, &[a, b, c, d]) => {
                self.dma_address = u64::from(u32::from_be_bytes([a, b, c, d])) << 32;
            }
            (DMA_LOW, &[a, b, c, d]) => {
                self.dma_address |= u64::from(u32::from_be_bytes([a, b, c, d]));
                self.run_dma();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulated::testing::ram;

    fn device() -> FwCfg {
        let mut device = FwCfg::new(ram(0x10_0000));
        device.add_number("etc/sercon-port", 0x3f8);
        device.add_file("bootorder", b"first\0".to_vec());
        device
    }

    fn item(device: &mut FwCfg, key: u16, length: usize) -> Vec<u8> {
        device.write(SELECTOR, &key.to_le_bytes());
        let mut data = vec![0xaa; length];
        device.read_repeated(DATA, 1, &mut data);
        data
    }

    #[test]
    fn files_are_found_through_the_directory() {
        let mut device = device();
        assert_eq!(item(&mut device, key::SIGNATURE, 5), b"QEMU\0");
        let directory = item(&mut device, key::FILE_DIRECTORY, 4 + 128);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        let (first, second) = directory[4..].split_at(64);
        assert!(first[8..].starts_with(b"bootorder\0") && second[8..].starts_with(b"etc/sercon"));
        let key = u16::from_be_bytes([second[4], second[5]]);
        assert_eq!(second[..4], [0, 0, 0, 8]);
        assert_eq!(item(&mut device, key, 9), [0xf8, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(item(&mut device, 0xffff, 2), [0, 0]);
    }

    fn dma(device: &mut FwCfg, control: u32, length: u32, address: u64) -> u32 {
        let at = GuestAddress(0x1000);
        let command =
            [&control.to_be_bytes()[..], &length.to_be_bytes(), &address.to_be_bytes()].concat();
        device.memory.write_slice(&command, at).unwrap();
        device.write(DMA_HIGH, &0u32.to_be_bytes());
        device.write(DMA_LOW, &0x1000u32.to_be_bytes());
        u32::from_be(device.memory.read_obj(at).unwrap())
    }

    #[test]
    fn dma_reads_and_refuses_what_is_outside_of_memory() {
        let mut device = device();
        let mut signature = [0; 4];
        device.read(DMA_HIGH, &mut signature);
        assert_eq!(&signature, b"QEMU");
        assert_eq!(dma(&mut device, control::SELECT | control::READ, 8, 0x2000), 0);
        let read: u64 = device.memory.read_obj(GuestAddress(0x2000)).unwrap();
        assert_eq!(read.to_le_bytes(), *b"QEMU\0\0\0\0");
        for (length, address) in [(u32::MAX, 0x2000), (1, u64::MAX), (2, 0xf_ffff)] {
            assert_eq!(dma(&mut device, control::READ, length, address), control::ERROR);
        }
        assert_eq!(dma(&mut device, control::WRITE, 4, 0x2000), control::ERROR);
        assert_eq!(dma(&mut device, control::SKIP, u32::MAX, 0), 0);
        device.write(DMA_HIGH, &[0xff; 4]);
        device.write(DMA_LOW, &[0xff; 4]);
    }
}
