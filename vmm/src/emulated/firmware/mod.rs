//! Starting as a physical PC does: firmware from its ROM, which finds the rest by itself.

pub mod debug_port;
mod fw_cfg;
mod gpe;
pub mod shadow;
mod smbios;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::backend::regular_file;
use crate::bus::{Bus, BusError};
use crate::memory::{self, GuestRam};
use crate::poison::unpoisoned;

use fw_cfg::{FwCfg, key};
use gpe::GeneralPurposeEvents;

/// The largest image that fits between what KVM needs near the top of 4 GiB and its end.
const MAX_IMAGE: u64 = 256 << 10;
/// Images are whole pages; SeaBIOS's are whole banks of 64 KiB.
const IMAGE_UNIT: u64 = 64 << 10;

/// Firmware that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The file cannot be read.
    #[error("cannot read the firmware `{}`", path.display())]
    Read {
        /// The firmware's file, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The file is no PC firmware.
    #[error(
        "the firmware `{}` has {length} bytes: expected 64, 128, 192 or 256 KiB, as SeaBIOS's \
         bios.bin or bios-256k.bin",
        path.display()
    )]
    Length {
        /// The firmware's file, as it was named.
        path: PathBuf,
        /// Size of the file in bytes.
        length: u64,
    },
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Reads a firmware image.
///
/// # Errors
/// [`FirmwareError`]; its size is checked before it is read.
pub fn read_image(path: &Path) -> Result<Vec<u8>, FirmwareError> {
    let read = |source| FirmwareError::Read { path: path.to_owned(), source };
    let (file, length) = regular_file::open(path).map_err(read)?;
    let bad = |length| FirmwareError::Length { path: path.to_owned(), length };
    if length == 0 || length > MAX_IMAGE || length % IMAGE_UNIT != 0 {
        return Err(bad(length));
    }
    let mut image = Vec::new();
    // It may have grown or shrunk meanwhile.
    file.take(MAX_IMAGE + 1).read_to_end(&mut image).map_err(read)?;
    if image.len() as u64 != length {
        return Err(bad(image.len() as u64));
    }
    Ok(image)
}

/// What firmware is told.
pub struct Description<'a> {
    /// RAM in bytes.
    pub memory: u64,
    /// Processors, which firmware puts into its tables.
    pub cpus: u32,
    /// Whether COM1 is there to be the console.
    pub serial_console: bool,
    /// What to boot from, as Open Firmware paths, best first.
    pub boot_order: &'a [String],
}

/// Puts the devices that only firmware talks to on the port bus, and writes CMOS.
///
/// # Errors
/// An address is taken already.
pub fn insert_devices(
    ports: &Bus,
    ram: &GuestRam,
    description: &Description<'_>,
) -> Result<(), FirmwareError> {
    let device = describe(ram, description);
    ports.insert("fw-cfg", fw_cfg::PORT, fw_cfg::PORTS, Arc::new(Mutex::new(device)))?;
    let events = Arc::new(Mutex::new(GeneralPurposeEvents::default()));
    ports.insert("acpi-gpe", gpe::PORT, gpe::PORTS, events)?;
    write_cmos(ports, description);
    Ok(())
}

fn describe(ram: &GuestRam, description: &Description<'_>) -> FwCfg {
    let mut device = FwCfg::new(ram.clone());
    let cpus = u16::try_from(description.cpus).unwrap_or(u16::MAX);
    device.add_item(key::RAM_SIZE, description.memory.to_le_bytes().to_vec());
    device.add_item(key::CPU_COUNT, cpus.to_le_bytes().to_vec());
    device.add_item(key::MAX_CPUS, cpus.to_le_bytes().to_vec());
    device.add_item(key::BOOT_MENU, vec![0, 0]);
    device.add_file("etc/e820", e820(description.memory));
    let (anchor, tables) = smbios::tables(description.memory, description.cpus);
    device.add_file("etc/smbios/smbios-anchor", anchor);
    device.add_file("etc/smbios/smbios-tables", tables);
    // Without a menu nobody waits for a key.
    device.add_number("etc/show-boot-menu", 0);
    if description.serial_console {
        device.add_number("etc/sercon-port", crate::chipset::uart::COM[0].port.into());
    }
    if !description.boot_order.is_empty() {
        let mut order = description.boot_order.join("\n").into_bytes();
        order.push(0);
        device.add_file("bootorder", order);
    }
    device
}

/// RAM in the format of INT 15h, E820h: start, length, and type 1.
fn e820(memory: u64) -> Vec<u8> {
    const RAM: u32 = 1;
    let mut table = Vec::new();
    for (start, length) in memory::ranges(memory) {
        table.extend_from_slice(&start.to_le_bytes());
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(&RAM.to_le_bytes());
    }
    table
}

/// Memory sizes where PC firmware has kept them since the AT, and the number of processors.
fn write_cmos(ports: &Bus, description: &Description<'_>) {
    const KIB: u64 = 10;
    let below_4g = description.memory.min(memory::HOLE_START);
    let above_4g = description.memory - below_4g;
    let above_1m = (below_4g.saturating_sub(1 << 20) >> KIB).min(0xffff) as u16;
    let above_16m = (below_4g.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
    let mut values = vec![(0x15, 640u16 as u8), (0x16, (640u16 >> 8) as u8)];
    for (at, word) in [(0x17, above_1m), (0x30, above_1m), (0x34, above_16m)] {
        let [low, high] = word.to_le_bytes();
        values.extend_from_slice(&[(at, low), (at + 1, high)]);
    }
    let units = (above_4g >> 16).to_le_bytes();
    values.extend((0x5b..=0x5d).zip(units));
    values.push((0x5f, description.cpus.saturating_sub(1) as u8));
    let Some((rtc, _, offset)) = ports.find(crate::chipset::cmos_rtc::PORT.into()) else { return };
    let mut rtc = unpoisoned(rtc.lock());
    for (index, value) in values {
        rtc.write(offset, &[index, value]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_other_sizes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bios.bin");
        assert!(matches!(read_image(&path), Err(FirmwareError::Read { .. })));
        for length in [0, 1000, 65537, 512 << 10] {
            std::fs::write(&path, vec![0; length]).unwrap();
            assert!(matches!(read_image(&path), Err(FirmwareError::Length { .. })));
        }
        std::fs::write(&path, vec![0; 128 << 10]).unwrap();
        assert_eq!(read_image(&path).unwrap().len(), 128 << 10);
    }

    #[test]
    fn memory_is_described_around_the_hole() {
        let table = e820(4 << 30);
        assert_eq!(table.len(), 40);
        assert_eq!(table[8..16], (3u64 << 30).to_le_bytes());
        assert_eq!(table[20..28], (4u64 << 30).to_le_bytes());
    }
}
