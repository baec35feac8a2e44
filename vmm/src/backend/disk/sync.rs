//! The synchronous engine: every request is done when `submit` returns.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::blocking::perform;
use super::buffer::Vectors;
use super::image::DiskImage;
use super::{DiskCompletion, DiskEngine, DiskRequest};
use crate::memory::GuestRam;

/// See [`EngineKind::Sync`](super::EngineKind::Sync).
pub struct SyncEngine {
    image: Arc<DiskImage>,
    /// Never readable: nothing completes later.
    event: EventFd,
    done: Vec<DiskCompletion>,
    /// Kept for its allocation.
    vectors: Vectors,
}

impl SyncEngine {
    pub fn new(image: Arc<DiskImage>) -> io::Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self { image, event, done: Vec::new(), vectors: Vectors::default() })
    }
}

impl DiskEngine for SyncEngine {
    fn submit(&mut self, memory: &GuestRam, request: DiskRequest<'_>) {
        let result = perform(&self.image, memory, &request, &mut self.vectors);
        self.image.note_end(request.operation, request.offset, request.length, &result);
        self.done.push(DiskCompletion { tag: request.tag, result });
    }

    fn kick(&mut self) {}

    fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
        done.append(&mut self.done);
    }

    fn has_completions(&mut self) -> bool {
        !self.done.is_empty()
    }

    fn completion_event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn arm(&mut self) -> bool {
        self.has_completions()
    }

    fn abandon(&mut self) {
        self.done.clear();
    }
}
