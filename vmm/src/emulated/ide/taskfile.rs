//! The command block registers of one drive (ATA/ATAPI-6, clause 7).

/// Status register, ATA/ATAPI-6 7.15.
pub mod status {
    /// The device is busy; all other bits and registers are meaningless.
    pub const BSY: u8 = 0x80;
    /// The device accepts commands.
    pub const DRDY: u8 = 0x40;
    /// Device fault.
    pub const DF: u8 = 0x20;
    /// Seek complete in ATA-3, command dependent since; drives leave it set.
    pub const DSC: u8 = 0x10;
    /// The device wants to move a block of data through the data register.
    pub const DRQ: u8 = 0x08;
    /// The error register says why; "check condition" on packet devices.
    pub const ERR: u8 = 0x01;
}

/// Error register, ATA/ATAPI-6 7.9.
pub mod error {
    /// Uncorrectable data.
    pub const UNC: u8 = 0x40;
    /// The address does not exist.
    pub const IDNF: u8 = 0x10;
    /// The command is unknown, or its parameters are invalid.
    pub const ABRT: u8 = 0x04;
    /// Not an error: what diagnostics leave when the device passed (9.10, code 01h).
    pub const DIAGNOSTICS_PASSED: u8 = 0x01;
}

/// Device register, ATA/ATAPI-6 7.7.
pub mod device {
    /// The address registers hold a logical block address, not cylinder, head and sector.
    pub const LBA: u8 = 0x40;
    /// Device 1 is meant.
    pub const DEV: u8 = 0x10;
    /// Head, or bits 27:24 of a 28-bit address.
    pub const HEAD: u8 = 0x0f;
}

/// Interrupt reason, the sector count register of packet devices (ATA/ATAPI-6 9.12).
pub mod reason {
    /// A command packet moves, or none at all; otherwise data.
    pub const COMMAND: u8 = 0x01;
    /// To the host.
    pub const TO_HOST: u8 = 0x02;
}

/// A register that remembers what was written to it before, for 48-bit commands
/// (ATA/ATAPI-6 6.19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fifo {
    /// What was written last.
    pub current: u8,
    /// What was written before that: the high-order byte.
    pub previous: u8,
}

impl Fifo {
    fn push(&mut self, value: u8) {
        self.previous = self.current;
        self.current = value;
    }

    /// Sets the low byte and forgets the high one, as a result that 28-bit commands report does.
    pub fn set(&mut self, value: u8) {
        *self = Self { current: value, previous: 0 };
    }

    fn read(self, high_order: bool) -> u8 {
        if high_order { self.previous } else { self.current }
    }
}

/// Whether a command takes 28-bit (or CHS) or 48-bit addresses and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte of count, 0 meaning 256.
    Lba28,
    /// Two bytes of count, 0 meaning 65536.
    Lba48,
}

/// The registers at offsets 1 to 7 of the command block, of one drive.
///
/// The host's writes reach both drives of a channel; each answers reads with its own results.
#[derive(Clone, Debug, Default)]
pub struct TaskFile {
    /// Features; read as the error register.
    pub features: Fifo,
    /// Sector count.
    pub count: Fifo,
    /// LBA 7:0, or the sector number.
    pub lba_low: Fifo,
    /// LBA 15:8, the low cylinder byte, or the low byte of a packet command's byte count.
    pub lba_mid: Fifo,
    /// LBA 23:16, the high cylinder byte, or the high byte of a packet command's byte count.
    pub lba_high: Fifo,
    /// Device register.
    pub device: u8,
    /// Error register, see [`error`].
    pub error: u8,
    /// Status register, see [`status`].
    pub status: u8,
}

impl TaskFile {
    /// Writes the register at `offset` 1 to 6 of the command block.
    pub fn write(&mut self, offset: u64, value: u8) {
        match offset {
            1 => self.features.push(value),
            2 => self.count.push(value),
            3 => self.lba_low.push(value),
            4 => self.lba_mid.push(value),
            5 => self.lba_high.push(value),
            6 => self.device = value,
            _ => {}
        }
    }

