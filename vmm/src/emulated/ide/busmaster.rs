//! The bus master of one channel: its registers, and the tables of physical regions it follows
//! (SFF-8038i, "Programming Interface for Bus Master IDE Controller", revision 1.0).

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::memory::GuestRam;
use crate::segments::GuestSegment;

/// Command register, offset 0.
const COMMAND_START: u8 = 0x01;
const COMMAND_WRITABLE: u8 = 0x09;

/// Status register, offset 2.
const STATUS_ACTIVE: u8 = 0x01;
const STATUS_ERROR: u8 = 0x02;
const STATUS_INTERRUPT: u8 = 0x04;
/// Firmware and drivers note here that a drive is set up for DMA; the hardware does not look.
const STATUS_DRIVES_CAPABLE: u8 = 0x60;

/// A table is at most 64 KiB long: it does not cross a 64 KiB boundary (SFF-8038i 1.2).
const MAX_ENTRIES: u32 = 0x1_0000 / ENTRY_LENGTH;
const ENTRY_LENGTH: u32 = 8;
const END_OF_TABLE: u32 = 1 << 31;

/// Registers of one channel.
#[derive(Debug, Default)]
pub struct BusMaster {
    command: u8,
    status: u8,
    prd_table: u32,
    /// Start was written and no transfer has used it up.
    armed: bool,
}

impl BusMaster {
    /// Reads the register byte at `offset` 0 to 7.
    pub fn read(&self, offset: u64) -> u8 {
        match offset {
            0 => self.command,
            2 => self.status,
            4..=7 => self.prd_table.to_le_bytes()[(offset - 4) as usize],
            _ => 0,
        }
    }

