//! Files that are read whole at the start: kernels, initial RAM file systems, firmware.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file for reading, and returns its length.
///
/// # Errors
/// The host's; or it is something else. A pipe that nobody writes would hold us up for ever, and
/// nothing but a file has a length to make room for.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Without O_NONBLOCK opening a pipe waits for its writer. It means nothing to a file.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => refused("a socket"),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let other = if kind.is_file() {
        return Ok((file, metadata.len()));
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_block_device() {
        "a block device"
    } else {
        "a character device"
    };
    Err(refused(other))
}

fn refused(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a regular file"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_by_name_and_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "four").unwrap();
        for (name, kind) in [("fifo", "a pipe"), ("socket", "a socket"), (".", "a folder")] {
            assert_eq!(open(&path(name)).unwrap_err().to_string(), refused(kind).to_string());
        }
        let null = open(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(null.contains("a character device"), "{null}");
        assert_eq!(open(&path("file")).unwrap().1, 4);
        assert_eq!(open(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
