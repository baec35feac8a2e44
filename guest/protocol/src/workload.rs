//! What init is told before anything: the workload, and what its machine needs around it.

use serde::{Deserialize, Serialize};

use crate::interface::Interface;
use crate::mount::Mount;
use crate::process::Process;
use crate::rights::KernelSettings;

/// The workload and its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The process whose end is the machine's.
    pub process: Process,
    /// How the host is reached.
    pub line: Line,
    /// The guest's host name.
    pub hostname: String,
    /// Kernel modules to load first, as paths in the initramfs, in this order.
    pub modules: Vec<String>,
    /// The root file system.
    pub root: RootDisks,
    /// Its network controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Files of /etc that are this instance's own, whatever the image has.
    #[serde(default)]
    pub name_files: Vec<NameFile>,
    /// What is mounted over the root file system, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Whether the root file system itself cannot be written.
    #[serde(default)]
    pub read_only: bool,
    /// Settings of the guest's kernel.
    #[serde(default)]
    pub kernel: KernelSettings,
}

/// What carries the control channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A stream socket to the host over the virtio socket device (vsock(7)).
    Vsock {
        /// The host's port.
        port: u32,
    },
    /// The second serial port, and for what is long [a disk](crate::mailbox).
    Serial {
        /// What that disk may be called.
        mailboxes: Vec<String>,
    },
}

/// The disks that make up the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootDisks {
    /// What the two disks may be called in this guest, where there may be more. Drivers that probe in parallel name them in
    /// any order; their file systems tell which is which.
    pub devices: Vec<String>,
    /// The file system of the disk that holds the image, mounted read-only.
    pub image: String,
    /// The file system of the disk that takes the workload's writes. Its folders `upper` and `work` are
    /// overlayfs's.
    pub scratch: String,
    /// A later machine has that disk again: what the workload wrote is to be on it at its end, and what it
    /// synced whatever happens.
    pub scratch_lasts: bool,
}

/// A file that says what names mean, such as /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFile {
    /// Its name in /etc.
    pub name: String,
    /// What is in it.
    pub content: String,
}
