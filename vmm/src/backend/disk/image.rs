//! An open disk: its size, its lock, and what the host asks of transfers to and from it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::buffer::Vectors;
use super::error::DiskError;
use super::format;
use super::host_file::{
    DirectAlignment, device_is_read_only, direct_alignment, is_held, lock, logical_block_size,
};
use super::{
    CacheMode, DiskCounters, DiskOperation, DiskOptions, DiskRequest, EngineKind, SECTOR_SIZE,
};
use crate::log_limit::LogLimit;
use crate::poison::unpoisoned;
use crate::segments;

/// How a transfer reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Between guest memory and this descriptor.
    Straight(RawFd),
    /// Through an aligned buffer and this descriptor, which has O_DIRECT.
    Bounce(RawFd),
}

/// An open, locked disk, shared by the engines of all queues.
#[derive(Debug)]
pub struct DiskImage {
    path: PathBuf,
    file: File,
    /// Without O_DIRECT, for what is not aligned to the disk's blocks: the kernel then reads,
    /// modifies and writes.
    unaligned: Option<File>,
    direct: Option<DirectAlignment>,
    size: u64,
    logical_block: u32,
    read_only: bool,
    cache: CacheMode,
    pub(super) engine: EngineKind,
    serial: String,
    durable_writes: AtomicBool,
    /// Cleared when the host says it cannot.
    pub(super) can_punch: AtomicBool,
    pub(super) can_zero: AtomicBool,
    notes: Mutex<Vec<String>>,
    log: LogLimit,
    counters: Arc<DiskCounters>,
}

