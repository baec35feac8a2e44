//! The device driven through its queues, over real files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::*;
use crate::backend::disk::{DiskOptions, EngineKind};
use crate::backend::poll_limit::PollLimit;
use crate::memory::GuestRam;
use crate::virtio::testing::{
    Buffer, Driver, INDIRECT, Inbox, NEXT, Signal, activation, interrupt, memory, readable,
    writable,
};

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;
const HEADER: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const STATUS: u64 = 0x1_8000;
const SECTORS: u64 = 2048;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

struct Rig {
    device: Block,
    driver: Driver,
    inbox: Inbox,
    file: File,
    _file: tempfile::NamedTempFile,
}

impl Rig {
    fn with(features: u64, adjust: impl FnOnce(&mut DiskOptions)) -> Self {
        let named = tempfile::NamedTempFile::new().unwrap();
        let file = named.reopen().unwrap();
        file.set_len(SECTORS * SECTOR_SIZE).unwrap();
        let mut options = DiskOptions::new(named.path());
        options.id = Some("disk-1".into());
        adjust(&mut options);
        let image = DiskImage::open(&options).unwrap();
        let poll = options.poll.into();
        let mut device = Block::new(image, 1, options.rate).unwrap().with_polling(poll);
        let memory = memory();
        let driver = Driver::new(&memory, 0, 16);
        let inbox = start(&mut device, &memory, &driver, features);
        Self { device, driver, inbox, file, _file: named }
    }

    fn new(engine: EngineKind) -> Self {
        Self::with(EVENT_IDX | FLUSH, |options| options.engine = engine)
    }

    fn header(&self, kind: u32, sector: u64) {
        self.header_at(HEADER, kind, sector);
    }

    fn header_at(&self, address: u64, kind: u32, sector: u64) {
        let mut raw = [0; 16];
        raw[..4].copy_from_slice(&kind.to_le_bytes());
        raw[8..].copy_from_slice(&sector.to_le_bytes());
        self.driver.write(address, &raw);
    }

    /// Header, the given buffers, status; the status byte and the used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        self.header(kind, sector);
        let mut buffers = vec![readable(HEADER, 16)];
        buffers.extend_from_slice(data);
        buffers.push(writable(STATUS, 1));
        self.chain(&buffers)
    }

    fn chain(&mut self, buffers: &[Buffer]) -> (u8, u32) {
        self.driver.write(STATUS, &[0xee]);
        let head = self.driver.send(buffers);
        let used = self.driver.wait_used(&self.inbox, 1);
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].0, u32::from(head));
        // So that the next completion interrupts.
        let next = self.driver.used_index();
        self.driver.set_used_event(next);
        (self.driver.read(STATUS, 1)[0], used[0].1)
    }

    fn file_at(&self, sector: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, sector * SECTOR_SIZE).unwrap();
        data
    }

    /// After hostile input the device must still serve.
    fn works(&mut self) {
        self.driver.write(DATA, &[0x77; 512]);
        assert_eq!(self.request(1, 9, &[readable(DATA, 512)]), (OK, 1));
        assert_eq!(self.file_at(9, 512), [0x77; 512]);
    }
}

fn start(device: &mut Block, memory: &GuestRam, driver: &Driver, features: u64) -> Inbox {
    let (interrupt, inbox) = interrupt();
    let queues = vec![driver.queue(0, features)];
    device.activate(activation(memory, features, queues, interrupt)).unwrap();
    inbox
}

fn for_each_engine(test: impl Fn(EngineKind)) {
    test(EngineKind::Sync);
    test(EngineKind::IoUring);
}

#[test]
fn writes_reach_the_file_and_reads_come_back() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        let pattern: Vec<u8> = (0..4096).map(|i| (i % 251) as u8).collect();
        rig.driver.write(DATA, &pattern);
        // Framed as no driver does: odd pieces, an empty buffer.
        let pieces = [readable(DATA, 1000), readable(DATA + 1000, 0), readable(DATA + 1000, 3096)];
        assert_eq!(rig.request(1, 3, &pieces), (OK, 1));
        assert_eq!(rig.file_at(3, 4096), pattern);
        let into = [writable(DATA + 0x8000, 4095), writable(DATA + 0x9800, 1)];
        assert_eq!(rig.request(0, 3, &into), (OK, 4097));
        assert_eq!(rig.driver.read(DATA + 0x8000, 4095), pattern[..4095]);
        assert_eq!(rig.driver.read(DATA + 0x9800, 1), pattern[4095..]);
        let stats = rig.device.counters()[0].snapshot();
        assert_eq!((stats.requests, stats.bytes, stats.errors), (2, 8192, 0));
        assert!(stats.interrupts > 0);
    });
}

