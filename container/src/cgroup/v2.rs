//! Version 2: one hierarchy, controllers enabled from the top down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use oci_spec::runtime::LinuxResources;

use super::limits::{self, Version};
use super::{CgroupError, Membership, Memberships, files, freezer, signal_all};

/// Enabled where possible, for the figures, even when nothing is limited.
const ALWAYS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// How long to wait for killed processes to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A cgroup in the unified hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    mount_point: PathBuf,
    directory: PathBuf,
    removed: bool,
}

impl Cgroup {
    pub(super) fn create(
        mount_point: &Path,
        base: &Path,
        path: &Path,
        resources: &LinuxResources,
    ) -> Result<Self, CgroupError> {
        let cgroup = Self::track(mount_point, base, path)?;
        cgroup.limited(resources)
    }

    /// What a manager has made around a process.
    pub(super) fn adopted(
        mount_point: &Path,
        path: &Path,
        resources: &LinuxResources,
    ) -> Result<Self, CgroupError> {
        let directory = directory(mount_point, path);
        let cgroup = Cgroup { mount_point: mount_point.to_path_buf(), directory, removed: false };
        cgroup.limited(resources)
    }

    fn limited(self, resources: &LinuxResources) -> Result<Self, CgroupError> {
        match self.limit(resources) {
            Ok(()) => Ok(self),
            Err(error) => {
                kill_all(&self.directory);
                // The error that brought us here is the one to report.
                let _ = files::remove(&self.directory);
                Err(error)
            }
        }
    }

    /// Makes the directory, without asking for controllers. A relative `path` begins at `base`.
    pub(super) fn track(mount_point: &Path, base: &Path, path: &Path) -> Result<Self, CgroupError> {
        let directory = match path.strip_prefix("/") {
            Ok(from_top) => mount_point.join(from_top),
            Err(_) => mount_point.join(base).join(path),
        };
        files::make(mount_point, &directory)?;
        Ok(Cgroup { mount_point: mount_point.to_path_buf(), directory, removed: false })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn memberships(&self) -> Memberships {
        Memberships(vec![Membership { controllers: Vec::new(), directory: self.directory.clone() }])
    }

    pub(super) fn remove(&mut self) -> Result<(), CgroupError> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        kill_all(&self.directory);
        files::remove(&self.directory)
    }

    fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let wanted = limits::wanted(resources);
        let purpose = |field: &str| format!("linux.resources.{field}");
        let mut required: Vec<(&str, String)> = wanted
            .iter()
            .map(|wanted| (wanted.name(Version::Two), purpose(wanted.field)))
            .collect();
        for (controller, file, _) in limits::unified(resources)? {
            required.push((controller, purpose(&format!("unified ({file})"))));
        }
        // A controller that version 2 does not have is told of as such.
        for wanted in &wanted {
            wanted.check(Version::Two, resources)?;
        }
        enable_controllers(&self.mount_point, &self.directory, &required, &ALWAYS)?;
        for wanted in wanted {
            wanted.set(Version::Two, resources, &self.directory)?;
        }
        limits::set_unified(resources, &self.directory)
    }
}

/// The directory of a cgroup that is named from the top on.
pub(super) fn directory(mount_point: &Path, path: &Path) -> PathBuf {
    mount_point.join(path.strip_prefix("/").unwrap_or(path))
}

/// Enables controllers for the children of every cgroup above `leaf`. `required`: those that limits need, and which.
pub(super) fn enable_controllers(
    mount_point: &Path,
    leaf: &Path,
    required: &[(&str, String)],
    optional: &[&str],
) -> Result<(), CgroupError> {
    let mut above = files::parents(mount_point, leaf);
    above.push(mount_point.to_path_buf());
    for directory in above.iter().rev() {
        let enabled = files::read(directory, "cgroup.subtree_control").unwrap_or_default();
        let is_enabled = |name: &str| enabled.split_whitespace().any(|known| known == name);
        for (name, purpose) in required.iter().filter(|(name, _)| !is_enabled(name)) {
            enable(directory, name, purpose)?;
        }
        let others = optional.iter().filter(|name| !required.iter().any(|(one, _)| one == *name));
        for name in others.filter(|name| !is_enabled(name)) {
            // For the figures alone.
            let _ = enable(directory, name, "");
        }
    }
    Ok(())
}

fn enable(directory: &Path, controller: &str, purpose: &str) -> Result<(), CgroupError> {
    files::write(directory, "cgroup.subtree_control", &format!("+{controller}")).map_err(|error| {
        match error {
            CgroupError::Refused { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                CgroupError::InternalProcesses { path: directory.to_path_buf() }
            }
            // EINVAL: not a controller of this kernel; ENOENT: not enabled above.
            CgroupError::Refused { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) =>
            {
                CgroupError::NoController {
                    controller: controller.to_owned(),
                    purpose: purpose.to_owned(),
                }
            }
            other => other,
        }
    })
}

/// Kills every process of the cgroup and waits until they are gone, or for [`KILL_TIMEOUT`].
pub(super) fn kill_all(directory: &Path) {
    // Linux 5.14 and newer; atomic, so a fork bomb cannot outrun it.
    if files::write(directory, "cgroup.kill", "1").is_err() {
        signal_all(directory, Signal::SIGKILL);
    }
    // What fails or lasts too long, the removal tells.
    let _ = freezer::wait_for_event(directory, "populated 0", KILL_TIMEOUT);
}
