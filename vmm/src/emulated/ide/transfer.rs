//! The data register: blocks of data between host and drive, one DRQ at a time.

use super::channel::{After, Channel, Phase};
use super::taskfile::{reason, status};
use super::worker::{Job, STAGING_LENGTH};

/// Data on its way to the host.
#[derive(Debug, Default)]
pub(super) struct DataIn {
    /// What was fetched; blocks up to `position` are gone.
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

/// Data on its way from the host.
#[derive(Debug)]
pub(super) struct DataOut {
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

impl Channel {
    /// Reads from the data register; what is not there is left untouched.
    pub fn read_data(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let Phase::DataIn(transfer) = &mut self.phase else { return };
            let available = &transfer.buffer[transfer.position..transfer.block_end];
            let length = available.len().min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&available[..length]);
            out = later;
            transfer.position += length;
            if transfer.position == transfer.block_end {
                self.block_taken();
            }
        }
    }

    /// Writes to the data register; what the drive does not ask for is lost.
    pub fn write_data(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            match &mut self.phase {
                Phase::DataOut(transfer) => {
                    let length = (transfer.block_end - transfer.buffer.len()).min(data.len());
                    transfer.buffer.extend_from_slice(&data[..length]);
                    data = &data[length..];
                    if transfer.buffer.len() == transfer.block_end {
                        self.block_given();
                    }
                }
                Phase::Packet { received, length } => {
                    let taken = (received.len() - *length).min(data.len());
                    received[*length..*length + taken].copy_from_slice(&data[..taken]);
                    *length += taken;
                    data = &data[taken..];
                    if *length == received.len() {
                        let packet = *received;
                        self.execute_packet(packet);
                    }
                }
                _ => return,
            }
        }
    }

    /// One access of the data register: a block ends with it, even in the middle of a word.
    pub fn read_data_once(&mut self, out: &mut [u8]) {
        if let Phase::DataIn(transfer) = &self.phase {
            let length = (transfer.block_end - transfer.position).min(out.len());
            self.read_data(&mut out[..length]);
        }
    }

    /// Sends `data`, which the drive has at hand, in blocks of `block` bytes.
    pub(super) fn send(&mut self, data: Vec<u8>, block: usize) {
        let block = block.max(1);
        self.present_block(DataIn { buffer: data, block, ..DataIn::default() });
    }

    /// Sends `length` bytes of the disk from `offset` on, in blocks of `block` bytes.
    pub(super) fn send_from_disk(&mut self, offset: u64, length: u64, block: usize, sector: usize) {
        let block = block.max(1);
        let transfer = DataIn { block, sector, offset, remaining: length, ..DataIn::default() };
        self.fetch(transfer);
    }

    /// Receives `length` bytes for the disk at `offset`, in blocks of `block` bytes.
    pub(super) fn receive_to_disk(
        &mut self,
        offset: u64,
        length: u64,
        block: usize,
        durable: bool,
    ) {
        let transfer = DataOut {
            buffer: Vec::new(),
            block_end: 0,
            block: block.max(1),
            chunk: 0,
            offset,
            remaining: length,
            durable,
        };
        // The first block is asked for without an interrupt (ATA/ATAPI-6 9.6).
        self.next_chunk(transfer);
    }

    fn fetch(&mut self, transfer: DataIn) {
        let length = transfer.remaining.min(STAGING_LENGTH as u64) as usize;
        let job = Job::Fetch { offset: transfer.offset, length, block: transfer.sector };
        self.work(job, After::DataIn(transfer));
    }

    pub(super) fn data_arrived(&mut self, transfer: DataIn, data: Vec<u8>) {
        let length = data.len() as u64;
        self.present_block(DataIn {
            buffer: data,
            position: 0,
            block_end: 0,
            offset: transfer.offset + length,
            remaining: transfer.remaining.saturating_sub(length),
            ..transfer
        });
    }

    fn present_block(&mut self, mut transfer: DataIn) {
        let length = transfer.block.min(transfer.buffer.len() - transfer.position);
        transfer.block_end = transfer.position + length;
        self.phase = Phase::DataIn(transfer);
        if let Some(drive) = self.drive() {
            let packet = drive.is_packet();
            let registers = &mut drive.registers;
            registers.status = status::DRDY | status::DSC | status::DRQ;
            registers.error = 0;
            if packet {
                registers.count.set(reason::TO_HOST);
                registers.lba_mid.set(length as u8);
                registers.lba_high.set((length >> 8) as u8);
            }
        }
        self.set_interrupt(true);
    }

    fn block_taken(&mut self) {
        let Phase::DataIn(transfer) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        if transfer.position < transfer.buffer.len() {
            self.present_block(transfer);
        } else if transfer.remaining > 0 {
            self.fetch(transfer);
        } else if self.drive().is_some_and(|d| d.is_packet()) {
            self.complete_packet();
        } else {
            self.complete_quietly();
        }
    }

    fn next_chunk(&mut self, mut transfer: DataOut) {
        let chunk = transfer.remaining.min(STAGING_LENGTH as u64) as usize;
        transfer.remaining -= chunk as u64;
        transfer.chunk = chunk;
        transfer.block_end = transfer.block.min(chunk);
        transfer.buffer = Vec::with_capacity(chunk);
        self.phase = Phase::DataOut(transfer);
        self.set_status(status::DRDY | status::DSC | status::DRQ);
    }

    fn block_given(&mut self) {
        let Phase::DataOut(mut transfer) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        if transfer.block_end < transfer.chunk {
            transfer.block_end = (transfer.block_end + transfer.block).min(transfer.chunk);
            self.phase = Phase::DataOut(transfer);
            self.set_interrupt(true);
            return;
        }
        let data = std::mem::take(&mut transfer.buffer);
        // Only the last chunk needs the flush: it covers all before it.
        let durable = transfer.durable && transfer.remaining == 0;
        let job = Job::Store { offset: transfer.offset, data, durable };
        transfer.offset += transfer.chunk as u64;
        self.work(job, After::DataOut(transfer));
    }

    pub(super) fn chunk_stored(&mut self, transfer: DataOut) {
        if transfer.remaining == 0 {
            self.complete();
        } else {
            self.next_chunk(transfer);
            self.set_interrupt(true);
        }
    }
}
