//! What can go wrong in the cgroup tree.

use std::io;
use std::path::{Path, PathBuf};

/// A failure in the cgroup tree.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup hierarchy that has the controller is mounted, or the container is in none.
    #[error("no cgroup hierarchy here has the controller {controller}, which {purpose} needs")]
    NoController {
        /// The controller's name, for example `memory`.
        controller: String,
        /// What needs it, for example `linux.resources.memory.limit`.
        purpose: String,
    },
    /// The tree refused for want of rights.
    #[error("cannot {attempt} {}, which limits need", path.display())]
    NotWritable {
        /// What was attempted: a verb.
        attempt: &'static str,
        /// The file or folder below /sys/fs/cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Cgroup v2's "no internal processes" rule.
    #[error(
        "cannot enable controllers for the children of {}: it has processes of its own (cgroup v2 allows no \
         internal processes); move them into a child, or set linux.cgroupsPath below another cgroup",
        path.display()
    )]
    InternalProcesses {
        /// The cgroup with processes.
        path: PathBuf,
    },
    /// A limit that contradicts another, or the present.
    #[error("linux.resources.{field}: {problem}")]
    Invalid {
        /// The field of the configuration, below `linux.resources`.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A limit that the kernel refused.
    #[error("cannot set linux.resources.{field}: {} does not take {value:?}", path.display())]
    Limit {
        /// The field of the configuration, below `linux.resources`.
        field: &'static str,
        /// What was written to the control file.
        value: String,
        /// The control file that refused it.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else that the kernel refused.
    #[error("cannot write {value:?} to {}", path.display())]
    Refused {
        /// What was written to the control file.
        value: String,
        /// The control file that refused it.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The cgroup exists and has processes in it.
    #[error("cgroup {} is in use by live processes", path.display())]
    InUse {
        /// The cgroup's folder.
        path: PathBuf,
    },
    /// A limit that cannot be set here.
    #[error("linux.resources.{field} is not supported {on}")]
    Unsupported {
        /// The field of the configuration, below `linux.resources`: for example `memory.swap`.
        field: &'static str,
        /// Where it is not, for example `on cgroup v1`.
        on: &'static str,
    },
    /// The rules about devices could not be put into force on version 2.
    #[error("cannot attach the device rules, an eBPF program, to {}", path.display())]
    DeviceProgram {
        /// The cgroup's folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory to be removed that is on another filesystem.
    #[error("{} is not a cgroup", path.display())]
    NotACgroup {
        /// The directory.
        path: PathBuf,
    },
    /// A path that leads out of the tree.
    #[error("linux.cgroupsPath {} must not contain `..`", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// Something else was refused on a file of the cgroup tree.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was attempted: a verb.
        attempt: &'static str,
        /// The file or folder below /sys/fs/cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    /// Sorts an I/O error into "no rights" and the rest.
    pub(super) fn io(attempt: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                CgroupError::NotWritable { attempt, path, source }
            }
            _ => CgroupError::Io { attempt, path, source },
        }
    }

    /// Whether the tree as such is out of reach, as opposed to one bad value.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self, CgroupError::NotWritable { .. } | CgroupError::NoController { .. })
    }
}