#[test]
fn the_header_may_be_split_and_the_status_joined_to_the_data() {
    let mut rig = Rig::new(EngineKind::Sync);
    rig.file.write_all_at(&[0xab; 512], 5 * SECTOR_SIZE).unwrap();
    rig.header(0, 5);
    let head =
        rig.driver.send(&[readable(HEADER, 3), readable(HEADER + 3, 13), writable(DATA, 513)]);
    let used = rig.driver.wait_used(&rig.inbox, 1);
    assert_eq!(used, [(head.into(), 513)]);
    assert_eq!(rig.driver.read(DATA, 512), [0xab; 512]);
    assert_eq!(rig.driver.read(DATA + 512, 1), [OK]);
    // And a write whose data follows the header in one buffer.
    rig.header_at(DATA, 1, 6);
    rig.driver.write(DATA + 16, &[0xcd; 512]);
    rig.driver.set_used_event(1);
    assert_eq!(rig.chain(&[readable(DATA, 528), writable(STATUS, 1)]), (OK, 1));
    assert_eq!(rig.file_at(6, 512), [0xcd; 512]);
}

#[test]
fn buffers_may_cross_memory_regions() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        let across = 0x20_0000 - 512;
        rig.driver.write(across, &[0x5a; 1024]);
        assert_eq!(rig.request(1, 0, &[readable(across, 1024)]), (OK, 1));
        assert_eq!(rig.file_at(0, 1024), [0x5a; 1024]);
    });
}

#[test]
fn indirect_requests_work() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        rig.header(1, 1);
        rig.driver.write(DATA, &[0x11; 30 * 512]);
        let mut buffers = vec![readable(HEADER, 16)];
        buffers.extend((0..30).map(|i| readable(DATA + i * 512, 512)));
        buffers.push(writable(STATUS, 1));
        let head = rig.driver.indirect_chain(0x5000, &buffers);
        rig.driver.offer(head);
        rig.driver.kick();
        assert_eq!(rig.driver.wait_used(&rig.inbox, 1), [(head.into(), 1)]);
        assert_eq!(rig.file_at(1, 30 * 512), [0x11; 30 * 512]);
    });
}

/// A driver that notifies only when it is asked to never waits in vain, whenever the thread goes
/// from looking to sleeping and back.
#[test]
fn a_thread_that_looks_for_requests_by_itself_loses_none() {
    for features in [FLUSH, EVENT_IDX | FLUSH] {
        let mut rig = Rig::with(features, |options| options.poll = PollLimit::from_micros(100));
        let (mut offered, mut notified) = (0u16, 0);
        for round in 0..3000u64 {
            rig.header(0, round % SECTORS);
            let buffers = [readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)];
            let head = rig.driver.chain(&buffers);
            rig.driver.set_used_event(offered);
            rig.driver.offer(head);
            fence(Ordering::SeqCst);
            let wanted = match features & EVENT_IDX {
                0 => rig.driver.wants_notifications(),
                _ => rig.driver.avail_event() == offered,
            };
            if wanted {
                rig.driver.kick();
                notified += 1;
            }
            offered = offered.wrapping_add(1);
            assert_eq!(rig.driver.wait_used(&rig.inbox, 1), [(head.into(), 513)]);
            // From less than the shortest window to more than the longest.
            let pause = Duration::from_micros(round * 7 % 160);
            let since = Instant::now();
            while since.elapsed() < pause {
                std::hint::spin_loop();
            }
        }
        let counted = rig.device.counters()[0].snapshot();
        assert!(counted.notifications <= notified, "{counted:?}, {notified} notified");
        assert_eq!(counted.requests, 3000);
    }
}

