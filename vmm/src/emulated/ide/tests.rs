//! Register sequences as the protocols of ATA/ATAPI-6 clause 9 and SFF-8038i prescribe them, and
//! as a hostile guest writes them.

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};

use super::atapi::CdRom;
use super::channel::Channel;
use super::drive::{Drive, DriveKind};
use super::hard_disk::HardDisk;
use super::taskfile::status::{BSY, DF, DRDY, DRQ, DSC, ERR};
use super::worker::Executor;
use crate::emulated::testing::{Medium, MemoryDisk, Wire, ram};
use crate::memory::GuestRam;

const SECTORS: u64 = 1024;
const READY: u8 = DRDY | DSC;
const RAM: usize = 0x20_0000;
const PRD_TABLE: u64 = 0x1000;
const END: u64 = 1 << 63;

struct Rig {
    channel: Channel,
    executor: Executor,
    wire: Arc<Wire>,
    memory: GuestRam,
    medium: Arc<Mutex<Medium>>,
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 512 * 7 + i) as u8).collect()
}

impl Rig {
    fn with(kind: DriveKind, bytes: Vec<u8>) -> Self {
        let memory = ram(RAM);
        let wire = Wire::new();
        let disk = MemoryDisk::new(bytes);
        let medium = Arc::clone(&disk.medium);
        let executor = Executor::new(memory.clone(), [Some(Box::new(disk)), None]).unwrap();
        let channel = Channel::new([Some(Drive::new(kind)), None], wire.clone());
        Self { channel, executor, wire, memory, medium }
    }

    fn disk() -> Self {
        let bytes = pattern((SECTORS * 512) as usize);
        let disk = HardDisk::new(bytes.len() as u64, false, "T");
        Self::with(DriveKind::HardDisk(disk), bytes)
    }

    fn cd() -> Self {
        let bytes = pattern(200 * 2048);
        let mut rig = Self::with(DriveKind::CdRom(CdRom::new(bytes.len() as u64, "C")), bytes);
        rig.packet(&[0], 0, 0); // takes the unit attention away
        assert_eq!(rig.status(), READY | ERR);
        rig
    }

    /// Does what the channel's thread does, until there is no more work.
    fn settle(&mut self) {
        while let Some(assignment) = self.channel.take_assignment() {
            let outcome = self.executor.run(assignment);
            self.channel.finish(outcome);
        }
    }

    fn write(&mut self, registers: &[(u64, u8)]) {
        for &(offset, value) in registers {
            self.channel.write_register(offset, value);
        }
    }

    fn lba28(&mut self, command: u8, lba: u32, count: u8) {
        let [low, mid, high, top] = lba.to_le_bytes();
        let device = 0xe0 | top & 0x0f;
        self.write(&[(2, count), (3, low), (4, mid), (5, high), (6, device), (7, command)]);
    }

    fn lba48(&mut self, command: u8, lba: u64, count: u16) {
        let b = lba.to_le_bytes();
        let [count_low, count_high] = count.to_le_bytes();
        self.write(&[(2, count_high), (3, b[3]), (4, b[4]), (5, b[5])]);
        self.write(&[(2, count_low), (3, b[0]), (4, b[1]), (5, b[2]), (6, 0x40), (7, command)]);
    }

    fn status(&mut self) -> u8 {
        self.channel.read_register(7)
    }

    fn error(&mut self) -> u8 {
        self.channel.read_register(1)
    }

    fn data_in(&mut self, length: usize) -> Vec<u8> {
        let mut data = vec![0xff; length];
        self.channel.read_data(&mut data);
        data
    }

    /// Writes a table of (address, flags and length) and starts the bus master.
    fn start_dma(&mut self, entries: &[u64], to_memory: bool) {
        for (index, entry) in entries.iter().enumerate() {
            let at = GuestAddress(PRD_TABLE + index as u64 * 8);
            self.memory.write_obj(*entry, at).unwrap();
        }
        for (index, byte) in (PRD_TABLE as u32).to_le_bytes().into_iter().enumerate() {
            self.channel.write_busmaster(4 + index as u64, byte);
        }
        self.channel.write_busmaster(2, 0x06);
        self.channel.write_busmaster(0, if to_memory { 9 } else { 1 });
    }

