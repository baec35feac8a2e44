//! Using a volume.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use isolab_images::remove_tree;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::disk::{self, TopFolder};
use crate::error::VolumeError;
use crate::name::VolumeName;
use crate::record::{Kind, Owner, VolumeRecord};
use crate::store::{LOCK, Volumes};

const DATA: &str = "data";
const DISK: &str = "disk";

/// Fills a volume's new and empty folder.
pub type Fill<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

/// A volume that is in use, and stays in use as long as this lives.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    uuid: [u8; 16],
    #[expect(dead_code, reason = "held for its Drop")]
    lock: Flock<File>,
}

impl Lease {
    /// Its folder, or the file that is its disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of a disk: the UUID of its file system.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }
}

impl Volumes {
    /// Uses a volume as a folder; one that is not there is made, for `owner` if it is anonymous. The first user may
    /// `fill` it, in the empty folder that it is given; a second one finds it as it is, whatever the first did.
    ///
    /// # Errors
    /// It is a disk, or cannot be made or filled.
    pub fn use_folder(
        &self,
        name: &VolumeName,
        owner: Option<Owner>,
        fill: Option<Fill<'_>>,
    ) -> Result<Lease, VolumeError> {
        let folder = self.folder(name);
        loop {
            {
                let _store = self.lock()?;
                let mut record = self.decide(name, owner.clone(), Kind::Folder)?;
                if fill.is_none() && record.needs_copy_up {
                    // Who would fill it later would have to wait until it is not used.
                    record.needs_copy_up = false;
                    record.write(&folder)?;
                }
            }
            // Alone for a moment only, by who fills or removes it.
            let shared = wait_for(&folder, FlockArg::LockShared)?;
            let Some((lock, record)) = shared else { continue };
            let Some(fill) = fill.filter(|_| record.needs_copy_up) else {
                return Ok(Lease { path: folder.join(DATA), uuid: [0; 16], lock });
            };
            drop(lock);
            let Some((lock, record)) = wait_for(&folder, FlockArg::LockExclusive)? else {
                continue;
            };
            if record.needs_copy_up {
                fill_folder(&folder, &record, fill)?;
            }
            drop(lock);
        }
    }

    /// Uses a volume as a disk, alone; as [`Volumes::use_folder`]. `run` runs the program that makes the file system,
    /// and may add the folder that is to be in it.
    ///
    /// # Errors
    /// It is a folder, somebody uses it, or it cannot be made.
    pub fn use_disk(
        &self,
        name: &VolumeName,
        owner: Option<Owner>,
        run: impl FnOnce(&mut Command, &Path) -> io::Result<(Output, TopFolder)>,
    ) -> Result<Lease, VolumeError> {
        let (folder, in_use) = (self.folder(name), || VolumeError::DiskInUse(name.clone()));
        let store = self.lock()?;
        let mut record = self.decide(name, owner, Kind::Disk)?;
        let file = open_lock(&folder)?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(in_use()),
            Err((_, errno)) => return Err(VolumeError::io("lock", &folder)(errno)),
        };
        // It cannot go any more.
        drop(store);
        let (path, new) = (folder.join(DISK), folder.join(format!("{DISK}.new")));
        if !path.exists() {
            disk::make(&new, record.size, run)?;
            disk::appear(&new, &path)?;
            record.needs_copy_up = false;
            record.write(&folder)?;
        }
        let uuid = disk::uuid(&path).map_err(VolumeError::io("read", &path))?;
        Ok(Lease { path, uuid, lock })
    }

    /// What the volume is from now on; it is made where it is missing. The store's lock is held.
    fn decide(
        &self,
        name: &VolumeName,
        owner: Option<Owner>,
        kind: Kind,
    ) -> Result<VolumeRecord, VolumeError> {
        let folder = self.folder(name);
        let mut record = match VolumeRecord::read(&folder)? {
            Some(record) => record,
            None => self.make(name, |record| {
                record.owner = owner;
                record.kind = Some(kind);
            })?,
        };
        match (record.kind, kind) {
            (Some(Kind::Disk), Kind::Folder) => return Err(VolumeError::IsDisk(name.clone())),
            (Some(Kind::Folder), Kind::Disk) => return Err(VolumeError::IsFolder(name.clone())),
            (Some(_), _) => {}
            (None, _) => {
                record.kind = Some(kind);
                record.write(&folder)?;
            }
        }
        Ok(record)
    }
}

/// Waits for the volume's lock, and reads what is written down of it; None if it was removed meanwhile.
fn wait_for(
    folder: &Path,
    how: FlockArg,
) -> Result<Option<(Flock<File>, VolumeRecord)>, VolumeError> {
    let file = match open_lock(folder) {
        Err(VolumeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other?,
    };
    let mut file = Some(file);
    let lock = loop {
        let Some(wanted) = file.take() else { return Ok(None) };
        match Flock::lock(wanted, how) {
            Ok(lock) => break lock,
            Err((again, Errno::EINTR)) => file = Some(again),
            Err((_, errno)) => return Err(VolumeError::io("lock", folder)(errno)),
        }
    };
    let held = lock.metadata().map_err(VolumeError::io("look at", folder))?;
    let is_there = fs::metadata(folder.join(LOCK))
        .is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()));
    if !is_there {
        return Ok(None);
    }
    Ok(VolumeRecord::read(folder)?.map(|record| (lock, record)))
}

fn open_lock(folder: &Path) -> Result<File, VolumeError> {
    let path = folder.join(LOCK);
    File::open(&path).map_err(VolumeError::io("open", &path))
}

/// Fills it beside, and puts it in place in one step: a kill leaves it empty, and to be filled.
fn fill_folder(folder: &Path, record: &VolumeRecord, fill: Fill<'_>) -> Result<(), VolumeError> {
    let (data, new) = (folder.join(DATA), folder.join(format!("{DATA}.new")));
    let is_empty = || fs::read_dir(&data).map(|mut entries| entries.next().is_none());
    // Whoever put something there wants that.
    if is_empty().map_err(VolumeError::io("read", &data))? {
        let filled = remove_tree(&new)
            .and_then(|_| fs::create_dir(&new))
            .and_then(|()| fill(&new))
            .and_then(|()| fs::rename(&new, &data));
        filled.map_err(|source| {
            let _ = remove_tree(&new);
            VolumeError::Fill { name: record.name.clone(), source }
        })?;
    }
    let mut record = record.clone();
    record.needs_copy_up = false;
    record.write(folder)
}
