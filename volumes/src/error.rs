//! What can go wrong with volumes.

use std::io;
use std::path::{Path, PathBuf};

use crate::name::VolumeName;

/// A failure of a command on volumes.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of that name.
    #[error("no such volume: `{0}`")]
    Unknown(VolumeName),
    /// The name is taken.
    #[error("volume `{0}` exists already")]
    Exists(VolumeName),
    /// An instance uses it.
    #[error("volume `{0}` is in use")]
    InUse(VolumeName),
    /// Another machine has its disk.
    #[error(
        "volume `{0}` is a disk, and another instance has it: a disk is one instance's at a time"
    )]
    DiskInUse(VolumeName),
    /// A folder was asked for.
    #[error("volume `{0}` is a disk, which only a virtual machine can mount")]
    IsDisk(VolumeName),
    /// A disk was asked for.
    #[error(
        "volume `{0}` is a folder of the host, which no PC hardware shares; a volume that is a disk would do"
    )]
    IsFolder(VolumeName),
    /// A disk of that size holds no file system.
    #[error("a disk of {0} bytes: 1 MiB to 16 TiB can have a file system")]
    Size(u64),
    /// What is written down of it makes no sense.
    #[error("{} is damaged, or of another version of isolab", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A program of the host failed.
    #[error("{tool}: {why}; it is in Debian's package {package}")]
    Tool {
        /// The name of the program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
        /// How it ended and what it said, or why it could not be run.
        why: String,
    },
    /// It cannot be given what the image has in its place.
    #[error("cannot fill volume `{name}` with what the image has there")]
    Fill {
        /// The volume.
        name: VolumeName,
        /// What went wrong.
        source: io::Error,
    },
    /// The host refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: a verb, for example `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VolumeError {
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}
