//! What a caller says about a container or a host process.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Mount, Process, Spec};

use crate::cgroup::{CgroupManager, CgroupPlacement};
use crate::error::{Error, Result};

/// Everything that [`Container::create`](crate::Container::create) needs.
#[derive(Debug)]
pub struct ContainerConfig {
    /// Names the container in errors and in the cgroup tree, where one with live processes is in the way: 1 to 128 of
    /// letters, digits, `_`, `+`, `-`, `.`; not `.` or `..`.
    pub id: String,
    /// The OCI configuration. `root.path` is not read (`rootfs` says it), `root.readonly` is. Relative bind sources
    /// are relative to the caller's working directory.
    pub spec: Spec,
    /// What is mounted as the container's root.
    pub rootfs: RootFilesystem,
    /// The files of the overlay are the host's ids, and appear inside as the same ids of the container's user namespace,
    /// new or joined, by its `uidMappings` and `gidMappings`. It takes the host's root, Linux 5.19, and a file system
    /// that can map ids.
    pub map_ids: bool,
    /// The bundle's folder, an absolute path. Only hooks and whoever answers for seccomp are told of it, and need one.
    pub bundle: Option<PathBuf>,
    /// The three standard streams.
    pub stdio: Stdio,
    /// Where in the cgroup tree.
    pub cgroup: CgroupPlacement,
    /// Makes its cgroup in the runtime's place; then `cgroup` is [`CgroupPlacement::Own`] and `linux.cgroupsPath`, which is
    /// the manager's to read, names no path.
    pub cgroup_manager: Option<Box<dyn CgroupManager>>,
    /// Stay in the caller's session keyring. What keys the caller has there, the container can then use.
    pub keep_keyring: bool,
    /// Create `process.cwd` when it is missing. The OCI specification makes a missing one an error; image builders
    /// rely on it being made (`WORKDIR`).
    pub create_cwd: bool,
    /// Enter the root without pivot_root(2), which an initramfs does not allow. What the host has mounted stays beneath,
    /// in reach of who may call chroot(2) inside.
    pub no_pivot: bool,
    /// Kill the container and remove its cgroups when this *process* ends, however it ends: a guardian
    /// outside the container sees to it, which nothing inside can undo. The kernel is asked to kill it as well when
    /// the *thread* that called `create` ends (`PR_SET_PDEATHSIG`). For foreground runs, and only from a thread that
    /// lives as long as the container should.
    pub kill_with_parent: bool,
    /// Held by the guardian as long as it lives, for example a locked file that says that the container has an owner.
    pub owner_lock: Option<OwnedFd>,
}

/// Everything that [`HostProcess::create`](crate::HostProcess::create) needs.
#[derive(Debug)]
pub struct HostProcessConfig {
    /// As in [`ContainerConfig::id`].
    pub id: String,
    /// Arguments, environment, working directory, user, rlimits … as for a container. Without `capabilities` the
    /// caller's are kept (as far as the user id keeps them), without `noNewPrivileges` setuid programs work.
    pub process: Process,
    /// The directory that becomes `/`.
    pub rootfs: RootFilesystem,
    /// Mount it read-only; what is mounted in it is not.
    pub read_only: bool,
    /// Bind the host's `/proc`, `/dev` and `/sys` into the root, in a mount namespace of the process's own.
    pub host_filesystems: bool,
    /// More mounts, after those: files that are to look otherwise than the root filesystem has them.
    pub mounts: Vec<Mount>,
    /// The three standard streams.
    pub stdio: Stdio,
    /// Limits, realised by a cgroup just as a container's are.
    pub resources: Option<LinuxResources>,
    /// Where in the cgroup tree.
    pub cgroup: CgroupPlacement,
    /// Whose network it has.
    pub network: HostProcessNetwork,
    /// As in [`ContainerConfig::create_cwd`].
    pub create_cwd: bool,
    /// As in [`ContainerConfig::kill_with_parent`].
    pub kill_with_parent: bool,
    /// As in [`ContainerConfig::owner_lock`].
    pub owner_lock: Option<OwnedFd>,
}

/// Where the root filesystem comes from.
#[derive(Clone, Debug)]
pub enum RootFilesystem {
    /// A directory, used as it is: what the container writes stays in it.
    Directory(PathBuf),
    /// An overlay, mounted over `upper` inside the new mount namespace only: the host never sees the mount, and it
    /// vanishes with the last process. `upper` and `work` must exist and be on one filesystem.
    Overlay {
        /// Read-only layers, topmost first; at least one. The kernel takes up to 500.
        lower: Vec<PathBuf>,
        /// Receives what the container writes.
        upper: PathBuf,
        /// Overlayfs's scratch directory, empty.
        work: PathBuf,
    },
}

/// The three standard streams of the new process.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: Stream,
    /// Descriptor 1.
    pub stdout: Stream,
    /// Descriptor 2.
    pub stderr: Stream,
    /// How many descriptors from 3 on the process gets as they are. They must be open, and the caller's own: what is
    /// open there while the process is made becomes its.
    pub further: u32,
}

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Where one of the three standard streams leads.
#[derive(Debug, Default)]
pub enum Stream {
    /// The caller's own.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// This descriptor. The runtime's copy is closed once the process has been created, so that the other end of a
    /// pipe sees end-of-file when the process ends.
    Descriptor(OwnedFd),
}

impl Stdio {
    /// All three from and to `/dev/null`.
    pub fn null() -> Self {
        Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null, further: 0 }
    }
}

/// Whose network a host process has.
#[derive(Debug, Default)]
pub enum HostProcessNetwork {
    /// The caller's.
    #[default]
    Host,
    /// A network namespace of its own, with a loopback interface that is up.
    Own,
    /// That of this descriptor, as it is.
    Joined(OwnedFd),
}

/// The longest id; leaves room in a file name and in a hostname.
const MAX_ID_LEN: usize = 128;

/// An id becomes a name in the cgroup tree, and must not be a path.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > MAX_ID_LEN || id == "." || id == ".." || !id.bytes().all(allowed)
    {
        let problem = format!("{id:?}: 1 to {MAX_ID_LEN} of A-Z a-z 0-9 _ + - . are allowed");
        return Err(Error::invalid("container id", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_be_paths() {
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id("web-1_x+2.y").is_ok());
    }
}
