//! Both engines in every cache mode against real files, and against each other.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::*;

const SIZE: u64 = 4 << 20;
/// Beyond the hole in `memory`.
const OUTSIDE: u64 = 0x30_0000;

/// `[0, 2 MiB)` and `[2 MiB, 3 MiB)` adjoin.
fn memory() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), 0x20_0000), (GuestAddress(0x20_0000), 0x10_0000)])
        .unwrap()
}

/// On a disk, most likely: tmpfs may not know O_DIRECT.
fn build_directory() -> std::path::PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().to_owned()
}

fn image_file() -> NamedTempFile {
    let file = NamedTempFile::new_in(build_directory()).unwrap();
    file.as_file().set_len(SIZE).unwrap();
    file
}

fn options(file: &NamedTempFile, engine: EngineKind, cache: CacheMode) -> DiskOptions {
    let mut options = DiskOptions::new(file.path());
    (options.engine, options.cache) = (engine, cache);
    options
}

fn every_kind() -> impl Iterator<Item = (EngineKind, CacheMode)> {
    let caches = [CacheMode::Writeback, CacheMode::Writethrough, CacheMode::None];
    [EngineKind::Sync, EngineKind::IoUring]
        .into_iter()
        .flat_map(move |engine| caches.into_iter().map(move |cache| (engine, cache)))
}

/// An engine with a place to wait for it.
struct Bench {
    engine: Box<dyn DiskEngine>,
    memory: GuestRam,
    image: std::sync::Arc<DiskImage>,
    epoll: Epoll,
    next_tag: u16,
}

impl Bench {
    fn new(options: &DiskOptions) -> Self {
        Self::over(DiskImage::open(options).unwrap())
    }

    fn over(image: std::sync::Arc<DiskImage>) -> Self {
        let engine = image.engine(8).unwrap();
        assert!(image.notes().is_empty(), "these tests need io_uring: {:?}", image.notes());
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, engine.completion_event(), event).unwrap();
        Self { engine, memory: memory(), image, epoll, next_tag: 0 }
    }

    fn submit(&mut self, operation: DiskOperation, offset: u64, segments: &[(u64, u32)]) {
        let segments: Vec<_> = segments
            .iter()
            .map(|&(address, length)| GuestSegment { address: GuestAddress(address), length })
            .collect();
        let length = segments.iter().map(|s| u64::from(s.length)).sum();
        self.range(operation, offset, length, &segments);
    }

    fn range(&mut self, operation: DiskOperation, offset: u64, length: u64, s: &[GuestSegment]) {
        let request = DiskRequest { tag: self.next_tag, operation, offset, length, segments: s };
        self.next_tag += 1;
        self.engine.submit(&self.memory, request);
    }

    /// Kicks, and waits as a front end does until `count` requests are done.
    fn wait(&mut self, count: usize) -> Vec<DiskCompletion> {
        let mut done = Vec::new();
        self.engine.kick();
        self.engine.completions(&mut done);
        while done.len() < count {
            if self.engine.arm() {
                self.engine.completions(&mut done);
                continue;
            }
            let mut events = [EpollEvent::default()];
            match self.epoll.wait(20_000, &mut events) {
                Ok(ready) => assert_eq!(ready, 1, "no completion came"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
            }
            self.engine.completions(&mut done);
        }
        assert_eq!(done.len(), count);
        done
    }

    fn one(
        &mut self,
        operation: DiskOperation,
        offset: u64,
        segments: &[(u64, u32)],
    ) -> io::Result<()> {
        self.submit(operation, offset, segments);
        self.wait(1).remove(0).result
    }
}

