//! The thread behind a device: an event loop that stops when told and gives its state back, and
//! that looks for work by itself for a while before it sleeps, where the handler wants it to.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::polling::Polling;
use crate::eintr::retry;

/// The token under which the loop watches its own stop event.
const STOP_TOKEN: u64 = u64::MAX;
/// Events taken from the kernel at a time; more stay queued in the epoll instance.
const EVENTS_PER_WAIT: usize = 16;
/// Looks of a polling thread for each time that it asks the kernel for events, which costs a
/// system call.
const LOOKS_PER_WAIT: usize = 16;

/// The descriptors that wake a worker.
pub struct EventSources {
    epoll: Epoll,
    stopping: Arc<AtomicBool>,
    awake: Cell<bool>,
}

impl EventSources {
    /// None yet, for a thread that is to end when `stopping` says so.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(stopping: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, stopping, awake: Cell::new(false) })
    }

    /// Whether the thread is to end. For handlers with much to do at a time: who stops the thread,
    /// a vCPU that resets the device for one, waits for it.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the thread will look for work by itself when the handler returns: no event has to
    /// tell of any.
    pub fn stays_awake(&self) -> bool {
        self.awake.get()
    }

    /// Calls the handler with `token` whenever the eventfd or timerfd `fd` is signalled.
    ///
    /// Edge-triggered, so nobody needs to read `fd`: one system call less per notification. The
    /// handler must therefore leave no work behind that it counts on being woken for.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn watch_event(&self, fd: RawFd, token: u32) -> io::Result<()> {
        self.watch(fd, EventSet::IN | EventSet::EDGE_TRIGGERED, token)
    }

    /// Calls the handler with `token` as long as `fd` is in one of the states of `events`;
    /// level-triggered unless `events` says otherwise.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`; `EPERM` for files that cannot be waited for.
    pub fn watch(&self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        self.control(ControlOperation::Add, fd, events, token)
    }

    /// Changes what [`EventSources::watch`] set; an empty set pauses it.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn modify(&self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd, events, token)
    }

    /// Watches `fd` no more. Must precede closing it where duplicates stay open.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn unwatch(&self, fd: RawFd) -> io::Result<()> {
        self.control(ControlOperation::Delete, fd, EventSet::empty(), 0)
    }

    fn control(
        &self,
        operation: ControlOperation,
        fd: RawFd,
        events: EventSet,
        token: u32,
    ) -> io::Result<()> {
        self.epoll.ctl(operation, fd, EpollEvent::new(events, token.into()))
    }
}

/// What a [`Worker`] runs.
pub trait EventHandler: Send + 'static {
    /// Names the descriptors to wait for. Called once, before the thread starts.
    ///
    /// # Errors
    /// A descriptor cannot be watched; the thread is then not started.
    fn register(&mut self, sources: &EventSources) -> io::Result<()>;

    /// Called once on the thread before it waits: the driver may have filled the queues before
    /// it set DRIVER_OK, and those notifications can be lost. `Break` ends the thread: the device
    /// is broken until the driver resets it.
    fn start(&mut self, sources: &EventSources) -> ControlFlow<()>;

    /// The descriptor watched with `token` is in the states `events`. `Break` as above.
    fn handle(&mut self, token: u32, events: EventSet, sources: &EventSources) -> ControlFlow<()>;

    /// Whether the thread may look for work by itself. Otherwise the following are not called, and the code for it is not
    /// made.
    const POLLS: bool = false;

    /// For how long at most the thread looks for work before it sleeps; it learns how much of that
    /// pays. Zero: it never does.
    fn poll_limit(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether there is work that no event may tell of. Called many times in a row.
    fn has_work(&mut self) -> bool {
        false
    }

    /// Does what [`EventHandler::has_work`] found. Also called ahead of a sleep, to ask for events
    /// of more. `Break` as above.
    fn work(&mut self, _sources: &EventSources) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A running [`EventHandler`].
///
/// Dropping it stops and joins the thread.
pub struct Worker<H: EventHandler> {
    stop: Arc<EventFd>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<H>>,
}

impl<H: EventHandler> Worker<H> {
    /// Starts `handler` on a thread called `name` (the kernel keeps its first 15 bytes).
    ///
    /// # Errors
    /// The host is out of descriptors or threads, or a descriptor cannot be watched.
    pub fn spawn(name: &str, mut handler: H) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let stopping = Arc::<AtomicBool>::default();
        let sources = EventSources::new(Arc::clone(&stopping))?;
        let stopped = EpollEvent::new(EventSet::IN, STOP_TOKEN);
        sources.epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), stopped)?;
        handler.register(&sources)?;
        let held = Arc::clone(&stop);
        let polling = Polling::new(handler.poll_limit());
        let thread = crate::threads::builder(name).spawn(move || {
            let _ = Loop { handler: &mut handler, sources, polling }.run();
            drop(held);
            handler
        })?;
        Ok(Self { stop, stopping, thread: Some(thread) })
    }

    /// Stops the thread, waits for its end and returns the handler, with whatever of it outlives
    /// a reset. `None` only if the handler panicked.
    pub fn stop(mut self) -> Option<H> {
        self.join()
    }

    fn join(&mut self) -> Option<H> {
        let thread = self.thread.take()?;
        self.stopping.store(true, Ordering::Release);
        // Cannot fail: the counter of a fresh eventfd is far from overflow.
        let _ = self.stop.write(1);
        let name = thread.thread().name().unwrap_or_default().to_owned();
        let handler = thread.join().ok();
        if handler.is_none() {
            // The driver can reset the device but not bring it back.
            tracing::error!(thread = name, "a device's thread panicked");
        }
        handler
    }
}

impl<H: EventHandler> Drop for Worker<H> {
    fn drop(&mut self) {
        self.join();
    }
}