    /// Reads the register at `offset` 1 to 7; `high_order` is the HOB bit of device control.
    pub fn read(&self, offset: u64, high_order: bool) -> u8 {
        match offset {
            1 => self.error,
            2 => self.count.read(high_order),
            3 => self.lba_low.read(high_order),
            4 => self.lba_mid.read(high_order),
            5 => self.lba_high.read(high_order),
            // Bits 7 and 5 are obsolete and read as ones on the drives of the PIIX3's time.
            6 => self.device | 0xa0,
            7 => self.status,
            _ => 0xff,
        }
    }

    /// The number of sectors meant: 1 to 256, or 1 to 65536.
    pub fn sector_count(&self, width: Width) -> u32 {
        match (width, u32::from(self.count.current)) {
            (Width::Lba28, 0) => 256,
            (Width::Lba28, count) => count,
            (Width::Lba48, low) => match u32::from(self.count.previous) << 8 | low {
                0 => 65536,
                count => count,
            },
        }
    }

    /// The logical block address meant; `None` where the registers hold a CHS address.
    pub fn lba(&self, width: Width) -> Option<u64> {
        if self.device & device::LBA == 0 {
            return None;
        }
        let low = u64::from(self.lba_low.current)
            | u64::from(self.lba_mid.current) << 8
            | u64::from(self.lba_high.current) << 16;
        Some(match width {
            Width::Lba28 => low | u64::from(self.device & device::HEAD) << 24,
            Width::Lba48 => {
                low | u64::from(self.lba_low.previous) << 24
                    | u64::from(self.lba_mid.previous) << 32
                    | u64::from(self.lba_high.previous) << 40
            }
        })
    }

    /// Cylinder, head and sector (which counts from 1) as the registers hold them.
    pub fn chs(&self) -> (u64, u64, u64) {
        let cylinder = u64::from(self.lba_high.current) << 8 | u64::from(self.lba_mid.current);
        (cylinder, u64::from(self.device & device::HEAD), u64::from(self.lba_low.current))
    }

    /// Puts an address into the registers: where an error happened, or the largest address.
    pub fn set_lba(&mut self, width: Width, lba: u64) {
        let byte = |shift: u32| (lba >> shift) as u8;
        match width {
            Width::Lba28 => {
                self.lba_low.set(byte(0));
                self.lba_mid.set(byte(8));
                self.lba_high.set(byte(16));
                self.device = (self.device & !device::HEAD) | (byte(24) & device::HEAD);
            }
            Width::Lba48 => {
                self.lba_low = Fifo { current: byte(0), previous: byte(24) };
                self.lba_mid = Fifo { current: byte(8), previous: byte(32) };
                self.lba_high = Fifo { current: byte(16), previous: byte(40) };
            }
        }
    }

    /// What a device without (ATA) or with the PACKET feature set leaves in its registers after a
    /// reset, for the host to tell them apart (ATA/ATAPI-6 9.12).
    pub fn post_signature(&mut self, packet: bool) {
        self.count.set(1);
        self.lba_low.set(1);
        self.lba_mid.set(if packet { 0x14 } else { 0 });
        self.lba_high.set(if packet { 0xeb } else { 0 });
        self.device &= device::DEV;
        self.error = error::DIAGNOSTICS_PASSED;
        // A packet device shows DRDY only after its first packet command.
        self.status = if packet { 0 } else { status::DRDY | status::DSC };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_count_is_the_largest_one() {
        let mut registers = TaskFile::default();
        assert_eq!(registers.sector_count(Width::Lba28), 256);
        assert_eq!(registers.sector_count(Width::Lba48), 65536);
        registers.write(2, 1);
        registers.write(2, 0);
        assert_eq!(registers.sector_count(Width::Lba28), 256);
        assert_eq!(registers.sector_count(Width::Lba48), 256);
    }

    #[test]
    fn addresses_come_back_as_they_were_put() {
        let mut registers = TaskFile { device: device::LBA, ..TaskFile::default() };
        registers.set_lba(Width::Lba48, 0x0605_0403_0201);
        assert_eq!(registers.lba(Width::Lba48), Some(0x0605_0403_0201));
        registers.set_lba(Width::Lba28, 0x0abc_def1);
        assert_eq!(registers.lba(Width::Lba28), Some(0x0abc_def1));
        assert_eq!(registers.read(3, true), 0);
        registers.device = 3;
        assert_eq!(registers.lba(Width::Lba28), None);
        assert_eq!(registers.chs(), (0xbcde, 3, 0xf1));
    }
}
