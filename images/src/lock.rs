//! One process changes the store at a time.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{ImageError, io_error};

/// Held while the store is changed; the kernel gives it back however the holder ends.
pub(crate) struct StoreLock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

impl StoreLock {
    pub(crate) fn take(root: &Path) -> Result<Self, ImageError> {
        let path = root.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map(Self)
            .map_err(|(_, errno)| io_error("lock", &path)(errno.into()))
    }
}
