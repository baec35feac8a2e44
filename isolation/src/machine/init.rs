//! The guest's init, as the host has it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use isolab_guest::{initramfs, package};

use crate::error::IsolationError;

/// The executable that is the guest's PID 1: held open, so that the one whose length is told is the one
/// that is read, whatever an upgrade does meanwhile.
pub(super) struct Init {
    file: File,
    /// In bytes.
    pub(super) length: u64,
}

impl Init {
    /// The one of our package.
    pub(super) fn open() -> Result<Self, IsolationError> {
        let path = package::executable(initramfs::INIT)?;
        let open = || {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok(Self { file, length })
        };
        open().map_err(|source| IsolationError::Io { action: "open", path: path.clone(), source })
    }

    /// Where it can be opened once more, as long as this lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}