#[test]
fn a_batch_is_done_whole_however_the_ring_wraps() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        for round in 0..10u64 {
            // Before the offers: the device may be looking already.
            let last = rig.driver.used_index().wrapping_add(4);
            rig.driver.set_used_event(last);
            let mut heads = Vec::new();
            for slot in 0..5u64 {
                let header = HEADER + slot * 16;
                let byte = (round * 5 + slot + 1) as u8;
                rig.header_at(header, 1, round * 5 + slot);
                rig.driver.write(DATA + slot * 512, &[byte; 512]);
                let head = rig.driver.chain(&[
                    readable(header, 16),
                    readable(DATA + slot * 512, 512),
                    writable(STATUS + slot, 1),
                ]);
                rig.driver.offer(head);
                heads.push(u32::from(head));
            }
            rig.driver.kick();
            let mut used: Vec<_> =
                rig.driver.wait_used(&rig.inbox, 5).into_iter().map(|(head, _)| head).collect();
            used.sort_unstable();
            heads.sort_unstable();
            assert_eq!(used, heads);
            assert_eq!(rig.driver.read(STATUS, 5), [OK; 5]);
        }
        for sector in 0..50 {
            assert_eq!(rig.file_at(sector, 512), [(sector + 1) as u8; 512]);
        }
    });
}

#[test]
fn flush_id_and_unknown_requests() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        assert_eq!(rig.request(4, 0, &[]), (OK, 1));
        assert_eq!(rig.request(8, 0, &[writable(DATA, 20)]), (OK, 21));
        assert_eq!(rig.driver.read(DATA, 20), *b"disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(rig.request(8, 0, &[writable(DATA, 4)]), (OK, 5));
        assert_eq!(rig.request(77, 0, &[]), (UNSUPP, 1));
    });
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut raw = sector.to_le_bytes().to_vec();
    raw.extend(sectors.to_le_bytes());
    raw.extend(flags.to_le_bytes());
    raw
}

#[test]
fn discards_and_zeroes() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        rig.file.write_all_at(&[0xff; 64 * 512], 0).unwrap();
        for (kind, ranges, status) in [
            (13, vec![range(8, 8, 0)], OK),
            (13, vec![range(16, 16, 1)], OK),
            (13, vec![range(0, 0, 0); 2], IOERR),
            (13, vec![range(0, MAX_ZERO_SECTORS + 1, 0)], IOERR),
            (11, vec![range(0, MAX_DISCARD_SECTORS + 1, 0)], IOERR),
            (11, vec![range(40, 8, 0)], OK),
            (11, vec![range(40, 8, 1)], UNSUPP),
            (13, vec![range(40, 8, 2)], UNSUPP),
            (13, vec![range(SECTORS - 1, 2, 0)], IOERR),
            (13, vec![range(u64::MAX, 1, 0)], IOERR),
            (11, vec![range(0, u32::MAX, 0)], IOERR),
            (11, vec![vec![0; 15]], IOERR),
            (11, vec![], IOERR),
            (11, vec![range(0, 0, 0); 17], IOERR),
            (11, vec![range(0, 0, 0); 16], OK),
        ] {
            let raw = ranges.concat();
            rig.driver.write(DATA, &raw);
            let buffer = readable(DATA, raw.len() as u32);
            assert_eq!(rig.request(kind, 0, &[buffer]), (status, 1), "{ranges:?}");
        }
        assert_eq!(rig.file_at(0, 8 * 512), [0xff; 8 * 512]);
        assert_eq!(rig.file_at(8, 24 * 512), [0; 24 * 512]);
        assert_eq!(rig.file_at(32, 8 * 512), [0xff; 8 * 512]);
        assert_eq!(rig.file_at(48, 8 * 512), [0xff; 8 * 512]);
    });
}

