//! Control groups: one directory of a container's own in every hierarchy that matters, version 1, 2 or hybrid.
//!
//! Joining a version 1 hierarchy makes the kernel wait for an RCU grace period, once; the hierarchies that follow
//! right behind share it. So all are joined back to back, and the caller overlaps that with other work. Version 2
//! avoids the wait: the process is cloned into its cgroup.

mod awaited;
mod detect;
mod device_program;
mod devices;
pub(crate) mod error;
mod files;
mod freezer;
mod limits;
mod members;
mod oom;
mod placement;
mod stats;
mod usage;
mod v1;
mod v2;

pub(crate) use awaited::Awaited;
pub use awaited::CgroupManager;
pub(crate) use detect::Hierarchies;
pub(crate) use devices::DeviceRules;
pub use error::CgroupError;
pub use limits::weight_from_shares;
pub use members::{Membership, Memberships};
pub use oom::OomWatch;
pub use placement::CgroupPlacement;
pub use stats::Stats;
pub use usage::{BlockUsage, Counter, CpuUsage, MemoryUsage, Usage};

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use crate::error::Error;

/// The period over which a CPU quota is enforced, in microseconds: the kernel's default.
pub const CPU_PERIOD_MICROSECONDS: u64 = 100_000;

/// A container's own cgroup. Dropping it removes it, together with all processes in it.
#[derive(Debug)]
pub(crate) enum Cgroup {
    V1(v1::Cgroup),
    V2(v2::Cgroup),
}

/// What a cgroup mount inside a container shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InnerMount {
    /// The whole of version 2, on `/sys/fs/cgroup`.
    V2,
    /// One directory below `/sys/fs/cgroup` for each (name, version 1 mount data or None for version 2).
    V1(Vec<(String, Option<String>)>),
}

