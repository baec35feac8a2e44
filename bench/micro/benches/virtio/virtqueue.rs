//! A virtqueue's chains, taken, understood and given back, with one interrupt decision a batch: what
//! every request of every virtio device costs before anything is done for it.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use isolab_vmm::irq::VirtioInterrupt;
use isolab_vmm::virtio::queue::DeviceQueue;

use super::driver::{BUFFERS, Driver, INDIRECT, NEXT, SIZE, WRITE};

/// An interrupt that goes nowhere: what raising one costs is KVM's.
struct Quiet;

impl VirtioInterrupt for Quiet {
    fn used_buffers(&self, _queue: u16) {}
    fn configuration_changed(&self) {}
    fn device_needs_reset(&self) {}
}

/// `chains` of `length` descriptors each, one after the other in the table.
fn direct(driver: &Driver, chains: u16, length: u16) {
    for index in 0..chains * length {
        let next = if (index + 1) % length == 0 { 0 } else { NEXT };
        let writable = if index % length == 0 { 0 } else { WRITE };
        driver.describe(index, BUFFERS + 0x1000 * u64::from(index), 0x1000, next | writable);
    }
}

/// One chain of `length` descriptors in a table of its own, which all heads share.
fn indirect(driver: &Driver, length: u16) {
    let table = BUFFERS;
    for index in 0..length {
        let next = if index + 1 == length { 0 } else { NEXT };
        driver.describe_in(table, index, BUFFERS + 0x1_0000, 0x1000, next | WRITE);
    }
    for head in 0..SIZE {
        driver.describe(head, table, 16 * u32::from(length), INDIRECT);
    }
}

fn measure(criterion: &mut Criterion, name: &str, chains: u16, step: u16, driver: Driver) {
    let mut driver = driver;
    let activation = driver.activation(Arc::new(Quiet));
    let mut queue = DeviceQueue::from_activation(activation, &[]).remove(0);
    let mut group = criterion.benchmark_group("virtqueue");
    group.throughput(Throughput::Elements(chains.into()));
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            || driver.offer((0..chains).map(|chain| chain * step)),
            |()| {
                let mut taken = 0;
                while let Some(chain) = queue.pop().expect("the driver keeps the rules") {
                    queue.push(chain, 0).expect("the driver keeps the rules");
                    taken += 1;
                }
                queue.signal_used().expect("the driver keeps the rules");
                assert_eq!(taken, chains);
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn virtqueue(criterion: &mut Criterion) {
    let driver = Driver::new();
    direct(&driver, SIZE, 1);
    measure(criterion, "one buffer", SIZE, 1, driver);
    let driver = Driver::new();
    direct(&driver, SIZE / 3, 3);
    measure(criterion, "three buffers", SIZE / 3, 3, driver);
    for length in [3, 34, 256] {
        let driver = Driver::new();
        indirect(&driver, length);
        measure(criterion, &format!("{length} buffers, indirect"), SIZE, 1, driver);
    }
}

criterion_group!(benches, virtqueue);
