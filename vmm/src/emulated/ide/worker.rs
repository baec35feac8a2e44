//! The channel's thread: it moves data between disk and memory, so that no vCPU waits for the
//! host's disk.

use std::io;
use std::os::fd::RawFd;

use vm_memory::{Bytes, GuestAddress};

use super::busmaster::{self, OutsideMemory};
use crate::backend::disk::{DiskCompletion, DiskEngine, DiskOperation, DiskRequest, SECTOR_SIZE};
use crate::eintr::retry;
use crate::memory::GuestRam;
use crate::segments::{self, GuestSegment};

/// The most that one PIO job moves: what the longest 28-bit command asks for.
pub const STAGING_LENGTH: usize = 128 << 10;

/// The most that one request to the engine moves.
const MAX_REQUEST_BYTES: u64 = 4 << 20;
/// The most segments in one request: within IOV_MAX (1024), and enough for two sectors even when
/// every region has the least length, 2 bytes.
const MAX_REQUEST_SEGMENTS: usize = 512;

/// Work for the channel's thread. Offsets and lengths are in bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Job {
    /// Disk to buffer; at most [`STAGING_LENGTH`].
    Fetch {
        /// Byte offset on the disk.
        offset: u64,
        /// How much; a multiple of `block`.
        length: usize,
        /// The smallest piece that is worth having when the disk fails.
        block: usize,
    },
    /// Buffer to disk; at most [`STAGING_LENGTH`].
    Store {
        /// Byte offset on the disk.
        offset: u64,
        /// Whole sectors.
        data: Vec<u8>,
        /// Whether the disk is flushed afterwards.
        durable: bool,
    },
    /// Reads, to see whether that fails, and forgets the data.
    Verify {
        /// Byte offset on the disk.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// As in [`Job::Fetch`].
        block: usize,
    },
    /// All that was written becomes durable.
    Flush,
    /// Between disk and the memory that a bus master's table describes.
    Dma {
        /// See [`DmaData`].
        data: DmaData,
        /// Guest-physical address of the table.
        prd_table: u32,
    },
}

/// What a bus master transfer moves.
#[derive(Debug, PartialEq, Eq)]
pub enum DmaData {
    /// Disk to memory.
    Read {
        /// Byte offset on the disk.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Memory to disk.
    Write {
        /// Byte offset on the disk.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Whether the disk is flushed afterwards.
        durable: bool,
    },
    /// The drive's own answer to memory.
    Reply(Vec<u8>),
}

/// A job and the drive it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Assignment {
    /// 0 or 1.
    pub unit: usize,
    /// What the thread does for it.
    pub job: Job,
}

/// How a bus master's table fitted its transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Both ended together.
    Exact,
    /// Regions are left over.
    RegionsLeft,
    /// The table ended first.
    Short,
}

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
pub enum JobResult {
    /// [`Job::Fetch`]: the data; less than asked for when the block behind it cannot be read.
    Data(Vec<u8>),
    /// Done, with nothing to hand over.
    Done,
    /// [`Job::Dma`] done.
    Transferred(Fit),
    /// The host's disk failed at this byte offset.
    DiskError(u64),
    /// The table or a region lies outside of guest memory.
    MemoryError,
}

/// Runs jobs, one at a time: IDE has one command in flight per channel.
pub struct Executor {
    memory: GuestRam,
    staging: GuestRam,
    engines: [Option<Box<dyn DiskEngine>>; 2],
}

impl Executor {
    /// An executor for the two drives' engines.
    ///
    /// # Errors
    /// The host has no memory for the staging buffer.
    pub fn new(memory: GuestRam, engines: [Option<Box<dyn DiskEngine>>; 2]) -> io::Result<Self> {
        let staging = GuestRam::from_ranges(&[(GuestAddress(0), STAGING_LENGTH)])
            .map_err(io::Error::other)?;
        Ok(Self { memory, staging, engines })
    }

    /// Does one job to its end.
    pub fn run(&mut self, assignment: Assignment) -> JobResult {
        let unit = assignment.unit;
        match assignment.job {
            Job::Fetch { offset, length, block } => self.fetch(unit, offset, length, block),
            Job::Store { offset, data, durable } => self.store(unit, offset, &data, durable),
            Job::Verify { offset, length, block } => self.verify(unit, offset, length, block),
            Job::Flush => self.flush(unit, 0, JobResult::Done),
            Job::Dma { data, prd_table } => self.dma(unit, data, prd_table),
        }
    }

