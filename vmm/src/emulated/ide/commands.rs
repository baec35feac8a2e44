//! The ATA commands (ATA/ATAPI-6, clause 8).

use super::channel::{After, Channel};
use super::dma_mode::DmaMode;
use super::drive::{Drive, DriveKind};
use super::hard_disk::{Geometry, HardDisk, MAX_LBA28_SECTORS, MAX_MULTIPLE, Power};
use super::identify;
use super::taskfile::{Width, device, error};
use super::worker::{DmaData, Job};
use crate::backend::disk::SECTOR_SIZE;

/// How a read or write moves its data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One sector per interrupt.
    Single,
    /// As many as SET MULTIPLE MODE said.
    Multiple,
    /// By bus master.
    Dma,
}

/// A range of the disk, in bytes.
struct Range {
    offset: u64,
    length: u64,
}

impl Channel {
    /// Runs `command` on the selected drive, which is neither busy nor absent.
    pub(super) fn execute(&mut self, command: u8) {
        self.writing = false;
        let Some(drive) = self.drive() else { return };
        if command == 0x90 {
            return self.execute_diagnostics();
        }
        match drive.kind {
            DriveKind::HardDisk(_) => self.execute_ata(command),
            DriveKind::CdRom(_) => self.execute_atapi(command),
        }
    }

    fn execute_ata(&mut self, command: u8) {
        let Some(disk) = self.hard_disk() else { return };
        if disk.power == Power::Sleep {
            return self.abort(); // only a reset wakes it (8.52)
        }
        if !matches!(command, 0x94..=0x99 | 0xe0..=0xe6) {
            disk.power = Power::Active;
        }
        match command {
            0x10..=0x1f => self.complete(), // RECALIBRATE, of drives before ATA-4
            0x20 | 0x21 => self.read(Width::Lba28, Mode::Single),
            0x24 => self.read(Width::Lba48, Mode::Single),
            0x25 => self.read(Width::Lba48, Mode::Dma),
            0x27 => self.read_native_max(Width::Lba48),
            0x29 => self.read(Width::Lba48, Mode::Multiple),
            0x30 | 0x31 => self.write(Width::Lba28, Mode::Single, false),
            0x34 => self.write(Width::Lba48, Mode::Single, false),
            0x35 => self.write(Width::Lba48, Mode::Dma, false),
            0x39 => self.write(Width::Lba48, Mode::Multiple, false),
            0x3d => self.write(Width::Lba48, Mode::Dma, true),
            0x40 | 0x41 => self.verify(Width::Lba28),
            0x42 => self.verify(Width::Lba48),
            0x70..=0x7f => self.seek(),
            0x91 => self.initialize_parameters(),
            0xc4 => self.read(Width::Lba28, Mode::Multiple),
            0xc5 => self.write(Width::Lba28, Mode::Multiple, false),
            0xc6 => self.set_multiple(),
            0xc8 | 0xc9 => self.read(Width::Lba28, Mode::Dma),
            0xca | 0xcb => self.write(Width::Lba28, Mode::Dma, false),
            0xce => self.write(Width::Lba48, Mode::Multiple, true),
            0x94 | 0x96 | 0xe0 | 0xe2 => self.set_power(Power::Standby),
            0x95 | 0x97 | 0xe1 | 0xe3 => self.set_power(Power::Active),
            0x98 | 0xe5 => self.check_power(),
            0x99 | 0xe6 => self.set_power(Power::Sleep),
            0xe7 | 0xea => {
                self.writing = true;
                self.work(Job::Flush, After::Complete);
            }
            0xec => self.identify(),
            0xef => self.set_features(),
            0xf8 => self.read_native_max(Width::Lba28),
            // NOP aborts by definition (8.23), PACKET and IDENTIFY PACKET DEVICE on a disk too;
            // SMART, security and the rest are not in the feature sets IDENTIFY names.
            _ => self.abort(),
        }
    }

    pub(super) fn hard_disk(&mut self) -> Option<&mut HardDisk> {
        match self.drive() {
            Some(Drive { kind: DriveKind::HardDisk(disk), .. }) => Some(disk),
            _ => None,
        }
    }

    /// The range that the address and count registers mean; fails the command with IDNF where
    /// the disk has no such range.
    fn range(&mut self, width: Width) -> Option<Range> {
        self.width = width;
        let drive = self.drive()?;
        let DriveKind::HardDisk(disk) = &drive.kind else { return None };
        let registers = &drive.registers;
        let count = u64::from(registers.sector_count(width));
        let first = match (registers.lba(width), width) {
            (Some(lba), _) => Some(lba),
            (None, Width::Lba28) => disk.geometry.block(registers.chs()),
            // 48-bit commands know no CHS (6.19).
            (None, Width::Lba48) => return self.fail_with(error::ABRT),
        };
        match first.filter(|first| first.saturating_add(count) <= disk.sectors) {
            Some(first) => Some(Range { offset: first * SECTOR_SIZE, length: count * SECTOR_SIZE }),
            None => self.fail_with(error::IDNF),
        }
    }