    fn packet(&mut self, bytes: &[u8], features: u8, limit: u16) {
        let [low, high] = limit.to_le_bytes();
        self.write(&[(1, features), (4, low), (5, high), (6, 0), (7, 0xa0)]);
        let mut packet = [0; 12];
        packet[..bytes.len()].copy_from_slice(bytes);
        self.channel.write_data(&packet);
        self.settle();
    }

    fn sectors(&self, first: u64, count: u64) -> Vec<u8> {
        let medium = self.medium.lock().unwrap();
        medium.bytes[(first * 512) as usize..((first + count) * 512) as usize].to_vec()
    }
}

fn prd(address: u64, length: u64) -> u64 {
    address | (length & 0xffff) << 32
}

#[test]
fn identify_comes_with_an_interrupt_and_one_block() {
    let mut rig = Rig::disk();
    rig.write(&[(6, 0xa0), (7, 0xec)]);
    assert!(rig.wire.is_high());
    assert_eq!(rig.status(), READY | DRQ);
    assert!(!rig.wire.is_high(), "reading the status acknowledges");
    let data = rig.data_in(512);
    assert_eq!(u16::from_le_bytes([data[120], data[121]]), SECTORS as u16);
    assert_eq!(rig.status(), READY);
    assert_eq!(rig.wire.rises(), 1);
}

#[test]
fn pio_reads_are_busy_until_the_data_is_there_and_interrupt_once_per_sector() {
    let mut rig = Rig::disk();
    rig.lba28(0x20, 5, 3);
    assert_eq!(rig.channel.read_alternate_status(), BSY);
    assert!(!rig.wire.is_high());
    rig.settle();
    for sector in 0..3 {
        assert!(rig.wire.is_high());
        assert_eq!(rig.status(), READY | DRQ);
        assert_eq!(rig.data_in(512), rig.sectors(5 + sector, 1));
    }
    assert_eq!(rig.status(), READY);
    assert_eq!(rig.wire.rises(), 3);
}

#[test]
fn a_count_of_zero_is_256_sectors_and_multiple_mode_saves_interrupts() {
    let mut rig = Rig::disk();
    rig.write(&[(2, 0), (7, 0xc6)]);
    assert_eq!(rig.status(), READY);
    rig.lba28(0xc4, 0, 0);
    assert_eq!(rig.status(), READY | ERR, "multiple mode is off");
    assert_eq!(rig.error(), 0x04);
    rig.write(&[(2, 128), (7, 0xc6)]);
    assert_eq!(rig.status(), READY);
    let before = rig.wire.rises();
    rig.lba28(0xc4, 0, 0);
    rig.settle();
    let mut data = Vec::new();
    while rig.status() & DRQ != 0 {
        data.extend(rig.data_in(128 * 512));
        rig.settle();
    }
    assert_eq!(data, rig.sectors(0, 256));
    assert_eq!(rig.wire.rises() - before, 2);
}

#[test]
fn large_48_bit_pio_reads_go_in_chunks() {
    let mut rig = Rig::disk();
    rig.lba48(0x24, 1, 600);
    rig.settle();
    let mut data = Vec::new();
    while rig.status() & DRQ != 0 {
        data.extend(rig.data_in(512));
        rig.settle();
    }
    assert_eq!(data, rig.sectors(1, 600));
}

#[test]
fn pio_writes_ask_first_and_interrupt_when_stored() {
    let mut rig = Rig::disk();
    let data: Vec<u8> = (0..1024).map(|i| (i % 251) as u8).collect();
    rig.lba28(0x30, 9, 2);
    assert_eq!(rig.wire.rises(), 0, "no interrupt for the first block");
    assert_eq!(rig.status(), READY | DRQ);
    rig.channel.write_data(&data[..512]);
    assert_eq!((rig.wire.rises(), rig.status()), (1, READY | DRQ));
    rig.channel.write_data(&data[512..]);
    assert_eq!(rig.channel.read_alternate_status(), BSY);
    rig.settle();
    assert_eq!((rig.wire.rises(), rig.status()), (2, READY));
    assert_eq!(rig.sectors(9, 2), data);
    assert_eq!(rig.medium.lock().unwrap().flushes, 0);
}

