//! The folder of one instance.
//!
//! ```text
//! NAME/lock      under flock(2) as long as the instance has an owner; holds the `record`
//! NAME/upper/    what its workload writes at the levels without a machine; work/ is overlayfs's
//! NAME/…         what else its level needs, and what others keep of it: see isolab-instances
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isolab_images::remove_tree;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::name::{InstanceName, condemned};
use super::record::{Access, LOCK, ProcessId, Record, is_ours, open_lock};
use crate::error::IsolationError;
use crate::instance_id;
use crate::level::Level;
use crate::security;

/// The folder of an instance that is ours. Removed with everything in it when dropped, unless it is
/// [kept](InstanceFolder::keep); only [`InstanceFolder::remove`] can say that this failed.
#[derive(Debug)]
pub struct InstanceFolder {
    path: PathBuf,
    name: InstanceName,
    runtime_id: String,
    record: Record,
    /// Given to whoever looks after the instance when we are killed. The kernel takes the lock away
    /// with its last holder.
    lock: Arc<Flock<File>>,
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
        let (path, name) = (path.to_owned(), name.clone());
        Ok(Self { path, name, runtime_id, record, lock: Arc::new(lock), removed: false })
    }

    /// The kept folder `path`, which nobody has but the holder of `lock`; its record says so from now on.
    pub(super) fn adopt(
        path: &Path,
        name: &InstanceName,
        runtime_id: String,
        mut record: Record,
        lock: Flock<File>,
    ) -> io::Result<Self> {
        record.monitor = std::process::id();
        // A kill may have left the name before.
        record.name = name.to_string();
        record.append(&lock)?;
        let (path, name, lock) = (path.to_owned(), name.clone(), Arc::new(lock));
        Ok(Self { path, name, runtime_id, record, lock, removed: false })
    }

    /// The same folder for one more run of the instance, which has to be [kept](Self::keep). It stays
    /// locked until all of these are dropped.
    ///
    /// # Errors
    /// /dev/urandom cannot be read.
    pub fn share(&self) -> Result<Self, IsolationError> {
        Ok(Self {
            path: self.path.clone(),
            name: self.name.clone(),
            runtime_id: format!("{}-{}", self.name, instance_id()?),
            record: self.record.clone(),
            lock: Arc::clone(&self.lock),
            // Who removes it is the one that it was shared from.
            removed: true,
        })
    }

    /// Says whether the folder stays when it is dropped, or its owner killed.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn keep(&mut self, kept: bool) -> Result<(), IsolationError> {
        self.record.kept = kept;
        self.record.append(&self.lock).map_err(|source| self.io("write to", source))
    }

    /// Whether the folder stays when it is dropped.
    pub(crate) fn is_kept(&self) -> bool {
        self.record.kept
    }

    /// Gives it its name.
    pub(super) fn appear(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Moves it to `path`, where nothing is. The lock on the folder above is held.
    pub(super) fn renamed(
        mut self,
        path: &Path,
        name: &InstanceName,
    ) -> Result<Self, IsolationError> {
        // The folder's name counts; a kill between the two leaves a record with the older name.
        self.appear(path).map_err(|source| self.io("rename", source))?;
        self.name = name.clone();
        self.record.name = name.to_string();
        self.record.append(&self.lock).map_err(|source| self.io("write to", source))?;
        Ok(self)
    }

    /// The instance's name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// 64 hexadecimal digits, which no other instance has, also when this one is gone.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The folder itself, for what its level needs and what else is kept of an instance.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the instance may be started again, and then finds what its workload wrote.
    pub(crate) fn serves_further_runs(&self) -> bool {
        self.record.kept || self.removed
    }

    /// Its level of isolation.
    pub fn level(&self) -> Level {
        self.record.level
    }

    /// The workload's first process, while it lives and where it is one of the host's.
    pub fn process(&self) -> Option<ProcessId> {
        Record::read(&self.path)?.process
    }

    /// As the name, but of no other instance of this host, also where its data is kept elsewhere.
    pub(crate) fn runtime_id(&self) -> &str {
        &self.runtime_id
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

    /// Removes the folder and everything in it; one that was shared, or is kept, stays as it is.
    ///
    /// # Errors
    /// What could not be removed. The next start, or `isolab system prune`, tries again.
    pub fn remove(mut self) -> Result<(), IsolationError> {
        if self.removed || self.record.kept {
            return Ok(());
        }
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
        let mut folder = std::mem::ManuallyDrop::new(self);
        let lock = Arc::get_mut(&mut folder.lock).expect("it was not shared");
        // SAFETY: the descriptor's owner is forgotten, which nothing uses any more.
        drop(unsafe { OwnedFd::from_raw_fd(lock.as_raw_fd()) });
    }

    fn io(&self, action: &'static str, source: io::Error) -> IsolationError {
        IsolationError::Io { action, path: self.path.clone(), source }
    }
}

impl Drop for InstanceFolder {
    fn drop(&mut self) {
        if !self.removed && !self.record.kept {
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
    let mut freed = 0;
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        if entry.file_name() != LOCK {
            freed += remove(&entry.path())?;
        }
    }
    tolerate_missing(fs::remove_file(folder.join(LOCK)))?;
    tolerate_missing(fs::remove_dir(folder))?;
    Ok(freed)
}

/// Also what containers of a caller who is not root wrote as users of its ranges of ids.
fn remove(path: &Path) -> io::Result<u64> {
    match remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            security::as_root_of_ranges(|| remove_tree(path).map(drop)).ok_or(error).map(|()| 0)
        }
        other => other,
    }
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
    pub(super) fn of(folder: &Path, access: Access) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(folder)?;
        if !metadata.is_dir() || !is_ours(&metadata) {
            return Ok(Owner::Unknown);
        }
        let Some(lock) = open_lock(folder, access) else { return Ok(Owner::Unknown) };
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Owner::Nobody(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(Owner::Living),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}
