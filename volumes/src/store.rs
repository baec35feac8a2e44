//! The volumes of this host.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use isolab_images::{disk_usage, remove_tree};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::disk;
use crate::error::VolumeError;
use crate::name::VolumeName;
use crate::record::{Kind, VolumeRecord};

pub(crate) const LOCK: &str = "lock";
/// A volume that is being made, or removed. No volume's name begins so.
const NEW: &str = ".new-";
const CONDEMNED: &str = ".condemned-";
/// Room for files in a disk, in bytes, where nothing is said. Sparse: it costs what is written.
const DISK_SIZE: u64 = 8 << 30;

/// The folder that holds the volumes' folders.
#[derive(Clone, Debug)]
pub struct Volumes {
    path: PathBuf,
}

/// A volume that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewVolume {
    /// Its name; without, a random one.
    pub name: Option<VolumeName>,
    /// What its maker says of it.
    pub labels: BTreeMap<String, String>,
    /// What it is; without, its first use decides.
    pub kind: Option<Kind>,
    /// Bytes that it has room for, if it is a disk.
    pub size: Option<u64>,
}

impl Volumes {
    /// The volumes in `path`, which is made where it is missing, for its owner only.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> Result<Self, VolumeError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(VolumeError::io("create", path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Those of [`isolab_images::data_dir`].
    ///
    /// # Errors
    /// As [`Volumes::open`].
    pub fn open_default() -> Result<Self, VolumeError> {
        Self::open(&isolab_images::data_dir().join("volumes"))
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// The name is taken, or the size none that a disk can have.
    pub fn create(&self, new: NewVolume) -> Result<VolumeRecord, VolumeError> {
        new.size.map_or(Ok(()), disk::check_size)?;
        let name = match new.name {
            Some(name) => name,
            None => {
                VolumeName::random().map_err(VolumeError::io("read", Path::new("/dev/urandom")))?
            }
        };
        let _lock = self.lock()?;
        if VolumeRecord::read(&self.folder(&name))?.is_some() {
            return Err(VolumeError::Exists(name));
        }
        self.make(&name, |record| {
            record.labels = new.labels;
            record.kind = new.kind;
            record.size = new.size.unwrap_or(DISK_SIZE);
        })
    }

    /// Makes a volume that is not there. The store's lock is held.
    pub(crate) fn make(
        &self,
        name: &VolumeName,
        refine: impl FnOnce(&mut VolumeRecord),
    ) -> Result<VolumeRecord, VolumeError> {
        let mut record = VolumeRecord::new(name.clone(), DISK_SIZE);
        refine(&mut record);
        let new = self.path.join(format!("{NEW}{name}"));
        let io = || VolumeError::io("create", &new);
        // What a kill left half made.
        remove_tree(&new).map_err(io())?;
        DirBuilder::new().mode(0o700).create(&new).map_err(io())?;
        File::create(new.join(LOCK)).map_err(io())?;
        let data = new.join("data");
        // As a folder of an image is: whose it is inside is for the first user to say.
        let made = fs::create_dir(&data)
            .and_then(|()| fs::set_permissions(&data, Permissions::from_mode(0o755)));
        made.map_err(io())?;
        record.write(&new)?;
        let appeared = fs::rename(&new, self.folder(name));
        appeared.map_err(VolumeError::io("create", &self.folder(name)))?;
        Ok(record)
    }

    /// All volumes, in the order of their names.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeRecord>, VolumeError> {
        let io = || VolumeError::io("read", &self.path);
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io())? {
            let name = entry.map_err(io())?.file_name();
            let name = name.to_str().and_then(|name| name.parse::<VolumeName>().ok());
            if let Some(name) = name {
                // It may just have been removed.
                records.extend(VolumeRecord::read(&self.folder(&name))?);
            }
        }
        records.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// There is none, or its record cannot be read.
    pub fn get(&self, name: &VolumeName) -> Result<VolumeRecord, VolumeError> {
        VolumeRecord::read(&self.folder(name))?.ok_or_else(|| VolumeError::Unknown(name.clone()))
    }

    /// Removes a volume that nobody uses now, and gives the bytes of disk that this gave back. Instances that do not
    /// run and would use it again are the caller's to know.
    ///
    /// # Errors
    /// There is none of that name, or somebody uses it.
    pub fn remove(&self, name: &VolumeName) -> Result<u64, VolumeError> {
        let lock = self.lock()?;
        self.get(name)?;
        let folder = self.folder(name);
        let own = match self.try_alone(name)? {
            Some(own) => own,
            None => return Err(VolumeError::InUse(name.clone())),
        };
        let condemned = self.path.join(format!("{CONDEMNED}{name}"));
        // What a kill left.
        remove_tree(&condemned).map_err(VolumeError::io("remove", &condemned))?;
        fs::rename(&folder, &condemned).map_err(VolumeError::io("remove", &folder))?;
        drop((own, lock));
        remove_tree(&condemned).map_err(VolumeError::io("remove", &condemned))
    }

    /// Removes the anonymous volumes that were to go with an instance which is gone: its owner was killed.
    ///
    /// # Errors
    /// A record cannot be read, or a volume cannot be removed.
    pub fn sweep(&self, mut lives: impl FnMut(&str) -> bool) -> Result<u64, VolumeError> {
        let mut freed = 0;
        for record in self.list()? {
            let owner = record.owner.as_ref().filter(|owner| owner.goes_with_it);
            if owner.is_some_and(|owner| !lives(&owner.instance)) {
                match self.remove(&record.name) {
                    Ok(bytes) => freed += bytes,
                    Err(VolumeError::InUse(_) | VolumeError::Unknown(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(freed)
    }

    /// Whether somebody uses the volume now.
    ///
    /// # Errors
    /// Its lock cannot be opened.
    pub fn is_used(&self, name: &VolumeName) -> Result<bool, VolumeError> {
        let _lock = self.lock()?;
        Ok(self.try_alone(name)?.is_none())
    }

    /// Its own lock, if nobody holds it. The store's is held.
    fn try_alone(&self, name: &VolumeName) -> Result<Option<Flock<File>>, VolumeError> {
        let path = self.folder(name).join(LOCK);
        let file = File::open(&path).map_err(VolumeError::io("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(own) => Ok(Some(own)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(VolumeError::io("lock", &path)(errno)),
        }
    }

    /// Where the volume's files are on this host: its folder or its disk.
    pub fn mount_point(&self, record: &VolumeRecord) -> PathBuf {
        let name = if record.kind == Some(Kind::Disk) { "disk" } else { "data" };
        self.folder(&record.name).join(name)
    }

    /// Bytes that a volume takes on the disk.
    pub fn size_on_disk(&self, name: &VolumeName) -> u64 {
        disk_usage(&self.folder(name))
    }

    pub(crate) fn folder(&self, name: &VolumeName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// The lock of who makes or removes volumes, on the folder of all.
    pub(crate) fn lock(&self) -> Result<Flock<File>, VolumeError> {
        let io = || VolumeError::io("lock", &self.path);
        let mut file = File::open(&self.path).map_err(io())?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(lock),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(io()(errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
