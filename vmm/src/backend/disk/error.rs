//! Why a disk cannot be used.

use std::io;
use std::path::PathBuf;

use super::SECTOR_SIZE;

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be opened.
    #[error("cannot open disk '{path}' for {access}")]
    Open {
        /// The image, or block device, as it was named.
        path: PathBuf,
        /// Reading, or reading and writing.
        access: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The host does not let it be written: a read-only block device, file system or file.
    #[error(
        "disk '{}' cannot be written; give it with 'readonly' if the guest need not write to it",
        path.display()
    )]
    ReadOnly {
        /// The image, or block device, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Its first bytes are another format's. What is in it is never taken for another format than
    /// raw, as a guest could then write itself a way to files of the host.
    #[error(
        "disk '{}' is a {format} image and would be garbage as a raw disk: make it one with \
         `qemu-img convert -O raw`, or insist with 'format=raw'",
        path.display()
    )]
    OtherFormat {
        /// The image, or block device, as it was named.
        path: PathBuf,
        /// The format's name, for example `qcow2`.
        format: &'static str,
    },
    /// A directory, pipe, terminal …
    #[error("disk '{path}' is neither a regular file nor a block device")]
    NotADisk {
        /// The image, or block device, as it was named.
        path: PathBuf,
    },
    /// Less than one sector.
    #[error("disk '{path}' is smaller than one sector ({SECTOR_SIZE} bytes)")]
    TooSmall {
        /// The image, or block device, as it was named.
        path: PathBuf,
    },
    /// Another process, or another disk of this machine, has it.
    #[error(
        "disk '{path}' is in use elsewhere; stop what uses it, or open it with 'readonly' there \
         and here"
    )]
    InUse {
        /// The image, or block device, as it was named.
        path: PathBuf,
    },
    /// No O_DIRECT on this file system.
    #[error(
        "the file system of disk '{path}' does not support O_DIRECT; use cache=writeback or \
         cache=writethrough"
    )]
    NoDirect {
        /// The image, or block device, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Something else the host refused.
    #[error("disk '{path}': cannot {action}")]
    Host {
        /// The image, or block device, as it was named.
        path: PathBuf,
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}
