//! virtio-blk requests over a file in the host's page cache: from the driver's notification over the
//! device's thread and the engine to the interrupt. The disk costs nothing here; all else does.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group};
use isolab_vmm::backend::disk::{DiskImage, DiskOptions, EngineKind};
use isolab_vmm::irq::VirtioInterrupt;
use isolab_vmm::rate_limit::RateLimit;
use isolab_vmm::virtio::VirtioDevice;
use isolab_vmm::virtio::block::Block;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::driver::{BUFFERS, Driver, NEXT, WRITE};

const DISK: u64 = 16 << 20;
const BLOCK: u32 = 4096;
/// Descriptors of a request: header, data, status.
const LENGTH: u16 = 3;
/// Where headers and status bytes are; data comes behind.
const DATA: u64 = BUFFERS + 0x10_0000;
/// `VIRTIO_BLK_S_OK` is 0: a byte that the device has not written is not taken for it.
const UNWRITTEN: u8 = 0xff;

/// The driver sleeps until the interrupt.
struct Wake(EventFd);

impl VirtioInterrupt for Wake {
    fn used_buffers(&self, _queue: u16) {
        self.0.write(1).expect("the counter is not full");
    }
    fn configuration_changed(&self) {}
    fn device_needs_reset(&self) {
        panic!("the device stopped");
    }
}

/// Reads of one block each, every one at another place of the disk: `VIRTIO_BLK_T_IN` (virtio 1.2, 5.2.6).
fn describe_reads(driver: &Driver, requests: u16) {
    for request in 0..requests {
        let (number, head) = (u64::from(request), request * LENGTH);
        let mut header = [0; 16];
        let sector = 8 * (number * 37 % (DISK / u64::from(BLOCK)));
        header[8..].copy_from_slice(&sector.to_le_bytes());
        driver.write(&header, GuestAddress(BUFFERS + 32 * number));
        driver.describe(head, BUFFERS + 32 * number, 16, NEXT);
        driver.describe(head + 1, DATA + u64::from(BLOCK) * number, BLOCK, NEXT | WRITE);
        driver.describe(head + 2, status(request), 1, WRITE);
    }
}

fn status(request: u16) -> u64 {
    BUFFERS + 32 * u64::from(request) + 16
}

fn measure(criterion: &mut Criterion, engine: EngineKind, requests: u16) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.as_file().set_len(DISK).expect("there is room");
    let options = DiskOptions { engine, ..DiskOptions::new(file.path()) };
    let image = DiskImage::open(&options).expect("a raw disk");
    let mut device = Block::new(image, 1, RateLimit::default()).expect("a thread can be made");

    let mut driver = Driver::new();
    describe_reads(&driver, requests);
    let interrupt = EventFd::new(0).expect("there are descriptors");
    let wake = Wake(interrupt.try_clone().expect("there are descriptors"));
    device.activate(driver.activation(Arc::new(wake))).expect("the device starts");

    let mut group = criterion.benchmark_group("virtio-blk read 4 KiB");
    group.throughput(Throughput::Elements(requests.into()));
    group.bench_function(format!("{engine:?}, {requests} at a time"), |bencher| {
        bencher.iter(|| {
            driver.offer((0..requests).map(|request| request * LENGTH));
            driver.notify();
            // The driver wants one interrupt, for the last.
            interrupt.read().expect("the device interrupts");
        });
    });
    group.finish();
    for request in 0..requests {
        driver.write(&[UNWRITTEN], GuestAddress(status(request)));
    }
    driver.offer((0..requests).map(|request| request * LENGTH));
    driver.notify();
    interrupt.read().expect("the device interrupts");
    device.reset();
    assert!((0..requests).all(|request| driver.byte(status(request)) == 0), "a read failed");
}

fn block(criterion: &mut Criterion) {
    for engine in [EngineKind::Sync, EngineKind::IoUring] {
        for requests in [1, 32] {
            measure(criterion, engine, requests);
        }
    }
}

criterion_group!(benches, block);
