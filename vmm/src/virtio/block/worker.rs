//! One queue of a virtio-blk device at work: drain the ring, submit, complete in batches.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::in_flight::{InFlight, Pending};
use super::pace::Pace;
use super::request::{Part, Request, Status, Work};
use crate::backend::disk::{DiskCompletion, DiskEngine, DiskOperation, DiskRequest};
use crate::rate_limit::RateLimiter;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

const NOTIFIED: u32 = 0;
const COMPLETED: u32 = 1;
const REFILLED: u32 = 2;

/// The weight of requests that the host may be given at a time by all queues of a disk: some
/// hundredths of a second of a fast one. More wait in the ring, where a reset forgets them.
pub const MAX_IN_FLIGHT: u64 = 32 << 20;

/// The state of a queue's thread.
pub struct BlockQueue {
    queue: DeviceQueue,
    engine: Box<dyn DiskEngine>,
    limiter: Option<RateLimiter>,
    serial: String,
    in_flight: InFlight,
    /// The weight in flight from where on no more requests are taken.
    limit: u64,
    /// A step had to wait for a completion.
    full: bool,
    /// The last look at the ring ended because of something else than the ring.
    waits: bool,
    pace: Pace,
    poll: Duration,
    /// Empty between calls; kept for its allocation.
    done: Vec<DiskCompletion>,
}

impl BlockQueue {
    /// The thread of `queue`, which gives `engine` requests of the weight `limit` at a time.
    pub fn new(
        queue: DeviceQueue,
        engine: Box<dyn DiskEngine>,
        limiter: Option<RateLimiter>,
        serial: String,
        limit: u64,
    ) -> Self {
        Self {
            queue,
            engine,
            limiter,
            serial,
            in_flight: InFlight::default(),
            limit,
            full: false,
            waits: false,
            pace: Pace::default(),
            poll: Duration::ZERO,
            done: Vec::new(),
        }
    }

    /// The thread looks for requests by itself for so long before it sleeps, where that pays.
    #[must_use]
    pub fn with_polling(self, limit: Duration) -> Self {
        Self { poll: limit, ..self }
    }

    pub fn index(&self) -> u16 {
        self.queue.index()
    }

    /// Forgets what the engine still does: after a reset rings and buffers are the driver's.
    pub fn into_engine(mut self) -> Box<dyn DiskEngine> {
        self.engine.abandon();
        self.engine
    }

    fn begin(&mut self, chain: Chain, request: Request) -> Result<(), BrokenQueue> {
        let Request { status, data_length, payload, weight, work } = request;
        match work {
            Work::Answer { status: answer, written } => {
                self.finish(chain, status, data_length, (answer, 0, written))
            }
            Work::Disk { first: part, later } => {
                let pending = Pending { chain, status, data_length, payload, weight, part, later };
                let tag = self.in_flight.insert(pending);
                self.submit(tag);
                Ok(())
            }
        }
    }

    fn submit(&mut self, tag: u16) {
        let Some(Pending { chain, part, .. }) = self.in_flight.get_mut(tag) else {
            return;
        };
        let Part { operation, offset, length } = *part;
        let segments = match operation {
            DiskOperation::Read => &chain.writable[..],
            DiskOperation::Write => &chain.readable,
            _ => &[],
        };
        let request = DiskRequest { tag, operation, offset, length, segments };
        self.engine.submit(self.queue.memory(), request);
    }

    /// Whether there is more of the request to do.
    fn completed(&mut self, completion: &DiskCompletion) -> Result<bool, BrokenQueue> {
        let tag = completion.tag;
        if completion.result.is_ok()
            && let Some(pending) = self.in_flight.get_mut(tag)
            && let Some(next) = pending.later.pop()
        {
            pending.part = next;
            self.submit(tag);
            return Ok(true);
        }
        let Some(pending) = self.in_flight.remove(tag) else {
            return Ok(false);
        };
        let Pending { chain, status, data_length, payload, part, .. } = pending;
        let outcome = match completion.result {
            Ok(()) if part.operation == DiskOperation::Read => (Status::Ok, payload, data_length),
            Ok(()) => (Status::Ok, payload, 0),
            Err(_) => (Status::IoError, 0, 0),
        };
        self.finish(chain, status, data_length, outcome)?;
        Ok(false)
    }