#[test]
fn requests_that_make_no_sense_get_an_io_error_and_the_next_is_served() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        let outside = 0x30_0000;
        let cases: [(&str, u32, u64, Vec<Buffer>); 9] = [
            ("not whole sectors", 0, 0, vec![writable(DATA, 511)]),
            ("past the end", 0, SECTORS, vec![writable(DATA, 512)]),
            ("across the end", 1, SECTORS - 1, vec![readable(DATA, 1024)]),
            ("sector overflow", 1, u64::MAX, vec![readable(DATA, 512)]),
            ("offset overflow", 0, u64::MAX / 512, vec![writable(DATA, 512)]),
            ("buffer outside RAM", 0, 0, vec![writable(outside, 512)]),
            ("buffer runs out of RAM", 1, 0, vec![readable(0x2f_ff00, 512)]),
            ("address overflow", 0, 0, vec![writable(u64::MAX - 10, 512)]),
            ("id outside RAM", 8, 0, vec![writable(outside, 20)]),
        ];
        for (name, kind, sector, buffers) in cases {
            assert_eq!(rig.request(kind, sector, &buffers).0, IOERR, "{name}");
        }
        let huge = vec![writable(DATA, 0x8000_0000), writable(DATA, 0x7000_0000)];
        assert_eq!(rig.request(0, 0, &huge).0, IOERR, "too long");
        rig.header(0, 0);
        let short = [readable(HEADER, 15), writable(STATUS, 1)];
        assert_eq!(rig.chain(&short).0, IOERR, "short header");
        let lost = [readable(outside, 16), writable(STATUS, 1)];
        assert_eq!(rig.chain(&lost).0, IOERR, "header outside RAM");
        let backwards = [writable(DATA, 512), readable(HEADER, 16), writable(STATUS, 1)];
        assert_eq!(rig.chain(&backwards).0, IOERR, "order");
        assert_eq!(rig.chain(&[writable(STATUS, 1)]).0, IOERR, "no header");
        // Header, data and status in the same place: garbage in, but an answer out.
        rig.header_at(STATUS, 0, 0);
        let overlap = [readable(STATUS, 16), writable(STATUS, 512), writable(STATUS, 1)];
        rig.driver.send(&overlap);
        rig.driver.wait_used(&rig.inbox, 1);
        rig.driver.set_used_event(rig.driver.used_index());
        rig.works();
    });
}

#[test]
fn chains_without_a_status_break_the_device_until_it_is_reset() {
    type Prepare = fn(&mut Driver) -> u16;
    let cases: [(&str, Prepare); 5] = [
        ("no writable buffer", |driver| driver.chain(&[readable(HEADER, 16)])),
        ("status outside RAM", |driver| {
            driver.chain(&[readable(HEADER, 16), writable(0x30_0000, 1)])
        }),
        ("loop", |driver| {
            driver.write_descriptor(0, readable(HEADER, 16), NEXT, 1);
            driver.write_descriptor(1, writable(STATUS, 1), NEXT, 1);
            0
        }),
        ("nested indirect", |driver| {
            driver.write_descriptor_at(0x5000, 0, readable(0x5000, 16), INDIRECT, 0);
            driver.write_descriptor(0, readable(0x5000, 16), INDIRECT, 0);
            0
        }),
        ("head outside the table", |_| 16),
    ];
    for (name, prepare) in cases {
        let mut rig = Rig::new(EngineKind::IoUring);
        let head = prepare(&mut rig.driver);
        rig.driver.offer(head);
        rig.driver.kick();
        assert_eq!(rig.inbox.next(), Signal::NeedsReset, "{name}");
        rig.device.reset();
        assert_eq!(rig.inbox.drain(), [], "{name}");
        let memory = rig.driver.memory.clone();
        rig.driver = Driver::new(&memory, 0, 16);
        rig.inbox = start(&mut rig.device, &memory, &rig.driver, EVENT_IDX | FLUSH);
        rig.works();
    }
}

#[test]
fn an_index_that_jumps_breaks_the_device() {
    let mut rig = Rig::new(EngineKind::Sync);
    rig.driver.jump(17);
    rig.driver.kick();
    assert_eq!(rig.inbox.next(), Signal::NeedsReset);
}