/// Numbers that look random and are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Random writes, reads, zeroes and flushes of every alignment, checked against a model.
fn verify(engine: EngineKind, cache: CacheMode, large_blocks: bool) -> Vec<u8> {
    let file = image_file();
    let options = options(&file, engine, cache);
    let mut image = DiskImage::open(&options).unwrap();
    if large_blocks {
        image.assume_large_blocks(&options);
        assert_eq!(image.physical_block_size(), 4096);
    }
    let mut bench = Bench::over(image);
    let mut model = vec![0; SIZE as usize];
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for _ in 0..400 {
        let sectors = 1 + numbers.below(64);
        let offset = numbers.below(SIZE / 512 - sectors) * 512;
        let length = (sectors * 512) as usize;
        let range = offset as usize..offset as usize + length;
        // Guest memory aligned, misaligned, and across the regions' border.
        let address = match numbers.below(3) {
            0 => 0x1_0000 + numbers.below(64) * 4096,
            1 => 0x1_0001 + numbers.below(0x1_0000),
            _ => 0x20_0000 - 256,
        };
        let split = numbers.below(length as u64) as u32;
        let segments = [(address, split), (address + u64::from(split), length as u32 - split)];
        match numbers.below(8) {
            0 => bench.one(DiskOperation::Flush, 0, &[]).unwrap(),
            kind @ 1..=2 => {
                let unmap = kind == 1;
                let operation = DiskOperation::WriteZeroes { unmap };
                bench.range(operation, offset, length as u64, &[]);
                bench.wait(1).remove(0).result.unwrap();
                model[range].fill(0);
            }
            3..=5 => {
                let mut data = vec![0; length];
                data.fill_with(|| numbers.next() as u8);
                bench.memory.write_slice(&data, GuestAddress(address)).unwrap();
                bench.one(DiskOperation::Write, offset, &segments).unwrap();
                model[range].copy_from_slice(&data);
            }
            _ => {
                bench.one(DiskOperation::Read, offset, &segments).unwrap();
                let mut data = vec![0; length];
                bench.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
                assert!(data == model[range], "{engine:?} {cache:?} at {offset}+{length}");
            }
        }
    }
    drop(bench);
    let mut content = vec![0; SIZE as usize];
    file.as_file().read_exact_at(&mut content, 0).unwrap();
    assert!(content == model, "{engine:?} {cache:?}: the file differs from the model");
    content
}

#[test]
fn every_engine_and_cache_mode_leaves_the_same_bytes() {
    let mut contents = every_kind().map(|(engine, cache)| verify(engine, cache, false));
    let first = contents.next().unwrap();
    assert!(contents.all(|content| content == first));
    // Requests that O_DIRECT cannot do go through the page cache, and the two stay coherent.
    for engine in [EngineKind::Sync, EngineKind::IoUring] {
        assert!(verify(engine, CacheMode::None, true) == first);
    }
}

#[test]
fn the_alignment_that_direct_transfers_need_is_found() {
    let file = image_file();
    let options = options(&file, EngineKind::Sync, CacheMode::None);
    let image = DiskImage::open(&options).unwrap();
    let unit = image.direct_offset_alignment().unwrap();
    assert!(unit == 512 || unit >= 4096 && unit.is_power_of_two(), "{unit}");
    assert!(image.physical_block_size() >= unit);
}

#[test]
fn many_requests_at_a_time_all_complete_even_beyond_the_depth() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, cache));
        for slot in 0..100u64 {
            let address = 0x1_0000 + slot * 4096;
            bench.memory.write_slice(&[slot as u8 + 1; 4096], GuestAddress(address)).unwrap();
            bench.submit(DiskOperation::Write, slot * 4096, &[(address, 4096)]);
        }
        let mut tags: Vec<_> = bench
            .wait(100)
            .into_iter()
            .map(|done| {
                done.result.unwrap();
                done.tag
            })
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..100).collect::<Vec<_>>());
        let mut block = [0; 4096];
        for slot in 0..100 {
            file.as_file().read_exact_at(&mut block, slot * 4096).unwrap();
            assert_eq!(block, [slot as u8 + 1; 4096]);
        }
    }
}

#[test]
fn more_segments_than_one_system_call_takes() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, cache));
        bench.memory.write_slice(&[7; 3072 * 512], GuestAddress(0)).unwrap();
        // Backwards, so that no two can be joined.
        let segments: Vec<_> = (0..3072).rev().map(|slot| (slot * 512, 512)).collect();
        bench.one(DiskOperation::Write, 512, &segments).unwrap();
        let mut data = vec![0; 3072 * 512];
        file.as_file().read_exact_at(&mut data, 512).unwrap();
        assert!(data.iter().all(|&byte| byte == 7));
    }
}

#[test]
fn hostile_requests_fail_and_the_next_succeeds() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, cache));
        let read = DiskOperation::Read;
        let cases: [(u64, &[(u64, u32)]); 7] = [
            (SIZE, &[(0, 512)]),
            (SIZE - 512, &[(0, 1024)]),
            (u64::MAX, &[(0, 512)]),
            (0, &[(OUTSIDE, 512)]),
            (0, &[(0x2f_ff00, 512)]),
            (0, &[(u64::MAX - 100, 512)]),
            (0, &[(0, 512), (OUTSIDE, 512)]),
        ];
        for (offset, segments) in cases {
            assert!(bench.one(read, offset, segments).is_err(), "{offset} {segments:?}");
        }
        let wrong = GuestSegment { address: GuestAddress(0), length: 512 };
        bench.range(read, 0, 1024, &[wrong]);
        assert!(bench.wait(1).remove(0).result.is_err(), "lengths that do not add up");
        bench.range(DiskOperation::Discard, SIZE - 512, 1024, &[]);
        assert!(bench.wait(1).remove(0).result.is_err(), "a discard past the end");
        bench.one(read, 0, &[]).unwrap();
        bench.one(read, SIZE - 512, &[(0x20_0000 - 1, 512)]).unwrap();
    }
}