    /// Writes the status and gives the chain back; `outcome` is the status, the payload and the
    /// bytes written before the status. The used length counts what was written without a gap
    /// from the start (2.7.8.2), so the status only if the data before it was.
    fn finish(
        &mut self,
        chain: Chain,
        status_address: GuestAddress,
        data_length: u32,
        outcome: (Status, u64, u32),
    ) -> Result<(), BrokenQueue> {
        let (status, payload, written) = outcome;
        if self.queue.memory().write_obj(status.byte(), status_address).is_err() {
            return Err(self.queue.broken("a request's status is outside RAM"));
        }
        let length = if written == data_length { written.saturating_add(1) } else { written };
        let counters = self.queue.counters();
        counters.request(payload);
        if status != Status::Ok {
            counters.error();
        }
        self.queue.push(chain, length)
    }
}

impl Service for BlockQueue {
    /// Every round gives the host [`MAX_IN_FLIGHT`] at most, and looks at whether to end.
    const BUDGET: usize = 4096;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.queue
    }

    /// Takes a request from the queue and gives it to the engine.
    fn step(&mut self) -> Result<Step, BrokenQueue> {
        self.full = self.in_flight.weight() >= self.limit;
        let mut throttled = || self.limiter.as_mut().is_some_and(|limiter| !limiter.ready());
        if self.full || throttled() {
            return Ok(Step::Waiting);
        }
        let Some(mut chain) = self.queue.pop()? else {
            return Ok(Step::Empty);
        };
        let request = match Request::parse(self.queue.memory(), &mut chain, &self.serial) {
            Ok(request) => request,
            Err(reason) => return Err(self.queue.broken(reason)),
        };
        if let Some(limiter) = &mut self.limiter {
            limiter.take(request.payload);
        }
        self.begin(chain, request)?;
        Ok(Step::Done)
    }

    fn settle(&mut self) -> Result<bool, BrokenQueue> {
        let mut done = std::mem::take(&mut self.done);
        loop {
            let mut more = false;
            self.engine.kick();
            self.engine.completions(&mut done);
            for completion in done.drain(..) {
                more |= self.completed(&completion)?;
            }
            if !more {
                break;
            }
        }
        self.done = done;
        Ok(self.full && self.in_flight.weight() < self.limit)
    }

    fn arm(&mut self) -> bool {
        self.pace.sleeps(self.in_flight.count());
        self.engine.arm()
    }
}

