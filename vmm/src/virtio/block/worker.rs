//! One queue of a virtio-blk device at work: drain the ring, submit, complete in batches.

use std::io;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

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

/// A request on its way.
struct Pending {
    head: u16,
    status: GuestAddress,
    data_length: u32,
    payload: u64,
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
    /// Disk requests in the engine.
    outstanding: usize,
    /// Empty between calls; kept for its allocation.
    done: Vec<DiskCompletion>,
}

impl BlockQueue {
    pub fn new(
        queue: DeviceQueue,
        engine: Box<dyn DiskEngine>,
        limiter: Option<RateLimiter>,
        serial: String,
    ) -> Self {
        Self {
            queue,
            engine,
            limiter,
            serial,
            pending: Vec::new(),
            free: Vec::new(),
            outstanding: 0,
            done: Vec::new(),
        }
    }

    pub fn index(&self) -> u16 {
        self.queue.index()
    }

    /// Waits for what the engine still does, since it uses guest memory, and drops the answers:
    /// after a reset the rings are the driver's.
    pub fn into_engine(mut self) -> Box<dyn DiskEngine> {
        let epoll = Epoll::new().and_then(|epoll| {
            epoll.ctl(
                ControlOperation::Add,
                self.engine.completion_event(),
                EpollEvent::new(EventSet::IN, 0),
            )?;
            Ok(epoll)
        });
        self.engine.kick();
        loop {
            self.engine.completions(&mut self.done);
            self.outstanding = self.outstanding.saturating_sub(self.done.len());
            self.done.clear();
            if self.outstanding == 0 {
                return self.engine;
            }
            // Without an epoll (out of descriptors) or when interrupted, just look again.
            if let Ok(epoll) = &epoll {
                let _ = epoll.wait(-1, &mut [EpollEvent::default()]);
            } else {
                std::thread::yield_now();
            }
        }
    }

    fn run(&mut self) -> Result<(), BrokenQueue> {
        for _ in 0..MAX_ROUNDS {
            self.queue.disable_notifications()?;
            let throttled = self.take_requests()?;
            let mut done = std::mem::take(&mut self.done);
            self.engine.kick();
            self.engine.completions(&mut done);
            for completion in done.drain(..) {
                self.completed(&completion)?;
            }
            self.done = done;
            self.queue.announce()?;
            // The timer wakes a throttled queue; the driver's notifications would be for nothing.
            if throttled || !self.queue.enable_notifications()? {
                return Ok(());
            }
        }
        self.queue.notify_self();
        Ok(())
    }

    /// Submits what the driver offers; whether the rate limit stopped it.
    fn take_requests(&mut self) -> Result<bool, BrokenQueue> {
        loop {
            if let Some(limiter) = &mut self.limiter
                && !limiter.ready()
            {
                return Ok(true);
            }
            let Some(chain) = self.queue.pop()? else {
                return Ok(false);
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
        self.outstanding += parts.len();
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
        self.outstanding = self.outstanding.saturating_sub(1);
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

    fn start(&mut self, _sources: &EventSources) -> Flow {
        Flow::from(self.run())
    }

    fn handle(&mut self, token: u32, _events: EventSet, _sources: &EventSources) -> Flow {
        if token == NOTIFIED {
            self.queue.counters().notification();
        }
        Flow::from(self.run())
    }
}
