//! A CD-ROM drive: the packet commands of SFF-8020i and MMC-5 that read-only drives answer.

use super::dma_mode::DmaMode;

/// Bytes in a block of a data CD.
pub const BLOCK: u64 = 2048;

/// Discs beyond what a CD-R of 99 minutes holds are presented as DVD-ROMs.
const LARGEST_CD_BLOCKS: u32 = 99 * 60 * 75;

const PROFILE_CD_ROM: u16 = 0x0008;
const PROFILE_DVD_ROM: u16 = 0x0010;

/// The track number that READ TOC gives the lead-out.
const LEAD_OUT: u8 = 0xaa;

/// Sense key, additional sense code and qualifier (MMC-5 annex F).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// Low four bits.
    pub key: u8,
    /// Additional sense code, ASC.
    pub asc: u8,
    /// Additional sense code qualifier, ASCQ.
    pub ascq: u8,
}

impl Sense {
    const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// Nothing to report.
    pub const NONE: Self = Self::new(0, 0, 0);
    /// The tray is open.
    pub const TRAY_OPEN: Self = Self::new(2, 0x3a, 2);
    /// The disc cannot be read there.
    pub const READ_ERROR: Self = Self::new(3, 0x11, 0);
    /// The bus master's memory is not there.
    pub const TRANSFER_FAILED: Self = Self::new(0xb, 0x4b, 0);
    /// Unknown command.
    pub const BAD_COMMAND: Self = Self::new(5, 0x20, 0);
    /// The block address is beyond the end.
    pub const OUT_OF_RANGE: Self = Self::new(5, 0x21, 0);
    /// The command is known, what it asks for is not.
    pub const BAD_FIELD: Self = Self::new(5, 0x24, 0);
    /// PREVENT ALLOW MEDIUM REMOVAL is in force.
    pub const REMOVAL_PREVENTED: Self = Self::new(5, 0x53, 2);
    /// Power on or reset.
    pub const RESET_HAPPENED: Self = Self::new(6, 0x29, 0);
    /// The tray was closed.
    pub const MEDIUM_CHANGED: Self = Self::new(6, 0x28, 0);
}

/// What a packet command leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, no data.
    Done,
    /// Data from the drive itself.
    Data(Vec<u8>),
    /// Data from the disc, both in bytes.
    Read {
        /// Byte offset on the disc.
        offset: u64,
        /// How much; may be zero.
        length: u64,
    },
    /// CHECK CONDITION.
    Check(Sense),
}

/// Media events of GET EVENT STATUS NOTIFICATION (MMC-5 6.6.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MediaEvent {
    #[default]
    None = 0,
    NewMedia = 2,
    Removal = 3,
}

/// A CD-ROM drive without its registers: what packet commands ask about and change.
#[derive(Clone, Debug)]
pub struct CdRom {
    /// Size of the disc in blocks of 2048 bytes; 0 when the tray is empty.
    pub blocks: u32,
    /// At most 20 ASCII characters.
    pub serial: String,
    /// What IDENTIFY PACKET DEVICE reports as selected.
    pub dma_mode: DmaMode,
    sense: Sense,
    /// A unit attention condition that the next command reports.
    attention: Option<Sense>,
    event: MediaEvent,
    tray_open: bool,
    removal_prevented: bool,
}

fn be16(packet: &[u8; 12], at: usize) -> usize {
    usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]))
}

