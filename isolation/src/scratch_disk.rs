//! The disk that takes what a workload in a virtual machine writes.
//!
//! Making a file system takes longer than starting a machine. So it is made once, empty, and each
//! instance gets a copy of the few blocks that are not zero. That of a workload which is started again is
//! kept in the instance's folder from one run to the next.

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
/// No `resize_inode`: the blocks that it keeps for a larger file system are 4 MiB to copy at each start.
const OPTIONS: [&str; 8] = [
    "-q",
    "-t",
    "ext4",
    "-O",
    "^resize_inode",
    "-m0",
    "-E",
    "lazy_itable_init=1,nodiscard,root_owner=0:0",
];
/// What the names of all versions begin with.
const TEMPLATES: &str = ".scratch-";
/// For one run: no journal, as nobody looks at the disk after it.
const PASSING: Template =
    Template { name: ".scratch-v3.ext4", options: &["-O", "^has_journal,^resize_inode"] };
/// For several: a machine may be killed at any moment, and the next run finds its files in order.
const LASTING: Template =
    Template { name: ".scratch-lasting-v1.ext4", options: &["-J", "size=16"] };
/// Overlayfs's two, which a guest would otherwise make at each start.
const FOLDERS: [&str; 2] = ["upper", "work"];
/// The name of the one that is kept.
const KEPT: &str = "scratch.ext4";

/// An empty file system, made once.
struct Template {
    /// Goes with the options.
    name: &'static str,
    options: &'static [&'static str],
}

/// An empty disk without a name, in `folder`: gone when the file is closed, also after a kill.
///
/// # Errors
/// The folder cannot be written, is full, or mke2fs is missing.
pub(crate) fn passing(folder: &Path) -> Result<File, IsolationError> {
    let _span = debug_span!("scratch_disk").entered();
    let copy = tempfile::tempfile_in(folder).map_err(io_in(folder, "write to"))?;
    PASSING.copy_to(&copy, folder)?;
    Ok(copy)
}

/// The disk that `own`, an instance's folder, keeps; an empty one if there is none yet. The template
/// is in `folder`.
///
/// # Errors
/// As [`passing`].
pub(crate) fn lasting(own: &Path, folder: &Path) -> Result<File, IsolationError> {
    let _span = debug_span!("scratch_disk").entered();
    let path = own.join(KEPT);
    let open = || File::options().read(true).write(true).open(&path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map_err(io_in(&path, "open")),
    }
    // It appears whole, whenever we are killed.
    let unfinished = tempfile::NamedTempFile::new_in(own).map_err(io_in(own, "write to"))?;
    LASTING.copy_to(unfinished.as_file(), folder)?;
    unfinished.persist(&path).map_err(|error| io_in(own, "write to")(error.error))
}

fn io_in(path: &Path, action: &'static str) -> impl Fn(io::Error) -> IsolationError {
    let path = path.to_owned();
    move |source| IsolationError::Io { action, path: path.clone(), source }
}

impl Template {
    /// Makes `copy`, which is empty, a copy of it.
    fn copy_to(&self, copy: &File, folder: &Path) -> Result<(), IsolationError> {
        let template = self.path(folder)?;
        let read = io_in(folder, "read the scratch disk's template in");
        let source = File::open(&template).map_err(read)?;
        let copied = copy.set_len(SIZE).and_then(|()| copy_data(&source, copy));
        copied.map_err(io_in(folder, "write to"))
    }

    fn path(&self, folder: &Path) -> Result<PathBuf, IsolationError> {
        let path = folder.join(self.name);
        if path.exists() {
            return Ok(path);
        }
        let io = io_in(folder, "write to");
        let unfinished = tempfile::NamedTempFile::new_in(folder).map_err(&io)?;
        unfinished.as_file().set_len(SIZE).map_err(&io)?;
        let content = tempfile::tempdir_in(folder).map_err(&io)?;
        for name in FOLDERS {
            fs::create_dir(content.path().join(name)).map_err(&io)?;
        }
        let output = Command::new(TOOL)
            .args(OPTIONS)
            .args(self.options)
            .arg("-d")
            .arg(content.path())
            .arg(unfinished.path())
            .stdin(Stdio::null())
            .output();
        let failed = |why: String| IsolationError::Tool { tool: TOOL, package: "e2fsprogs", why };
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        // Two at once make the same thing; the later one takes the place of the earlier.
        unfinished.persist(&path).map_err(|error| io(error.error))?;
        Ok(path)
    }
}

/// The templates in `folder` that other versions of isolab have made.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn outdated(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?.into_iter();
    let is_outdated = |name: &OsString| {
        name.as_encoded_bytes().starts_with(TEMPLATES.as_bytes())
            && ![PASSING, LASTING].iter().any(|template| name == template.name)
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

    fn magic(disk: &File) -> u16 {
        let mut magic = [0; 2];
        disk.read_exact_at(&mut magic, 1024 + 0x38).unwrap();
        u16::from_le_bytes(magic)
    }

    fn start(disk: &File) -> [u8; 4] {
        let mut start = [0; 4];
        disk.read_exact_at(&mut start, 0).unwrap();
        start
    }

    #[test]
    fn each_disk_is_an_empty_file_system_of_its_own_that_takes_little_space() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (passing(folder.path()).unwrap(), passing(folder.path()).unwrap());
        assert_eq!(magic(&first), 0xEF53);
        let info = second.metadata().unwrap();
        assert_eq!(info.len(), SIZE);
        // It is copied at each start.
        assert!(info.blocks() * 512 < 512 << 10, "{} blocks", info.blocks());
        first.write_at(b"mine", 0).unwrap();
        assert_eq!(start(&second), [0; 4]);
        // The template is all that has a name.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_disk_that_is_kept_is_what_its_last_guest_left() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("one"), folder.path().join("other")];
        files.iter().for_each(|files| fs::create_dir(files).unwrap());
        let [one, other] = files.each_ref().map(|files| lasting(files, folder.path()).unwrap());
        assert_eq!((magic(&one), magic(&other)), (0xEF53, 0xEF53));
        one.write_at(b"mine", 0).unwrap();
        assert_eq!(start(&lasting(&files[0], folder.path()).unwrap()), *b"mine");
        assert_eq!(start(&lasting(&files[1], folder.path()).unwrap()), [0; 4]);
        let names = fs::read_dir(&files[0]).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [KEPT]);
    }
}
