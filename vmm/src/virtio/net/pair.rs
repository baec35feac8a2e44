//! The thread of a queue pair: moves frames between its two queues and its queue of the tap.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::pace::Pace;
use super::receive::Receiver;
use super::transmit::Transmitter;
use crate::backend::net::NetBackend;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

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
        // Fails only when the counter is full: then the thread is awake already.
        let _ = self.event.write(1);
    }

    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// What a thread watches.
    pub fn event(&self) -> &EventFd {
        &self.event
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
    poll: Duration,
    vcpus: u32,
    /// Of the thread, once it runs.
    pace: Option<Pace>,
}

impl UserPair {
    /// A pair that starts as `control` says, of a guest with so many vCPUs. Its thread looks for frames by itself for up to
    /// `poll` before it sleeps, where that pays.
    pub fn new(
        backend: Box<dyn NetBackend>,
        receiver: Receiver,
        transmitter: Transmitter,
        control: Arc<PairControl>,
        poll: Duration,
        vcpus: u32,
    ) -> Self {
        let (watched, attached, pace) = (None, true, None);
        Self { backend, receiver, transmitter, control, watched, attached, poll, vcpus, pace }
    }

    fn receive(&mut self, sources: &EventSources) -> Result<(), BrokenQueue> {
        if self.receiver.dead || !self.attached {
            return Ok(());
        }
        serve(&mut self.receiver.receiving(&mut *self.backend), sources).map(drop)
    }

    fn transmit(&mut self, sources: &EventSources) -> Result<(), BrokenQueue> {
        serve(&mut self.transmitter.sending(&mut *self.backend), sources).map(drop)
    }

    /// Frames of both directions so far.
    fn frames(&self) -> u64 {
        let of = |queue: &DeviceQueue| queue.counters().snapshot().requests;
        of(&self.receiver.queue) + of(&self.transmitter.queue)
    }

    fn may_transmit(&self) -> bool {
        !self.transmitter.blocked && !self.transmitter.throttled
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
        wanted.set(EventSet::IN, !self.receiver.starved && !self.receiver.throttled);
        wanted.set(EventSet::OUT, self.transmitter.blocked);
        let wanted = (!self.receiver.dead && self.attached && !wanted.is_empty()).then_some(wanted);
        if wanted == self.watched {
            return Ok(());
        }
        let fd = self.backend.event().as_raw_fd();
        match (self.watched, wanted) {
            (None, Some(events)) => sources.watch(fd, events, BACKEND)?,
            (Some(_), Some(events)) => sources.modify(fd, events, BACKEND)?,
            (_, None) => sources.unwatch(fd)?,
        }
        self.watched = wanted;
        Ok(())
    }

    fn follow(
        &mut self,
        token: u32,
        events: EventSet,
        sources: &EventSources,
    ) -> Result<(), BrokenQueue> {
        match token {
            RECEIVE => {
                self.receiver.queue.notified();
                if std::mem::take(&mut self.receiver.starved) {
                    self.receive(sources)?;
                }
            }
            TRANSMIT => {
                self.transmitter.queue.notified();
                if self.may_transmit() {
                    self.transmit(sources)?;
                }
            }
            BACKEND => {
                let gone = events.intersects(EventSet::ERROR | EventSet::HANG_UP);
                if self.transmitter.blocked && (gone || events.contains(EventSet::OUT)) {
                    self.transmitter.blocked = false;
                    self.transmit(sources)?;
                }
                if events.contains(EventSet::IN) {
                    self.receive(sources)?;
                }
                if gone && !std::mem::replace(&mut self.receiver.dead, true) {
                    self.receiver.queue.log().stopped("the tap is gone");
                }
            }
            RECEIVE_TIMER => {
                self.receiver.throttled = false;
                self.receive(sources)?;
            }
            TRANSMIT_TIMER => {
                self.transmitter.throttled = false;
                self.transmit(sources)?;
            }
            _ => self.follow_control(),
        }
        Ok(())
    }

    fn conclude(
        &mut self,
        result: Result<(), BrokenQueue>,
        sources: &EventSources,
    ) -> ControlFlow<()> {
        unless_broken(result)?;
        // An epoll that fails leaves nothing to wait for.
        if self.watch(sources).is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
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

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        self.pace = Some(Pace::begin(self.vcpus));
        self.follow_control();
        let result = self.transmit(sources).and_then(|()| self.receive(sources));
        self.conclude(result, sources)
    }

    fn handle(&mut self, token: u32, events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        let before = self.frames();
        let result = self.follow(token, events, sources);
        let moved = self.frames() - before;
        if let Some(pace) = &mut self.pace {
            pace.woke(moved);
        }
        self.conclude(result, sources)
    }

    const POLLS: bool = true;

    fn poll_limit(&self) -> Duration {
        self.poll
    }

    /// Of frames from the back end its descriptor tells, which is watched by level.
    fn has_work(&mut self) -> bool {
        self.may_transmit() && self.transmitter.queue.has_chains()
            || self.receiver.starved && self.receiver.queue.has_chains()
    }

    fn work(&mut self, sources: &EventSources) -> ControlFlow<()> {
        let mut result = Ok(());
        if self.may_transmit() {
            result = self.transmit(sources);
        }
        if result.is_ok() && self.receiver.starved {
            result = self.receive(sources);
        }
        self.conclude(result, sources)
    }
}
