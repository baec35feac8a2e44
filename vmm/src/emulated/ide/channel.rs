//! One channel: the state machine between the host's register accesses and the channel's thread.
//!
//! Everything here returns at once. What needs the disk is left as an [`Assignment`] that the
//! thread takes, and BSY stays set until [`Channel::finish`] gets the outcome. So tests drive
//! it without a thread.

use super::atapi::Sense;
use super::busmaster::BusMaster;
use super::drive::Drive;
use super::taskfile::{Width, device, error, status};
use super::transfer::{DataIn, DataOut};
use super::worker::{Assignment, DmaData, Fit, Job, JobResult};
use crate::backend::disk::SECTOR_SIZE;
use crate::irq::IrqLine;

/// Device control register (ATA/ATAPI-6 7.8).
mod control {
    pub const NIEN: u8 = 0x02;
    pub const SRST: u8 = 0x04;
    pub const HOB: u8 = 0x80;
}

const COMMAND_DEVICE_RESET: u8 = 0x08;

/// What the selected drive is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waiting for a command.
    Idle,
    /// Waiting for the rest of a command packet.
    Packet { received: [u8; 12], length: usize },
    /// A block waits to be read by the host.
    DataIn(DataIn),
    /// The host is to write a block.
    DataOut(DataOut),
    /// A DMA command waits for the host to start the bus master.
    AwaitBusMaster(DmaData),
    /// The thread is at it; afterwards see [`After`].
    Working(After),
}

/// What follows the thread's work.
#[derive(Debug)]
pub(super) enum After {
    /// The buffer arrives: show its first block.
    DataIn(DataIn),
    /// The chunk is on disk: ask for the next, or complete.
    DataOut(DataOut),
    /// Nothing more to move: complete.
    Complete,
    /// As [`After::Complete`], and the bus master stops.
    Dma,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    None,
    /// SRST: both drives.
    Software,
    /// DEVICE RESET: one drive.
    Device(usize),
}

/// One channel with its registers, drives and bus master.
pub struct Channel {
    pub(super) drives: [Option<Drive>; 2],
    pub(super) selected: usize,
    pub(super) phase: Phase,
    pub(super) busmaster: BusMaster,
    /// Of the command that runs, for the address of an error.
    pub(super) width: Width,
    /// Whether the command that runs writes to the disk.
    pub(super) writing: bool,
    control: u8,
    /// The drive asserts INTRQ; nIEN may keep it from the host.
    interrupt_pending: bool,
    line_asserted: bool,
    line: IrqLine,
    assignment: Option<Assignment>,
    /// The thread took an assignment and has not come back.
    in_flight: bool,
    /// A reset that waits for the host (SRST is still set) or for the thread.
    reset: Reset,
}

impl Channel {
    /// A channel after power-on.
    pub fn new(drives: [Option<Drive>; 2], line: IrqLine) -> Self {
        Self {
            drives,
            selected: 0,
            phase: Phase::Idle,
            busmaster: BusMaster::default(),
            width: Width::Lba28,
            writing: false,
            control: 0,
            interrupt_pending: false,
            line_asserted: false,
            line,
            assignment: None,
            in_flight: false,
            reset: Reset::None,
        }
    }

    /// Whether any drive is attached.
    pub fn has_drives(&self) -> bool {
        self.drives.iter().any(Option::is_some)
    }

    /// The work that waits for the thread, if any.
    pub fn take_assignment(&mut self) -> Option<Assignment> {
        let assignment = self.assignment.take();
        self.in_flight |= assignment.is_some();
        assignment
    }

    /// Whether work waits for the thread.
    pub fn has_assignment(&self) -> bool {
        self.assignment.is_some()
    }

    /// Whether the thread has, or is about to take, something to do.
    pub fn thread_works(&self) -> bool {
        self.in_flight || self.has_assignment()
    }

    /// Reads the command block register at `offset` 1 to 7.
    pub fn read_register(&mut self, offset: u64) -> u8 {
        if offset == 7 {
            // Reading the status acknowledges the interrupt (ATA/ATAPI-6 7.15.1).
            self.set_interrupt(false);
        }
        let high_order = self.control & control::HOB != 0;
        // An absent drive leaves the bus pulled down, and device 0 answers 0 in its place.
        self.drives[self.selected].as_ref().map_or(0, |d| d.registers.read(offset, high_order))
    }