fn be32(packet: &[u8; 12], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// At most as much as the host's allocation length allows.
fn limited(mut data: Vec<u8>, allocation: usize) -> Answer {
    data.truncate(allocation);
    if data.is_empty() { Answer::Done } else { Answer::Data(data) }
}

/// Minute, second and frame of a block, in the last three bytes (MMC-5 table 610).
fn msf(block: u32) -> [u8; 4] {
    let frames = block.saturating_add(150);
    [0, (frames / (60 * 75)).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

impl CdRom {
    /// A drive with an image of `bytes` in it; a last, incomplete block is not readable.
    pub fn new(bytes: u64, serial: &str) -> Self {
        Self {
            blocks: u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX),
            serial: serial.to_owned(),
            dma_mode: DmaMode::Multiword(2),
            sense: Sense::NONE,
            attention: Some(Sense::RESET_HAPPENED),
            event: MediaEvent::NewMedia,
            tray_open: false,
            removal_prevented: false,
        }
    }

    /// After a reset the next command learns of it.
    pub fn reset(&mut self) {
        self.sense = Sense::NONE;
        self.attention = Some(Sense::RESET_HAPPENED);
        self.removal_prevented = false;
    }

    /// Remembers why a command failed, for REQUEST SENSE, and returns the sense key.
    pub fn fail(&mut self, sense: Sense) -> u8 {
        self.sense = sense;
        sense.key
    }

    fn loaded(&self) -> bool {
        !self.tray_open && self.blocks > 0
    }

    /// Executes a packet command, as far as it goes without the disc's data.
    pub fn execute(&mut self, packet: &[u8; 12]) -> Answer {
        // INQUIRY, REQUEST SENSE and GET EVENT STATUS NOTIFICATION work whatever is the matter
        // (MMC-5 4.1.6.1).
        let always = matches!(packet[0], 0x03 | 0x12 | 0x4a);
        if !always && let Some(sense) = self.attention.take() {
            return Answer::Check(sense);
        }
        if packet[0] != 0x03 {
            self.sense = Sense::NONE;
        }
        match packet[0] {
            0x00 => self.when_loaded(|_| Answer::Done),
            0x03 => self.request_sense(packet),
            0x12 => self.inquiry(packet),
            0x1b => self.start_stop(packet),
            0x1e => {
                self.removal_prevented = packet[4] & 1 != 0;
                Answer::Done
            }
            0x25 => self.when_loaded(Self::read_capacity),
            0x28 => self.when_loaded(|cd| cd.read(be32(packet, 2), be16(packet, 7) as u32)),
            0xa8 => self.when_loaded(|cd| cd.read(be32(packet, 2), be32(packet, 6))),
            0xbe => self.when_loaded(|cd| cd.read_cd(packet)),
            0x2b => self.when_loaded(|cd| match be32(packet, 2) < cd.blocks {
                true => Answer::Done,
                false => Answer::Check(Sense::OUT_OF_RANGE),
            }),
            0x42 => self.when_loaded(|_| Self::read_subchannel(packet)),
            0x43 => self.when_loaded(|cd| cd.read_toc(packet)),
            0x46 => self.get_configuration(packet),
            0x4a => self.get_event_status(packet),
            0x51 => self.when_loaded(|_| Self::read_disc_information(packet)),
            0x5a => Self::mode_sense(packet),
            0xbd => self.mechanism_status(packet),
            _ => Answer::Check(Sense::BAD_COMMAND),
        }
    }

    fn when_loaded(&mut self, then: impl FnOnce(&mut Self) -> Answer) -> Answer {
        if self.loaded() { then(self) } else { Answer::Check(Sense::TRAY_OPEN) }
    }

    fn request_sense(&mut self, packet: &[u8; 12]) -> Answer {
        let sense = match self.attention.take() {
            Some(attention) => attention,
            None => std::mem::take(&mut self.sense),
        };
        let mut data = vec![0; 18];
        data[0] = 0x70; // current, fixed format
        data[2] = sense.key;
        data[7] = 10;
        data[12] = sense.asc;
        data[13] = sense.ascq;
        limited(data, usize::from(packet[4]))
    }

    fn inquiry(&self, packet: &[u8; 12]) -> Answer {
        if packet[1] & 1 != 0 {
            return Answer::Check(Sense::BAD_FIELD); // vital product data: none
        }
        // CD-ROM, removable, ANSI version 0 as ATAPI demands, response format 2 with ATAPI
        // version 2 (SFF-8020i 10.8.1).
        let mut data = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
        data.extend_from_slice(b"ISOLAB  ");
        data.extend_from_slice(b"CD-ROM          ");
        data.extend_from_slice(b"1.0 ");
        limited(data, usize::from(packet[4]))
    }

    fn start_stop(&mut self, packet: &[u8; 12]) -> Answer {
        let (load_eject, start) = (packet[4] & 2 != 0, packet[4] & 1 != 0);
        if !load_eject {
            return Answer::Done;
        }
        if !start && self.removal_prevented && !self.tray_open {
            return Answer::Check(Sense::REMOVAL_PREVENTED);
        }
        let open = !start;
        if open != self.tray_open {
            self.tray_open = open;
            self.event = if open { MediaEvent::Removal } else { MediaEvent::NewMedia };
            self.attention = (!open).then_some(Sense::MEDIUM_CHANGED);
        }
        Answer::Done
    }

    fn read_capacity(&mut self) -> Answer {
        let mut data = self.blocks.saturating_sub(1).to_be_bytes().to_vec();
        data.extend_from_slice(&(BLOCK as u32).to_be_bytes());
        Answer::Data(data)
    }

    fn read(&mut self, first: u32, count: u32) -> Answer {
        if u64::from(first) + u64::from(count) > u64::from(self.blocks) {
            return Answer::Check(Sense::OUT_OF_RANGE);
        }
        Answer::Read { offset: u64::from(first) * BLOCK, length: u64::from(count) * BLOCK }
    }

    /// Only the user data of mode 1 sectors is in an ISO file, so only that can be read.
    fn read_cd(&mut self, packet: &[u8; 12]) -> Answer {
        let count = u32::from_be_bytes([0, packet[6], packet[7], packet[8]]);
        let first = be32(packet, 2);
        match (packet[1] >> 2 & 7, packet[9] & 0xf8, packet[10] & 7) {
            (_, 0x00, 0) => self.read(first, 0),
            (0 | 2, 0x10, 0) => self.read(first, count),
            _ => Answer::Check(Sense::BAD_FIELD),
        }
    }

    fn read_subchannel(packet: &[u8; 12]) -> Answer {
        // Header only: no audio operation, no subchannel data.
        if packet[2] & 0x40 != 0 && packet[3] != 1 {
            return Answer::Check(Sense::BAD_FIELD);
        }
        limited(vec![0, 0x15, 0, 0], be16(packet, 7))
    }

    fn read_toc(&mut self, packet: &[u8; 12]) -> Answer {
        let in_msf = packet[1] & 2 != 0;
        // Drives before MMC took the format from the top bits of the control byte.
        let format = if packet[2] & 0x0f != 0 { packet[2] & 0x0f } else { packet[9] >> 6 };
        let first = packet[6];
        let address = |block: u32| if in_msf { msf(block) } else { block.to_be_bytes() };
        let mut data = vec![0, 0, 1, 1];
        let mut descriptor = |track: u8, block: u32| {
            data.extend_from_slice(&[0, 0x14, track, 0]);
            data.extend_from_slice(&address(block));
        };
        match format {
            0 if first > 1 && first != LEAD_OUT => return Answer::Check(Sense::BAD_FIELD),
            0 => {
                if first <= 1 {
                    descriptor(1, 0);
                }
                descriptor(LEAD_OUT, self.blocks);
            }
            1 => descriptor(1, 0),
            _ => return Answer::Check(Sense::BAD_FIELD),
        }
        let length = (data.len() as u16 - 2).to_be_bytes();
        data[..2].copy_from_slice(&length);
        limited(data, be16(packet, 7))
    }

    fn profile(&self) -> u16 {
        match (self.loaded(), self.blocks > LARGEST_CD_BLOCKS) {
            (false, _) => 0,
            (true, false) => PROFILE_CD_ROM,
            (true, true) => PROFILE_DVD_ROM,
        }
    }

    fn get_configuration(&self, packet: &[u8; 12]) -> Answer {
        let current = self.profile();
        let [cd, dvd] = [PROFILE_CD_ROM, PROFILE_DVD_ROM].map(|p| u8::from(p == current));
        let loaded = u8::from(self.loaded());
        // Feature code, version and current bit, payload (MMC-5 5.3).
        let features: [(u16, u8, Vec<u8>); 6] = [
            (0x0000, 3, vec![0, 0x10, dvd, 0, 0, 0x08, cd, 0]), // profile list
            (0x0001, 0x0b, vec![0, 0, 0, 2, 1, 0, 0, 0]),       // core: ATAPI
            (0x0003, 3, vec![0x29, 0, 0, 0]),                   // removable, tray, eject, lock
            (0x0010, loaded, vec![0, 0, 8, 0, 0, 0x10, 0, 0]),  // random readable
            (0x001e, 0x08 | cd, vec![0; 4]),                    // CD read
            (0x001f, dvd, vec![]),                              // DVD read
        ];
        let (only, start) = (packet[1] & 3, be16(packet, 2) as u16);
        let mut data = vec![0, 0, 0, 0, 0, 0];
        data.extend_from_slice(&current.to_be_bytes());
        for (code, flags, payload) in features {
            let wanted = match only {
                0 => code >= start,
                1 => code >= start && flags & 1 != 0,
                _ => code == start,
            };
            if wanted {
                data.extend_from_slice(&code.to_be_bytes());
                data.extend_from_slice(&[flags, payload.len() as u8]);
                data.extend_from_slice(&payload);
            }
        }
        let length = (data.len() as u32 - 4).to_be_bytes();
        data[..4].copy_from_slice(&length);
        limited(data, be16(packet, 7))
    }

    fn get_event_status(&mut self, packet: &[u8; 12]) -> Answer {
        const MEDIA_CLASS: u8 = 4;
        if packet[1] & 1 == 0 {
            return Answer::Check(Sense::BAD_FIELD); // asynchronous operation
        }
        let supported = 1 << MEDIA_CLASS;
        if packet[4] & supported == 0 {
            return limited(vec![0, 2, 0x80, supported], be16(packet, 7));
        }
        let event = std::mem::take(&mut self.event);
        let status = u8::from(self.tray_open) | u8::from(self.loaded()) << 1;
        let data = vec![0, 6, MEDIA_CLASS, supported, event as u8, status, 0, 0];
        limited(data, be16(packet, 7))
    }

    fn read_disc_information(packet: &[u8; 12]) -> Answer {
        if packet[1] & 7 != 0 {
            return Answer::Check(Sense::BAD_FIELD);
        }
        let mut data = vec![0; 34];
        data[1] = 32;
        data[2] = 0x0e; // complete disc, last session complete
        data[3..=6].fill(1); // first track, sessions, first and last track of the last session
        data[7] = 0x20; // unrestricted use
        limited(data, be16(packet, 7))
    }

    fn mode_sense(packet: &[u8; 12]) -> Answer {
        const RECOVERY: [u8; 8] = [0x01, 6, 0, 5, 0, 0, 0, 0];
        // Capabilities: reads mode 2 forms, multi-session; tray, eject, lock (SFF-8020i 10.8.6.7).
        const CAPABILITIES: [u8; 20] =
            [0x2a, 18, 0, 0, 0x70, 0, 0x29, 0, 0x16, 0, 0, 2, 0x02, 0, 0x16, 0, 0, 0, 0, 0];
        let (control, page) = (packet[2] >> 6, packet[2] & 0x3f);
        if control == 3 {
            return Answer::Check(Sense { key: 5, asc: 0x39, ascq: 0 }); // saved values: none
        }
        let mut data = vec![0, 0, 0x01, 0, 0, 0, 0, 0];
        if matches!(page, 0x01 | 0x3f) {
            data.extend_from_slice(&RECOVERY);
        }
        if matches!(page, 0x2a | 0x3f) {
            data.extend_from_slice(&CAPABILITIES);
        }
        if data.len() == 8 {
            return Answer::Check(Sense::BAD_FIELD);
        }
        if control == 1 {
            // Nothing is changeable: the pages' parameters read as zeroes.
            let mut at = 8;
            while at + 2 <= data.len() {
                let end = (at + 2 + usize::from(data[at + 1])).min(data.len());
                data[at + 2..end].fill(0);
                at = end;
            }
        }
        data[1] = (data.len() - 2) as u8;
        limited(data, be16(packet, 7))
    }

    fn mechanism_status(&self, packet: &[u8; 12]) -> Answer {
        let door = u8::from(self.tray_open) << 4;
        limited(vec![0, door, 0, 0, 0, 1, 0, 0], be16(packet, 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: &[u8]) -> [u8; 12] {
        let mut packet = [0; 12];
        packet[..bytes.len()].copy_from_slice(bytes);
        packet
    }

    fn ready(bytes: u64) -> CdRom {
        let mut cd = CdRom::new(bytes, "cd");
        assert_eq!(cd.execute(&packet(&[0])), Answer::Check(Sense::RESET_HAPPENED));
        assert_eq!(cd.execute(&packet(&[0])), Answer::Done);
        cd
    }

    #[test]
    fn reads_stay_on_the_disc() {
        let mut cd = ready(10 * BLOCK + 1);
        let read10 = |first: u8, count: u8| packet(&[0x28, 0, 0, 0, 0, first, 0, 0, count]);
        let whole = Answer::Read { offset: 0, length: 10 * BLOCK };
        assert_eq!(cd.execute(&read10(0, 10)), whole);
        assert_eq!(cd.execute(&read10(1, 10)), Answer::Check(Sense::OUT_OF_RANGE));
        let wraps = packet(&[0xa8, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(cd.execute(&wraps), Answer::Check(Sense::OUT_OF_RANGE));
        let Answer::Data(capacity) = cd.execute(&packet(&[0x25])) else { panic!() };
        assert_eq!(capacity, [0, 0, 0, 9, 0, 0, 8, 0]);
    }

    #[test]
    fn the_table_of_contents_ends_with_the_lead_out() {
        let mut cd = ready(1000 * BLOCK);
        let Answer::Data(toc) = cd.execute(&packet(&[0x43, 0, 0, 0, 0, 0, 0, 0, 255])) else {
            panic!()
        };
        assert_eq!(toc[..4], [0, 18, 1, 1]);
        assert_eq!(toc[12..], [0, 0x14, LEAD_OUT, 0, 0, 0, 3, 0xe8]);
        let in_msf = packet(&[0x43, 2, 0, 0, 0, 0, LEAD_OUT, 0, 255]);
        let Answer::Data(toc) = cd.execute(&in_msf) else { panic!() };
        assert_eq!(toc[8..], [0, 0, 15, 25]); // 1150 frames
    }

    #[test]
    fn allocation_lengths_cut_answers_and_no_packet_panics() {
        let mut cd = ready(1000 * BLOCK);
        assert_eq!(
            cd.execute(&packet(&[0x12, 0, 0, 0, 5])),
            Answer::Data(vec![5, 0x80, 0, 0x21, 31])
        );
        assert_eq!(cd.execute(&packet(&[0x12])), Answer::Done);
        for opcode in 0..=255u8 {
            for fill in [0, 1, 0x55, 0xff] {
                let mut any = [fill; 12];
                any[0] = opcode;
                cd.execute(&any);
            }
        }
    }

    #[test]
    fn the_tray_opens_unless_locked() {
        let mut cd = ready(BLOCK);
        cd.execute(&packet(&[0x1e, 0, 0, 0, 1]));
        let eject = packet(&[0x1b, 0, 0, 0, 2]);
        assert_eq!(cd.execute(&eject), Answer::Check(Sense::REMOVAL_PREVENTED));
        cd.execute(&packet(&[0x1e]));
        assert_eq!(cd.execute(&eject), Answer::Done);
        assert_eq!(cd.execute(&packet(&[0])), Answer::Check(Sense::TRAY_OPEN));
        cd.fail(Sense::TRAY_OPEN);
        let Answer::Data(sense) = cd.execute(&packet(&[3, 0, 0, 0, 18])) else { panic!() };
        assert_eq!((sense[2], sense[12]), (2, 0x3a));
        assert_eq!(cd.execute(&packet(&[0x1b, 0, 0, 0, 3])), Answer::Done);
        assert_eq!(cd.execute(&packet(&[0])), Answer::Check(Sense::MEDIUM_CHANGED));
        assert_eq!(cd.execute(&packet(&[0])), Answer::Done);
    }
}
