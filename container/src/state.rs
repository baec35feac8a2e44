//! The state directory of one live container: makes its id unique, and holds the point an overlay is mounted on.

use crate::error::{Error, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The longest id; leaves room in a file name and in a hostname.
const MAX_ID_LEN: usize = 128;

/// `STATE_DIR/ID`, locked as long as this lives and removed with it.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The kernel drops the lock when the runtime dies, however it dies; a directory without a lock is stale.
    lock: Flock<File>,
}

impl StateDir {
    pub(crate) fn create(parent: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = parent.join(id);
        let failed = |source: io::Error| {
            Error::host(format!("create state directory {}", path.display()), source)
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(path.join("rootfs"))
            .map_err(failed)?;
        let directory = File::open(&path).map_err(failed)?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(StateDir { path, lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(Error::IdInUse { id: id.to_owned(), state: path })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// An empty directory.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// All that there is, in the order of removal. Not recursively: nothing else belongs there, and a mount that leaked
    /// must not be emptied.
    pub(crate) fn directories(&self) -> [PathBuf; 2] {
        [self.mount_point(), self.path.clone()]
    }

    /// The descriptor that holds the lock; a copy of it in another process holds it on.
    pub(crate) fn lock(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    fn remove(&self) -> io::Result<()> {
        self.directories().iter().try_for_each(fs::remove_dir)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // An empty directory that stays is found stale by the next user of the id.
        let _ = self.remove();
    }
}

fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > MAX_ID_LEN || id == "." || id == ".." || !id.bytes().all(allowed)
    {
        let problem = format!("{id:?}: 1 to {MAX_ID_LEN} of A-Z a-z 0-9 _ + - . are allowed");
        return Err(Error::invalid("container id", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_be_paths() {
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id("web-1_x+2.y").is_ok());
    }

    #[test]
    fn an_id_is_taken_until_its_owner_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::create(dir.path(), "x").unwrap();
        assert!(matches!(StateDir::create(dir.path(), "x"), Err(Error::IdInUse { .. })));
        drop(first);
        assert!(!dir.path().join("x").exists());
        // A stale directory, as a killed runtime leaves it.
        fs::create_dir_all(dir.path().join("x/rootfs")).unwrap();
        StateDir::create(dir.path(), "x").unwrap();
    }
}
