//! virtio-blk requests (virtio 1.2, 5.2.6): what the driver wrote, judged and translated.

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::backend::disk::{DiskOperation, SECTOR_SIZE};
use crate::memory::GuestRam;
use crate::segments::{self, GuestSegment, cut_front, cut_last_byte};
use crate::virtio::chain::{Chain, ChainFault};

/// Data buffers of a request, beside its header and status (`seg_max`).
pub const MAX_SEGMENTS: u32 = 254;
/// Bytes of a data buffer (`size_max`), the least that some drivers accept. The two make the longest
/// request 16 MiB. What is longer is refused, also of a driver that did not ask for the limits: how
/// long the host's disk works for one request is not for the guest to say.
pub const MAX_SEGMENT_SIZE: u32 = 64 << 10;
const MAX_DATA: u64 = MAX_SEGMENTS as u64 * MAX_SEGMENT_SIZE as u64;
/// Ranges in one discard request.
pub const MAX_DISCARD_RANGES: u32 = 16;
/// Sectors in one such range: 256 MiB. 16 of them the host deallocates without a noticeable pause.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 19;
/// Ranges in one write-zeroes request.
pub const MAX_ZERO_RANGES: u32 = 1;
/// Sectors in one such range: 32 MiB, as some hosts have to write them.
pub const MAX_ZERO_SECTORS: u32 = 1 << 16;
/// How much quicker the host discards than it reads or writes, at least.
const DISCARD_SPEED: u64 = 64;