impl EventHandler for BlockQueue {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.queue.notify_fd(), NOTIFIED)?;
        sources.watch_event(self.engine.completion_event(), COMPLETED)?;
        if let Some(limiter) = &self.limiter {
            sources.watch_event(limiter.timer_fd(), REFILLED)?;
        }
        Ok(())
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        self.work(sources)
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        if token == NOTIFIED {
            self.queue.notified();
        }
        self.work(sources)
    }

    const POLLS: bool = true;

    fn poll_limit(&self) -> Duration {
        self.poll
    }

    fn has_work(&mut self) -> bool {
        self.engine.has_completions() || !self.waits && self.queue.has_chains()
    }

    fn work(&mut self, sources: &EventSources) -> ControlFlow<()> {
        let step = serve(self, sources);
        self.waits = step == Ok(Step::Waiting);
        unless_broken(step)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::allocations::allocations;
    use crate::backend::disk::{DiskImage, DiskOptions, EngineKind};
    use crate::memory::GuestRam;
    use crate::virtio::testing::{
        Driver, activation, interrupt, memory, readable, stopping_sources, writable,
    };
    use crate::virtio::worker::Worker;

    const HEADER: u64 = 0x1_0000;
    const STATUS: u64 = 0x1_8000;
    const MIB: u32 = 1 << 20;

    /// A disk that answers when it is told to.
    #[derive(Default)]
    struct Disk {
        tags: Vec<u16>,
        answered: usize,
        allowed: usize,
        abandoned: bool,
    }

    struct SlowDisk(Arc<Mutex<Disk>>, EventFd);

    impl DiskEngine for SlowDisk {
        fn submit(&mut self, _: &GuestRam, request: DiskRequest<'_>) {
            let mut disk = self.0.lock().unwrap();
            disk.tags.push(request.tag);
            assert!(disk.tags.len() - disk.answered <= 3, "too much in flight");
        }

        fn kick(&mut self) {}

        fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
            let mut disk = self.0.lock().unwrap();
            while disk.answered < disk.allowed.min(disk.tags.len()) {
                let tag = disk.tags[disk.answered];
                done.push(DiskCompletion { tag, result: Ok(()) });
                disk.answered += 1;
            }
        }

        fn has_completions(&mut self) -> bool {
            let disk = self.0.lock().unwrap();
            disk.answered < disk.allowed.min(disk.tags.len())
        }

        fn completion_event(&self) -> RawFd {
            self.1.as_raw_fd()
        }

        fn arm(&mut self) -> bool {
            self.has_completions()
        }

        fn abandon(&mut self) {
            self.0.lock().unwrap().abandoned = true;
        }
    }

    /// The host is given no more than it does in a moment; the rest waits in the ring, and a reset
    /// has nothing to wait for.
    #[test]
    fn what_is_in_flight_is_bounded_and_a_reset_forgets_it() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 16);
        let (interrupt, inbox) = interrupt();
        let activation = activation(&memory, 0, Vec::new(), interrupt);
        let queue = DeviceQueue::new(driver.queue(0, 0), &activation, Arc::default());
        let disk = Arc::<Mutex<Disk>>::default();
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let engine = Box::new(SlowDisk(Arc::clone(&disk), event.try_clone().unwrap()));
        driver.write(HEADER, &[0; 16]);
        for _ in 0..5 {
            let data = writable(0, 15 * MIB);
            let head = driver.chain(&[readable(HEADER, 16), data, writable(STATUS, 1)]);
            driver.offer(head);
        }
        let handler = BlockQueue::new(queue, engine, None, String::new(), MAX_IN_FLIGHT);
        let worker = Worker::spawn("test", handler).unwrap();
        let wait_for = |count: usize| {
            while disk.lock().unwrap().tags.len() < count {
                std::thread::yield_now();
            }
        };
        let allow = |count: usize| {
            disk.lock().unwrap().allowed = count;
            event.write(1).unwrap();
        };
        // With two, 30 MiB, there is room for a third. Each answer makes room for one more.
        for answers in 0..2 {
            wait_for(3 + answers);
            allow(answers + 1);
            assert_eq!(driver.wait_used(&inbox, 1).len(), 1);
        }
        wait_for(5);
        let queue = worker.stop().unwrap();
        assert_eq!(queue.in_flight.weight(), u64::from(45 * MIB));
        drop(queue.into_engine());
        let disk = disk.lock().unwrap();
        assert!(disk.abandoned && disk.answered < 5);
    }

    #[test]
    fn requests_allocate_nothing_once_there_is_a_place_for_each() {
        const KINDS: [u8; 3] = [0, 1, 4];
        for engine in [EngineKind::Sync, EngineKind::IoUring] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(MIB.into()).unwrap();
            let options = DiskOptions { engine, ..DiskOptions::new(file.path()) };
            let engine_kind = engine;
            let engine = DiskImage::open(&options).unwrap().engine(16).unwrap();
            let memory = memory();
            let mut driver = Driver::new(&memory, 0, 16);
            // A test's interrupts allocate.
            driver.set_available_flags(1);
            let activation = activation(&memory, 0, Vec::new(), interrupt().0);
            let queue = DeviceQueue::new(driver.queue(0, 0), &activation, Arc::default());
            let mut handler = BlockQueue::new(queue, engine, None, String::new(), MAX_IN_FLIGHT);
            let sources = stopping_sources(false);
            let mut round = || {
                for (number, kind) in (0..).zip(KINDS) {
                    let (header, status) = (HEADER + number * 16, STATUS + number);
                    driver.write(header, &[kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                    let (header, status) = (readable(header, 16), writable(status, 1));
                    let head = match kind {
                        0 => driver.chain(&[header, writable(0x2_0000, 4096), status]),
                        1 => driver.chain(&[header, readable(0x3_0000, 4096), status]),
                        _ => driver.chain(&[header, status]),
                    };
                    driver.offer(head);
                }
                let end = driver.used_index().wrapping_add(KINDS.len() as u16);
                let mut count = 0;
                while driver.used_index() != end {
                    count += allocations(|| assert!(serve(&mut handler, &sources).is_ok()));
                    std::thread::yield_now();
                }
                assert_eq!(driver.read(STATUS, KINDS.len()), [0; KINDS.len()]);
                count
            };
            for _ in 0..4 {
                round();
            }
            let count: usize = (0..20).map(|_| round()).sum();
            assert_eq!(count, 0, "{engine_kind:?}");
        }
    }
}