#[test]
fn a_disk_that_shrank_gives_errors() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, cache));
        file.as_file().set_len(8192).unwrap();
        let error = bench.one(DiskOperation::Read, 4096, &[(0, 8192)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{engine:?} {cache:?}");
        bench.one(DiskOperation::Read, 4096, &[(0, 4096)]).unwrap();
    }
}

#[test]
fn discarding_frees_the_hosts_blocks() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        file.as_file().write_all_at(&vec![1; SIZE as usize], 0).unwrap();
        file.as_file().sync_all().unwrap();
        let blocks = file.as_file().metadata().unwrap().blocks();
        let mut bench = Bench::new(&options(&file, engine, cache));
        bench.range(DiskOperation::Discard, 0, SIZE / 2, &[]);
        bench.wait(1).remove(0).result.unwrap();
        assert!(file.as_file().metadata().unwrap().blocks() <= blocks / 2 + 8);
        assert_eq!(file.as_file().metadata().unwrap().len(), SIZE);
    }
}

#[test]
fn zeroes_are_written_where_the_host_cannot_do_better() {
    for engine in [EngineKind::Sync, EngineKind::IoUring] {
        let file = image_file();
        file.as_file().write_all_at(&vec![1; SIZE as usize], 0).unwrap();
        let mut bench = Bench::new(&options(&file, engine, CacheMode::None));
        bench.image.can_punch.store(false, std::sync::atomic::Ordering::Relaxed);
        bench.image.can_zero.store(false, std::sync::atomic::Ordering::Relaxed);
        let memory = bench.memory.clone();
        let request = DiskRequest {
            tag: 0,
            operation: DiskOperation::WriteZeroes { unmap: true },
            offset: 512,
            length: 3 << 20,
            segments: &[],
        };
        let mut vectors = buffer::Vectors::default();
        blocking::perform(&bench.image, &memory, &request, &mut vectors).unwrap();
        bench.range(request.operation, 3 << 20, 512, &[]);
        bench.wait(1).remove(0).result.unwrap();
        let mut data = vec![1; SIZE as usize];
        file.as_file().read_exact_at(&mut data, 0).unwrap();
        let end = 512 + (3 << 20);
        assert!(data[..512].iter().chain(&data[end..]).all(|&byte| byte == 1));
        assert!(data[512..end].iter().all(|&byte| byte == 0));
    }
}

/// A file system of 1 MiB, in a mount namespace of the thread's own; needs root.
fn small_file_system(directory: &std::path::Path) -> io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("size=1m"))?;
    Ok(())
}

fn full_disk(engine: EngineKind, cache: CacheMode) {
    let directory = tempfile::tempdir().unwrap();
    small_file_system(directory.path()).expect("this test mounts a tmpfs and needs root for it");
    let path = directory.path().join("disk");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let mut disk = DiskOptions::new(&path);
    (disk.engine, disk.cache) = (engine, cache);
    let mut bench = Bench::new(&disk);
    let mut full = None;
    for offset in (0..SIZE).step_by(0x1_0000) {
        let result = bench.one(DiskOperation::Write, offset, &[(0, 0x1_0000)]);
        if let Err(error) = result {
            full = error.raw_os_error();
            break;
        }
    }
    assert_eq!(full, Some(libc::ENOSPC));
    // What was written is still there, room can be made, and then writing works again.
    bench.one(DiskOperation::Read, 0, &[(0, 0x1_0000)]).unwrap();
    bench.range(DiskOperation::Discard, 0, 0x8_0000, &[]);
    bench.wait(1).remove(0).result.unwrap();
    bench.one(DiskOperation::Write, SIZE - 0x1_0000, &[(0, 0x1_0000)]).unwrap();
}

#[test]
fn as_root_a_full_host_disk_is_an_error_that_passes() {
    for engine in [EngineKind::Sync, EngineKind::IoUring] {
        for cache in [CacheMode::Writeback, CacheMode::Writethrough] {
            // The mount namespace is the thread's.
            std::thread::spawn(move || full_disk(engine, cache)).join().unwrap();
        }
    }
}