    /// Reads the status without acknowledging the interrupt.
    pub fn read_alternate_status(&self) -> u8 {
        self.drives[self.selected].as_ref().map_or(0, |d| d.registers.status)
    }

    /// Writes the command block register at `offset` 1 to 7.
    pub fn write_register(&mut self, offset: u64, value: u8) {
        // Any write to the command block turns HOB off (ATA/ATAPI-6 7.8.4).
        self.control &= !control::HOB;
        let busy = self.reset != Reset::None
            || self.read_alternate_status() & (status::BSY | status::DRQ) != 0;
        if offset == 7 {
            if value == COMMAND_DEVICE_RESET {
                self.device_reset();
            } else if !busy && self.drives[self.selected].is_some() {
                self.set_interrupt(false);
                self.execute(value);
            }
            return;
        }
        if busy {
            return;
        }
        for drive in self.drives.iter_mut().flatten() {
            drive.registers.write(offset, value);
        }
        if offset == 6 {
            self.selected = usize::from(value & device::DEV != 0);
        }
    }

    /// Writes the device control register.
    pub fn write_control(&mut self, value: u8) {
        let before = std::mem::replace(&mut self.control, value);
        if value & control::SRST != 0 && before & control::SRST == 0 {
            self.begin_reset(Reset::Software);
        } else if value & control::SRST == 0 && before & control::SRST != 0 {
            self.end_reset();
        }
        self.drive_line();
    }

    /// Reads the bus master register byte at `offset` 0 to 7.
    pub fn read_busmaster(&self, offset: u64) -> u8 {
        self.busmaster.read(offset)
    }

    /// Writes the bus master register byte at `offset` 0 to 7.
    pub fn write_busmaster(&mut self, offset: u64, value: u8) {
        let transferring = self.in_flight || matches!(self.phase, Phase::Working(After::Dma));
        self.busmaster.write(offset, value, transferring);
        self.start_dma();
    }

    /// Power-on state, as a reset of the machine does.
    pub fn hard_reset(&mut self) {
        self.control = 0;
        self.busmaster.reset();
        self.begin_reset(Reset::Software);
        self.end_reset();
    }

    /// SRST and DEVICE RESET: forget the command. The drive stays busy while the thread still
    /// works on it, so that no data reaches memory the host has taken back.
    fn begin_reset(&mut self, reset: Reset) {
        self.reset = reset;
        self.assignment = None;
        self.phase = Phase::Idle;
        self.set_interrupt(false);
        if !self.in_flight {
            self.busmaster.end(false);
        }
        for (unit, drive) in self.drives.iter_mut().enumerate() {
            let concerned = reset == Reset::Software || reset == Reset::Device(unit);
            if let Some(drive) = drive.as_mut().filter(|_| concerned) {
                drive.registers.status = status::BSY;
            }
        }
    }

    fn end_reset(&mut self) {
        if self.in_flight || self.control & control::SRST != 0 {
            return;
        }
        match std::mem::replace(&mut self.reset, Reset::None) {
            Reset::None => {}
            Reset::Software => {
                self.selected = 0;
                for drive in self.drives.iter_mut().flatten() {
                    drive.reset();
                    drive.registers.device = 0;
                }
            }
            Reset::Device(unit) => {
                if let Some(drive) = &mut self.drives[unit] {
                    drive.reset();
                }
            }
        }
    }

    /// DEVICE RESET is for packet devices only, and the one command that a busy one takes
    /// (ATA/ATAPI-6 8.10).
    fn device_reset(&mut self) {
        if self.reset != Reset::None {
            return;
        }
        match &self.drives[self.selected] {
            Some(drive) if drive.is_packet() => {
                self.begin_reset(Reset::Device(self.selected));
                self.end_reset();
            }
            Some(drive) if drive.registers.status & (status::BSY | status::DRQ) == 0 => {
                self.abort();
            }
            _ => {}
        }
    }

    /// The selected drive; commands run only on one that exists.
    pub(super) fn drive(&mut self) -> Option<&mut Drive> {
        self.drives[self.selected].as_mut()
    }

    pub(super) fn set_status(&mut self, value: u8) {
        if let Some(drive) = self.drive() {
            drive.registers.status = value;
        }
    }

    /// Hands `job` to the thread; the drive is busy until it is done.
    pub(super) fn work(&mut self, job: Job, after: After) {
        self.set_status(status::BSY);
        self.phase = Phase::Working(after);
        self.assignment = Some(Assignment { unit: self.selected, job });
    }

