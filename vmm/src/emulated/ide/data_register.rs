//! The data register: what the host reads from it and writes to it, and what follows each block.

use super::channel::{After, Channel, Phase};
use super::taskfile::{reason, status};
use super::transfer::{DataIn, DataOut};

impl Channel {
    /// Reads from the data register; what is not there is left untouched.
    pub fn read_data(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let Phase::DataIn(transfer) = &mut self.phase else { return };
            let length = transfer.read(out);
            out = &mut out[length..];
            if transfer.left_of_block() == 0 {
                self.block_taken();
            }
        }
    }

    /// Writes to the data register; what the drive does not ask for is lost.
    pub fn write_data(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            match &mut self.phase {
                Phase::DataOut(transfer) => {
                    data = &data[transfer.write(data)..];
                    if transfer.left_of_block() == 0 {
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
            let length = transfer.left_of_block().min(out.len());
            self.read_data(&mut out[..length]);
        }
    }

    /// Sends `data`, which the drive has at hand, in blocks of `block` bytes.
    pub(super) fn send(&mut self, data: Vec<u8>, block: usize) {
        self.present_block(DataIn::at_hand(data, block));
    }

    /// Sends `length` bytes of the disk (at least 1) from `offset` on, in blocks of `block` bytes; a
    /// disk fails by the `sector`.
    pub(super) fn send_from_disk(&mut self, offset: u64, length: u64, block: usize, sector: usize) {
        self.fetch_or_complete(DataIn::on_disk(offset, length, block, sector));
    }

    /// Receives `length` bytes for the disk at `offset`, in blocks of `block` bytes.
    pub(super) fn receive_to_disk(
        &mut self,
        offset: u64,
        length: u64,
        block: usize,
        durable: bool,
    ) {
        // The first block is asked for without an interrupt (ATA/ATAPI-6 9.6).
        self.await_data(DataOut::to_disk(offset, length, block, durable));
    }

    /// The disk has given `data`, the next part of `transfer`.
    pub(super) fn data_arrived(&mut self, transfer: DataIn, data: Vec<u8>) {
        self.present_block(transfer.fetched(data));
    }

    fn present_block(&mut self, mut transfer: DataIn) {
        let length = transfer.next_block();
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
        if transfer.is_used_up() {
            self.fetch_or_complete(transfer);
        } else {
            self.present_block(transfer);
        }
    }

    fn fetch_or_complete(&mut self, transfer: DataIn) {
        if let Some(job) = transfer.fetch() {
            self.work(job, After::DataIn(transfer));
        } else if self.drive().is_some_and(|d| d.is_packet()) {
            self.complete_packet();
        } else {
            self.complete_quietly();
        }
    }

    fn await_data(&mut self, transfer: DataOut) {
        self.phase = Phase::DataOut(transfer);
        self.set_status(status::DRDY | status::DSC | status::DRQ);
    }

    fn block_given(&mut self) {
        let Phase::DataOut(mut transfer) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        if transfer.next_block() > 0 {
            self.phase = Phase::DataOut(transfer);
            self.set_interrupt(true);
        } else {
            let job = transfer.store();
            self.work(job, After::DataOut(transfer));
        }
    }

    /// The disk has taken a chunk of `transfer`: the next is asked for, or the command is done.
    pub(super) fn chunk_stored(&mut self, mut transfer: DataOut) {
        if transfer.next_chunk() > 0 {
            self.await_data(transfer);
            self.set_interrupt(true);
        } else {
            self.complete();
        }
    }
}
