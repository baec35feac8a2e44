//! The disk that takes what a workload in a virtual machine writes.
//!
//! Making a file system takes longer than starting a machine. So it is made once, empty, and each
//! instance gets a copy of the few blocks that are not zero.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tracing::debug_span;

use crate::error::IsolationError;

/// What a workload may write, in bytes. Sparse: it costs what is written.
const SIZE: u64 = 8 << 30;
const TOOL: &str = "mke2fs";
/// No journal: after a crash nobody looks at the disk again. No `resize_inode`: the blocks that it
/// keeps for a larger file system are 4 MiB to copy at each start. The name goes with the options.
const TEMPLATE: &str = ".scratch-v2.ext4";
/// What the names of all versions begin with.
const TEMPLATES: &str = ".scratch-";
const OPTIONS: [&str; 8] = [
    "-q",
    "-t",
    "ext4",
    "-O",
    "^has_journal,^resize_inode",
    "-m0",
    "-E",
    "lazy_itable_init=1,nodiscard,root_owner=0:0",
];

/// An empty file system without a name, in `folder`: gone when the file is closed, also after a
/// kill.
///
/// # Errors
/// The folder cannot be written, is full, or mke2fs is missing.
pub(crate) fn new(folder: &Path) -> Result<File, IsolationError> {
    let _span = debug_span!("scratch_disk").entered();
    let io = |action| {
        let path = folder.to_owned();
        move |source| IsolationError::Io { action, path, source }
    };
    fs::create_dir_all(folder).map_err(io("create"))?;
    let template = template(folder)?;
    let source = File::open(&template).map_err(io("read the scratch disk's template in"))?;
    let copy = tempfile::tempfile_in(folder).map_err(io("write to"))?;
    copy.set_len(SIZE).map_err(io("write to"))?;
    copy_data(&source, &copy).map_err(io("write to"))?;
    Ok(copy)
}

fn template(folder: &Path) -> Result<PathBuf, IsolationError> {
    let path = folder.join(TEMPLATE);
    if path.exists() {
        return Ok(path);
    }
    let io = |source| IsolationError::Io { action: "write to", path: folder.to_owned(), source };
    let unfinished = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    unfinished.as_file().set_len(SIZE).map_err(io)?;
    let output =
        Command::new(TOOL).args(OPTIONS).arg(unfinished.path()).stdin(Stdio::null()).output();
    let failed = |why: String| IsolationError::Tool { tool: TOOL, package: "e2fsprogs", why };
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // Two at once make the same thing; the later one takes the place of the earlier.
    unfinished.persist(&path).map_err(|error| io(error.error))?;
    Ok(path)
}

/// The templates in `folder` that other versions of isolab have made.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn outdated(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?.into_iter();
    let is_outdated = |name: &OsString| {
        name.as_encoded_bytes().starts_with(TEMPLATES.as_bytes()) && name != TEMPLATE
    };
    Ok(names.filter(is_outdated).map(|name| folder.join(name)).collect())
}

/// Copies what is not a hole.
fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let mut position = 0;
    loop {
        let start = match lseek(source, position, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(()), // a hole to the end
            Err(error) => return Err(error.into()),
        };
        let end = lseek(source, start, Whence::SeekHole)?;
        copy_range(source, target, start, end)?;
        position = end;
    }
}

fn copy_range(source: &File, target: &File, start: i64, end: i64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        // SAFETY: both descriptors are open, and both offsets are live for the call.
        let copied = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &mut from,
                target.as_raw_fd(),
                &mut to,
                (end - from) as usize,
                0,
            )
        };
        match copied {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            -1 => return Err(io::Error::last_os_error()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn each_disk_is_an_empty_file_system_of_its_own_that_takes_little_space() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (new(folder.path()).unwrap(), new(folder.path()).unwrap());
        let mut magic = [0; 2];
        first.read_exact_at(&mut magic, 1024 + 0x38).unwrap();
        assert_eq!(u16::from_le_bytes(magic), 0xEF53);
        let info = second.metadata().unwrap();
        assert_eq!(info.len(), SIZE);
        // It is copied at each start.
        assert!(info.blocks() * 512 < 512 << 10, "{} blocks", info.blocks());
        first.write_at(b"mine", 0).unwrap();
        let mut start = [0; 4];
        second.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start, [0; 4]);
        // The template is all that has a name.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