#[test]
fn read_only_disks_refuse_writes() {
    for_each_engine(|engine| {
        let mut rig = Rig::with(EVENT_IDX, |options| {
            options.engine = engine;
            options.read_only = true;
        });
        let offered = rig.device.device_features();
        assert_ne!(offered & 1 << VIRTIO_BLK_F_RO, 0);
        assert_eq!(offered & 1 << VIRTIO_BLK_F_DISCARD, 0);
        rig.driver.write(DATA, &[0xff; 512]);
        assert_eq!(rig.request(1, 0, &[readable(DATA, 512)]), (IOERR, 1));
        assert_eq!(rig.request(0, 0, &[writable(DATA, 512)]), (OK, 513));
        assert_eq!(rig.driver.read(DATA, 512), [0; 512]);
        rig.driver.write(DATA, &range(0, 1, 0));
        assert_eq!(rig.request(13, 0, &[readable(DATA, 16)]), (IOERR, 1));
        assert_eq!(rig.request(4, 0, &[]), (OK, 1));
    });
}

#[test]
fn a_file_that_shrinks_gives_io_errors_and_the_device_lives_on() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        rig.file.set_len(512).unwrap();
        let across = [writable(DATA, 1024)];
        assert_eq!(rig.request(0, 0, &across).0, IOERR);
        assert_eq!(rig.request(0, 0, &[writable(DATA, 512)]).0, OK);
        assert_eq!(rig.device.counters()[0].snapshot().errors, 1);
    });
}

#[test]
fn requests_queued_before_activation_are_found() {
    let mut rig = Rig::new(EngineKind::Sync);
    rig.device.reset();
    let memory = rig.driver.memory.clone();
    rig.driver = Driver::new(&memory, 0, 16);
    rig.header(4, 0);
    let head = rig.driver.chain(&[readable(HEADER, 16), writable(STATUS, 1)]);
    rig.driver.offer(head);
    rig.inbox = start(&mut rig.device, &memory, &rig.driver, EVENT_IDX);
    assert_eq!(rig.driver.wait_used(&rig.inbox, 1), [(head.into(), 1)]);
}

#[test]
fn a_limited_disk_goes_on_when_its_bucket_refills() {
    let mut rig = Rig::with(EVENT_IDX | FLUSH, |options| {
        options.rate.operations_per_second = std::num::NonZeroU64::new(200);
    });
    // A tenth of a second's worth is saved up; more than that must wait for the timer.
    for _ in 0..40 {
        assert_eq!(rig.request(4, 0, &[]), (OK, 1));
    }
}

#[test]
fn reset_waits_for_what_is_in_flight_and_the_disk_can_be_used_again() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        for round in 0..20u8 {
            rig.driver.write(DATA, &[round; 512 * 64]);
            rig.header(1, 0);
            rig.driver.send(&[readable(HEADER, 16), readable(DATA, 512 * 64), writable(STATUS, 1)]);
            rig.device.reset();
            // A write still under way would put this into the file.
            rig.driver.write(DATA, &[0xee; 512 * 64]);
            let memory = rig.driver.memory.clone();
            rig.driver = Driver::new(&memory, 0, 16);
            rig.inbox = start(&mut rig.device, &memory, &rig.driver, EVENT_IDX | FLUSH);
        }
        rig.works();
        assert!(!rig.file_at(0, 512 * 64).contains(&0xee));
    });
}

