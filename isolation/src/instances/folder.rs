//! The folder of one instance.
//!
//! ```text
//! NAME/lock      under flock(2) as long as the instance has an owner; holds the `record`
//! NAME/files/    what the instance needs, and what its workload writes
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use isolab_images::remove_tree;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::record::{LOCK, ProcessId, Record, is_ours, open_lock};
use super::{InstanceName, condemned};
use crate::error::IsolationError;

const FILES: &str = "files";

/// The folder of an instance that is ours. Removed with everything in it when dropped; only
/// [`InstanceFolder::remove`] can say that this failed.
#[derive(Debug)]
pub struct InstanceFolder {
    path: PathBuf,
    name: InstanceName,
    runtime_id: String,
    record: Record,
    /// Given to whoever looks after the instance when we are killed. The kernel takes the lock away
    /// with its last holder.
    lock: Flock<File>,
    removed: bool,
}

impl InstanceFolder {
    /// Fills the new and empty folder `path`, and locks it before it can be seen by its name.
    pub(super) fn fill(
        path: &Path,
        name: &InstanceName,
        runtime_id: String,
        record: Record,
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let lock = options.create_new(true).write(true).mode(0o600).open(path.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
        record.append(&lock)?;
        DirBuilder::new().mode(0o700).create(path.join(FILES))?;
        let (path, name) = (path.to_owned(), name.clone());
        Ok(Self { path, name, runtime_id, record, lock, removed: false })
    }

    /// Gives it its name.
    pub(super) fn appear(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// The instance's name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// As the name, but of no other instance of this host, also where its data is kept elsewhere.
    pub(crate) fn runtime_id(&self) -> &str {
        &self.runtime_id
    }

    /// Where the instance may keep files.
    pub(crate) fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// Where all instances are, for what they share.
    pub(crate) fn shared(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// A descriptor that holds the lock, for whoever looks after the instance when we are killed.
    pub(crate) fn owner_lock(&self) -> Result<OwnedFd, IsolationError> {
        let copy = self.lock.try_clone().map(OwnedFd::from);
        copy.map_err(IsolationError::host("duplicate the descriptor of an instance's lock"))
    }

    /// Writes down what the instance has outside of its folder.
    pub(crate) fn record(&mut self, cgroups: Vec<PathBuf>, pid: i32) -> Result<(), IsolationError> {
        self.record.cgroups = cgroups;
        self.record.process = ProcessId::of(pid);
        self.record.append(&self.lock).map_err(|source| self.io("write to", source))
    }

    /// Removes the folder and everything in it.
    ///
    /// # Errors
    /// What could not be removed. The next start, or `isolab system prune`, tries again.
    pub fn remove(mut self) -> Result<(), IsolationError> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<(), IsolationError> {
        self.removed = true;
        // The name is free at once, and what a kill leaves of the removal is known for what it is.
        let condemned = condemned(self.shared(), &self.record.name);
        let condemned = condemned.map_err(IsolationError::host("read /dev/urandom"))?;
        fs::rename(&self.path, &condemned).map_err(|source| self.io("rename", source))?;
        self.path = condemned;
        empty(&self.path).map(drop).map_err(|source| self.io("remove", source))
    }

    /// As a kill of the owner leaves it: our descriptor is closed, and nothing else done.
    #[cfg(test)]
    pub(super) fn abandon(self) {
        use std::os::fd::{AsRawFd, FromRawFd};
        let folder = std::mem::ManuallyDrop::new(self);
        // SAFETY: the descriptor's owner is forgotten, which nothing uses any more.
        drop(unsafe { OwnedFd::from_raw_fd(folder.lock.as_raw_fd()) });
    }

    fn io(&self, action: &'static str, source: io::Error) -> IsolationError {
        IsolationError::Io { action, path: self.path.clone(), source }
    }
}

impl Drop for InstanceFolder {
    fn drop(&mut self) {
        if !self.removed {
            // Nobody is left to tell.
            let _ = self.remove_all();
        }
    }
}

/// A folder that is no longer to be seen, and its content; the lock last, so that nobody else finds
/// the folder without an owner meanwhile.
///
/// Gives the bytes of disk that are free now.
pub(super) fn empty(folder: &Path) -> io::Result<u64> {
    let freed = remove_tree(&folder.join(FILES))?;
    tolerate_missing(fs::remove_file(folder.join(LOCK)))?;
    tolerate_missing(fs::remove_dir(folder))?;
    Ok(freed)
}

fn tolerate_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whose a folder is.
#[derive(Debug)]
pub(super) enum Owner {
    /// Somebody's who lives.
    Living,
    /// Nobody's; it stays so while the lock is held.
    Nobody(Flock<File>),
    /// It has no lock of ours.
    Unknown,
}

impl Owner {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(folder)?;
        if !metadata.is_dir() || !is_ours(&metadata) {
            return Ok(Owner::Unknown);
        }
        let Some(lock) = open_lock(folder) else { return Ok(Owner::Unknown) };
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Owner::Nobody(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(Owner::Living),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}