#[test]
fn without_the_write_cache_and_with_fua_writes_are_flushed() {
    let mut rig = Rig::disk();
    rig.write(&[(1, 0x82), (7, 0xef)]);
    rig.settle();
    assert_eq!(rig.status(), READY);
    rig.lba28(0x30, 0, 1);
    rig.channel.write_data(&[1; 512]);
    rig.settle();
    assert_eq!(rig.medium.lock().unwrap().flushes, 2);
    rig.write(&[(1, 0x02), (7, 0xef)]);
    rig.lba48(0x3d, 0, 1);
    rig.start_dma(&[prd(0x3000, 512) | END], false);
    rig.settle();
    assert_eq!((rig.status(), rig.medium.lock().unwrap().flushes), (READY, 3));
    rig.write(&[(7, 0xea)]);
    assert_eq!(rig.channel.read_alternate_status(), BSY);
    rig.settle();
    assert_eq!((rig.status(), rig.medium.lock().unwrap().flushes), (READY, 4));
}

#[test]
fn dma_scatters_and_gathers() {
    let mut rig = Rig::disk();
    rig.lba48(0x25, 7, 4);
    assert_eq!(rig.status(), READY | DRQ);
    assert!(!rig.channel.has_assignment(), "waits for the bus master");
    rig.start_dma(&[prd(0x3000, 512), prd(0x8000, 1024), prd(0x5000, 512) | END], true);
    assert_eq!(rig.channel.read_busmaster(2) & 7, 1);
    rig.settle();
    assert!(rig.wire.is_high());
    assert_eq!(rig.channel.read_busmaster(2) & 7, 4, "interrupt, no longer active");
    rig.channel.write_busmaster(0, 0);
    assert_eq!(rig.status(), READY);
    let mut data = vec![0; 2048];
    rig.memory.read_slice(&mut data[..512], GuestAddress(0x3000)).unwrap();
    rig.memory.read_slice(&mut data[512..1536], GuestAddress(0x8000)).unwrap();
    rig.memory.read_slice(&mut data[1536..], GuestAddress(0x5000)).unwrap();
    assert_eq!(data, rig.sectors(7, 4));

    rig.lba28(0xca, 100, 4);
    rig.start_dma(&[prd(0x8000, 1024), prd(0x3000, 512), prd(0x5000, 512) | END], false);
    rig.settle();
    assert_eq!(rig.status(), READY);
    let [a, b, c] = [&data[512..1536], &data[..512], &data[1536..]];
    assert_eq!(rig.sectors(100, 4), [a, b, c].concat());
}

#[test]
fn the_bus_master_may_be_started_before_the_command() {
    let mut rig = Rig::disk();
    rig.start_dma(&[prd(0x3000, 512) | END], true);
    rig.lba28(0xc8, 0, 1);
    rig.settle();
    assert_eq!(rig.status(), READY);
    let again = rig.wire.rises();
    rig.lba28(0xc8, 0, 1);
    rig.settle();
    assert_eq!(rig.status(), READY | DRQ, "one start, one transfer");
    assert_eq!(rig.wire.rises(), again);
}

#[test]
fn tables_that_are_short_long_or_outside_memory_end_the_command() {
    let mut rig = Rig::disk();
    rig.lba28(0xc8, 0, 4);
    rig.start_dma(&[prd(0x3000, 700) | END], true);
    rig.settle();
    assert_eq!(rig.channel.read_busmaster(2) & 7, 0, "short: neither active nor interrupt");
    assert_eq!(rig.status(), READY);
    rig.channel.write_busmaster(0, 0);

    rig.lba28(0xc8, 0, 1);
    rig.start_dma(&[prd(0x3000, 0) | END], true);
    rig.settle();
    assert_eq!(rig.channel.read_busmaster(2) & 7, 5, "regions are left");
    rig.channel.write_busmaster(0, 0);
    assert_eq!(rig.status(), READY);

    for entry in [prd(RAM as u64 - 256, 512) | END, prd(0xffff_fffe, 0) | END] {
        rig.lba28(0xc8, 0, 1);
        rig.start_dma(&[entry], true);
        rig.settle();
        assert_eq!(rig.channel.read_busmaster(2) & 7, 6, "error and interrupt");
        assert_eq!((rig.status(), rig.error()), (READY | ERR, 4));
        rig.channel.write_busmaster(0, 0);
    }
}