    fn fetch(&mut self, unit: usize, offset: u64, length: usize, block: usize) -> JobResult {
        let length = length.min(STAGING_LENGTH);
        let mut good = length;
        if self.stage(unit, DiskOperation::Read, offset, 0, length).is_err() {
            // Find the first bad block, so that the host gets all in front of it and its address.
            good = (0..length)
                .step_by(block.max(1))
                .find(|&at| {
                    let piece = block.min(length - at);
                    self.stage(unit, DiskOperation::Read, offset + at as u64, at, piece).is_err()
                })
                .unwrap_or(length);
        }
        if good == 0 {
            return JobResult::DiskError(offset);
        }
        let mut data = vec![0; good];
        match self.staging.read_slice(&mut data, GuestAddress(0)) {
            Ok(()) => JobResult::Data(data),
            Err(_) => JobResult::DiskError(offset),
        }
    }

    fn store(&mut self, unit: usize, offset: u64, data: &[u8], durable: bool) -> JobResult {
        let staged = self.staging.write_slice(data, GuestAddress(0)).is_ok();
        if !staged || self.stage(unit, DiskOperation::Write, offset, 0, data.len()).is_err() {
            return JobResult::DiskError(offset);
        }
        if durable { self.flush(unit, offset, JobResult::Done) } else { JobResult::Done }
    }

    fn verify(&mut self, unit: usize, offset: u64, length: u64, block: usize) -> JobResult {
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(STAGING_LENGTH as u64) as usize;
            match self.fetch(unit, offset + done, piece, block) {
                JobResult::Data(data) => done += data.len() as u64,
                failed => return failed,
            }
        }
        JobResult::Done
    }

    fn flush(&mut self, unit: usize, offset: u64, outcome: JobResult) -> JobResult {
        let request = DiskRequest {
            tag: 0,
            operation: DiskOperation::Flush,
            offset: 0,
            length: 0,
            segments: &[],
        };
        match run_request(&mut self.engines[unit], &self.memory, request) {
            Ok(()) => outcome,
            Err(_) => JobResult::DiskError(offset),
        }
    }

    fn dma(&mut self, unit: usize, data: DmaData, prd_table: u32) -> JobResult {
        match data {
            DmaData::Read { offset, length } => {
                self.dma_disk(unit, DiskOperation::Read, offset, length, prd_table)
            }
            DmaData::Write { offset, length, durable } => {
                match self.dma_disk(unit, DiskOperation::Write, offset, length, prd_table) {
                    done @ JobResult::Transferred(_) if durable => self.flush(unit, offset, done),
                    outcome => outcome,
                }
            }
            DmaData::Reply(reply) => self.dma_reply(&reply, prd_table),
        }
    }

    fn dma_disk(
        &mut self,
        unit: usize,
        operation: DiskOperation,
        offset: u64,
        length: u64,
        prd_table: u32,
    ) -> JobResult {
        let found = match busmaster::regions(&self.memory, prd_table, length) {
            Ok(found) => found,
            Err(OutsideMemory) => return JobResult::MemoryError,
        };
        let mut at = offset;
        for segments in requests(&found.segments) {
            let length = segments::length(&segments);
            let request =
                DiskRequest { tag: 0, operation, offset: at, length, segments: &segments };
            if run_request(&mut self.engines[unit], &self.memory, request).is_err() {
                return JobResult::DiskError(at);
            }
            at += length;
        }
        JobResult::Transferred(fit(found.bytes, length, found.left))
    }

    fn dma_reply(&self, reply: &[u8], prd_table: u32) -> JobResult {
        let wanted = reply.len() as u64;
        let found = match busmaster::regions(&self.memory, prd_table, wanted) {
            Ok(found) => found,
            Err(OutsideMemory) => return JobResult::MemoryError,
        };
        let mut rest = reply;
        for segment in &found.segments {
            let (now, later) = rest.split_at(rest.len().min(segment.length as usize));
            if self.memory.write_slice(now, segment.address).is_err() {
                return JobResult::MemoryError;
            }
            rest = later;
        }
        JobResult::Transferred(fit(found.bytes, wanted, found.left))
    }

    /// One request between the disk and the staging buffer from `at` on.
    fn stage(
        &mut self,
        unit: usize,
        operation: DiskOperation,
        offset: u64,
        at: usize,
        length: usize,
    ) -> io::Result<()> {
        let segment = GuestSegment { address: GuestAddress(at as u64), length: length as u32 };
        let length = length as u64;
        let request = DiskRequest { tag: 0, operation, offset, length, segments: &[segment] };
        run_request(&mut self.engines[unit], &self.staging, request)
    }
}