    /// Writes the register byte at `offset` 0 to 7. `busy` tells that a transfer is under way:
    /// it runs to its end even when the host takes Start away, and Active says so.
    pub fn write(&mut self, offset: u64, value: u8, busy: bool) {
        match offset {
            0 => self.write_command(value & COMMAND_WRITABLE, busy),
            2 => {
                let cleared = value & (STATUS_ERROR | STATUS_INTERRUPT);
                let kept = self.status & !STATUS_DRIVES_CAPABLE & !cleared;
                self.status = kept | value & STATUS_DRIVES_CAPABLE;
            }
            4..=7 => {
                let mut bytes = self.prd_table.to_le_bytes();
                bytes[(offset - 4) as usize] = value;
                // Bits 1:0 are reserved: tables are aligned to double words.
                self.prd_table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
    }

    fn write_command(&mut self, value: u8, busy: bool) {
        let started = value & !self.command & COMMAND_START != 0;
        self.command = value;
        if started {
            self.armed = true;
            self.status |= STATUS_ACTIVE;
        } else if value & COMMAND_START == 0 {
            self.armed = false;
            if !busy {
                self.status &= !STATUS_ACTIVE;
            }
        }
    }

    /// Where the table of the transfer that begins now is; `None` until the host starts the bus
    /// master. Each start serves one transfer.
    pub fn begin(&mut self) -> Option<u32> {
        self.armed.then(|| {
            self.armed = false;
            self.prd_table
        })
    }

    /// The transfer is over (SFF-8038i, table in 3.0: Active stays when regions are left).
    pub fn end(&mut self, regions_left: bool) {
        if !regions_left || self.command & COMMAND_START == 0 {
            self.status &= !STATUS_ACTIVE;
        }
    }

    /// The transfer stopped because the table or a region is not in memory.
    pub fn fail(&mut self) {
        self.status &= !STATUS_ACTIVE;
        self.status |= STATUS_ERROR;
    }

    /// The drive raised its interrupt line.
    pub fn interrupt(&mut self) {
        self.status |= STATUS_INTERRUPT;
    }

    /// Puts all registers into their power-on state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The table or one of its regions lies outside of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory;

/// The part of a table that one transfer uses.
#[derive(Debug, PartialEq, Eq)]
pub struct Regions {
    /// In order; every one lies within guest memory.
    pub segments: Vec<GuestSegment>,
    /// Their sum, at most what was asked for.
    pub bytes: u64,
    /// The table describes more than was asked for.
    pub left: bool,
}

/// Follows the table at `table` until `wanted` bytes are described or it ends.
///
/// # Errors
/// [`OutsideMemory`], where real hardware would see a master abort.
pub fn regions(memory: &GuestRam, table: u32, wanted: u64) -> Result<Regions, OutsideMemory> {
    let mut segments: Vec<GuestSegment> = Vec::new();
    let mut bytes = 0;
    let mut ended = false;
    for index in 0..MAX_ENTRIES {
        if ended || bytes == wanted {
            break;
        }
        let at = u64::from(table) + u64::from(index * ENTRY_LENGTH);
        let entry: u64 = memory.read_obj(GuestAddress(at)).map_err(|_| OutsideMemory)?;
        let (address, flags) = (entry as u32 & !1, (entry >> 32) as u32);
        let length = match flags & 0xfffe {
            0 => 0x1_0000,
            length => u64::from(length),
        };
        let taken = length.min(wanted - bytes);
        ended = flags & END_OF_TABLE != 0 && taken == length;
        let address = GuestAddress(u64::from(address));
        if !memory.check_range(address, taken as usize) {
            return Err(OutsideMemory);
        }
        append(&mut segments, GuestSegment { address, length: taken as u32 });
        bytes += taken;
    }
    Ok(Regions { segments, bytes, left: !ended })
}

/// Joins a region to the one before where they touch, so that the host sees fewer of them.
fn append(segments: &mut Vec<GuestSegment>, next: GuestSegment) {
    if let Some(last) = segments.last_mut()
        && last.address.0 + u64::from(last.length) == next.address.0
        && let Some(length) = last.length.checked_add(next.length)
    {
        last.length = length;
        return;
    }
    segments.push(next);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_with(table: u64, entries: &[(u32, u32)]) -> GuestRam {
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        for (index, (address, flags)) in entries.iter().enumerate() {
            let at = GuestAddress(table + index as u64 * 8);
            memory.write_obj(u64::from(*address) | u64::from(*flags) << 32, at).unwrap();
        }
        memory
    }

    fn segment(address: u64, length: u32) -> GuestSegment {
        GuestSegment { address: GuestAddress(address), length }
    }

    #[test]
    fn touching_regions_join_and_a_zero_length_is_64_kib() {
        let memory =
            memory_with(0x1000, &[(0x2000, 0x200), (0x2200, 0x200), (0x1_0000, END_OF_TABLE)]);
        let found = regions(&memory, 0x1000, 0x1_0400).unwrap();
        assert_eq!(found.segments, [segment(0x2000, 0x400), segment(0x1_0000, 0x1_0000)]);
        assert_eq!((found.bytes, found.left), (0x1_0400, false));
    }

    #[test]
    fn a_table_may_describe_less_or_more_than_the_transfer() {
        let memory = memory_with(0x1000, &[(0x2000, 0x200 | END_OF_TABLE)]);
        let short = regions(&memory, 0x1000, 0x400).unwrap();
        assert_eq!((short.bytes, short.left), (0x200, false));
        let long = regions(&memory, 0x1000, 0x100).unwrap();
        assert_eq!((long.bytes, long.left), (0x100, true));
    }

    #[test]
    fn a_table_without_an_end_stops_after_64_kib() {
        let entries = vec![(0x2000, 2); 0x3000];
        let memory = memory_with(0x4000, &entries);
        let found = regions(&memory, 0x4000, u64::MAX).unwrap();
        assert_eq!((found.bytes, found.left), (0x2000 * 2, true));
    }

    #[test]
    fn nothing_outside_memory_is_followed() {
        let memory = memory_with(0x1000, &[(0xf_ff00, 0x200 | END_OF_TABLE)]);
        assert_eq!(regions(&memory, 0x1000, 0x200), Err(OutsideMemory));
        for table in [0x10_0000, 0xf_fffc, 0xffff_fffc] {
            assert_eq!(regions(&memory, table, 0x200), Err(OutsideMemory));
        }
        let memory = memory_with(0x1000, &[(0xffff_fffe, END_OF_TABLE)]);
        assert_eq!(regions(&memory, 0x1000, 0x200), Err(OutsideMemory));
    }

    #[test]
    fn status_bits_are_cleared_by_writing_ones_and_active_by_stopping() {
        let mut master = BusMaster::default();
        assert_eq!(master.begin(), None);
        master.write(5, 0x10, false);
        master.write(0, 0x09, false);
        assert_eq!(master.read(2), 0x01);
        assert_eq!(master.begin(), Some(0x1000));
        assert_eq!(master.begin(), None);
        master.interrupt();
        master.end(true);
        assert_eq!(master.read(2), 0x05);
        master.write(2, 0x64, false);
        assert_eq!(master.read(2), 0x61);
        master.write(0, 0, true);
        assert_eq!(master.read(2), 0x61, "active until the transfer under way is over");
        master.end(true);
        assert_eq!(master.read(2), 0x60);
    }
}