    fn fail_with<T>(&mut self, bits: u8) -> Option<T> {
        self.fail(bits, 0);
        None
    }

    /// Bytes per interrupt; aborts MULTIPLE commands while the mode is off.
    fn block(&mut self, mode: Mode) -> Option<usize> {
        let sector = SECTOR_SIZE as usize;
        match (mode, usize::from(self.hard_disk()?.multiple)) {
            (Mode::Multiple, 0) => self.fail_with(error::ABRT),
            (Mode::Multiple, count) => Some(count * sector),
            _ => Some(sector),
        }
    }

    fn read(&mut self, width: Width, mode: Mode) {
        let Some(block) = self.block(mode) else { return };
        let Some(Range { offset, length }) = self.range(width) else { return };
        match mode {
            Mode::Dma => self.await_bus_master(DmaData::Read { offset, length }),
            _ => self.send_from_disk(offset, length, block, SECTOR_SIZE as usize),
        }
    }

    fn write(&mut self, width: Width, mode: Mode, forced: bool) {
        let Some(disk) = self.hard_disk() else { return };
        let durable = forced || !disk.write_cache;
        if disk.read_only {
            return self.abort();
        }
        let Some(block) = self.block(mode) else { return };
        let Some(Range { offset, length }) = self.range(width) else { return };
        self.writing = true;
        match mode {
            Mode::Dma => self.await_bus_master(DmaData::Write { offset, length, durable }),
            _ => self.receive_to_disk(offset, length, block, durable),
        }
    }

    fn verify(&mut self, width: Width) {
        let Some(Range { offset, length }) = self.range(width) else { return };
        let block = SECTOR_SIZE as usize;
        self.work(Job::Verify { offset, length, block }, After::Complete);
    }

    fn seek(&mut self) {
        // The count means nothing to SEEK.
        if let Some(drive) = self.drive() {
            drive.registers.count.set(1);
        }
        if self.range(Width::Lba28).is_some() {
            self.complete();
        }
    }

    fn read_native_max(&mut self, width: Width) {
        let Some(drive) = self.drive() else { return };
        let DriveKind::HardDisk(disk) = &drive.kind else { return };
        if drive.registers.device & device::LBA == 0 {
            return self.abort();
        }
        let sectors = match width {
            Width::Lba28 => disk.sectors.min(MAX_LBA28_SECTORS),
            Width::Lba48 => disk.sectors,
        };
        drive.registers.set_lba(width, sectors.saturating_sub(1));
        self.complete();
    }

    fn initialize_parameters(&mut self) {
        let Some(drive) = self.drive() else { return };
        let heads = (drive.registers.device & device::HEAD) + 1;
        let sectors = drive.registers.count.current;
        let DriveKind::HardDisk(disk) = &mut drive.kind else { return };
        if sectors == 0 {
            return self.abort();
        }
        disk.geometry = Geometry::translated(disk.sectors, heads, sectors);
        self.complete();
    }

    fn set_multiple(&mut self) {
        let Some(drive) = self.drive() else { return };
        let count = drive.registers.count.current;
        let DriveKind::HardDisk(disk) = &mut drive.kind else { return };
        if count > MAX_MULTIPLE || (count != 0 && !count.is_power_of_two()) {
            disk.multiple = 0;
            return self.abort();
        }
        disk.multiple = count;
        self.complete();
    }

    fn set_power(&mut self, power: Power) {
        if let Some(disk) = self.hard_disk() {
            disk.power = power;
        }
        self.complete();
    }

    fn check_power(&mut self) {
        let Some(drive) = self.drive() else { return };
        let DriveKind::HardDisk(disk) = &drive.kind else { return };
        drive.registers.count.set(if disk.power == Power::Active { 0xff } else { 0 });
        self.complete();
    }

    fn identify(&mut self) {
        if let Some(disk) = self.hard_disk() {
            let data = identify::hard_disk(disk);
            self.send(data, identify::LENGTH);
        }
    }

    fn set_features(&mut self) {
        let Some(drive) = self.drive() else { return };
        let (feature, count) = (drive.registers.features.current, drive.registers.count.current);
        let DriveKind::HardDisk(disk) = &mut drive.kind else { return };
        match feature {
            0x02 => disk.write_cache = true,
            0x82 => {
                // What is cached must not stay behind (8.50.11).
                disk.write_cache = false;
                self.writing = true;
                return self.work(Job::Flush, After::Complete);
            }
            0x03 => match DmaMode::selected_by(count) {
                Some(mode) => disk.dma_mode = mode.unwrap_or(disk.dma_mode),
                None => return self.abort(),
            },
            0x66 => disk.keep_settings = true,
            0xcc => disk.keep_settings = false,
            0xaa | 0x55 => {} // read look-ahead: the host's page cache does it
            _ => return self.abort(),
        }
        self.complete();
    }

    fn execute_diagnostics(&mut self) {
        for drive in self.drives.iter_mut().flatten() {
            let packet = drive.is_packet();
            drive.registers.post_signature(packet);
            drive.registers.device = 0;
        }
        self.selected = 0;
        self.set_interrupt(true);
    }
}
