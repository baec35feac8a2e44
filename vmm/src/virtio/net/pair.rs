//! The thread of a queue pair: moves frames between its two queues and its queue of the tap.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::Progress;
use super::receive::Receiver;
use super::transmit::Transmitter;
use crate::backend::net::NetBackend;
use crate::virtio::queue::BrokenQueue;
use crate::virtio::worker::{EventHandler, EventSources, Flow};

/// How the control queue reaches the thread of a pair.
pub struct PairControl {
    attached: AtomicBool,
    event: EventFd,
}

impl PairControl {
    pub fn new(attached: bool) -> io::Result<Arc<Self>> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Arc::new(Self { attached: AtomicBool::new(attached), event }))
    }

    /// The pair takes part in the traffic, or not.
    pub fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::Release);
        self.wake();
    }

    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// What a thread watches.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    fn wake(&self) {
        // Fails only when the counter is full: then the thread is awake already.
        let _ = self.event.write(1);
    }
}

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const BACKEND: u32 = 2;
const CONTROL: u32 = 3;
const RECEIVE_TIMER: u32 = 4;
const TRANSMIT_TIMER: u32 = 5;

/// A pair whose frames pass through this process.
pub struct UserPair {
    pub backend: Box<dyn NetBackend>,
    receiver: Receiver,
    transmitter: Transmitter,
    control: Arc<PairControl>,
    /// What the back end is watched for; none: not watched at all, because a detached tap
    /// reports an error for ever.
    watched: Option<EventSet>,
    attached: bool,
    dead: bool,
    /// The driver has to offer receive buffers.
    starved: bool,
    /// The host's queue is full.
    blocked: bool,
    /// The rate limit holds a direction up until its timer fires.
    receive_throttled: bool,
    transmit_throttled: bool,
    /// There was more to send than a turn allows.
    more_to_send: bool,
}

impl UserPair {
    /// A pair that starts as `control` says.
    pub fn new(
        backend: Box<dyn NetBackend>,
        receiver: Receiver,
        transmitter: Transmitter,
        control: Arc<PairControl>,
    ) -> Self {
        Self {
            backend,
            receiver,
            transmitter,
            control,
            watched: None,
            attached: true,
            dead: false,
            starved: false,
            blocked: false,
            receive_throttled: false,
            transmit_throttled: false,
            more_to_send: false,
        }
    }

    fn receive(&mut self) -> Result<(), BrokenQueue> {
        if self.dead || !self.attached {
            return Ok(());
        }
        match self.receiver.run(&mut *self.backend)? {
            // The back end is watched by level, so more means another round.
            Progress::Idle | Progress::More => {}
            Progress::Blocked => self.starved = true,
            Progress::Throttled => self.receive_throttled = true,
            Progress::Dead => self.dead = true,
        }
        Ok(())
    }

    fn transmit(&mut self) -> Result<(), BrokenQueue> {
        self.more_to_send = false;
        match self.transmitter.run(&mut *self.backend)? {
            Progress::Idle | Progress::Dead => {}
            Progress::Blocked => self.blocked = true,
            Progress::Throttled => self.transmit_throttled = true,
            Progress::More => {
                self.more_to_send = true;
                self.control.wake();
            }
        }
        Ok(())
    }

    fn follow_control(&mut self) {
        let wanted = self.control.is_attached();
        if wanted != self.attached {
            // A tap with one queue cannot be detached; it is not asked to either.
            let _ = self.backend.set_attached(wanted);
            self.attached = wanted;
        }
    }

    /// Watches the back end for just what is awaited.
    fn watch(&mut self, sources: &EventSources) -> io::Result<()> {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, !self.starved && !self.receive_throttled);
        wanted.set(EventSet::OUT, self.blocked);
        let wanted = (!self.dead && self.attached && !wanted.is_empty()).then_some(wanted);
        if wanted == self.watched {
            return Ok(());
        }
        let fd = self.backend.event();
        match (self.watched, wanted) {
            (None, Some(events)) => sources.watch(fd, events, BACKEND)?,
            (Some(_), Some(events)) => sources.modify(fd, events, BACKEND)?,
            (_, None) => sources.unwatch(fd)?,
        }
        self.watched = wanted;
        Ok(())
    }

    fn work(&mut self, token: u32, events: EventSet) -> Result<(), BrokenQueue> {
        match token {
            RECEIVE => {
                self.receiver.queue.counters().notification();
                if std::mem::take(&mut self.starved) {
                    self.receive()?;
                }
            }
            TRANSMIT => {
                self.transmitter.queue.counters().notification();
                if !self.blocked && !self.transmit_throttled {
                    self.transmit()?;
                }
            }
            BACKEND => {
                let gone = events.intersects(EventSet::ERROR | EventSet::HANG_UP);
                if self.blocked && (gone || events.contains(EventSet::OUT)) {
                    self.blocked = false;
                    self.transmit()?;
                }
                if events.contains(EventSet::IN) {
                    self.receive()?;
                }
                self.dead |= gone;
            }
            RECEIVE_TIMER => {
                self.receive_throttled = false;
                self.receive()?;
            }
            TRANSMIT_TIMER => {
                self.transmit_throttled = false;
                self.transmit()?;
            }
            _ => {
                self.follow_control();
                if self.more_to_send {
                    self.transmit()?;
                }
            }
        }
        Ok(())
    }

    fn conclude(&mut self, result: Result<(), BrokenQueue>, sources: &EventSources) -> Flow {
        // A broken queue has told the driver; an epoll that fails leaves nothing to wait for.
        if result.is_err() || self.watch(sources).is_err() { Flow::Stop } else { Flow::Continue }
    }
}

impl EventHandler for UserPair {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.receiver.queue.notify_fd(), RECEIVE)?;
        sources.watch_event(self.transmitter.queue.notify_fd(), TRANSMIT)?;
        let timers =
            [(&self.receiver.limiter, RECEIVE_TIMER), (&self.transmitter.limiter, TRANSMIT_TIMER)];
        for (limiter, token) in timers {
            if let Some(limiter) = limiter {
                sources.watch_event(limiter.timer_fd(), token)?;
            }
        }
        sources.watch_event(self.control.event.as_raw_fd(), CONTROL)
    }

    fn start(&mut self, sources: &EventSources) -> Flow {
        crate::threads::prefer_batches();
        self.follow_control();
        let result = self.transmit().and_then(|()| self.receive());
        self.conclude(result, sources)
    }

    fn handle(&mut self, token: u32, events: EventSet, sources: &EventSources) -> Flow {
        let result = self.work(token, events);
        self.conclude(result, sources)
    }
}
