//! The thread behind a device: an event loop that stops when told and gives its state back.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::eintr::retry;

/// The token under which the loop watches its own stop event.
const STOP_TOKEN: u64 = u64::MAX;
/// Events taken from the kernel at a time; more stay queued in the epoll instance.
const EVENTS_PER_WAIT: usize = 16;

/// The descriptors that wake a worker.
pub struct EventSources {
    epoll: Epoll,
    stopping: Arc<AtomicBool>,
}

impl EventSources {
    /// None yet, for a thread that is to end when `stopping` says so.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(stopping: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, stopping })
    }

    /// Whether the thread is to end. For handlers with much to do at a time: who stops the thread,
    /// a vCPU that resets the device for one, waits for it.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
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
        let thread = crate::threads::builder(name).spawn(move || {
            run(&mut handler, &sources);
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

fn run(handler: &mut impl EventHandler, sources: &EventSources) {
    if handler.start(sources).is_break() {
        return;
    }
    let mut events = [EpollEvent::default(); EVENTS_PER_WAIT];
    loop {
        let count = match retry(|| sources.epoll.wait(-1, &mut events)) {
            Ok(count) => count,
            // EBADF, EFAULT and EINVAL would be faults of this file; a spin would hide them.
            Err(error) => {
                tracing::error!(%error, "a device's thread can no longer wait for events");
                return;
            }
        };
        for event in &events[..count] {
            // Tokens other than the stop event's come from `watch` and fit.
            let Ok(token) = u32::try_from(event.data()) else {
                return;
            };
            if handler.handle(token, event.event_set(), sources).is_break() {
                return;
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
