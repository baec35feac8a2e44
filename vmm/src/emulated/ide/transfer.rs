//! Data between the host and a drive, one block (DRQ) at a time and in chunks that the disk moves at
//! once.

use super::worker::{Job, STAGING_LENGTH};

/// Data on its way to the host.
#[derive(Debug, Default)]
pub struct DataIn {
    /// What was fetched; bytes up to `position` are gone.
    buffer: Vec<u8>,
    position: usize,
    /// Where the block that DRQ offers ends.
    block_end: usize,
    /// Bytes per DRQ; at least 1.
    block: usize,
    /// What the disk fails by: a sector.
    sector: usize,
    /// Where on the disk the data behind the buffer is, and how much of it.
    offset: u64,
    remaining: u64,
}

impl DataIn {
    /// `data`, which the drive has at hand, in blocks of `block` bytes.
    pub fn at_hand(data: Vec<u8>, block: usize) -> Self {
        Self { buffer: data, block: block.max(1), ..Self::default() }
    }

    /// `length` bytes of the disk from `offset` on, in blocks of `block` bytes.
    pub fn on_disk(offset: u64, length: u64, block: usize, sector: usize) -> Self {
        Self { block: block.max(1), sector, offset, remaining: length, ..Self::default() }
    }

    /// Bytes of the block that the host has not read yet.
    pub fn left_of_block(&self) -> usize {
        self.block_end - self.position
    }

    /// Moves what is left of the block into `out`, as far as it goes; returns the bytes moved.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let length = self.left_of_block().min(out.len());
        out[..length].copy_from_slice(&self.buffer[self.position..][..length]);
        self.position += length;
        length
    }

    /// Whether the host has read all that was fetched.
    pub fn is_used_up(&self) -> bool {
        self.position == self.buffer.len()
    }

    /// Offers the next block of the buffer; returns its length in bytes.
    pub fn next_block(&mut self) -> usize {
        let length = self.block.min(self.buffer.len() - self.position);
        self.block_end = self.position + length;
        length
    }

    /// What fills the buffer again; `None` when nothing of the data is left on the disk.
    pub fn fetch(&self) -> Option<Job> {
        let length = self.remaining.min(STAGING_LENGTH as u64) as usize;
        (length > 0).then_some(Job::Fetch { offset: self.offset, length, block: self.sector })
    }

    /// The disk has given `data`, as [`DataIn::fetch`] asked.
    pub fn fetched(self, data: Vec<u8>) -> Self {
        let length = data.len() as u64;
        Self {
            buffer: data,
            position: 0,
            block_end: 0,
            offset: self.offset + length,
            remaining: self.remaining.saturating_sub(length),
            ..self
        }
    }
}

/// Data on its way from the host.
#[derive(Debug)]
pub struct DataOut {
    /// What the host wrote of this chunk.
    buffer: Vec<u8>,
    /// Where the block that DRQ asks for ends.
    block_end: usize,
    /// Bytes per DRQ.
    block: usize,
    /// Bytes in this chunk, which goes to disk in one go.
    chunk: usize,
    /// Where on the disk the chunk goes.
    offset: u64,
    /// What the host is to write after this chunk.
    remaining: u64,
    durable: bool,
}

impl DataOut {
    /// `length` bytes for the disk at `offset`, in blocks of `block` bytes, flushed when `durable`. Its
    /// first chunk is asked for.
    pub fn to_disk(offset: u64, length: u64, block: usize, durable: bool) -> Self {
        let mut data = Self {
            buffer: Vec::new(),
            block_end: 0,
            block: block.max(1),
            chunk: 0,
            offset,
            remaining: length,
            durable,
        };
        data.next_chunk();
        data
    }

    /// Takes of `data` what the block still wants; returns the bytes taken.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let length = self.left_of_block().min(data.len());
        self.buffer.extend_from_slice(&data[..length]);
        length
    }

    /// Bytes of the block that the host has not written yet.
    pub fn left_of_block(&self) -> usize {
        self.block_end - self.buffer.len()
    }

    /// Asks for the next block of the chunk; returns its length in bytes, 0 when the chunk is complete.
    pub fn next_block(&mut self) -> usize {
        let length = self.block.min(self.chunk - self.block_end);
        self.block_end += length;
        length
    }

    /// What brings the chunk to the disk.
    pub fn store(&mut self) -> Job {
        let data = std::mem::take(&mut self.buffer);
        // Only the last chunk needs the flush: it covers all before it.
        let durable = self.durable && self.remaining == 0;
        let job = Job::Store { offset: self.offset, data, durable };
        self.offset += self.chunk as u64;
        job
    }

    /// Asks for the next chunk, of it the first block; returns the chunk's length in bytes, 0 when nothing
    /// is left to be written.
    pub fn next_chunk(&mut self) -> usize {
        self.chunk = self.remaining.min(STAGING_LENGTH as u64) as usize;
        self.remaining -= self.chunk as u64;
        self.block_end = self.block.min(self.chunk);
        self.buffer = Vec::with_capacity(self.chunk);
        self.chunk
    }
}