/// A thread's loop; each `Break` is its end.
struct Loop<'h, H> {
    handler: &'h mut H,
    sources: EventSources,
    polling: Polling,
}

type Events = [EpollEvent; EVENTS_PER_WAIT];

impl<H: EventHandler> Loop<'_, H> {
    fn run(mut self) -> ControlFlow<()> {
        self.handler.start(&self.sources)?;
        let mut events = [EpollEvent::default(); EVENTS_PER_WAIT];
        loop {
            let mut count = match self.window() {
                Some(window) => self.poll(window, &mut events)?,
                None => 0,
            };
            if count == 0 {
                count = self.sleep(&mut events)?;
            }
            if self.window().is_some() {
                self.sources.awake.set(true);
            }
            for event in &events[..count] {
                // Tokens other than the stop event's come from `watch` and fit.
                let Ok(token) = u32::try_from(event.data()) else {
                    return ControlFlow::Break(());
                };
                self.handler.handle(token, event.event_set(), &self.sources)?;
            }
        }
    }

    fn window(&mut self) -> Option<Duration> {
        if H::POLLS { self.polling.window() } else { None }
    }

    /// Looks for work and does it, until there is none for as long as `window`, or an event.
    fn poll(&mut self, window: Duration, events: &mut Events) -> ControlFlow<(), usize> {
        let mut since = self.polling.begin();
        loop {
            let worked = self.look()?;
            let count = self.wait(0, events)?;
            if count > 0 {
                self.polling.is_crowded();
                return ControlFlow::Continue(count);
            }
            let over = !worked && since.elapsed() >= window;
            if (worked || over) && self.polling.is_crowded() {
                return ControlFlow::Continue(0);
            }
            if over {
                self.polling.in_vain();
                return ControlFlow::Continue(0);
            }
            if worked {
                since = Instant::now();
            }
        }
    }

    /// Looks some times for work, and does it; whether there was any.
    fn look(&mut self) -> ControlFlow<(), bool> {
        for _ in 0..LOOKS_PER_WAIT {
            if self.handler.has_work() {
                self.handler.work(&self.sources)?;
                return ControlFlow::Continue(true);
            }
            std::hint::spin_loop();
        }
        ControlFlow::Continue(false)
    }

    /// Waits for an event, after the handler has asked for them.
    fn sleep(&mut self, events: &mut Events) -> ControlFlow<(), usize> {
        if !H::POLLS {
            return self.wait(-1, events);
        }
        if self.sources.awake.replace(false) {
            self.handler.work(&self.sources)?;
        }
        if self.polling.is_off() {
            return self.wait(-1, events);
        }
        let since = Instant::now();
        let count = self.wait(-1, events)?;
        self.polling.slept(since.elapsed());
        ControlFlow::Continue(count)
    }

    fn wait(&self, milliseconds: i32, events: &mut Events) -> ControlFlow<(), usize> {
        match retry(|| self.sources.epoll.wait(milliseconds, events)) {
            Ok(count) => ControlFlow::Continue(count),
            // EBADF, EFAULT and EINVAL would be faults of this file; a spin would hide them.
            Err(error) => {
                tracing::error!(%error, "a device's thread can no longer wait for events");
                ControlFlow::Break(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Echo {
        event: EventFd,
        seen: Sender<u32>,
        count: usize,
        stop_after: usize,
    }

    impl EventHandler for Echo {
        fn register(&mut self, sources: &EventSources) -> io::Result<()> {
            sources.watch_event(self.event.as_raw_fd(), 7)
        }

        fn start(&mut self, _: &EventSources) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }

        fn handle(&mut self, token: u32, _: EventSet, _: &EventSources) -> ControlFlow<()> {
            self.count += 1;
            self.seen.send(token).unwrap();
            if self.count == self.stop_after {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }

    fn echo(stop_after: usize) -> (Echo, EventFd, std::sync::mpsc::Receiver<u32>) {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let (seen, received) = channel();
        let handler = Echo { event: event.try_clone().unwrap(), seen, count: 0, stop_after };
        (handler, event, received)
    }

    #[test]
    fn wakes_once_per_signal_and_gives_the_handler_back() {
        let (handler, event, received) = echo(usize::MAX);
        let worker = Worker::spawn("test", handler).unwrap();
        for _ in 0..3 {
            event.write(1).unwrap();
            assert_eq!(received.recv().unwrap(), 7);
        }
        assert_eq!(worker.stop().unwrap().count, 3);
    }

    #[test]
    fn a_handler_that_stops_is_joined_all_the_same() {
        let (handler, event, received) = echo(1);
        let worker = Worker::spawn("test", handler).unwrap();
        event.write(1).unwrap();
        assert_eq!(received.recv().unwrap(), 7);
        assert_eq!(worker.stop().unwrap().count, 1);
    }

    #[test]
    fn dropping_joins() {
        let (handler, event, _received) = echo(usize::MAX);
        drop(Worker::spawn("test", handler).unwrap());
        assert!(event.write(1).is_ok());
    }

    #[test]
    fn a_descriptor_that_cannot_be_watched_is_an_error() {
        let (mut handler, _event, _received) = echo(1);
        let regular = tempfile::tempfile().unwrap();
        struct Bad(Echo, std::fs::File);
        impl EventHandler for Bad {
            fn register(&mut self, sources: &EventSources) -> io::Result<()> {
                sources.watch_event(self.1.as_raw_fd(), 1)
            }
            fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
                self.0.start(sources)
            }
            fn handle(&mut self, t: u32, e: EventSet, s: &EventSources) -> ControlFlow<()> {
                self.0.handle(t, e, s)
            }
        }
        handler.count = 0;
        assert!(Worker::spawn("test", Bad(handler, regular)).is_err());
    }
}
