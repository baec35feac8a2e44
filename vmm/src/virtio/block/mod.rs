//! virtio-blk (virtio 1.2, 5.2).

mod in_flight;
mod pace;
mod request;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use self::request::{
    MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_SEGMENT_SIZE, MAX_SEGMENTS, MAX_ZERO_RANGES,
    MAX_ZERO_SECTORS,
};
use self::worker::{BlockQueue, MAX_IN_FLIGHT};
use super::queue::DeviceQueue;
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, BASE_FEATURES, VirtioDevice, read_config_bytes};
use crate::backend::disk::{CacheMode, DiskEngine, DiskImage, SECTOR_SIZE};
use crate::rate_limit::{RateLimit, RateLimiter};

/// Entries of each queue: enough to keep a fast disk busy.
const QUEUE_SIZE: u16 = 256;
// The header and the status take a descriptor each.
const _: () = assert!(MAX_SEGMENTS + 2 <= QUEUE_SIZE as u32);
/// Where `writeback` is in the configuration.
const WRITEBACK_OFFSET: u64 = 32;

const NAME: &str = "virtio-blk";

/// A disk as a virtio device.
pub struct Block {
    image: Arc<DiskImage>,
    /// One a queue, while no worker has it.
    engines: Vec<Option<Box<dyn DiskEngine>>>,
    limiter: Option<RateLimiter>,
    counters: Vec<Arc<QueueCounters>>,
    workers: Vec<Worker<BlockQueue>>,
    poll: Duration,
    /// The guest's choice of cache mode (5.2.4, `writeback`).
    writeback: bool,
}

impl Block {
    /// A device with `queues` queues (at least 1; one a vCPU is useful).
    ///
    /// # Errors
    /// The host is out of descriptors or memory.
    pub fn new(image: Arc<DiskImage>, queues: u16, rate: RateLimit) -> io::Result<Self> {
        let queues = queues.max(1);
        let engines: io::Result<_> =
            (0..queues).map(|_| image.engine(QUEUE_SIZE).map(Some)).collect();
        let writeback = image.cache() != CacheMode::Writethrough;
        Ok(Self {
            engines: engines?,
            limiter: RateLimiter::new(rate)?,
            counters: (0..queues).map(|_| Arc::default()).collect(),
            workers: Vec::new(),
            poll: Duration::ZERO,
            writeback,
            image,
        })
    }

    /// The queues' threads look for requests by themselves for so long before they sleep, where
    /// that pays.
    #[must_use]
    pub fn with_polling(mut self, limit: Duration) -> Self {
        self.poll = limit;
        self
    }

    /// What each queue did, by number; stays valid when the device is gone.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.clone()
    }

    /// Whether the guest may choose between write-back and write-through.
    fn has_cache(&self) -> bool {
        self.image.cache() != CacheMode::Writethrough && !self.image.read_only()
    }

    fn configuration(&self) -> [u8; 60] {
        let physical = self.image.physical_block_size();
        let logical = self.image.logical_block_size();
        let exponent = (physical / logical).max(1).ilog2() as u8;
        let alignment = physical / SECTOR_SIZE as u32;
        let mut bytes = [0; 60];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, &(self.image.size() / SECTOR_SIZE).to_le_bytes());
        put(8, &MAX_SEGMENT_SIZE.to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes());
        put(20, &logical.to_le_bytes());
        put(24, &[exponent]);
        put(32, &[u8::from(self.writeback)]);
        put(34, &(self.counters.len() as u16).to_le_bytes());
        if !self.image.read_only() {
            put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(40, &MAX_DISCARD_RANGES.to_le_bytes());
            put(44, &alignment.to_le_bytes());
            put(48, &MAX_ZERO_SECTORS.to_le_bytes());
            put(52, &MAX_ZERO_RANGES.to_le_bytes());
            put(56, &[1]);
        }
        bytes
    }

    fn start(&mut self, queue: DeviceQueue) -> io::Result<()> {
        let index = queue.index();
        let engine = match self.engines.get_mut(usize::from(index)) {
            Some(engine) => engine.take(),
            None => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let engine = match engine {
            Some(engine) => engine,
            // Lost with a thread that panicked.
            None => self.image.engine(QUEUE_SIZE)?,
        };
        let limiter = self.limiter.as_ref().map(RateLimiter::share).transpose()?;
        let serial = self.image.serial().to_owned();
        let limit = MAX_IN_FLIGHT / self.counters.len().max(1) as u64;
        let handler = BlockQueue::new(queue, engine, limiter, serial, limit);
        let handler = handler.with_polling(self.poll);
        let worker = Worker::spawn(&format!("virtio-blk-{index}"), handler)?;
        self.workers.push(worker);
        Ok(())
    }
}

impl VirtioDevice for Block {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; self.counters.len()]
    }

    fn device_features(&self) -> u64 {
        let mut features = BASE_FEATURES
            | 1 << VIRTIO_BLK_F_SIZE_MAX
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY;
        if self.counters.len() > 1 {
            features |= 1 << VIRTIO_BLK_F_MQ;
        }
        if self.has_cache() {
            features |= 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_CONFIG_WCE;
        }
        if self.image.read_only() {
            features |= 1 << VIRTIO_BLK_F_RO;
        } else {
            features |= 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        }
        features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.configuration(), offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Some(at) = WRITEBACK_OFFSET.checked_sub(offset) else {
            return;
        };
        let value = usize::try_from(at).ok().and_then(|at| data.get(at));
        if let (Some(&value), true) = (value, self.has_cache()) {
            self.writeback = value != 0;
            self.image.set_durable_writes(!self.writeback);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if activation.queues.is_empty() {
            return Err(ActivateError::MissingQueue { device: NAME, queue: 0 });
        }
        // 5.2.6.2: a driver that cannot flush gets durable writes, one that can but cannot choose
        // gets a write-back cache.
        let has = |bit: u32| activation.features & (1 << bit) != 0;
        let flushes = has(VIRTIO_BLK_F_FLUSH);
        let chooses = has(VIRTIO_BLK_F_CONFIG_WCE);
        let writeback = self.has_cache() && flushes && (self.writeback || !chooses);
        self.image.set_durable_writes(!writeback);
        for queue in DeviceQueue::from_activation(activation, &self.counters) {
            if let Err(source) = self.start(queue) {
                self.reset();
                return Err(ActivateError::Host {
                    device: NAME,
                    action: "start a queue's thread",
                    source,
                });
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        for worker in self.workers.drain(..) {
            let Some(queue) = worker.stop() else {
                continue;
            };
            let index = usize::from(queue.index());
            if let Some(engine) = self.engines.get_mut(index) {
                *engine = Some(queue.into_engine());
            }
        }
        self.writeback = self.image.cache() != CacheMode::Writethrough;
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.reset();
    }
}
