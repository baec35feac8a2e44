//! What is written down of a volume.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::VolumeError;
use crate::name::VolumeName;

const NAME: &str = "volume.json";
const VERSION: u32 = 1;
/// More is not ours, in bytes.
const MAX_LENGTH: u64 = 1 << 20;

/// A volume, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    version: u32,
    /// Its name.
    pub name: VolumeName,
    /// When it was made, as RFC 3339 has it.
    pub created: String,
    /// What its maker says of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it is; None until it is used for the first time.
    pub kind: Option<Kind>,
    /// Bytes that its file system has room for, if it is a disk.
    pub size: u64,
    /// Whether its first user's image may have something to be copied into it.
    pub needs_copy_up: bool,
    /// Of a volume without a name of its own: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// What a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A folder of the host, which many instances can use at once.
    Folder,
    /// A file system in a file, which one virtual machine has at a time.
    Disk,
}

/// The instance that an anonymous volume was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The instance's id.
    pub instance: String,
    /// Whether the volume goes with it.
    pub goes_with_it: bool,
}

impl VolumeRecord {
    pub(crate) fn new(name: VolumeName, size: u64) -> Self {
        let created = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let (labels, kind, owner) = (BTreeMap::new(), None, None);
        Self { version: VERSION, name, created, labels, kind, size, needs_copy_up: true, owner }
    }

    /// None where there is no such file.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, VolumeError> {
        let path = folder.join(NAME);
        let mut text = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => {
                let read = file.and_then(|file| file.take(MAX_LENGTH).read_to_end(&mut text));
                read.map_err(VolumeError::io("read", &path))?
            }
        };
        let damaged = |source| VolumeError::Record { path: path.clone(), source };
        let record: Self = serde_json::from_slice(&text).map_err(damaged)?;
        if record.version != VERSION {
            let other = format!("version {}", record.version);
            return Err(damaged(serde::de::Error::custom(other)));
        }
        Ok(Some(record))
    }

    /// Whole, or not at all; also when the host is switched off, if the volume outlives its instance.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), VolumeError> {
        let (path, new) = (folder.join(NAME), folder.join(format!(".{NAME}.new")));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = options.open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            // What goes with an instance is worth nothing once the host has crashed.
            let lasts = self.owner.as_ref().is_none_or(|owner| !owner.goes_with_it);
            if lasts {
                file.sync_all()?;
            }
            fs::rename(&new, &path)?;
            if lasts { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(VolumeError::io("write", &path))
    }
}
