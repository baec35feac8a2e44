//! One queue of a virtio-blk device at work: drain the ring, submit, complete in batches.

use std::io;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::request::{Request, Status, Work};
use crate::backend::disk::{DiskCompletion, DiskEngine, DiskOperation};
use crate::rate_limit::RateLimiter;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::worker::{EventHandler, EventSources, Flow};

const NOTIFIED: u32 = 0;
const COMPLETED: u32 = 1;
const REFILLED: u32 = 2;

/// Rounds after which a driver that never stops must let the thread look at its other events.
const MAX_ROUNDS: usize = 64;

/// The weight of requests that the host may be given at a time by all queues of a disk: some
/// hundredths of a second of a fast one. More wait in the ring, where a reset forgets them.
pub const MAX_IN_FLIGHT: u64 = 32 << 20;

/// Why no more requests are taken.
#[derive(PartialEq, Eq)]
enum Stop {
    /// There are none.
    Empty,
    /// The rate limit is reached.
    Throttled,
    /// The host has enough to do.
    Full,
}

/// A request on its way.
struct Pending {
    head: u16,
    status: GuestAddress,
    data_length: u32,
    payload: u64,
    weight: u64,
    reads: bool,
    /// Disk requests not yet completed.
    parts: usize,
    failed: bool,
}