#[test]
fn ranges_beyond_the_end_do_not_exist() {
    let mut rig = Rig::disk();
    rig.lba28(0x20, SECTORS as u32 - 1, 2);
    assert_eq!((rig.status(), rig.error()), (READY | ERR, 0x10));
    rig.lba48(0x25, 0xffff_ffff_ffff, 0);
    assert_eq!((rig.status(), rig.error()), (READY | ERR, 0x10));
    rig.lba28(0x40, 0, 0);
    rig.settle();
    assert_eq!(rig.status(), READY);
    // CHS: cylinder 0, head 0, sector 0 does not exist, sector 1 is block 0.
    rig.write(&[(2, 1), (3, 0), (4, 0), (5, 0), (6, 0xa0), (7, 0x20)]);
    assert_eq!((rig.status(), rig.error()), (READY | ERR, 0x10));
    rig.write(&[(3, 1), (7, 0x20)]);
    rig.settle();
    assert_eq!(rig.status(), READY | DRQ);
    assert_eq!(rig.data_in(512), rig.sectors(0, 1));
}

#[test]
fn host_errors_reach_the_guest_with_their_address() {
    let mut rig = Rig::disk();
    rig.medium.lock().unwrap().bad_byte = Some(12 * 512 + 3);
    rig.lba28(0x20, 10, 4);
    rig.settle();
    assert_eq!(rig.data_in(1024), rig.sectors(10, 2), "what comes before the error is good");
    rig.settle();
    assert_eq!((rig.status(), rig.error()), (READY | ERR, 0x40));
    assert_eq!(rig.channel.read_register(3), 12);
    rig.lba28(0x30, 12, 1);
    rig.channel.write_data(&[0; 512]);
    rig.settle();
    assert_eq!((rig.status(), rig.error()), (READY | ERR | DF, 4));
    rig.lba28(0xc8, 12, 1);
    rig.start_dma(&[prd(0x3000, 512) | END], true);
    rig.settle();
    assert_eq!((rig.status(), rig.error()), (READY | ERR, 0x40));
    assert_eq!(rig.channel.read_busmaster(2) & 7, 4);
}

#[test]
fn a_reset_in_the_middle_of_a_transfer_waits_for_the_thread() {
    let mut rig = Rig::disk();
    rig.lba28(0xc8, 0, 8);
    rig.start_dma(&[prd(0x3000, 4096) | END], true);
    let assignment = rig.channel.take_assignment().unwrap();
    rig.channel.write_control(0x04);
    assert_eq!(rig.channel.read_alternate_status(), BSY);
    rig.channel.write_control(0x00);
    assert_eq!(rig.channel.read_alternate_status(), BSY, "the disk still writes to memory");
    rig.lba28(0x20, 0, 1);
    assert!(!rig.channel.has_assignment(), "no command while busy");
    let outcome = rig.executor.run(assignment);
    rig.channel.finish(outcome);
    assert_eq!(rig.status(), READY);
    assert_eq!(rig.channel.read_busmaster(2) & 1, 0);
    assert!(!rig.wire.is_high());
    let signature: Vec<u8> = (1..6).map(|r| rig.channel.read_register(r)).collect();
    assert_eq!(signature, [1, 1, 1, 0, 0]);
}