impl Cgroup {
    /// The cgroup that a caller asked for; None if the process stays where the caller is. `path` and `devices` as in
    /// [`Cgroup::create`].
    pub(crate) fn place(
        placement: CgroupPlacement,
        id: &str,
        path: Option<&Path>,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<Option<Cgroup>, Error> {
        match placement {
            CgroupPlacement::Own => Ok(Cgroup::create(id, path, resources, devices)?),
            CgroupPlacement::Inherit | CgroupPlacement::Tracked
                if first_limit(resources).is_some() =>
            {
                let problem = "limits need a cgroup of the container's own, with controllers";
                Err(Error::invalid("linux.resources", problem))
            }
            CgroupPlacement::Tracked => Ok(Cgroup::track(id)?),
            CgroupPlacement::Inherit => Ok(None),
        }
    }

    /// Makes the cgroup and sets the limits. `path`: `linux.cgroupsPath`; `devices`: there will be
    /// [`Cgroup::restrict_devices`].
    ///
    /// Ok(None): no limit was asked for, and the tree is out of reach.
    fn create(
        id: &str,
        path: Option<&Path>,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<Option<Cgroup>, CgroupError> {
        let default = default_path(id);
        let path = path.unwrap_or(&default);
        if path.components().any(|component| component == std::path::Component::ParentDir) {
            return Err(CgroupError::BadPath { path: path.to_path_buf() });
        }
        let made = match Hierarchies::detect()? {
            Hierarchies::V2 { mount_point, base } => {
                v2::Cgroup::create(&mount_point, &base, path, resources).map(Cgroup::V2)
            }
            Hierarchies::V1(hierarchies) => {
                v1::Cgroup::create(&hierarchies, path, resources, devices).map(Cgroup::V1)
            }
            Hierarchies::None => {
                let (controller, purpose) = first_limit(resources).unwrap_or_default();
                Err(CgroupError::NoController { controller: controller.to_owned(), purpose })
            }
        };
        match made {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(error) if error.is_unavailable() && first_limit(resources).is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a cgroup without controllers. Ok(None): there is no version 2 hierarchy, or none that we may write.
    fn track(id: &str) -> Result<Option<Cgroup>, CgroupError> {
        let path = default_path(id);
        let made = match Hierarchies::detect()? {
            Hierarchies::V2 { mount_point, base } => {
                v2::Cgroup::track(&mount_point, &base, &path).map(Cgroup::V2)
            }
            Hierarchies::V1(hierarchies) => match hierarchies.iter().find(|one| one.is_v2()) {
                Some(unified) => {
                    let base = detect::base(&unified.own);
                    v2::Cgroup::track(&unified.mount_point, &base, &path).map(Cgroup::V2)
                }
                None => return Ok(None),
            },
            Hierarchies::None => return Ok(None),
        };
        match made {
            Err(error) if error.is_unavailable() => Ok(None),
            other => other.map(Some),
        }
    }

    /// A descriptor for CLONE_INTO_CGROUP: the version 2 directory.
    pub(crate) fn clone_target(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let Some(path) = self.unified() else { return Ok(None) };
        let open =
            File::open(path).map_err(|source| CgroupError::io("open cgroup", path, source))?;
        Ok(Some(open.into()))
    }

    /// Whether [`Cgroup::join`] has anything left to do for a process cloned into [`Cgroup::clone_target`].
    pub(crate) fn needs_join(&self) -> bool {
        matches!(self, Cgroup::V1(_))
    }

    /// Moves a process into the version 1 hierarchies; see the module's notes on the wait.
    pub(crate) fn join(&self, pid: Pid) -> Result<(), CgroupError> {
        match self {
            Cgroup::V1(cgroup) => cgroup.join(pid),
            Cgroup::V2(_) => Ok(()),
        }
    }

    /// Puts the rules about devices into force. A version 1 host without the controller has nothing to do it by.
    ///
    /// To be called when everything is mounted, which may need more devices, and before the program runs.
    pub(crate) fn restrict_devices(&self, rules: &DeviceRules) -> Result<(), CgroupError> {
        match self {
            Cgroup::V1(cgroup) => cgroup.restrict_devices(rules),
            Cgroup::V2(cgroup) => device_program::attach(cgroup.directory(), rules),
        }
    }

    /// What others may know and do without owning it.
    pub(crate) fn memberships(&self) -> Memberships {
        match self {
            Cgroup::V1(cgroup) => cgroup.memberships(),
            Cgroup::V2(cgroup) => cgroup.memberships(),
        }
    }

    /// Leaves the cgroup to those who know its directories.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }

    pub(crate) fn inner_mount(&self) -> InnerMount {
        match self {
            Cgroup::V1(cgroup) => InnerMount::V1(cgroup.inner_mounts()),
            Cgroup::V2(_) => InnerMount::V2,
        }
    }

    /// Kills whatever is left and removes the directories.
    pub(crate) fn remove(&mut self) -> Result<(), CgroupError> {
        match self {
            Cgroup::V1(cgroup) => cgroup.remove(),
            Cgroup::V2(cgroup) => cgroup.remove(),
        }
    }

    fn unified(&self) -> Option<&Path> {
        match self {
            Cgroup::V1(cgroup) => cgroup.unified(),
            Cgroup::V2(cgroup) => Some(cgroup.directory()),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Nobody is left to tell; `remove` is there for those who want to know.
        let _ = self.remove();
    }
}

/// Without a parent of ours above it: to make and to remove one takes a millisecond of each start.
fn default_path(id: &str) -> PathBuf {
    format!("isolab-{id}").into()
}

/// `LinuxResources::default()` of the OCI types denies all devices, which is a limit of its own.
pub(crate) fn no_limits() -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources
}

/// The first controller that `resources` asks to limit by, and the field that does.
fn first_limit(resources: &LinuxResources) -> Option<(&'static str, String)> {
    let wanted = limits::wanted(resources);
    let of = |one: &limits::Wanted| {
        (one.name(limits::Version::One), format!("linux.resources.{}", one.field))
    };
    let unified = resources.unified().as_ref().is_some_and(|unified| !unified.is_empty());
    let unified = || unified.then(|| ("of version 2", "linux.resources.unified".to_owned()));
    wanted.first().map(of).or_else(unified)
}

/// Kills everything in these cgroups and below them, and removes them: what [`Instance::cgroup_directories`] named of
/// an instance whose runtime was killed. One that is gone already is no error.
///
/// [`Instance::cgroup_directories`]: crate::Instance::cgroup_directories
///
/// # Errors
/// A path that is no cgroup, or one that cannot be removed; the others are removed all the same.
pub fn remove_cgroups(directories: &[PathBuf]) -> Result<(), CgroupError> {
    let mut first_error = Ok(());
    let mut found = Vec::new();
    for directory in directories {
        match statfs(directory).map(|fs| fs.filesystem_type()) {
            Ok(CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC) => found.push(directory),
            Ok(_) => {
                let error = CgroupError::NotACgroup { path: directory.clone() };
                first_error = first_error.and(Err(error));
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                let error = CgroupError::io("look at cgroup", directory, errno.into());
                first_error = first_error.and(Err(error));
            }
        }
    }
    // All of them first, so that no process of one of them lives on to make more in another.
    found.iter().for_each(|directory| v2::kill_all(directory));
    for directory in found {
        first_error = first_error.and(files::remove(directory));
    }
    first_error
}

/// Removes the cgroup that a container would have, by [`ContainerConfig::id`](crate::ContainerConfig::id) and
/// `linux.cgroupsPath`, where nobody is in it, and waits a moment for who is about to end. One with processes is somebody
/// else's, and stays.
pub fn remove_empty_cgroup(id: &str, path: Option<&Path>) {
    let default = default_path(id);
    let path = path.unwrap_or(&default);
    if path.components().any(|component| component == std::path::Component::ParentDir) {
        return;
    }
    let from_top = path.strip_prefix("/").ok();
    let directories: Vec<PathBuf> = match Hierarchies::detect() {
        Ok(Hierarchies::V2 { mount_point, base }) => {
            vec![mount_point.join(from_top.map_or_else(|| base.join(path), Path::to_path_buf))]
        }
        Ok(Hierarchies::V1(hierarchies)) => {
            let below = |own: &Path| from_top.map_or_else(|| own.join(path), Path::to_path_buf);
            hierarchies.iter().map(|one| one.mount_point.join(below(&one.own))).collect()
        }
        _ => Vec::new(),
    };
    directories.iter().for_each(|directory| files::remove_empty(directory));
}

/// Sends a signal to every process of a `cgroup.procs` file.
fn signal_all(directory: &Path, signal: Signal) {
    for pid in files::read_pids(directory) {
        // Already gone is what we want.
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxCpuBuilder, LinuxResourcesBuilder};

    #[test]
    fn a_path_out_of_the_tree_is_refused() {
        let resources = LinuxResources::default();
        let error =
            Cgroup::create("x", Some(Path::new("/a/../../b")), &resources, true).unwrap_err();
        assert!(matches!(error, CgroupError::BadPath { .. }));
    }

    #[test]
    fn only_cgroups_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let error = remove_cgroups(&[dir.path().join("gone"), dir.path().into()]).unwrap_err();
        assert!(matches!(error, CgroupError::NotACgroup { path } if path == dir.path()));
        assert!(dir.path().exists());
    }

    #[test]
    fn limits_name_their_controllers_and_fields() {
        let cpu = LinuxCpuBuilder::default().shares(512u64).build().unwrap();
        let resources = LinuxResourcesBuilder::default().cpu(cpu).build().unwrap();
        let expected = Some(("cpu", "linux.resources.cpu.shares".to_owned()));
        assert_eq!(first_limit(&resources), expected);
        assert_eq!(first_limit(&LinuxResourcesBuilder::default().build().unwrap()), None);
    }
}