    /// A DMA command was accepted: it runs once the host starts the bus master.
    pub(super) fn await_bus_master(&mut self, data: DmaData) {
        self.set_status(status::DRDY | status::DSC | status::DRQ);
        self.phase = Phase::AwaitBusMaster(data);
        self.start_dma();
    }

    fn start_dma(&mut self) {
        if !matches!(self.phase, Phase::AwaitBusMaster(_)) {
            return;
        }
        let Some(prd_table) = self.busmaster.begin() else { return };
        if let Phase::AwaitBusMaster(data) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.work(Job::Dma { data, prd_table }, After::Dma);
        }
    }

    /// The command is done without error, and the host hears of it.
    pub(super) fn complete(&mut self) {
        self.complete_quietly();
        self.set_interrupt(true);
    }

    /// The command is done without error; the host knows, as it took the last block of data.
    pub(super) fn complete_quietly(&mut self) {
        self.phase = Phase::Idle;
        if let Some(drive) = self.drive() {
            drive.registers.error = 0;
            drive.registers.status = status::DRDY | status::DSC;
        }
    }

    /// Ends the command with the error bits `bits` and `extra` status bits.
    pub(super) fn fail(&mut self, bits: u8, extra: u8) {
        self.phase = Phase::Idle;
        if let Some(drive) = self.drive() {
            drive.registers.error = bits;
            drive.registers.status = status::DRDY | status::DSC | status::ERR | extra;
        }
        self.set_interrupt(true);
    }

    /// The command is unknown or makes no sense.
    pub(super) fn abort(&mut self) {
        self.fail(error::ABRT, 0);
    }

    pub(super) fn set_interrupt(&mut self, pending: bool) {
        self.interrupt_pending = pending;
        self.drive_line();
    }

    fn drive_line(&mut self) {
        let asserted = self.interrupt_pending && self.control & control::NIEN == 0;
        if asserted && !self.line_asserted {
            self.busmaster.interrupt();
        }
        if asserted != self.line_asserted {
            self.line_asserted = asserted;
            self.line.set(asserted);
        }
    }

    /// The thread is done with what [`Channel::take_assignment`] gave it.
    pub fn finish(&mut self, outcome: JobResult) {
        self.in_flight = false;
        if self.reset != Reset::None {
            self.busmaster.end(false);
            self.end_reset();
            return;
        }
        let Phase::Working(after) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        match (after, outcome) {
            (after, JobResult::DiskError(offset)) => {
                if matches!(after, After::Dma) {
                    self.busmaster.end(false);
                }
                self.disk_failed(offset);
            }
            (_, JobResult::MemoryError) => {
                self.busmaster.fail();
                self.memory_failed();
            }
            (After::DataIn(transfer), JobResult::Data(data)) => self.data_arrived(transfer, data),
            (After::DataOut(transfer), _) => self.chunk_stored(transfer),
            (After::Dma, JobResult::Transferred(fit)) => self.dma_done(fit),
            _ => self.complete_command(),
        }
    }

    fn dma_done(&mut self, fit: Fit) {
        self.busmaster.end(fit == Fit::RegionsLeft);
        if fit == Fit::Short {
            // The drive would wait for more forever; SFF-8038i 3.0 reports this state as Active
            // and Interrupt both clear.
            self.complete_quietly();
        } else {
            self.complete_command();
        }
    }

    /// As [`Channel::complete`], with the interrupt reason where the drive has one.
    pub(super) fn complete_command(&mut self) {
        match self.drive().map(|d| d.is_packet()) {
            Some(true) => self.complete_packet(),
            _ => self.complete(),
        }
    }

    fn memory_failed(&mut self) {
        match self.drive().map(|d| d.is_packet()) {
            Some(true) => self.check_condition(Sense::TRANSFER_FAILED),
            _ => self.abort(),
        }
    }

    /// The host's disk failed at byte `offset`.
    fn disk_failed(&mut self, offset: u64) {
        let (width, writing) = (self.width, self.writing);
        let Some(drive) = self.drive() else { return };
        if drive.is_packet() {
            return self.check_condition(Sense::READ_ERROR);
        }
        if drive.registers.device & device::LBA != 0 {
            drive.registers.set_lba(width, offset / SECTOR_SIZE);
        }
        if writing {
            // Writes and flushes know no "uncorrectable": the device has a fault (8.62.6).
            self.fail(error::ABRT, status::DF);
        } else {
            self.fail(error::UNC, 0);
        }
    }
}
