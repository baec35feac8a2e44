//! The balloon driven through its queues, over real mappings.

use vm_memory::{Bytes, FileOffset, GuestAddress, GuestRegionMmap, MmapRegion};

use super::*;
use crate::memory::GuestRam;
use crate::virtio::testing::{
    Driver, Inbox, NEXT, Signal, TIMEOUT, activation, interrupt, memory, readable, writable,
};

const LIST: u64 = 0x1_0000;
const PAGES: u64 = 0x10_0000;

struct Rig {
    device: Balloon,
    drivers: Vec<Driver>,
    inbox: Inbox,
}

/// With the queues numbered `numbers`.
fn rig(memory: &GuestRam, features: u64, numbers: &[u16]) -> Rig {
    let mut device =
        Balloon::new(BalloonOptions { target: 0, deflate_on_oom: true, free_page_reporting: true })
            .unwrap();
    let drivers: Vec<_> =
        (0..numbers.len() as u64).map(|number| Driver::new(memory, number * 0x4000, 8)).collect();
    let (interrupt, inbox) = interrupt();
    let queues =
        numbers.iter().zip(&drivers).map(|(&number, driver)| driver.queue(number, 0)).collect();
    device.activate(activation(memory, features, queues, interrupt)).unwrap();
    Rig { device, drivers, inbox }
}

fn list(driver: &Driver, pages: &[u32]) -> u32 {
    let raw: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.write(LIST, &raw);
    raw.len() as u32
}

fn fill(memory: &GuestRam) {
    memory.write_slice(&[0xaa; 16 * 4096], GuestAddress(PAGES)).unwrap();
}

/// Which of the 16 pages at PAGES have been given back.
fn gone(memory: &GuestRam) -> Vec<u64> {
    (0..16)
        .filter(|page| {
            let byte: u8 = memory.read_obj(GuestAddress(PAGES + page * 4096)).unwrap();
            byte == 0
        })
        .collect()
}

fn inflates(memory: &GuestRam) {
    let mut rig = rig(memory, 0, &[0, 1]);
    fill(memory);
    let base = (PAGES / 4096) as u32;
    let pages = [base + 1, base + 2, base + 9, base + 8, base + 15, base + 1];
    let length = list(&rig.drivers[0], &pages);
    rig.drivers[0].send(&[readable(LIST, length)]);
    rig.drivers[0].wait_used(&rig.inbox, 1);
    assert_eq!(gone(memory), [1, 2, 8, 9, 15]);
    rig.drivers[1].send(&[readable(LIST, length)]);
    rig.drivers[1].wait_used(&rig.inbox, 1);
    fill(memory);
    assert!(gone(memory).is_empty());
}

#[test]
fn pages_in_the_balloon_go_back_to_the_host() {
    inflates(&memory());
}

#[test]
fn pages_of_a_shared_mapping_go_back_too() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x20_0000).unwrap();
    let watched = file.try_clone().unwrap();
    let mapping = MmapRegion::build(
        Some(FileOffset::new(file, 0)),
        0x20_0000,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
    )
    .unwrap();
    let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
    let memory = GuestRam::from_regions(vec![region]).unwrap();
    inflates(&memory);
    let blocks =
        |file: &std::fs::File| std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    let before = blocks(&watched);
    super::discard::discard(&memory, PAGES, 16 * 4096).unwrap();
    assert!(blocks(&watched) < before, "the file keeps its pages");
}

#[test]
fn page_numbers_outside_ram_are_ignored_and_nonsense_comes_back() {
    let memory = memory();
    let mut rig = rig(&memory, 0, &[0, 1]);
    fill(&memory);
    let base = (PAGES / 4096) as u32;
    let cases: [(&[u32], u32, u32); 5] = [
        (&[u32::MAX, 0x300, u32::MAX - 1], 12, 0),
        (&[base], 3, 1),
        (&[base], 0, 1),
        (&[0x2ff, 0x300, base + 3], 12, 1),
        (&[base + 4], 0x20_0000, 2),
    ];
    for (pages, length, _) in cases {
        list(&rig.drivers[0], pages);
        rig.drivers[0].send(&[readable(LIST, length)]);
        rig.drivers[0].wait_used(&rig.inbox, 1);
    }
    rig.drivers[0].send(&[readable(0x30_0000, 4)]);
    rig.drivers[0].wait_used(&rig.inbox, 1);
    rig.drivers[0].send(&[writable(LIST, 4)]);
    rig.drivers[0].wait_used(&rig.inbox, 1);
    assert_eq!(gone(&memory), [3]);
    assert_eq!(rig.device.counters()[0].snapshot().errors, 3);
}

