//! Version 2: one hierarchy, controllers enabled from the top down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{
    CPU_PERIOD_MICROSECONDS, CgroupError, Membership, Memberships, files, freezer, limits,
    refuse_unsupported, signal_all,
};

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
        refuse_unsupported(resources)?;
        let cgroup = Self::track(mount_point, base, path)?;
        let made =
            cgroup.enable_controllers(&limits(resources)).and_then(|()| cgroup.limit(resources));
        match made {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                // The error that brought us here is the one to report.
                let _ = files::remove(&cgroup.directory);
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

    /// Enables controllers for the children of every cgroup above ours. `required`: those that limits need.
    fn enable_controllers(&self, required: &[&str]) -> Result<(), CgroupError> {
        let required: Vec<&str> =
            required.iter().copied().filter(|name| *name != "unified").collect();
        let mut above = files::parents(&self.mount_point, &self.directory);
        above.push(self.mount_point.clone());
        for directory in above.iter().rev() {
            let enabled = files::read(directory, "cgroup.subtree_control").unwrap_or_default();
            let is_enabled = |name: &str| enabled.split_whitespace().any(|known| known == name);
            let optional = ALWAYS.iter().copied().filter(|name| !required.contains(name));
            for name in required.iter().copied().chain(optional).filter(|name| !is_enabled(name)) {
                let enabled = enable(directory, name);
                if required.contains(&name) {
                    enabled?;
                }
            }
        }
        Ok(())
    }

    fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let write = |file: &str, value: &str| files::write(&self.directory, file, value);
        if let Some(memory) = resources.memory() {
            self.limit_memory(memory)?;
        }
        if let Some(cpu) = resources.cpu() {
            self.limit_cpu(cpu)?;
        }
        if let Some(pids) = resources.pids() {
            write("pids.max", &limit_or_max(pids.limit()))?;
        }
        for (file, value) in resources.unified().iter().flatten() {
            let plain = !file.is_empty() && !file.contains('/') && !file.starts_with("cgroup.");
            if !plain {
                return Err(CgroupError::BadPath { path: file.into() });
            }
            write(file, value)?;
        }
        Ok(())
    }

    fn limit_memory(&self, memory: &LinuxMemory) -> Result<(), CgroupError> {
        let write = |file: &str, value: &str| files::write(&self.directory, file, value);
        if let Some(limit) = memory.limit() {
            write("memory.max", &limit_or_max(limit))?;
        }
        if let Some(reservation) = memory.reservation() {
            write("memory.low", &limit_or_max(reservation))?;
        }
        let Some(total) = memory.swap() else { return Ok(()) };
        let swap = swap_max(total, memory.limit());
        // A kernel without swap has no such file, and no swap to limit.
        if swap == "0" && !self.directory.join("memory.swap.max").exists() {
            return Ok(());
        }
        write("memory.swap.max", &swap)
    }

    fn limit_cpu(&self, cpu: &LinuxCpu) -> Result<(), CgroupError> {
        let write = |file: &str, value: &str| files::write(&self.directory, file, value);
        // Zero is "unset" in the configurations that Docker writes.
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            write("cpu.weight", &weight_from_shares(shares).to_string())?;
        }
        if cpu.quota().is_some() || cpu.period().is_some() {
            let quota = limit_or_max(cpu.quota().unwrap_or(-1));
            let period = cpu.period().unwrap_or(CPU_PERIOD_MICROSECONDS);
            write("cpu.max", &format!("{quota} {period}"))?;
        }
        if let Some(cpus) = cpu.cpus() {
            write("cpuset.cpus", cpus)?;
        }
        if let Some(mems) = cpu.mems() {
            write("cpuset.mems", mems)?;
        }
        Ok(())
    }
}

fn enable(directory: &Path, controller: &str) -> Result<(), CgroupError> {
    files::write(directory, "cgroup.subtree_control", &format!("+{controller}")).map_err(|error| {
        match error {
            CgroupError::Refused { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                CgroupError::InternalProcesses { path: directory.to_path_buf() }
            }
            // EINVAL: not a controller of this kernel; ENOENT: not enabled above.
            CgroupError::Refused { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) =>
            {
                CgroupError::NoController { controller: controller.to_owned() }
            }
            other => other,
        }
    })
}

/// OCI: a negative limit, or a zero one, is none.
fn limit_or_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
}

/// The OCI `swap` is memory and swap together, as in version 1; `memory.swap.max` is swap alone.
fn swap_max(total: i64, memory: Option<i64>) -> String {
    match memory {
        _ if total < 0 => "max".to_owned(),
        Some(memory) if memory > 0 => total.saturating_sub(memory).max(0).to_string(),
        _ => "max".to_owned(),
    }
}

/// The conversion of the OCI specification (config-linux.md, "CPU"): [2, 262144] onto [1, 10000].
fn weight_from_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!(
            [2, 1024, 262_144, 0, u64::MAX].map(weight_from_shares),
            [1, 39, 10_000, 1, 10_000]
        );
    }

    #[test]
    fn swap_is_what_remains_above_memory() {
        assert_eq!(swap_max(100, Some(100)), "0");
        assert_eq!(swap_max(150, Some(100)), "50");
        assert_eq!(swap_max(-1, Some(100)), "max");
        assert_eq!(swap_max(100, None), "max");
    }

    #[test]
    fn zero_and_negative_limits_are_none() {
        assert_eq!([-1, 0, 5].map(limit_or_max), ["max", "max", "5"]);
    }
}
