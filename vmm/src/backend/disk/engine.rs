//! Which engine a disk's requests go to.

use std::io;
use std::sync::Arc;

use super::image::DiskImage;
use super::io_uring::IoUringEngine;
use super::sync::SyncEngine;
use super::{DiskEngine, EngineKind};

impl DiskImage {
    /// Makes an engine that takes `depth` requests at a time from one queue. Where the kernel
    /// refuses io_uring this is a [`EngineKind::Sync`] one, and [`DiskImage::notes`] says so.
    ///
    /// # Errors
    /// The host is out of descriptors or memory.
    pub fn engine(self: &Arc<Self>, depth: u16) -> io::Result<Box<dyn DiskEngine>> {
        if self.engine == EngineKind::IoUring {
            match IoUringEngine::new(Arc::clone(self), depth) {
                Ok(engine) => return Ok(Box::new(engine)),
                Err(error) => {
                    self.add_note(format!(
                        "disk '{}': this host refuses io_uring ({error}); using engine=sync",
                        self.path().display()
                    ));
                }
            }
        }
        Ok(Box::new(SyncEngine::new(Arc::clone(self))?))
    }
}