/// `struct virtio_blk_req` up to its data.
const HEADER_LENGTH: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`.
const RANGE_LENGTH: usize = 16;
const ID_LENGTH: usize = VIRTIO_BLK_ID_BYTES as usize;

/// `status` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// VIRTIO_BLK_S_OK: done, all of it.
    Ok,
    /// The host failed, or the request makes no sense.
    IoError,
    /// The device does not do that.
    Unsupported,
}

impl Status {
    pub fn byte(self) -> u8 {
        let value = match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        value as u8
    }
}

/// One thing that the disk is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What is done with these bytes of the disk.
    pub operation: DiskOperation,
    /// Byte offset on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Part {
    /// How much of the host's work it is, as the number of bytes that could be read meanwhile.
    fn weight(&self) -> u64 {
        match self.operation {
            DiskOperation::Discard => self.length / DISCARD_SPEED,
            _ => self.length,
        }
    }

    fn payload(&self) -> u64 {
        match self.operation {
            DiskOperation::Read | DiskOperation::Write => self.length,
            _ => 0,
        }
    }
}

/// What is left to do for a request.
#[derive(Debug)]
pub enum Work {
    /// `first`, then `later` from its end, and then the status. Only ranges to discard are more
    /// than one.
    Disk { first: Part, later: Vec<Part> },
    /// Nothing but the status, after `written` bytes of data.
    Answer { status: Status, written: u32 },
}

/// A chain understood as far as its status byte.
#[derive(Debug)]
pub struct Request {
    /// Where the status goes; in RAM.
    pub status: GuestAddress,
    /// Bytes the device may write before the status.
    pub data_length: u32,
    /// Payload, in bytes.
    pub payload: u64,
    /// How much of the host's work it is, as the number of bytes that could be read meanwhile.
    pub weight: u64,
    /// What the disk is to do before the status is written.
    pub work: Work,
}

impl Request {
    /// Understands `chain`, and cuts header and status from its buffers: what is left is data.
    ///
    /// # Errors
    /// There is no place for a status; the text says why.
    pub fn parse(memory: &GuestRam, chain: &mut Chain, serial: &str) -> Result<Self, &'static str> {
        if chain.fault == Some(ChainFault::Endless) {
            return Err("a request's descriptor chain has no end");
        }
        // The status is the last byte (5.2.6), however the driver framed the buffers.
        let Some(status) = cut_last_byte(&mut chain.writable) else {
            return Err("a request has no place for its status");
        };
        if !memory.address_in_range(status) {
            return Err("a request's status is outside RAM");
        }
        // Chains are shorter than 2^32 bytes (see `ChainFault::Endless`).
        let data_length = chain.writable_length() as u32;
        let work = match chain.fault {
            Some(_) => None,
            None => work(memory, chain, serial),
        };
        let work = work.unwrap_or(answer(Status::IoError));
        let (payload, weight) = match &work {
            Work::Disk { first, later } => {
                (first.payload(), first.weight() + later.iter().map(Part::weight).sum::<u64>())
            }
            Work::Answer { .. } => (0, 0),
        };
        Ok(Self { status, data_length, payload, weight, work })
    }
}

fn answer(status: Status) -> Work {
    Work::Answer { status, written: 0 }
}

fn disk(operation: DiskOperation, offset: u64, length: u64) -> Work {
    Work::Disk { first: Part { operation, offset, length }, later: Vec::new() }
}

/// `None`: malformed.
fn work(memory: &GuestRam, chain: &mut Chain, serial: &str) -> Option<Work> {
    let mut header = [0; HEADER_LENGTH];
    segments::read(memory, &chain.readable, 0, &mut header)?;
    cut_front(&mut chain.readable, HEADER_LENGTH as u64)?;
    let kind = u32::from_le_bytes(header[..4].try_into().ok()?);
    let sector = u64::from_le_bytes(header[8..].try_into().ok()?);
    match kind {
        VIRTIO_BLK_T_IN => transfer(DiskOperation::Read, sector, &chain.writable),
        VIRTIO_BLK_T_OUT => transfer(DiskOperation::Write, sector, &chain.readable),
        VIRTIO_BLK_T_FLUSH => Some(disk(DiskOperation::Flush, 0, 0)),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
            ranges(memory, &chain.readable, kind == VIRTIO_BLK_T_WRITE_ZEROES)
        }
        VIRTIO_BLK_T_GET_ID => {
            let mut id = [0; ID_LENGTH];
            let length = serial.len().min(ID_LENGTH);
            id[..length].copy_from_slice(&serial.as_bytes()[..length]);
            // At most 20.
            let written = segments::write(memory, &chain.writable, 0, &id)? as u32;
            Some(Work::Answer { status: Status::Ok, written })
        }
        _ => Some(answer(Status::Unsupported)),
    }
}

fn transfer(operation: DiskOperation, sector: u64, data: &[GuestSegment]) -> Option<Work> {
    let length = segments::length(data);
    let too_much = data.len() > MAX_SEGMENTS as usize || length > MAX_DATA;
    if too_much || !length.is_multiple_of(SECTOR_SIZE) {
        return None;
    }
    Some(disk(operation, sector.checked_mul(SECTOR_SIZE)?, length))
}

/// 5.2.6.2: unknown flags are unsupported, ranges too many or too long an error.
fn ranges(memory: &GuestRam, output: &[GuestSegment], zeroes: bool) -> Option<Work> {
    let (max_ranges, max_sectors) = match zeroes {
        true => (MAX_ZERO_RANGES, MAX_ZERO_SECTORS),
        false => (MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS),
    };
    let length = usize::try_from(segments::length(output)).ok()?;
    let count = length / RANGE_LENGTH;
    if length == 0 || !length.is_multiple_of(RANGE_LENGTH) || count > max_ranges as usize {
        return None;
    }
    let mut raw = [0; RANGE_LENGTH * MAX_DISCARD_RANGES as usize];
    let raw = &mut raw[..length];
    segments::read(memory, output, 0, raw)?;
    let mut first = None;
    let mut later = Vec::new();
    for range in raw.chunks_exact(RANGE_LENGTH) {
        let sector = u64::from_le_bytes(range[..8].try_into().ok()?);
        let sectors = u32::from_le_bytes(range[8..12].try_into().ok()?);
        let flags = u32::from_le_bytes(range[12..].try_into().ok()?);
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        let allowed = if zeroes { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP } else { 0 };
        if flags & !allowed != 0 {
            return Some(answer(Status::Unsupported));
        }
        if sectors > max_sectors {
            return None;
        }
        let operation = match zeroes {
            true => DiskOperation::WriteZeroes { unmap },
            false => DiskOperation::Discard,
        };
        let offset = sector.checked_mul(SECTOR_SIZE)?;
        let part = Part { operation, offset, length: u64::from(sectors) * SECTOR_SIZE };
        if let Some(before) = first.replace(part) {
            later.push(before);
        }
    }
    Some(Work::Disk { first: first?, later })
}