impl DiskImage {
    /// Opens and locks the disk.
    ///
    /// The lock is one of the open file description over the whole file: exclusive for a disk
    /// that can be written, shared for one that is read only. QEMU's image locks conflict with it
    /// as they should.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open(options: &DiskOptions) -> Result<Arc<Self>, DiskError> {
        let path = &options.path;
        // Before opening, since that would block on a pipe.
        let kind = fs::metadata(path).map_err(|source| open_error(options, source))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotADisk { path: path.clone() });
        }
        let direct = options.cache == CacheMode::None;
        let file = open_file(options, direct).map_err(|source| {
            if direct && source.raw_os_error() == Some(libc::EINVAL) {
                let path = path.clone();
                return DiskError::NoDirect { path, source };
            }
            open_error(options, source)
        })?;
        let mut notes = Vec::new();
        match lock(&file, options.read_only) {
            Ok(()) => {}
            Err(error) if is_held(&error) => return Err(DiskError::InUse { path: path.clone() }),
            Err(error) => {
                notes.push(format!(
                    "disk '{}' cannot be locked ({error}): make sure that nothing else writes it",
                    path.display()
                ));
            }
        }
        let host = |action| {
            let path = path.clone();
            move |source| DiskError::Host { path, action, source }
        };
        if kind.is_block_device() && !options.read_only {
            // The kernel opens it for writing all the same, and fails each write.
            let refused =
                device_is_read_only(&file).map_err(host("find out if it is read-only"))?;
            if refused {
                let source = io::Error::from_raw_os_error(libc::EROFS);
                return Err(DiskError::ReadOnly { path: path.clone(), source });
            }
        }
        // SEEK_END is what BLKGETSIZE64 says on a block device.
        let end = (&file).seek(SeekFrom::End(0)).map_err(host("find its size"))?;
        let size = end / SECTOR_SIZE * SECTOR_SIZE;
        if size == 0 {
            return Err(DiskError::TooSmall { path: path.clone() });
        }
        if end != size {
            notes.push(format!(
                "disk '{}' is no multiple of {SECTOR_SIZE} bytes: its last {} are out of the \
                 guest's reach",
                path.display(),
                end - size
            ));
        }
        if !options.raw {
            let found = format::recognise(&file).map_err(host("read its start"))?;
            if let Some(format) = found {
                return Err(DiskError::OtherFormat { path: path.clone(), format });
            }
        }
        let logical_block = if kind.is_block_device() {
            logical_block_size(&file).map_err(host("find its block size"))?
        } else {
            SECTOR_SIZE as u32
        };
        let alignment = direct.then(|| direct_alignment(&file, logical_block));
        let unaligned = match alignment {
            Some(alignment) if u64::from(alignment.offset) > SECTOR_SIZE => {
                Some(open_file(options, false).map_err(|source| open_error(options, source))?)
            }
            _ => None,
        };
        Ok(Arc::new(Self {
            path: path.clone(),
            file,
            unaligned,
            direct: alignment,
            size,
            logical_block,
            read_only: options.read_only,
            cache: options.cache,
            engine: options.engine,
            serial: options.serial(),
            durable_writes: AtomicBool::new(options.cache == CacheMode::Writethrough),
            can_punch: AtomicBool::new(true),
            can_zero: AtomicBool::new(true),
            notes: Mutex::new(notes),
            log: LogLimit::default(),
            counters: Arc::default(),
        }))
    }

    /// What the operator should know: a fallback, a disk of an odd size. There may be more after
    /// [`DiskImage::engine`].
    pub fn notes(&self) -> Vec<String> {
        unpoisoned(self.notes.lock()).clone()
    }

    /// Once, though each queue's engine says it.
    pub(super) fn add_note(&self, note: String) {
        let mut notes = unpoisoned(self.notes.lock());
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Where it is, as the operator named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes, a multiple of [`SECTOR_SIZE`]. A file's incomplete last sector is left out.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The unit in which partition tables on this disk count: the block device's own, and
    /// [`SECTOR_SIZE`] for files.
    pub fn logical_block_size(&self) -> u32 {
        self.logical_block
    }

    /// The smallest transfer the host does without reading first.
    pub fn physical_block_size(&self) -> u32 {
        let direct = self.direct.map_or(0, |alignment| alignment.offset);
        self.logical_block.max(direct)
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The cache mode it was opened with.
    pub fn cache(&self) -> CacheMode {
        self.cache
    }

    /// The serial number, at most 20 bytes.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whether every write is durable before it completes. [`CacheMode::Writethrough`] starts
    /// with it; the guest may ask for it in the other modes (CONFIG_WCE, SET FEATURES).
    pub fn set_durable_writes(&self, durable: bool) {
        self.durable_writes.store(durable, Ordering::Relaxed);
    }

    pub(super) fn durable_writes(&self) -> bool {
        self.durable_writes.load(Ordering::Relaxed)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// What counts the bytes that go to it and from it.
    pub fn counters(&self) -> Arc<DiskCounters> {
        Arc::clone(&self.counters)
    }

    /// A request over `length` bytes has come to its end.
    pub(super) fn note_end(
        &self,
        operation: DiskOperation,
        offset: u64,
        length: u64,
        result: &io::Result<()>,
    ) {
        match result {
            Ok(()) => self.counters.count(operation, length),
            Err(error) => self.log_failure(operation, offset, error),
        }
    }

    /// Tells the operator of a request that the host failed. What the guest got wrong is its own
    /// concern.
    fn log_failure(&self, operation: DiskOperation, offset: u64, error: &io::Error) {
        let code = error.raw_os_error();
        let guests_fault = matches!(code, Some(libc::EFAULT | libc::EROFS))
            || code.is_none() && error.kind() == io::ErrorKind::InvalidInput;
        if !guests_fault && let Some(left_out) = self.log.admit() {
            let disk = self.path.display();
            tracing::error!(%disk, ?operation, offset, left_out, %error, "a disk request failed");
        }
    }

    /// Whether `request` is for this disk: inside it, allowed, and consistent.
    pub(super) fn check(&self, request: &DiskRequest<'_>) -> io::Result<()> {
        let operation = request.operation;
        let reads = matches!(operation, DiskOperation::Read | DiskOperation::Flush);
        if self.read_only && !reads {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let end = request.offset.checked_add(request.length);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the disk"));
        }
        let transfers = matches!(operation, DiskOperation::Read | DiskOperation::Write);
        if transfers && request.length != segments::length(request.segments) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the segments do not add up to the length",
            ));
        }
        Ok(())
    }

    /// How the transfer of `length` bytes at `offset` goes.
    pub(super) fn route(&self, offset: u64, length: u64, vectors: &Vectors) -> Route {
        let fd = self.file.as_raw_fd();
        let Some(alignment) = self.direct else {
            return Route::Straight(fd);
        };
        let unit = u64::from(alignment.offset);
        if !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) {
            let file = self.unaligned.as_ref().unwrap_or(&self.file);
            return Route::Straight(file.as_raw_fd());
        }
        if vectors.is_aligned(alignment.memory as usize) {
            Route::Straight(fd)
        } else {
            Route::Bounce(fd)
        }
    }
}

#[cfg(test)]
impl DiskImage {
    /// As on a disk with 4 KiB blocks, which demands that of O_DIRECT everywhere.
    pub(super) fn assume_large_blocks(self: &mut Arc<Self>, options: &DiskOptions) {
        let image = Arc::get_mut(self).unwrap();
        assert!(image.direct.is_some());
        image.direct = Some(DirectAlignment { memory: 4096, offset: 4096 });
        image.unaligned = Some(open_file(options, false).unwrap());
    }

    pub(super) fn direct_offset_alignment(&self) -> Option<u32> {
        self.direct.map(|alignment| alignment.offset)
    }
}

fn open_error(options: &DiskOptions, source: io::Error) -> DiskError {
    let refused = matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS));
    if refused && !options.read_only && File::open(&options.path).is_ok() {
        return DiskError::ReadOnly { path: options.path.clone(), source };
    }
    DiskError::Open {
        path: options.path.clone(),
        access: if options.read_only { "reading" } else { "reading and writing" },
        source,
    }
}

fn open_file(options: &DiskOptions, direct: bool) -> io::Result<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).write(!options.read_only).custom_flags(flags).open(&options.path)
}
