//! What sits behind the cable: a hard disk or a CD-ROM, with its registers.

use super::atapi::CdRom;
use super::hard_disk::HardDisk;
use super::taskfile::TaskFile;

/// The two kinds of drives.
#[derive(Clone, Debug)]
pub enum DriveKind {
    /// Without the PACKET feature set.
    HardDisk(HardDisk),
    /// With it.
    CdRom(CdRom),
}

/// One drive: its registers and what it is.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Its command block registers.
    pub registers: TaskFile,
    /// Hard disk or CD-ROM, with its settings.
    pub kind: DriveKind,
}

impl Drive {
    /// A drive after power-on.
    pub fn new(kind: DriveKind) -> Self {
        let mut drive = Self { registers: TaskFile::default(), kind };
        drive.reset();
        drive
    }

    /// Whether it understands PACKET.
    pub fn is_packet(&self) -> bool {
        matches!(self.kind, DriveKind::CdRom(_))
    }

    /// A hardware or software reset, up to the signature in the registers.
    pub fn reset(&mut self) {
        match &mut self.kind {
            DriveKind::HardDisk(disk) => disk.reset(),
            DriveKind::CdRom(cd) => cd.reset(),
        }
        self.registers.post_signature(self.is_packet());
    }
}
