//! What the guest reads: passed on as far as it has offered room for it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::EventSet;

use super::{BUDGET, PIECE};
use crate::segments;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, serve};
use crate::virtio::worker::EventSources;

/// The receive queue (5.3.6): what is typed goes into the guest's buffers.
pub struct Keyboard {
    queue: DeviceQueue,
    source: Option<File>,
    /// Whether the loop waits for input: only while the guest has room for it.
    watching: bool,
    /// Cleared for files, which are always readable and cannot be waited for.
    pollable: bool,
    /// A read does not block.
    readable: bool,
    /// The source has no more.
    ended: bool,
}

impl Keyboard {
    /// Passes what can be read from `source` on through `queue`.
    pub fn new(queue: DeviceQueue, source: Option<File>) -> Self {
        Self { queue, source, watching: false, pollable: true, readable: false, ended: false }
    }

    /// The source, for the next activation.
    pub fn into_source(self) -> Option<File> {
        self.source
    }

    /// Watches the source with `token`, if that is possible.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn register(&mut self, sources: &EventSources, token: u32) -> io::Result<()> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        match sources.watch(source.as_raw_fd(), EventSet::IN, token) {
            Ok(()) => self.watching = true,
            // A file, or /dev/null.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                self.pollable = false;
                self.readable = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The source can be read, or has ended.
    ///
    /// # Errors
    /// The driver broke the queue.
    pub fn source_readable(
        &mut self,
        sources: &EventSources,
        token: u32,
    ) -> Result<(), BrokenQueue> {
        self.readable = true;
        self.serve(sources, token)
    }

    /// The guest has room, or may have.
    ///
    /// # Errors
    /// The driver broke the queue.
    pub fn room(&mut self, sources: &EventSources, token: u32) -> Result<(), BrokenQueue> {
        if !self.pollable {
            return self.serve(sources, token);
        }
        // A read now could block: the loop tells when it will not.
        self.watch(true, sources, token);
        Ok(())
    }

    fn serve(&mut self, sources: &EventSources, token: u32) -> Result<(), BrokenQueue> {
        let step = serve(self, sources)?;
        self.watch(step != Step::Empty && !self.ended, sources, token);
        if self.ended {
            // Unwatched before: a duplicate elsewhere would keep it watched for good.
            self.source = None;
        } else if !self.pollable && self.source.is_some() && step == Step::Waiting {
            // Nothing tells when to try again.
            self.queue.notify_self();
        }
        Ok(())
    }

    /// Waits for input only while the guest has room for it: a level-triggered descriptor that
    /// nobody reads would spin the loop. (`modify` with an empty set would not do, since hang-ups
    /// are reported regardless.)
    fn watch(&mut self, wanted: bool, sources: &EventSources, token: u32) {
        let Some(source) = self.source.as_ref().filter(|_| self.pollable) else {
            return;
        };
        let fd = source.as_raw_fd();
        if wanted && !self.watching {
            self.watching = sources.watch(fd, EventSet::IN, token).is_ok();
        } else if !wanted && self.watching {
            self.watching = sources.unwatch(fd).is_err();
        }
    }

    /// `None`: nothing now or, once it has ended, ever again.
    fn read(&mut self, piece: &mut [u8]) -> Option<usize> {
        let source = self.source.as_mut()?;
        // A further read could block.
        self.readable = !self.pollable;
        match source.read(piece) {
            Ok(count @ 1..) => Some(count),
            Err(error) if is_transient(&error) => None,
            Ok(0) | Err(_) => {
                self.ended = true;
                None
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Service for Keyboard {
    const BUDGET: usize = BUDGET;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        if self.source.is_none() || self.ended || !self.readable {
            return Ok(Step::Waiting);
        }
        let Some(request) = self.queue.pop_finite()? else {
            return Ok(Step::Empty);
        };
        let mut piece = [0; PIECE];
        let size = usize::try_from(request.writable_length()).unwrap_or(PIECE);
        let piece = &mut piece[..size.min(PIECE)];
        if piece.is_empty() {
            self.queue.counters().error();
            self.queue.push(request, 0)?;
            return Ok(Step::Done);
        }
        let Some(count) = self.read(piece) else {
            self.queue.undo_pop(request);
            return Ok(Step::Waiting);
        };
        let memory = self.queue.memory();
        let written = segments::write(memory, &request.writable, 0, &piece[..count]);
        match written {
            Some(written) => self.queue.counters().request(written as u64),
            None => self.queue.counters().error(),
        }
        // At most PIECE.
        self.queue.push(request, written.unwrap_or(0) as u32)?;
        Ok(Step::Done)
    }
}
