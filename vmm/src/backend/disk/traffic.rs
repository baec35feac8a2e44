//! How many bytes went to and from disks: counted by who serves them, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::DiskOperation;

/// Counters of one disk.
#[derive(Debug, Default)]
pub struct DiskCounters {
    read: AtomicU64,
    written: AtomicU64,
}

/// What went over disks so far, in bytes. What failed does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTraffic {
    /// From disks to the guest.
    pub read: u64,
    /// From the guest to disks; what is made zero or given up without data is none.
    pub written: u64,
}

impl DiskCounters {
    /// Such a request over `length` bytes has been done.
    pub(super) fn count(&self, operation: DiskOperation, length: u64) {
        match operation {
            DiskOperation::Read => self.read.fetch_add(length, Ordering::Relaxed),
            DiskOperation::Write => self.written.fetch_add(length, Ordering::Relaxed),
            DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes { .. } => 0,
        };
    }

    /// The values now.
    pub fn traffic(&self) -> DiskTraffic {
        DiskTraffic {
            read: self.read.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
        }
    }
}

impl std::iter::Sum for DiskTraffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            read: sum.read + one.read,
            written: sum.written + one.written,
        })
    }
}
