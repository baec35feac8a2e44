//! The synchronous engine: every request is done when `submit` returns.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::blocking::perform;
use super::image::DiskImage;
use super::{DiskCompletion, DiskEngine, DiskRequest};
use crate::memory::GuestRam;

/// See [`EngineKind::Sync`](super::EngineKind::Sync).
pub struct SyncEngine {
    image: Arc<DiskImage>,
    event: EventFd,
    /// Whether `event` is readable: a front end that uses `finished_early` never makes it so.
    signalled: bool,
    done: Vec<DiskCompletion>,
}

impl SyncEngine {
    pub fn new(image: Arc<DiskImage>) -> io::Result<Self> {
        Ok(Self {
            image,
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            signalled: false,
            done: Vec::new(),
        })
    }
}

impl DiskEngine for SyncEngine {
    fn submit(&mut self, memory: &GuestRam, request: DiskRequest) {
        let result = perform(&self.image, memory, &request);
        self.done.push(DiskCompletion { tag: request.tag, result });
    }

    fn finished_early(&mut self, done: &mut Vec<DiskCompletion>) {
        done.append(&mut self.done);
    }

    fn kick(&mut self) {
        if !self.done.is_empty() && !self.signalled {
            // Fails only if the counter is full, and then it is readable.
            let _ = self.event.write(1);
            self.signalled = true;
        }
    }

    fn completion_event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
        if self.signalled {
            // Readable, so this does not fail.
            let _ = self.event.read();
            self.signalled = false;
        }
        done.append(&mut self.done);
    }
}
