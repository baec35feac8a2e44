//! A hard disk as the host can set it: geometry, sectors per interrupt, caches, power.

use super::dma_mode::DmaMode;
use crate::backend::disk::SECTOR_SIZE;

/// The most sectors that READ MULTIPLE and WRITE MULTIPLE move per interrupt (IDENTIFY word 47).
///
/// 128 sectors are 64 KiB. Drives of the time said 16; more means fewer interrupts for the same
/// register protocol, and words 47 and 59 hold up to 255.
pub const MAX_MULTIPLE: u8 = 128;

/// The largest 28-bit count of sectors (ATA/ATAPI-6 6.2.1).
pub const MAX_LBA28_SECTORS: u64 = 0x0fff_ffff;
/// The largest 48-bit count of sectors.
pub const MAX_LBA48_SECTORS: u64 = 0x0000_ffff_ffff_ffff;

/// How the host sees cylinders, heads and sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// At most 65535.
    pub cylinders: u16,
    /// 1 to 16.
    pub heads: u8,
    /// 1 to 255.
    pub sectors: u8,
}

impl Geometry {
    /// The default translation: 16 heads and 63 sectors (ATA/ATAPI-6 6.2.1).
    pub fn default_for(sectors: u64) -> Self {
        Self::translated(sectors, 16, 63)
    }

    /// As many cylinders as the capacity fills with `heads` and `sectors` (both at least 1).
    pub fn translated(capacity: u64, heads: u8, sectors: u8) -> Self {
        let per_cylinder = u64::from(heads.max(1)) * u64::from(sectors.max(1));
        // Word 1 of IDENTIFY stops at 16383 for disks too large for CHS.
        let cylinders = (capacity / per_cylinder).min(16383) as u16;
        Self { cylinders, heads: heads.max(1), sectors: sectors.max(1) }
    }

    /// The logical block of a CHS address; `None` where there is none.
    pub fn block(&self, (cylinder, head, sector): (u64, u64, u64)) -> Option<u64> {
        let heads = u64::from(self.heads);
        let sectors = u64::from(self.sectors);
        if cylinder >= u64::from(self.cylinders)
            || head >= heads
            || !(1..=sectors).contains(&sector)
        {
            return None;
        }
        Some((cylinder * heads + head) * sectors + sector - 1)
    }
}

/// The power modes that CHECK POWER MODE tells apart (ATA/ATAPI-6 6.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Active or idle.
    Active,
    /// Standby, until the medium is needed.
    Standby,
    /// Sleep, until a reset.
    Sleep,
}

/// A hard disk without its registers: its size, and what the host has set.
#[derive(Clone, Debug)]
pub struct HardDisk {
    /// Capacity in sectors of 512 bytes.
    pub sectors: u64,
    /// Writes are aborted.
    pub read_only: bool,
    /// At most 20 ASCII characters.
    pub serial: String,
    /// The translation in force.
    pub geometry: Geometry,
    /// Sectors per interrupt of the MULTIPLE commands; 0 when they are off.
    pub multiple: u8,
    /// When off, every write is flushed before it completes.
    pub write_cache: bool,
    /// SET FEATURES 66h: a software reset keeps the settings.
    pub keep_settings: bool,
    /// What IDENTIFY reports as selected.
    pub dma_mode: DmaMode,
    /// See [`Power`].
    pub power: Power,
}

impl HardDisk {
    /// A disk of `bytes`; a last, incomplete sector is not reachable.
    pub fn new(bytes: u64, read_only: bool, serial: &str) -> Self {
        let sectors = (bytes / SECTOR_SIZE).min(MAX_LBA48_SECTORS);
        Self {
            sectors,
            read_only,
            serial: serial.to_owned(),
            geometry: Geometry::default_for(sectors),
            // On from the start: drivers use what IDENTIFY says and do not set it themselves.
            multiple: MAX_MULTIPLE,
            write_cache: true,
            keep_settings: false,
            dma_mode: DmaMode::Multiword(2),
            power: Power::Active,
        }
    }

    /// Back to what the drive had at power-on, as a reset does unless the host said otherwise.
    pub fn reset(&mut self) {
        self.power = Power::Active;
        if !self.keep_settings {
            self.geometry = Geometry::default_for(self.sectors);
            self.multiple = MAX_MULTIPLE;
            self.write_cache = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chs_addresses_beyond_the_geometry_do_not_exist() {
        let geometry = Geometry::default_for(16 * 63 * 10);
        assert_eq!(geometry.cylinders, 10);
        assert_eq!(geometry.block((0, 0, 1)), Some(0));
        assert_eq!(geometry.block((9, 15, 63)), Some(16 * 63 * 10 - 1));
        for outside in [(10, 0, 1), (0, 16, 1), (0, 0, 0), (0, 0, 64), (u64::MAX, 0, 1)] {
            assert_eq!(geometry.block(outside), None);
        }
    }
}