#[test]
fn a_loop_breaks_the_device() {
    let memory = memory();
    let mut rig = rig(&memory, 0, &[0, 1]);
    rig.drivers[0].write_descriptor(0, readable(LIST, 4), NEXT, 0);
    rig.drivers[0].offer(0);
    rig.drivers[0].kick();
    assert_eq!(rig.inbox.next(), Signal::NeedsReset);
}

#[test]
fn free_pages_are_reported_wherever_the_driver_numbers_the_queue() {
    for (features, numbers) in [
        (1 << F_PAGE_REPORTING | 1 << F_STATS_VQ, &[0u16, 1, 2, 4][..]),
        (1 << F_PAGE_REPORTING | 1 << F_STATS_VQ, &[0, 1, 2, 3]),
        (1 << F_PAGE_REPORTING, &[0, 1, 2]),
    ] {
        let memory = memory();
        let mut rig = rig(&memory, features, numbers);
        fill(&memory);
        let driver = rig.drivers.last_mut().unwrap();
        // The second is not aligned: only the whole pages in it go.
        driver.send(&[
            writable(PAGES + 4096, 2 * 4096),
            writable(PAGES + 5 * 4096 + 1, 3 * 4096),
            writable(u64::MAX - 4096, 4096),
        ]);
        driver.wait_used(&rig.inbox, 1);
        assert_eq!(gone(&memory), [1, 2, 6, 7], "{numbers:?}");
    }
}

#[test]
fn statistics_are_asked_for_and_come() {
    let memory = memory();
    let mut rig = rig(&memory, 1 << F_STATS_VQ, &[0, 1, 2]);
    let handle = rig.device.handle();
    let answer = std::thread::spawn(move || handle.stats(TIMEOUT));
    let driver = &mut rig.drivers[2];
    let mut raw = Vec::new();
    for (tag, value) in [(5u16, 1u64 << 30), (4, 12345), (999, 7)] {
        raw.extend(tag.to_le_bytes());
        raw.extend(value.to_le_bytes());
    }
    driver.write(LIST, &raw);
    // The buffer goes back and forth, as Linux does it, until the question has come through:
    // whether it was asked before or after the first buffer does not matter.
    let length = raw.len() as u32;
    driver.send(&[readable(LIST, length)]);
    let mut answered = false;
    while !answered {
        answered = answer.is_finished();
        if !driver.used().is_empty() {
            driver.send(&[readable(LIST, length)]);
        }
        std::thread::yield_now();
    }
    let stats = answer.join().unwrap().unwrap();
    assert_eq!((stats.total, stats.free), (Some(1 << 30), Some(12345)));
    assert_eq!(stats.swap_in, None);
}

#[test]
fn no_statistics_without_the_queue_or_a_driver() {
    let memory = memory();
    let mut rig = rig(&memory, 0, &[0, 1]);
    assert_eq!(rig.device.handle().stats(TIMEOUT), None);
    rig.device.reset();
    assert_eq!(rig.device.handle().stats(TIMEOUT), None);
}

#[test]
fn the_target_reaches_the_guest_and_the_actual_size_the_operator() {
    let memory = memory();
    let mut rig = rig(&memory, 0, &[0, 1]);
    let handle = rig.device.handle();
    handle.set_target(5 * 4096 + 1);
    assert_eq!(rig.inbox.next(), Signal::Configuration);
    let mut raw = [0; 8];
    rig.device.read_config(0, &mut raw);
    assert_eq!(raw, [5, 0, 0, 0, 0, 0, 0, 0]);
    rig.device.write_config(4, &3u32.to_le_bytes());
    assert_eq!((handle.target(), handle.actual()), (5 * 4096, 3 * 4096));
    rig.device.write_config(0, &[9; 4]);
    rig.device.write_config(u64::MAX, &[9; 4]);
    rig.device.write_config(5, &[1]);
    assert_eq!((handle.target(), handle.actual()), (5 * 4096, (256 + 3) * 4096));
    handle.set_target(u64::MAX);
    assert_eq!(handle.target(), u64::from(u32::MAX) * 4096);
}
