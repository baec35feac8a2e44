//! What init mounts over the root file system.

use serde::{Deserialize, Serialize};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where: absolute, without `..`. What is missing of the path is made.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Whether it cannot be written.
    #[serde(default)]
    pub read_only: bool,
    /// Further options, in the words of mount(8).
    #[serde(default)]
    pub options: Vec<String>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountSource {
    /// A folder of the host, by the tag of its virtio-fs device.
    Share(String),
    /// A disk with an ext4 file system of this UUID.
    Disk([u8; 16]),
    /// A file that came in the initramfs, by its path there.
    File(String),
    /// Memory: a tmpfs.
    Memory,
    /// What the root file system has there, which can be written also where the rest of it cannot.
    Root,
}