#[test]
fn two_writers_are_one_too_many_and_readers_share() {
    let file = image_file();
    let writable = options(&file, EngineKind::Sync, CacheMode::Writeback);
    let mut read_only = writable.clone();
    read_only.read_only = true;
    let first = DiskImage::open(&writable).unwrap();
    for second in [&writable, &read_only] {
        let error = DiskImage::open(second).unwrap_err();
        assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    }
    // Whoever comes while it is given up gets it.
    std::thread::scope(|scope| {
        let next = scope.spawn(|| DiskImage::open(&writable).map(drop));
        drop(first);
        next.join().unwrap().unwrap();
    });
    let _one = DiskImage::open(&read_only).unwrap();
    let _two = DiskImage::open(&read_only).unwrap();
    assert!(matches!(DiskImage::open(&writable), Err(DiskError::InUse { .. })));
}

#[test]
fn what_is_not_a_disk_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    File::create(&empty).unwrap().set_len(511).unwrap();
    let open = |path: &std::path::Path| DiskImage::open(&DiskOptions::new(path)).unwrap_err();
    assert!(matches!(open(directory.path()), DiskError::NotADisk { .. }));
    assert!(matches!(open("/dev/null".as_ref()), DiskError::NotADisk { .. }));
    assert!(matches!(open(&empty), DiskError::TooSmall { .. }));
    assert!(matches!(open(&directory.path().join("none")), DiskError::Open { .. }));
}

#[test]
fn an_incomplete_last_sector_is_left_out() {
    let file = image_file();
    file.as_file().set_len(1000).unwrap();
    let image = DiskImage::open(&DiskOptions::new(file.path())).unwrap();
    assert_eq!(image.size(), 512);
    assert_eq!(image.logical_block_size(), 512);
}

#[test]
fn as_root_what_the_host_does_not_let_be_written_is_only_opened_readonly() {
    // A mount of this thread's own, which ends with it.
    std::thread::spawn(|| {
        use nix::mount::{MsFlags, mount};
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk"), [0; 4096]).unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("run as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let bind = |flags| mount(Some(folder.path()), folder.path(), none, flags, none).unwrap();
        bind(MsFlags::MS_BIND);
        bind(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        let mut options = DiskOptions::new(folder.path().join("disk"));
        let error = DiskImage::open(&options).unwrap_err();
        assert!(matches!(error, DiskError::ReadOnly { .. }), "{error}");
        assert!(error.to_string().contains("'readonly'"), "{error}");
        options.read_only = true;
        DiskImage::open(&options).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn another_format_is_refused_unless_raw_is_insisted_on() {
    let file = image_file();
    file.as_file().write_at(b"QFI\xfb", 0).unwrap();
    for (engine, cache) in every_kind() {
        let mut options = options(&file, engine, cache);
        let error = DiskImage::open(&options).unwrap_err();
        assert!(matches!(error, DiskError::OtherFormat { format: "qcow2", .. }), "{error}");
        options.raw = true;
        DiskImage::open(&options).unwrap();
    }
}

#[test]
fn a_size_that_is_no_multiple_of_a_sector_is_told() {
    let file = image_file();
    file.as_file().set_len(SIZE + 100).unwrap();
    let options = options(&file, EngineKind::Sync, CacheMode::Writeback);
    let image = DiskImage::open(&options).unwrap();
    assert_eq!(image.size(), SIZE);
    assert!(image.notes()[0].contains("its last 100 are out of"), "{:?}", image.notes());
}

#[test]
fn a_read_only_disk_is_not_written() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let mut disk = options(&file, engine, cache);
        disk.read_only = true;
        let mut bench = Bench::new(&disk);
        let error = bench.one(DiskOperation::Write, 0, &[(0, 512)]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        bench.one(DiskOperation::Read, 0, &[(0, 512)]).unwrap();
        bench.one(DiskOperation::Flush, 0, &[]).unwrap();
    }
}

#[test]
fn dropping_an_engine_waits_for_what_is_in_flight() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, cache));
        bench.memory.write_slice(&[3; 0x10_0000], GuestAddress(0)).unwrap();
        for slot in 0..4u64 {
            bench.submit(DiskOperation::Write, slot << 20, &[(0, 0x10_0000)]);
        }
        bench.engine.kick();
        let memory = bench.memory.clone();
        drop(bench);
        memory.write_slice(&[4; 0x10_0000], GuestAddress(0)).unwrap();
        let mut data = vec![0; SIZE as usize];
        file.as_file().read_exact_at(&mut data, 0).unwrap();
        assert!(data.iter().all(|&byte| byte == 3), "{engine:?} {cache:?}");
    }
}

