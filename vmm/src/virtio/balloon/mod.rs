//! virtio-balloon (virtio 1.2, 5.5): takes memory back from the guest and tells what it uses it
//! for.

mod discard;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub use self::stats::BalloonStats;
use self::worker::BalloonQueues;
use super::queue::{DeviceQueue, take_queue};
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, BASE_FEATURES, VirtioDevice, read_config_bytes};
use crate::irq::VirtioInterrupt;
use crate::poison::unpoisoned;

const NAME: &str = "virtio-balloon";
const QUEUE_SIZE: u16 = 128;
/// The unit of the balloon, whatever the guest's page size (5.5).
const PAGE_SIZE: u64 = 4096;

/// Feature bits (5.5.3).
const F_STATS_VQ: u32 = 1;
const F_DEFLATE_ON_OOM: u32 = 2;
const F_PAGE_REPORTING: u32 = 5;

/// Queue numbers (5.5.2).
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
/// Inflate, deflate, statistics, free page hints (never used), free page reports.
const QUEUES: usize = 5;

/// Offsets in the configuration (5.5.4).
const ACTUAL_OFFSET: usize = 4;
const CONFIGURATION_LENGTH: usize = 8;

/// What the operator decides about a balloon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonOptions {
    /// Bytes to take from the guest from the start, rounded down to 4 KiB.
    pub target: u64,
    /// The guest takes pages back before it kills a process for want of memory.
    pub deflate_on_oom: bool,
    /// The guest reports free pages as it frees them, and the host takes them back at once.
    pub free_page_reporting: bool,
}

/// The balloon device (5.5): gives the host back what the guest puts into it.
pub struct Balloon {
    options: BalloonOptions,
    shared: Arc<Shared>,
    counters: Vec<Arc<QueueCounters>>,
    worker: Option<Worker<BalloonQueues>>,
}

/// What device, worker and handles share.
struct Shared {
    /// Pages wanted in the balloon.
    target: AtomicU32,
    /// Pages that the guest says are in it.
    actual: AtomicU32,
    report: Mutex<Report>,
    reported: Condvar,
    /// Asks the worker to ask the guest for statistics.
    request: EventFd,
}

#[derive(Default)]
struct Report {
    stats: BalloonStats,
    /// How many reports of statistics the guest has sent.
    number: u64,
    /// `Some` while the device is active.
    interrupt: Option<Arc<dyn VirtioInterrupt>>,
    /// Whether the driver gives statistics.
    available: bool,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        unpoisoned(self.report.lock())
    }
}

/// Drives a balloon from outside the guest.
#[derive(Clone)]
pub struct BalloonHandle(Arc<Shared>);

impl BalloonHandle {
    /// Asks the guest to give up `bytes` (rounded down to 4 KiB) in all; it may take its time, or
    /// stop short of it.
    pub fn set_target(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
        self.0.target.store(pages, Ordering::Release);
        let interrupt = self.0.report().interrupt.clone();
        if let Some(interrupt) = interrupt {
            interrupt.configuration_changed();
        }
    }

    /// Bytes that the guest is asked to give up.
    pub fn target(&self) -> u64 {
        u64::from(self.0.target.load(Ordering::Acquire)) * PAGE_SIZE
    }

    /// Bytes that the guest has given up, by its own account.
    pub fn actual(&self) -> u64 {
        u64::from(self.0.actual.load(Ordering::Acquire)) * PAGE_SIZE
    }

    /// Asks the guest for statistics and waits for them. `None` if its driver gives none, or does
    /// not answer within `timeout`.
    pub fn stats(&self, timeout: Duration) -> Option<BalloonStats> {
        let deadline = Instant::now() + timeout;
        let mut report = self.0.report();
        if !report.available {
            return None;
        }
        let before = report.number;
        self.0.request.write(1).ok()?;
        while report.number == before {
            let left = deadline.checked_duration_since(Instant::now())?;
            report = unpoisoned(self.0.reported.wait_timeout(report, left)).0;
        }
        Some(report.stats)
    }
}

impl Balloon {
    /// A balloon that asks for `options.target` from the start.
    ///
    /// # Errors
    /// The host gives no eventfd.
    pub fn new(options: BalloonOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            target: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            report: Mutex::default(),
            reported: Condvar::new(),
            request: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        });
        BalloonHandle(Arc::clone(&shared)).set_target(options.target);
        Ok(Self {
            options,
            shared,
            counters: (0..QUEUES).map(|_| Arc::default()).collect(),
            worker: None,
        })
    }

    /// For the control API.
    pub fn handle(&self) -> BalloonHandle {
        BalloonHandle(Arc::clone(&self.shared))
    }

    /// What each queue did, by number.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.clone()
    }
}

impl VirtioDevice for Balloon {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn device_features(&self) -> u64 {
        let mut features = BASE_FEATURES | 1 << F_STATS_VQ;
        if self.options.deflate_on_oom {
            features |= 1 << F_DEFLATE_ON_OOM;
        }
        if self.options.free_page_reporting {
            features |= 1 << F_PAGE_REPORTING;
        }
        features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut bytes = [0; CONFIGURATION_LENGTH];
        let (target, actual) = bytes.split_at_mut(ACTUAL_OFFSET);
        target.copy_from_slice(&self.shared.target.load(Ordering::Acquire).to_le_bytes());
        actual.copy_from_slice(&self.shared.actual.load(Ordering::Acquire).to_le_bytes());
        read_config_bytes(&bytes, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // The driver writes `actual` and nothing else, in one go or byte by byte.
        let mut actual = self.shared.actual.load(Ordering::Acquire).to_le_bytes();
        for (number, &value) in data.iter().enumerate() {
            let position = usize::try_from(offset)
                .ok()
                .and_then(|offset| offset.checked_add(number)?.checked_sub(ACTUAL_OFFSET));
            if let Some(byte) = position.and_then(|position| actual.get_mut(position)) {
                *byte = value;
            }
        }
        let actual = u32::from_le_bytes(actual);
        self.shared.actual.store(actual, Ordering::Release);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let features = activation.features;
        let interrupt = Arc::clone(&activation.interrupt);
        let mut queues = DeviceQueue::from_activation(activation, &self.counters);
        let inflate = take_queue(&mut queues, INFLATE, NAME)?;
        let deflate = take_queue(&mut queues, DEFLATE, NAME)?;
        let stats = if features & (1 << F_STATS_VQ) != 0 {
            Some(take_queue(&mut queues, STATS, NAME)?)
        } else {
            None
        };
        // The standard numbers the reporting queue 4; Linux numbers without gaps, so 3 or, with
        // no statistics, 2. Whatever is left can only be that.
        let reporting = if features & (1 << F_PAGE_REPORTING) != 0 { queues.pop() } else { None };
        let available = stats.is_some();
        let handler =
            BalloonQueues::new(inflate, deflate, stats, reporting, Arc::clone(&self.shared));
        let worker = Worker::spawn("virtio-balloon", handler);
        self.worker = Some(worker.map_err(|source| ActivateError::Host {
            device: NAME,
            action: "start its thread",
            source,
        })?);
        let mut report = self.shared.report();
        report.interrupt = Some(interrupt);
        report.available = available;
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
        self.shared.actual.store(0, Ordering::Release);
        let mut report = self.shared.report();
        report.interrupt = None;
        report.available = false;
    }
}