fn fit(described: u64, wanted: u64, left: bool) -> Fit {
    match (described < wanted, left) {
        (true, _) => Fit::Short,
        (false, true) => Fit::RegionsLeft,
        (false, false) => Fit::Exact,
    }
}

/// Cuts a transfer into requests of whole sectors, each within the limits above. What a table
/// describes of a last, incomplete sector is left out.
fn requests(segments: &[GuestSegment]) -> Vec<Vec<GuestSegment>> {
    let total: u64 = segments.iter().map(|s| u64::from(s.length)).sum();
    let mut left = total - total % SECTOR_SIZE;
    let mut finished = Vec::new();
    let mut request: Vec<GuestSegment> = Vec::new();
    let mut bytes = 0;
    for segment in segments {
        let mut address = segment.address.0;
        let mut length = u64::from(segment.length).min(left);
        left -= length;
        while length > 0 {
            let full = bytes >= MAX_REQUEST_BYTES || request.len() >= MAX_REQUEST_SEGMENTS;
            let to_boundary = (SECTOR_SIZE - bytes % SECTOR_SIZE) % SECTOR_SIZE;
            if full && to_boundary == 0 {
                finished.push(std::mem::take(&mut request));
                bytes = 0;
                continue;
            }
            let taken = if full { length.min(to_boundary) } else { length };
            request.push(GuestSegment { address: GuestAddress(address), length: taken as u32 });
            bytes += taken;
            address += taken;
            length -= taken;
        }
    }
    if !request.is_empty() {
        finished.push(request);
    }
    finished
}

fn run_request(
    engine: &mut Option<Box<dyn DiskEngine>>,
    memory: &GuestRam,
    request: DiskRequest<'_>,
) -> io::Result<()> {
    let engine = engine.as_mut().ok_or(io::ErrorKind::NotFound)?;
    engine.submit(memory, request);
    engine.kick();
    let mut done: Vec<DiskCompletion> = Vec::new();
    loop {
        engine.completions(&mut done);
        if let Some(completion) = done.pop() {
            return completion.result;
        }
        if !engine.arm() {
            wait_readable(engine.completion_event())?;
        }
    }
}

/// Blocks until `fd` is readable; signals do not end the wait.
fn wait_readable(fd: RawFd) -> io::Result<()> {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    retry(|| {
        // SAFETY: `poll` is one valid, exclusively borrowed pollfd for the length of the call.
        match unsafe { libc::poll(&mut poll, 1, -1) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_sectors_however_the_memory_is_cut() {
        let tiny: Vec<GuestSegment> =
            (0..8192).map(|i| GuestSegment { address: GuestAddress(i * 16), length: 2 }).collect();
        let cut = requests(&tiny);
        assert!(cut.len() > 1);
        for request in &cut {
            assert!(request.len() <= MAX_REQUEST_SEGMENTS + 256);
            let bytes: u64 = request.iter().map(|s| u64::from(s.length)).sum();
            assert_eq!(bytes % SECTOR_SIZE, 0);
        }
        assert_eq!(cut.iter().flatten().count(), 8192);

        let odd = [3 << 20, (2 << 20) + 100, 412, 511]
            .map(|length| GuestSegment { address: GuestAddress(0), length });
        let lengths: Vec<u64> =
            requests(&odd).iter().map(|r| r.iter().map(|s| u64::from(s.length)).sum()).collect();
        assert_eq!(lengths.iter().sum::<u64>(), (5 << 20) + 512);
        assert!(lengths.iter().all(|l| l % SECTOR_SIZE == 0));
    }
}
