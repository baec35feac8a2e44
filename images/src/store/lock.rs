//! Locks between processes: files in the store's `locks` folder under flock(2).
//!
//! | name              | shared by                      | taken alone by                        |
//! |-------------------|--------------------------------|---------------------------------------|
//! | `index`           | who looks an image up          | who changes the index, the collector  |
//! | `writers`         | who brings blobs in            | the collector                         |
//! | `image-DIGEST`    | who uses an image: its lease   | the collector, to see whether one does |
//! | `KIND-DIGEST`     |                                | who makes that blob, layer or disk    |
//!
//! The kernel gives a lock back however its holder ends, so that none is ever stale.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{ImageError, io_error};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    /// None on a read-only file system where nobody ever locked: nobody changes anything there.
    _file: Option<Flock<File>>,
    path: PathBuf,
}

impl FileLock {
    /// Waits until nobody holds it alone.
    pub fn shared(path: &Path) -> Result<Self, ImageError> {
        Self::wait(path, FlockArg::LockShared)
    }

    /// Waits until nobody holds it.
    pub fn exclusive(path: &Path) -> Result<Self, ImageError> {
        Self::wait(path, FlockArg::LockExclusive)
    }

    fn wait(path: &Path, mode: FlockArg) -> Result<Self, ImageError> {
        loop {
            if let Some(lock) = Self::acquire(path, mode).map_err(io_error("lock", path))? {
                return Ok(lock);
            }
        }
    }

    /// `None` when somebody holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>, ImageError> {
        Self::acquire(path, FlockArg::LockExclusiveNonblock).map_err(io_error("lock", path))
    }

    /// `None` also when the file was removed while we waited: the lock is then of no value, as
    /// others take one on a new file of that name.
    fn acquire(path: &Path, mode: FlockArg) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => match open(path)? {
                Some(file) => file,
                None => return Ok(Some(Self { _file: None, path: path.to_owned() })),
            },
            other => other?,
        };
        let file = match Flock::lock(file, mode) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let held = file.metadata()?.ino();
        match fs::metadata(path) {
            Ok(metadata) if metadata.ino() == held => {
                Ok(Some(Self { _file: Some(file), path: path.to_owned() }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file of a lock that is held alone; see [`FileLock::acquire`].
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Opens a file that can only be read, as flock(2) also takes it: where the file system is mounted a
/// second time, others may write it. None where it is not there.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_locks_share_and_keep_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (first, second) = (FileLock::shared(&path).unwrap(), FileLock::shared(&path).unwrap());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(second);
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn who_waited_for_a_file_that_was_removed_locks_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::exclusive(&path).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| FileLock::exclusive(&path).unwrap());
            held.remove().unwrap();
            let lock = waiter.join().unwrap();
            assert!(path.exists());
            assert!(FileLock::try_exclusive(&path).unwrap().is_none());
            drop(lock);
        });
    }
}