/// Whether the driver asked for the limits or not: 1022 MiB at a time once held a reset for seconds.
#[test]
fn requests_beyond_the_limits_are_refused_and_those_within_are_served() {
    for_each_engine(|engine| {
        let mut rig = Rig::new(engine);
        // More buffers than `seg_max`, in a table of their own.
        let mut many = vec![readable(HEADER, 16)];
        many.extend((0..255).map(|_| writable(DATA, 512)));
        many.push(writable(STATUS, 1));
        rig.header(0, 0);
        rig.driver.write(STATUS, &[0xee]);
        let head = rig.driver.indirect_chain(0x8_0000, &many);
        rig.driver.offer(head);
        rig.driver.kick();
        rig.driver.wait_used(&rig.inbox, 1);
        rig.driver.set_used_event(rig.driver.used_index());
        assert_eq!(rig.driver.read(STATUS, 1), [IOERR]);
        // One buffer of more than `seg_max * size_max`.
        let long = [writable(0, MAX_SEGMENTS * MAX_SEGMENT_SIZE + 512)];
        assert_eq!(rig.request(0, 0, &long).0, IOERR);
        rig.works();
    });
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let rig = Rig::new(EngineKind::Sync);
    let mut raw = [0; 64];
    rig.device.read_config(0, &mut raw);
    assert_eq!(raw[..8], SECTORS.to_le_bytes());
    assert_eq!(raw[8..12], 65536u32.to_le_bytes(), "size_max");
    assert_eq!(raw[12..16], 254u32.to_le_bytes(), "seg_max");
    assert_eq!(raw[20..24], 512u32.to_le_bytes());
    assert_eq!(raw[32], 1, "writeback");
    assert_eq!(raw[34..36], [1, 0]);
    assert_eq!(raw[60..], [0; 4]);
    let mut beyond = [0xaa; 4];
    rig.device.read_config(u64::MAX, &mut beyond);
    assert_eq!(beyond, [0xaa; 4]);
    let mut part = [0; 2];
    rig.device.read_config(59, &mut part);
    assert_eq!(part, [0; 2]);
}

#[test]
fn the_guest_chooses_the_cache_mode_where_it_may() {
    let mut rig = Rig::new(EngineKind::Sync);
    let writeback = |device: &Block| {
        let mut byte = [0];
        device.read_config(WRITEBACK_OFFSET, &mut byte);
        byte[0]
    };
    rig.device.write_config(32, &[0]);
    assert_eq!(writeback(&rig.device), 0);
    rig.device.write_config(0, &[0xff; 8]);
    assert_eq!(writeback(&rig.device), 0, "the capacity is not for writing");
    rig.works();
    rig.device.reset();
    assert_eq!(writeback(&rig.device), 1, "a reset forgets it");

    let mut rig = Rig::with(EVENT_IDX, |options| options.cache = CacheMode::Writethrough);
    assert_eq!(rig.device.device_features() & FLUSH, 0);
    rig.device.write_config(32, &[1]);
    assert_eq!(writeback(&rig.device), 0, "the operator chose");
    rig.works();
}

#[test]
fn several_queues_share_a_disk() {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(SECTORS * SECTOR_SIZE).unwrap();
    let image = DiskImage::open(&DiskOptions::new(named.path())).unwrap();
    let mut device = Block::new(image, 2, RateLimit::default()).unwrap();
    assert_ne!(device.device_features() & 1 << VIRTIO_BLK_F_MQ, 0);
    assert_eq!(device.queue_sizes(), [256, 256]);
    let memory = memory();
    let mut drivers = [Driver::new(&memory, 0, 16), Driver::new(&memory, 0x4000, 16)];
    let (interrupt, inbox) = interrupt();
    let queues = vec![drivers[0].queue(0, 0), drivers[1].queue(1, 0)];
    device.activate(activation(&memory, 0, queues, interrupt)).unwrap();
    for (number, driver) in drivers.iter_mut().enumerate() {
        let number = number as u64;
        let header = HEADER + number * 16;
        let mut raw = [0; 16];
        raw[0] = 1;
        raw[8] = number as u8;
        driver.write(header, &raw);
        driver.write(DATA + number * 512, &[number as u8 + 1; 512]);
        driver.send(&[
            readable(header, 16),
            readable(DATA + number * 512, 512),
            writable(STATUS + number, 1),
        ]);
    }
    let mut told = [inbox.next(), inbox.next()];
    told.sort_by_key(|told| *told == Signal::Used(1));
    assert_eq!(told, [Signal::Used(0), Signal::Used(1)]);
    let mut data = [0; 1024];
    named.as_file().read_exact_at(&mut data, 0).unwrap();
    assert_eq!((data[0], data[512]), (1, 2));
}

#[test]
fn a_driver_without_queues_is_an_error() {
    let mut rig = Rig::new(EngineKind::Sync);
    rig.device.reset();
    let (interrupt, _inbox) = interrupt();
    let memory = memory();
    let result = rig.device.activate(activation(&memory, 0, Vec::new(), interrupt));
    assert!(matches!(result, Err(ActivateError::MissingQueue { queue: 0, .. })));
}
