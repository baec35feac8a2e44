//! The 512 bytes of IDENTIFY DEVICE (ATA/ATAPI-6 8.15) and IDENTIFY PACKET DEVICE (8.16).

use super::atapi::CdRom;
use super::dma_mode::DmaMode;
use super::hard_disk::{Geometry, HardDisk, MAX_LBA28_SECTORS, MAX_MULTIPLE};

/// What both commands return: 256 little-endian words.
pub const LENGTH: usize = 512;

const MODEL: &str = "ISOLAB HARDDISK";
const CD_MODEL: &str = "ISOLAB CD-ROM";
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// Words with their numbers as the standard counts them.
struct Words([u16; 256]);

impl Words {
    /// Text, two characters per word, the first in the high byte (ATA/ATAPI-6 8.15.3).
    fn text(&mut self, first: usize, words: usize, text: &str) {
        let mut characters = text.bytes().filter(|b| (0x20..0x7f).contains(b));
        for word in &mut self.0[first..first + words] {
            let high = characters.next().unwrap_or(b' ');
            let low = characters.next().unwrap_or(b' ');
            *word = u16::from_be_bytes([high, low]);
        }
    }

    fn number(&mut self, first: usize, words: usize, value: u64) {
        for (index, word) in self.0[first..first + words].iter_mut().enumerate() {
            *word = (value >> (16 * index)) as u16;
        }
    }

    /// Multiword DMA 0-2, Ultra DMA 0-5 and PIO 3-4 are supported; one mode is selected.
    fn transfer_modes(&mut self, selected: DmaMode) {
        self.0[63] = 0x0007;
        self.0[64] = 0x0003;
        self.0[65..=68].fill(120); // minimum cycle times, ns
        self.0[88] = 0x003f;
        match selected {
            DmaMode::Multiword(mode) => self.0[63] |= 0x100 << mode,
            DmaMode::Ultra(mode) => self.0[88] |= 0x100 << mode,
        }
    }

    /// Word 255: signature and a checksum that makes all bytes sum up to zero.
    fn finish(mut self) -> Vec<u8> {
        self.0[255] = 0x00a5;
        let sum = self.0.iter().flat_map(|w| w.to_le_bytes()).fold(0u8, u8::wrapping_add);
        self.0[255] |= u16::from(sum.wrapping_neg()) << 8;
        self.0.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// IDENTIFY DEVICE of a hard disk.
pub fn hard_disk(disk: &HardDisk) -> Vec<u8> {
    let mut words = Words([0; 256]);
    let default = Geometry::default_for(disk.sectors);
    let lba28 = disk.sectors.min(MAX_LBA28_SECTORS);
    words.0[0] = 0x0040; // fixed device
    words.0[1] = default.cylinders;
    words.0[3] = u16::from(default.heads);
    words.0[6] = u16::from(default.sectors);
    words.text(10, 10, &disk.serial);
    words.text(23, 4, FIRMWARE);
    words.text(27, 20, MODEL);
    words.0[47] = 0x8000 | u16::from(MAX_MULTIPLE);
    words.0[48] = 0x0001; // 32-bit accesses of the data register
    words.0[49] = 0x0f00; // standby timer values unused; IORDY, LBA, DMA
    words.0[50] = 0x4000;
    words.0[53] = 0x0007; // words 54-58, 64-70 and 88 are valid
    words.0[54] = disk.geometry.cylinders;
    words.0[55] = u16::from(disk.geometry.heads);
    words.0[56] = u16::from(disk.geometry.sectors);
    let chs = u64::from(disk.geometry.cylinders)
        * u64::from(disk.geometry.heads)
        * u64::from(disk.geometry.sectors);
    words.number(57, 2, chs);
    words.0[59] = if disk.multiple > 0 { 0x0100 | u16::from(disk.multiple) } else { 0 };
    words.number(60, 2, lba28);
    words.transfer_modes(disk.dma_mode);
    words.0[80] = 0x007e; // ATA-1 to ATA/ATAPI-6
    words.0[82] = 1 << 14 | 1 << 5 | 1 << 3; // NOP, write cache, power management
    words.0[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10; // FLUSH CACHE EXT, FLUSH CACHE, 48 bits
    words.0[84] = 1 << 14 | 1 << 6; // WRITE FUA EXT
    words.0[85] = 1 << 14 | 1 << 3 | u16::from(disk.write_cache) << 5;
    words.0[86] = 1 << 13 | 1 << 12 | 1 << 10;
    words.0[87] = 1 << 14 | 1 << 6;
    words.0[93] = 0x6001 | 1 << 3; // 80-conductor cable seen, device 0 passed diagnostics
    words.number(100, 4, disk.sectors);
    words.finish()
}

/// IDENTIFY PACKET DEVICE of a CD-ROM.
pub fn cd_rom(cd: &CdRom) -> Vec<u8> {
    let mut words = Words([0; 256]);
    // ATAPI, CD-ROM (type 5), removable, DRQ within 50 µs of PACKET, 12-byte packets.
    words.0[0] = 0x8000 | 5 << 8 | 1 << 7 | 2 << 5;
    words.text(10, 10, &cd.serial);
    words.text(23, 4, FIRMWARE);
    words.text(27, 20, CD_MODEL);
    words.0[48] = 0x0001;
    words.0[49] = 0x0f00 & !0x0400; // DMA, LBA, IORDY
    words.0[49] |= 1 << 10; // IORDY may be disabled
    words.0[53] = 0x0006;
    words.transfer_modes(cd.dma_mode);
    words.0[80] = 0x007e;
    words.0[82] = 1 << 14 | 1 << 9 | 1 << 4; // NOP, DEVICE RESET, PACKET
    words.0[83] = 1 << 14;
    words.0[84] = 1 << 14;
    words.0[85] = words.0[82];
    words.0[87] = 1 << 14;
    words.0[93] = 0x6001 | 1 << 3;
    words.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(data: &[u8], number: usize) -> u16 {
        u16::from_le_bytes([data[number * 2], data[number * 2 + 1]])
    }

    #[test]
    fn a_disk_states_its_capacity_in_both_widths_and_its_text_byte_swapped() {
        let data = hard_disk(&HardDisk::new(0x2000_0000 * 512 + 511, false, "S1"));
        assert_eq!(data.len(), LENGTH);
        assert_eq!((word(&data, 60), word(&data, 61)), (0xffff, 0x0fff));
        assert_eq!((word(&data, 100), word(&data, 101), word(&data, 102)), (0, 0x2000, 0));
        assert_eq!(&data[20..24], b"1S  ");
        assert_eq!(data.iter().fold(0u8, |a, b| a.wrapping_add(*b)), 0);
        assert_eq!(word(&data, 83) & 0x0400, 0x0400);
    }

    #[test]
    fn the_selected_mode_is_shown_alone() {
        let mut disk = HardDisk::new(1 << 20, false, "s");
        disk.dma_mode = DmaMode::Ultra(5);
        let data = hard_disk(&disk);
        assert_eq!((word(&data, 63), word(&data, 88)), (0x0007, 0x203f));
    }
}