#[test]
fn abandoned_requests_touch_neither_memory_nor_disk_and_the_engine_goes_on() {
    for (engine, cache) in every_kind() {
        let file = image_file();
        let image = DiskImage::open(&options(&file, engine, cache)).unwrap();
        let memory = memory();
        let mut engine = image.engine(64).unwrap();
        for round in 0..20u8 {
            memory.write_slice(&[round; 0x8000], GuestAddress(0)).unwrap();
            for tag in 0..100 {
                let (operation, segments) = match tag % 3 {
                    0 => (DiskOperation::Read, vec![(0x1_0000, 0x8000)]),
                    1 => (DiskOperation::Write, vec![(0, 0x8000)]),
                    _ => (DiskOperation::Flush, vec![]),
                };
                let segment = |&(address, length): &(u64, u32)| GuestSegment {
                    address: GuestAddress(address),
                    length,
                };
                let segments: Vec<_> = segments.iter().map(segment).collect();
                let length = segments.iter().map(|s| u64::from(s.length)).sum();
                let segments = &segments;
                engine.submit(&memory, DiskRequest { tag, operation, offset: 0, length, segments });
            }
            if round % 2 == 0 {
                engine.kick();
            }
            engine.abandon();
            // What still ran would write this to the disk, or over it.
            memory.write_slice(&[0xee; 0x2_0000], GuestAddress(0)).unwrap();
            let mut done = Vec::new();
            engine.completions(&mut done);
            assert!(done.is_empty(), "nobody waits for them any more");
        }
        let mut mark = [0; 0x8000];
        memory.read_slice(&mut mark, GuestAddress(0x1_0000)).unwrap();
        assert_eq!(mark, [0xee; 0x8000]);
        // It works as before.
        engine.submit(
            &memory,
            DiskRequest {
                tag: 7,
                operation: DiskOperation::Read,
                offset: 0,
                length: 0x8000,
                segments: &[GuestSegment { address: GuestAddress(0), length: 0x8000 }],
            },
        );
        let mut done = Vec::new();
        engine.kick();
        while done.is_empty() {
            engine.completions(&mut done);
        }
        assert!(done[0].tag == 7 && done[0].result.is_ok());
        memory.read_slice(&mut mark, GuestAddress(0)).unwrap();
        assert!(!mark.contains(&0xee));
    }
}

/// A host that fails is the operator's business, a guest that asks for nonsense is not.
#[test]
fn failures_of_the_host_are_logged_and_a_guests_are_not() {
    for engine in [EngineKind::Sync, EngineKind::IoUring] {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, CacheMode::Writeback));
        let lines = crate::log_limit::testing::messages(|| {
            let read = DiskOperation::Read;
            bench.one(read, SIZE, &[(0, 512)]).unwrap_err();
            bench.one(read, 0, &[(OUTSIDE, 512)]).unwrap_err();
            file.as_file().set_len(8192).unwrap();
            bench.one(read, 4096, &[(0, 8192)]).unwrap_err();
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            bench.image.note_end(DiskOperation::Write, 512, 512, &Err(full));
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        let path = file.path().display().to_string();
        assert!(lines.iter().all(|line| line.contains(&path)), "{lines:?}");
        assert!(lines[0].contains("Read") && lines[0].contains("offset=4096"), "{lines:?}");
        assert!(lines[1].contains("No space left on device"), "{lines:?}");
    }
}

#[test]
fn what_is_done_is_counted_and_what_fails_is_not() {
    for engine in [EngineKind::Sync, EngineKind::IoUring] {
        let file = image_file();
        let mut bench = Bench::new(&options(&file, engine, CacheMode::Writeback));
        bench.one(DiskOperation::Write, 0, &[(0, 4096), (8192, 512)]).unwrap();
        bench.one(DiskOperation::Read, 512, &[(0, 1024)]).unwrap();
        bench.one(DiskOperation::Flush, 0, &[]).unwrap();
        bench.one(DiskOperation::Read, SIZE, &[(0, 512)]).unwrap_err();
        let traffic = bench.image.counters().traffic();
        assert_eq!(traffic, DiskTraffic { read: 1024, written: 4608 }, "{engine:?}");
    }
}