#[test]
fn a_reset_drops_work_that_nobody_took_and_half_written_data() {
    let mut rig = Rig::disk();
    let before = rig.sectors(0, 1);
    rig.lba28(0x30, 0, 1);
    rig.channel.write_data(&[0xee; 200]);
    rig.channel.write_control(0x04);
    rig.channel.write_control(0x00);
    assert_eq!(rig.status(), READY);
    rig.channel.write_data(&[0xee; 512]);
    rig.lba28(0x20, 0, 1);
    rig.channel.write_control(0x04);
    assert!(!rig.channel.has_assignment());
    rig.channel.write_control(0x00);
    assert_eq!((rig.status(), rig.sectors(0, 1)), (READY, before));
}

#[test]
fn interrupts_can_be_kept_back() {
    let mut rig = Rig::disk();
    rig.channel.write_control(0x02);
    rig.write(&[(6, 0xa0), (7, 0xe5)]);
    assert!(!rig.wire.is_high());
    rig.channel.write_control(0x00);
    assert!(rig.wire.is_high(), "pending until acknowledged");
    assert_eq!(rig.status(), READY);
    assert!(!rig.wire.is_high());
    assert_eq!(rig.channel.read_register(2), 0xff);
}

#[test]
fn an_absent_slave_is_not_there() {
    let mut rig = Rig::disk();
    rig.write(&[(6, 0xb0), (2, 0x55), (3, 0xaa)]);
    assert_eq!((rig.channel.read_register(2), rig.status()), (0, 0));
    rig.write(&[(7, 0xec)]);
    assert!(!rig.wire.is_high());
    assert_eq!(rig.data_in(2), [0xff, 0xff]);
}

#[test]
fn no_command_hangs_or_panics() {
    for mut rig in [Rig::disk(), Rig::cd()] {
        for fill in [0, 0x40, 0xff] {
            for command in 0..=255 {
                rig.write(&[(1, fill), (2, fill), (3, fill), (4, fill), (5, fill)]);
                rig.write(&[(6, fill & 0x4f), (7, command)]);
                rig.settle();
                rig.data_in(1000);
                rig.channel.write_data(&[fill; 1000]);
                rig.settle();
                rig.start_dma(&[prd(0x3000, 0)], true);
                rig.settle();
                rig.channel.write_control(0x04);
                rig.channel.write_control(0x00);
                rig.settle();
                assert_eq!(rig.channel.read_alternate_status() & (BSY | DRQ), 0);
            }
        }
    }
}

#[test]
fn a_packet_device_is_told_by_its_signature() {
    let mut rig = Rig::cd();
    rig.write(&[(7, 0xec)]);
    assert_eq!((rig.status() & ERR, rig.error()), (ERR, 4));
    assert_eq!((rig.channel.read_register(4), rig.channel.read_register(5)), (0x14, 0xeb));
    rig.write(&[(7, 0xa1)]);
    let identity = rig.data_in(512);
    assert_eq!(identity[..2], [0xc0, 0x85]);
    rig.write(&[(7, 0x08)]);
    assert_eq!(rig.status(), 0);
}

#[test]
fn packet_reads_move_by_pio_in_blocks_of_the_hosts_choice() {
    let mut rig = Rig::cd();
    rig.packet(&[0x28, 0, 0, 0, 0, 3, 0, 0, 2], 0, 2048);
    let mut data = Vec::new();
    for _ in 0..2 {
        assert_eq!(rig.status(), READY | DRQ);
        assert_eq!(rig.channel.read_register(2), 2, "data to the host");
        let length =
            u16::from_le_bytes([rig.channel.read_register(4), rig.channel.read_register(5)]);
        assert_eq!(length, 2048);
        data.extend(rig.data_in(2048));
    }
    assert_eq!(data, rig.sectors(12, 8));
    assert!(rig.wire.is_high());
    assert_eq!((rig.status(), rig.channel.read_register(2)), (READY, 3));
}

