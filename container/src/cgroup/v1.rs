//! Version 1: a hierarchy for each controller, and perhaps a version 2 hierarchy beside them, used for its
//! `cgroup.kill` and for knowing all processes of the container.

use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use super::detect::Hierarchy;
use super::limits::{self, Version};
use super::{CgroupError, DeviceRules, Membership, Memberships, device_program, files, v2};

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
        let Planned { members, wanted_of_2 } = Planned::new(hierarchies, path, resources, devices)?;
        // From here on `cgroup` removes, when dropped, what has been made so far.
        let mut cgroup = Cleanup(Cgroup { members: Vec::new() });
        for member in members {
            match files::make(&member.mount_point, &member.directory) {
                Ok(()) => {}
                // Its services are a convenience where the limits are in the others.
                Err(_) if member.is_v2() && wanted_of_2.is_empty() => continue,
                Err(error) => return Err(error),
            }
            member.prepare(&wanted_of_2)?;
            cgroup.0.members.push(member);
        }
        cgroup.0.memberships().limit(resources)?;
        Ok(cgroup.keep())
    }

    /// As [`Cgroup::create`], around a process that a manager has put into those that it makes.
    pub(super) fn adopted(
        planned: Planned,
        resources: &LinuxResources,
        pid: Pid,
    ) -> Result<Self, CgroupError> {
        let Planned { members, wanted_of_2 } = planned;
        let cgroup = Cleanup(Cgroup { members });
        for member in &cgroup.0.members {
            let made = std::fs::create_dir_all(&member.directory);
            made.map_err(|source| CgroupError::io("create cgroup", &member.directory, source))?;
            member.prepare(&wanted_of_2)?;
            if member.is_v2() {
                files::write(&member.directory, "cgroup.procs", &pid.to_string())?;
            }
        }
        cgroup.0.memberships().limit(resources)?;
        Ok(cgroup.keep())
    }

    pub(super) fn none() -> Self {
        Cgroup { members: Vec::new() }
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
        self.members.iter().map(Member::inner_mount).collect()
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
}

/// Where the members of a cgroup will be.
pub(super) struct Planned {
    members: Vec<Member>,
    /// Controllers of the version 2 part of a hybrid host that limits need, and which limits.
    wanted_of_2: Vec<(&'static str, String)>,
}

impl Planned {
    pub(super) fn new(
        hierarchies: &[Hierarchy],
        path: &Path,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<Self, CgroupError> {
        let limits = limits::wanted(resources);
        let mut wanted = Vec::new();
        let mut wanted_of_2 = Vec::new();
        for limit in &limits {
            let names = [Version::One, Version::Two].map(|version| limit.name(version));
            if hierarchies.iter().any(|one| one.has(names[0])) {
                limit.check(Version::One, resources)?;
                wanted.push(names[0]);
            } else if hierarchies.iter().any(|one| one.offers(names[1])) {
                limit.check(Version::Two, resources)?;
                wanted_of_2.push((names[1], format!("linux.resources.{}", limit.field)));
            } else {
                return Err(limit.missing(Version::One));
            }
        }
        if devices {
            wanted.push("devices");
        }
        // Where there is no version 2 hierarchy to pause by.
        if !hierarchies.iter().any(Hierarchy::is_v2) {
            wanted.push("freezer");
        }
        let relevant =
            |name: &String| ALWAYS.contains(&name.as_str()) || wanted.contains(&name.as_str());
        let member = |hierarchy: &Hierarchy| Member {
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            directory: match path.strip_prefix("/") {
                Ok(from_top) => hierarchy.mount_point.join(from_top),
                Err(_) => hierarchy.mount_point.join(&hierarchy.own).join(path),
            },
        };
        let needed = |one: &&Hierarchy| one.is_v2() || one.controllers.iter().any(relevant);
        let members = hierarchies.iter().filter(needed).map(member).collect();
        Ok(Planned { members, wanted_of_2 })
    }

    /// As [`Cgroup::inner_mounts`] and [`Memberships::directories`] will be.
    pub(super) fn shape(&self) -> (Vec<(String, Option<String>)>, Vec<PathBuf>) {
        self.members.iter().map(|one| (one.inner_mount(), one.directory.clone())).unzip()
    }
}

impl Member {
    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    fn prepare(&self, wanted_of_2: &[(&str, String)]) -> Result<(), CgroupError> {
        if self.is_v2() {
            v2::enable_controllers(&self.mount_point, &self.directory, wanted_of_2, &[])?;
        }
        match self.controllers.iter().any(|name| name == "cpuset") {
            true => inherit_cpuset(&self.mount_point, &self.directory),
            false => Ok(()),
        }
    }

    fn inner_mount(&self) -> (String, Option<String>) {
        let name = self.mount_point.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, (!self.is_v2()).then(|| self.controllers.join(",")))
    }
}

/// In version 1 a cpuset is empty, and useless, until both of its files are written, from the top down.
fn inherit_cpuset(mount_point: &Path, leaf: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut inherited = files::read(mount_point, file).unwrap_or_default();
        let parents = files::parents(mount_point, leaf);
        for directory in parents.iter().map(PathBuf::as_path).rev().chain([leaf]) {
            let own = files::read(directory, file).unwrap_or_default();
            if own.trim().is_empty() {
                files::write(directory, file, inherited.trim())?;
            } else {
                inherited = own;
            }
        }
    }
    Ok(())
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
