//! virtio-rng, the entropy device (virtio 1.2, 5.4): fills the driver's buffers from getrandom(2).

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vmm_sys_util::epoll::EventSet;

use super::queue::{BrokenQueue, DeviceQueue, take_queue};
use super::service::{Service, Step, serve, unless_broken};
use super::stats::QueueCounters;
use super::worker::{EventHandler, EventSources, Worker};
use super::{ActivateError, Activation, BASE_FEATURES, VirtioDevice};
use crate::rate_limit::{RateLimit, RateLimiter};
use crate::segments;

const NAME: &str = "virtio-rng";
const QUEUE_SIZE: u16 = 64;
/// Most bytes given per request; a driver that wants more asks again (5.4.6).
const MAX_BYTES: usize = 4096;

const NOTIFIED: u32 = 0;
const REFILLED: u32 = 1;

/// The entropy device (5.4): fills buffers from the host's getrandom(2).
pub struct Rng {
    limiter: Option<RateLimiter>,
    counters: Arc<QueueCounters>,
    worker: Option<Worker<RngQueue>>,
}

impl Rng {
    /// A device that gives at most `rate`.
    ///
    /// # Errors
    /// The host gives no timerfd.
    pub fn new(rate: RateLimit) -> io::Result<Self> {
        Ok(Self { limiter: RateLimiter::new(rate)?, counters: Arc::default(), worker: None })
    }

    /// What each queue did, by number.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        vec![Arc::clone(&self.counters)]
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn device_features(&self) -> u64 {
        BASE_FEATURES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let mut queues = DeviceQueue::from_activation(activation, &self.counters());
        let queue = take_queue(&mut queues, 0, NAME)?;
        let limiter = self.limiter.as_ref().map(RateLimiter::share).transpose();
        let worker = limiter
            .and_then(|limiter| Worker::spawn("virtio-rng", RngQueue { queue, limiter }))
            .map_err(|source| ActivateError::Host {
                device: NAME,
                action: "start its thread",
                source,
            })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}

struct RngQueue {
    queue: DeviceQueue,
    limiter: Option<RateLimiter>,
}

impl Service for RngQueue {
    const BUDGET: usize = 256;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.queue
    }

    /// Takes a buffer from the queue, fills it and gives it back.
    fn step(&mut self) -> Result<Step, BrokenQueue> {
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.ready()) {
            return Ok(Step::Waiting);
        }
        let Some(request) = self.queue.pop_finite()? else {
            return Ok(Step::Empty);
        };
        let mut bytes = [0; MAX_BYTES];
        let wanted = usize::try_from(request.writable_length()).unwrap_or(MAX_BYTES);
        let bytes = &mut bytes[..wanted.min(MAX_BYTES)];
        let memory = self.queue.memory();
        let filled = getrandom::fill(bytes).ok();
        let written = filled.and_then(|()| segments::write(memory, &request.writable, 0, bytes));
        match written {
            Some(written) => self.queue.counters().request(written as u64),
            None => self.queue.counters().error(),
        }
        if let Some(limiter) = &mut self.limiter {
            limiter.take(bytes.len() as u64);
        }
        // At most MAX_BYTES.
        self.queue.push(request, written.unwrap_or(0) as u32)?;
        Ok(Step::Done)
    }
}

impl EventHandler for RngQueue {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.queue.notify_fd(), NOTIFIED)?;
        if let Some(limiter) = &self.limiter {
            sources.watch_event(limiter.timer_fd(), REFILLED)?;
        }
        Ok(())
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        unless_broken(serve(self, sources))
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        if token == NOTIFIED {
            self.queue.notified();
        }
        self.start(sources)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Driver, Inbox, NEXT, Signal, activation, interrupt, memory, readable, writable,
    };
    use super::*;

    const BUFFER: u64 = 0x1_0000;

    fn rig(rate: RateLimit) -> (Rng, Driver, Inbox) {
        let memory = memory();
        let driver = Driver::new(&memory, 0, 8);
        let (interrupt, inbox) = interrupt();
        let mut device = Rng::new(rate).unwrap();
        let queues = vec![driver.queue(0, 0)];
        device.activate(activation(&memory, 0, queues, interrupt)).unwrap();
        (device, driver, inbox)
    }

    #[test]
    fn buffers_are_filled_and_differ() {
        let (device, mut driver, inbox) = rig(RateLimit::default());
        driver.send(&[writable(BUFFER, 32), writable(BUFFER + 0x100, 32)]);
        assert_eq!(driver.wait_used(&inbox, 1)[0].1, 64);
        let one = driver.read(BUFFER, 32);
        assert_ne!(one, [0; 32]);
        assert_ne!(one, driver.read(BUFFER + 0x100, 32));
        assert_eq!(device.counters()[0].snapshot().bytes, 64);
    }

    #[test]
    fn a_large_request_gets_a_bounded_answer() {
        let (_device, mut driver, inbox) = rig(RateLimit::default());
        driver.send(&[writable(BUFFER, 0x8_0000)]);
        assert_eq!(driver.wait_used(&inbox, 1)[0].1, 4096);
        assert_eq!(driver.read(BUFFER + 4096, 64), [0; 64]);
    }

    #[test]
    fn buffers_that_make_no_sense_come_back_empty() {
        let (_device, mut driver, inbox) = rig(RateLimit::default());
        for buffer in [readable(BUFFER, 8), writable(0x30_0000, 8), writable(BUFFER, 0)] {
            driver.send(&[buffer]);
            assert_eq!(driver.wait_used(&inbox, 1)[0].1, 0);
        }
        driver.send(&[writable(BUFFER, 8)]);
        assert_eq!(driver.wait_used(&inbox, 1)[0].1, 8);
    }

    #[test]
    fn a_loop_breaks_the_device() {
        let (_device, mut driver, inbox) = rig(RateLimit::default());
        driver.write_descriptor(0, writable(BUFFER, 8), NEXT, 0);
        driver.offer(0);
        driver.kick();
        assert_eq!(inbox.next(), Signal::NeedsReset);
    }

    #[test]
    fn a_limited_device_goes_on_when_its_bucket_refills() {
        let rate = RateLimit {
            bytes_per_second: std::num::NonZeroU64::new(1000),
            operations_per_second: None,
        };
        let (_device, mut driver, inbox) = rig(rate);
        for _ in 0..4 {
            driver.send(&[writable(BUFFER, 64)]);
            assert_eq!(driver.wait_used(&inbox, 1)[0].1, 64);
        }
    }

    #[test]
    fn without_its_queue_it_does_not_start() {
        let (interrupt, _inbox) = interrupt();
        let memory = memory();
        let mut device = Rng::new(RateLimit::default()).unwrap();
        let result = device.activate(activation(&memory, 0, Vec::new(), interrupt));
        assert!(matches!(result, Err(ActivateError::MissingQueue { .. })));
    }
}
