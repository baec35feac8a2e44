//! Version 1: a hierarchy for each controller, and perhaps a version 2 hierarchy beside them, used for its
//! `cgroup.kill` and for knowing all processes of the container.

use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::detect::Hierarchy;
use super::{
    CgroupError, DeviceRules, Membership, Memberships, device_program, files, limits,
    refuse_unsupported,
};

/// Joined where they exist, for the figures, even when nothing is limited.
const ALWAYS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "blkio"];

/// A cgroup in several hierarchies.
#[derive(Debug)]
pub(crate) struct Cgroup {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    controllers: Vec<String>,
    mount_point: PathBuf,
    directory: PathBuf,
}

impl Cgroup {
    pub(super) fn create(
        hierarchies: &[Hierarchy],
        path: &Path,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<Self, CgroupError> {
        refuse_unsupported(resources)?;
        let mut wanted = limits(resources);
        if wanted.contains(&"unified") {
            return Err(CgroupError::Unsupported { field: "unified", on: "on cgroup v1" });
        }
        let has = |name: &str| {
            hierarchies.iter().any(|one| one.controllers.iter().any(|known| known == name))
        };
        if let Some(missing) = wanted.iter().find(|name| !has(name)) {
            return Err(CgroupError::NoController { controller: (*missing).to_owned() });
        }
        if devices {
            wanted.push("devices");
        }
        // Where there is no version 2 hierarchy to pause by.
        if !hierarchies.iter().any(Hierarchy::is_v2) {
            wanted.push("freezer");
        }
        // From here on `cgroup` removes, when dropped, what has been made so far.
        let mut cgroup = Cleanup(Cgroup { members: Vec::new() });
        for hierarchy in hierarchies {
            let relevant =
                |name: &String| ALWAYS.contains(&name.as_str()) || wanted.contains(&name.as_str());
            if !hierarchy.is_v2() && !hierarchy.controllers.iter().any(relevant) {
                continue;
            }
            let directory = match path.strip_prefix("/") {
                Ok(from_top) => hierarchy.mount_point.join(from_top),
                Err(_) => hierarchy.mount_point.join(&hierarchy.own).join(path),
            };
            match files::make(&hierarchy.mount_point, &directory) {
                Ok(()) => {}
                // Its services are a convenience; the limits are in the others.
                Err(_) if hierarchy.is_v2() => continue,
                Err(error) => return Err(error),
            }
            let (controllers, mount_point) =
                (hierarchy.controllers.clone(), hierarchy.mount_point.clone());
            cgroup.0.members.push(Member { controllers, mount_point, directory });
        }
        cgroup.0.limit(resources)?;
        Ok(cgroup.keep())
    }

    pub(super) fn join(&self, pid: Pid) -> Result<(), CgroupError> {
        // The process was cloned into the version 2 part already.
        self.memberships().join_version_1(pid)
    }

    pub(super) fn restrict_devices(&self, rules: &DeviceRules) -> Result<(), CgroupError> {
        let Some(directory) = self.directory_of("devices") else {
            return self.unified().map_or(Ok(()), |unified| device_program::attach(unified, rules));
        };
        for (file, rule) in rules.version_1()? {
            files::write(directory, file, &rule)?;
        }
        Ok(())
    }

    pub(super) fn unified(&self) -> Option<&Path> {
        self.members
            .iter()
            .find(|member| member.controllers.is_empty())
            .map(|member| member.directory.as_path())
    }

    pub(super) fn memberships(&self) -> Memberships {
        let one = |member: &Member| Membership {
            controllers: member.controllers.clone(),
            directory: member.directory.clone(),
        };
        Memberships(self.members.iter().map(one).collect())
    }

    pub(super) fn inner_mounts(&self) -> Vec<(String, Option<String>)> {
        let name = |member: &Member| {
            let name =
                member.mount_point.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let data = (!member.controllers.is_empty()).then(|| member.controllers.join(","));
            (name, data)
        };
        self.members.iter().map(name).collect()
    }

    pub(super) fn remove(&mut self) -> Result<(), CgroupError> {
        let memberships = self.memberships();
        self.members.clear();
        memberships.remove()
    }

    fn directory_of(&self, controller: &str) -> Option<&Path> {
        let has = |member: &&Member| member.controllers.iter().any(|known| known == controller);
        self.members.iter().find(has).map(|member| member.directory.as_path())
    }

    fn write(&self, controller: &str, file: &str, value: impl ToString) -> Result<(), CgroupError> {
        match self.directory_of(controller) {
            Some(directory) => files::write(directory, file, &value.to_string()),
            None => Err(CgroupError::NoController { controller: controller.to_owned() }),
        }
    }

    fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(memory) = resources.memory() {
            self.limit_memory(memory)?;
        }
        if let Some(cpu) = resources.cpu() {
            self.limit_cpu(cpu)?;
        }
        if let Some(pids) = resources.pids() {
            let max = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
            self.write("pids", "pids.max", max)?;
        }
        Ok(())
    }

    fn limit_memory(&self, memory: &LinuxMemory) -> Result<(), CgroupError> {
        if let Some(limit) = memory.limit() {
            self.write("memory", "memory.limit_in_bytes", limit)?;
        }
        if let Some(reservation) = memory.reservation() {
            self.write("memory", "memory.soft_limit_in_bytes", reservation)?;
        }
        let Some(swap) = memory.swap() else { return Ok(()) };
        let file = "memory.memsw.limit_in_bytes";
        let accounted =
            self.directory_of("memory").is_some_and(|directory| directory.join(file).exists());
        // A kernel without swap accounting cannot keep the promise "no swap" on a host that swaps; neither can we
        // there, and every runtime accepts that.
        if !accounted && memory.limit() == Some(swap) {
            return Ok(());
        }
        self.write("memory", file, swap)
    }

    fn limit_cpu(&self, cpu: &LinuxCpu) -> Result<(), CgroupError> {
        if let Some(shares) = cpu.shares() {
            self.write("cpu", "cpu.shares", shares)?;
        }
        if let Some(period) = cpu.period() {
            self.write("cpu", "cpu.cfs_period_us", period)?;
        }
        if let Some(quota) = cpu.quota() {
            self.write("cpu", "cpu.cfs_quota_us", quota)?;
        }
        if cpu.cpus().is_none() && cpu.mems().is_none() {
            return Ok(());
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            self.fill_cpuset(file, value.as_deref())?;
        }
        Ok(())
    }

    /// In version 1 a cpuset is empty, and useless, until both of its files are written, from the top down.
    fn fill_cpuset(&self, file: &str, value: Option<&str>) -> Result<(), CgroupError> {
        let has = |member: &&Member| member.controllers.iter().any(|known| known == "cpuset");
        let Some(member) = self.members.iter().find(has) else {
            return Err(CgroupError::NoController { controller: "cpuset".to_owned() });
        };
        let mut inherited = files::read(&member.mount_point, file).unwrap_or_default();
        for parent in files::parents(&member.mount_point, &member.directory).iter().rev() {
            let own = files::read(parent, file).unwrap_or_default();
            if own.trim().is_empty() {
                files::write(parent, file, inherited.trim())?;
            } else {
                inherited = own;
            }
        }
        files::write(&member.directory, file, value.unwrap_or(inherited.trim()))
    }
}

/// Removes a half-made cgroup.
struct Cleanup(Cgroup);

impl Cleanup {
    fn keep(mut self) -> Cgroup {
        Cgroup { members: std::mem::take(&mut self.0.members) }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // The error that brought us here is the one to report.
        let _ = self.0.remove();
    }
}
