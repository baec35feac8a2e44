//! The PACKET feature set (ATA/ATAPI-6 6.8 and 9.8): what an ATAPI drive makes of ATA commands,
//! and how packet commands move their data.

use super::atapi::{Answer, BLOCK, CdRom, Sense};
use super::channel::{Channel, Phase};
use super::dma_mode::DmaMode;
use super::drive::{Drive, DriveKind};
use super::identify;
use super::taskfile::{error, reason, status};
use super::worker::DmaData;

/// Features register of PACKET: data moves by DMA.
const FEATURE_DMA: u8 = 0x01;

impl Channel {
    pub(super) fn execute_atapi(&mut self, command: u8) {
        match command {
            0xa0 => self.receive_packet(),
            0xa1 => {
                if let Some(cd) = self.cd_rom() {
                    let data = identify::cd_rom(cd);
                    self.send(data, identify::LENGTH);
                }
            }
            // The host finds out by this what it talks to (8.15.5.2 and 8.34.5.2).
            0x20 | 0xec => {
                if let Some(drive) = self.drive() {
                    drive.registers.post_signature(true);
                }
                self.abort();
            }
            0xef => self.set_packet_features(),
            0xe0..=0xe3 => self.complete(),
            0xe5 => {
                if let Some(drive) = self.drive() {
                    drive.registers.count.set(0xff);
                }
                self.complete();
            }
            _ => self.abort(),
        }
    }

    fn cd_rom(&mut self) -> Option<&mut CdRom> {
        match self.drive() {
            Some(Drive { kind: DriveKind::CdRom(cd), .. }) => Some(cd),
            _ => None,
        }
    }

    fn set_packet_features(&mut self) {
        let Some(drive) = self.drive() else { return };
        let (feature, count) = (drive.registers.features.current, drive.registers.count.current);
        let DriveKind::CdRom(cd) = &mut drive.kind else { return };
        match (feature, DmaMode::selected_by(count)) {
            (0x03, Some(mode)) => cd.dma_mode = mode.unwrap_or(cd.dma_mode),
            (0x66 | 0xcc, _) => {}
            _ => return self.abort(),
        }
        self.complete();
    }

    fn receive_packet(&mut self) {
        self.phase = Phase::Packet { received: [0; 12], length: 0 };
        if let Some(drive) = self.drive() {
            drive.registers.count.set(reason::COMMAND);
            drive.registers.error = 0;
            drive.registers.status = status::DRDY | status::DSC | status::DRQ;
        }
    }

    pub(super) fn execute_packet(&mut self, packet: [u8; 12]) {
        self.phase = Phase::Idle;
        let Some(cd) = self.cd_rom() else { return };
        match cd.execute(&packet) {
            Answer::Done | Answer::Read { length: 0, .. } => self.complete_packet(),
            Answer::Check(sense) => self.check_condition(sense),
            Answer::Data(data) if self.by_dma() => self.await_bus_master(DmaData::Reply(data)),
            Answer::Read { offset, length } if self.by_dma() => {
                self.await_bus_master(DmaData::Read { offset, length });
            }
            Answer::Data(data) => {
                let block = self.byte_count_limit(data.len());
                self.send(data, block);
            }
            Answer::Read { offset, length } => {
                let block = self.byte_count_limit(length as usize);
                self.send_from_disk(offset, length, block, BLOCK as usize);
            }
        }
    }

    fn by_dma(&mut self) -> bool {
        self.drive().is_some_and(|d| d.registers.features.current & FEATURE_DMA != 0)
    }

    /// Bytes per DRQ: what the host put into the byte count registers, even unless the data ends
    /// in the first block (ATA/ATAPI-6 8.23.4).
    fn byte_count_limit(&mut self, length: usize) -> usize {
        let Some(drive) = self.drive() else { return length };
        let (low, high) = (drive.registers.lba_mid.current, drive.registers.lba_high.current);
        let limit = match usize::from(u16::from_le_bytes([low, high])) {
            0 | 0xffff => 0xfffe,
            limit => limit,
        };
        if limit >= length || limit == 1 { limit } else { limit & !1 }
    }

    /// Ends a packet command with GOOD status.
    pub(super) fn complete_packet(&mut self) {
        if let Some(drive) = self.drive() {
            drive.registers.count.set(reason::COMMAND | reason::TO_HOST);
        }
        self.complete();
    }

    /// Ends a packet command with CHECK CONDITION status, for the reason `sense`.
    pub(super) fn check_condition(&mut self, sense: Sense) {
        let Some(drive) = self.drive() else { return };
        drive.registers.count.set(reason::COMMAND | reason::TO_HOST);
        let DriveKind::CdRom(cd) = &mut drive.kind else { return };
        let key = cd.fail(sense);
        self.fail(key << 4 | error::ABRT, 0);
    }
}