/// The state of a queue's thread.
pub struct BlockQueue {
    queue: DeviceQueue,
    engine: Box<dyn DiskEngine>,
    limiter: Option<RateLimiter>,
    serial: String,
    /// Tags are indices into this.
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
    /// The weight of requests in the engine, and from where on no more are taken.
    in_flight: u64,
    limit: u64,
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
            pending: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            limit,
            done: Vec::new(),
        }
    }

    pub fn index(&self) -> u16 {
        self.queue.index()
    }

    /// Forgets what the engine still does: after a reset rings and buffers are the driver's.
    pub fn into_engine(mut self) -> Box<dyn DiskEngine> {
        self.engine.abandon();
        self.engine
    }

    fn run(&mut self, sources: &EventSources) -> Result<(), BrokenQueue> {
        for _ in 0..MAX_ROUNDS {
            if sources.is_stopping() {
                return Ok(());
            }
            self.queue.disable_notifications()?;
            let stop = self.take_requests()?;
            let mut done = std::mem::take(&mut self.done);
            self.engine.kick();
            self.engine.completions(&mut done);
            for completion in done.drain(..) {
                self.completed(&completion)?;
            }
            self.done = done;
            self.queue.announce()?;
            let waits = match stop {
                // The timer wakes a throttled queue and a completion a full one; the driver's
                // notifications would be for nothing.
                Stop::Throttled => true,
                Stop::Full => self.in_flight >= self.limit,
                Stop::Empty => !self.queue.enable_notifications()?,
            };
            if waits {
                return Ok(());
            }
        }
        self.queue.notify_self();
        Ok(())
    }

    /// Submits what the driver offers.
    fn take_requests(&mut self) -> Result<Stop, BrokenQueue> {
        loop {
            if self.in_flight >= self.limit {
                return Ok(Stop::Full);
            }
            if let Some(limiter) = &mut self.limiter
                && !limiter.ready()
            {
                return Ok(Stop::Throttled);
            }
            let Some(chain) = self.queue.pop()? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head;
            let request = match Request::parse(self.queue.memory(), chain, &self.serial) {
                Ok(request) => request,
                Err(reason) => return Err(self.queue.broken(reason)),
            };
            if let Some(limiter) = &mut self.limiter {
                limiter.take(request.payload);
            }
            self.begin(head, request)?;
        }
    }

    fn begin(&mut self, head: u16, request: Request) -> Result<(), BrokenQueue> {
        let mut pending = Pending {
            head,
            status: request.status,
            data_length: request.data_length,
            payload: request.payload,
            weight: request.weight,
            reads: false,
            parts: 0,
            failed: false,
        };
        let parts = match request.work {
            Work::Answer { status, written } => return self.finish(&pending, status, written),
            Work::Disk(parts) => parts,
        };
        pending.parts = parts.len();
        pending.reads = parts.iter().any(|part| part.operation == DiskOperation::Read);
        self.in_flight += pending.weight;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.pending.push(None);
                self.pending.len() - 1
            }
        };
        self.pending[index] = Some(pending);
        for mut part in parts {
            part.tag = index as u64;
            self.engine.submit(self.queue.memory(), part);
        }
        Ok(())
    }

    fn completed(&mut self, completion: &DiskCompletion) -> Result<(), BrokenQueue> {
        // Tags are indices, as submitted.
        let index = completion.tag as usize;
        let Some(entry) = self.pending.get_mut(index) else {
            return Ok(());
        };
        let Some(pending) = entry else {
            return Ok(());
        };
        pending.failed |= completion.result.is_err();
        pending.parts = pending.parts.saturating_sub(1);
        if pending.parts > 0 {
            return Ok(());
        }
        let Some(pending) = entry.take() else {
            return Ok(());
        };
        self.free.push(index);
        self.in_flight = self.in_flight.saturating_sub(pending.weight);
        if pending.failed {
            self.finish(&pending, Status::IoError, 0)
        } else {
            let written = if pending.reads { pending.data_length } else { 0 };
            self.finish(&pending, Status::Ok, written)
        }
    }

    /// Writes the status and gives the chain back. The used length counts what was written
    /// without a gap from the start (2.7.8.2), so the status only if the data before it was.
    fn finish(
        &mut self,
        pending: &Pending,
        status: Status,
        written: u32,
    ) -> Result<(), BrokenQueue> {
        let memory = self.queue.memory();
        if memory.write_obj(status.byte(), pending.status).is_err() {
            return Err(self.queue.broken("a request's status is outside RAM"));
        }
        let length =
            if written == pending.data_length { written.saturating_add(1) } else { written };
        let counters = self.queue.counters();
        if status == Status::Ok {
            counters.request(pending.payload);
        } else {
            counters.request(0);
            counters.error();
        }
        self.queue.push(pending.head, length)
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

    fn start(&mut self, sources: &EventSources) -> Flow {
        Flow::from(self.run(sources))
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> Flow {
        if token == NOTIFIED {
            self.queue.counters().notification();
        }
        Flow::from(self.run(sources))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::backend::disk::DiskRequest;
    use crate::memory::GuestRam;
    use crate::virtio::testing::{Driver, interrupt, memory, readable, writable};
    use crate::virtio::worker::Worker;

    const HEADER: u64 = 0x1_0000;
    const STATUS: u64 = 0x1_8000;
    const MIB: u32 = 1 << 20;

    /// A disk that answers when it is told to.
    #[derive(Default)]
    struct Disk {
        requests: Vec<DiskRequest>,
        answered: usize,
        allowed: usize,
        abandoned: bool,
    }

    struct SlowDisk(Arc<Mutex<Disk>>, EventFd);

    impl DiskEngine for SlowDisk {
        fn submit(&mut self, _: &GuestRam, request: DiskRequest) {
            let mut disk = self.0.lock().unwrap();
            disk.requests.push(request);
            assert!(disk.requests.len() - disk.answered <= 3, "too much in flight");
        }

        fn kick(&mut self) {}

        fn completion_event(&self) -> RawFd {
            self.1.as_raw_fd()
        }

        fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
            let mut disk = self.0.lock().unwrap();
            while disk.answered < disk.allowed.min(disk.requests.len()) {
                let tag = disk.requests[disk.answered].tag;
                done.push(DiskCompletion { tag, result: Ok(()) });
                disk.answered += 1;
            }
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
        let queue = DeviceQueue::new(driver.queue(0, 0), memory, interrupt, Arc::default());
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
            while disk.lock().unwrap().requests.len() < count {
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
        assert_eq!(queue.in_flight, u64::from(45 * MIB));
        drop(queue.into_engine());
        let disk = disk.lock().unwrap();
        assert!(disk.abandoned && disk.answered < 5);
    }
}