#[test]
fn packet_reads_move_by_dma_too_and_failures_leave_sense_data() {
    let mut rig = Rig::cd();
    rig.packet(&[0x28, 0, 0, 0, 0, 3, 0, 0, 1], 1, 0);
    rig.start_dma(&[prd(0x3000, 2048) | END], true);
    rig.settle();
    assert_eq!((rig.status(), rig.channel.read_register(2)), (READY, 3));
    let mut data = vec![0; 2048];
    rig.memory.read_slice(&mut data, GuestAddress(0x3000)).unwrap();
    assert_eq!(data, rig.sectors(12, 4));

    rig.channel.write_busmaster(0, 0);
    rig.packet(&[0x12, 0, 0, 0, 36], 1, 0);
    rig.start_dma(&[prd(0x4000, 36) | END], true);
    rig.settle();
    assert_eq!(rig.status(), READY);
    assert_eq!(rig.memory.read_obj::<u8>(GuestAddress(0x4000)).unwrap(), 5);

    rig.packet(&[0x28, 0, 0, 0, 1, 0, 0, 0, 1], 0, 2048);
    assert_eq!((rig.status(), rig.error()), (READY | ERR, 0x54));
    rig.packet(&[0x03, 0, 0, 0, 18], 0, 18);
    let sense = rig.data_in(18);
    assert_eq!((sense[2], sense[12]), (5, 0x21));
}

#[test]
fn the_thread_serves_the_ports() {
    use super::{DriveImage, IdeController, Media};
    use crate::bus::BusDevice;
    use crate::irq::InterruptLine;

    struct Bell(std::sync::mpsc::SyncSender<()>);
    impl InterruptLine for Bell {
        fn set(&self, asserted: bool) {
            if asserted {
                self.0.send(()).unwrap();
            }
        }
    }
    let (ring, rung) = std::sync::mpsc::sync_channel(16);
    let image = DriveImage {
        media: Media::HardDisk { read_only: true },
        bytes: 64 * 512,
        serial: "S".into(),
        engine: Box::new(MemoryDisk::new(pattern(64 * 512))),
    };
    let lines: [crate::irq::IrqLine; 2] = [Arc::new(Bell(ring)), Wire::new()];
    let controller =
        IdeController::new(&ram(RAM), [[Some(image), None], [None, None]], lines).unwrap();
    assert!(controller.has_drives(0) && !controller.has_drives(1));
    let mut ports = controller.command_ports(0);
    for (offset, value) in [(2, 2), (3, 1), (4, 0), (5, 0), (6, 0xe0), (7, 0x20)] {
        ports.write(offset, &[value]);
    }
    let mut data = vec![0; 1024];
    for block in data.chunks_mut(512) {
        rung.recv().unwrap();
        ports.read(7, &mut [0]);
        ports.read_repeated(0, 2, block);
    }
    assert_eq!(data, pattern(64 * 512)[512..1536]);
    ports.write(7, &[0x30]);
    rung.recv().unwrap();
    let mut status = [0];
    controller.control_port(0).read(0, &mut status);
    assert_eq!(status, [READY | ERR], "the disk is read-only");
    controller.reset();
}

#[test]
fn polls_of_a_busy_drive_come_back_before_the_disk_does() {
    use super::{DriveImage, IdeController, Media};
    use crate::bus::BusDevice;

    let disk = MemoryDisk::new(pattern(64 * 512));
    let medium = Arc::clone(&disk.medium);
    let image = DriveImage {
        media: Media::HardDisk { read_only: true },
        bytes: 64 * 512,
        serial: "S".into(),
        engine: Box::new(disk),
    };
    let lines: [crate::irq::IrqLine; 2] = [Wire::new(), Wire::new()];
    let controller =
        IdeController::new(&ram(RAM), [[Some(image), None], [None, None]], lines).unwrap();
    let (mut command, mut control) = (controller.command_ports(0), controller.control_port(0));
    let mut status = [0];
    let stuck = medium.lock().unwrap();
    for (offset, value) in [(2, 1), (3, 1), (4, 0), (5, 0), (6, 0xe0), (7, 0x20)] {
        command.write(offset, &[value]);
    }
    for _ in 0..3 {
        command.read(7, &mut status);
        assert_eq!(status, [BSY]);
        control.read(0, &mut status);
        assert_eq!(status, [BSY]);
    }
    drop(stuck);
    while status == [BSY] {
        command.read(7, &mut status);
    }
    assert_eq!(status, [READY | DRQ]);
}
