//! A container's cgroups as anybody may look at them who knows their directories: what is done to a container that
//! runs, without owning it.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use super::limits::{self, Version};
use super::{CgroupError, files, freezer, v2};

/// A cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The hierarchy's controllers, or `name=…`; none for version 2.
    pub controllers: Vec<String>,
    /// Its directory on the host.
    pub directory: PathBuf,
}

/// All cgroups of a container, at most one in a hierarchy; none where it has none of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memberships(pub Vec<Membership>);

impl Memberships {
    /// The version 2 directory: the only one on a host of version 2.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.0.iter().find(|one| one.controllers.is_empty()).map(|one| one.directory.as_path())
    }

    /// The version 1 directory of a controller.
    pub(crate) fn version_1(&self, controller: &str) -> Option<&Path> {
        let has = |one: &&Membership| one.controllers.iter().any(|known| known == controller);
        self.0.iter().find(has).map(|one| one.directory.as_path())
    }

    /// The directories, for an operator's eyes.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.0.iter().map(|one| one.directory.clone()).collect()
    }

    /// Moves a process into the version 1 hierarchies; see the notes of `cgroup` on the wait.
    pub(crate) fn join_version_1(&self, pid: Pid) -> Result<(), CgroupError> {
        for one in self.0.iter().filter(|one| !one.controllers.is_empty()) {
            files::write(&one.directory, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn needs_version_1(&self) -> bool {
        self.0.iter().any(|one| !one.controllers.is_empty())
    }

    /// The processes in them and below them, without threads, in ascending order. None where there is no cgroup.
    pub(crate) fn processes(&self) -> Option<Vec<Pid>> {
        let directory =
            self.unified().or_else(|| self.0.first().map(|one| one.directory.as_path()));
        let mut pids = Vec::new();
        collect(directory?, &mut pids);
        pids.sort_unstable();
        pids.dedup();
        Some(pids)
    }

    /// Makes all processes stand still, or go on, and waits until they do.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        if let Some(unified) = self.unified() {
            return freezer::freeze_v2(unified, frozen);
        }
        match self.version_1("freezer") {
            Some(directory) => freezer::freeze_v1(directory, frozen),
            None => Err(CgroupError::NoController {
                controller: "freezer".to_owned(),
                purpose: "a pause".to_owned(),
            }),
        }
    }

    /// Sets limits, which the kernel holds all processes to from then on. What `resources` does not mention, and the
    /// rules about devices, stay as they are.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] where it is in no cgroup that could limit; otherwise what the kernel or its
    /// version of cgroups has against a limit. Those before it in the configuration are set then.
    pub fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        for wanted in limits::wanted(resources) {
            if let Some(directory) = self.version_1(wanted.name(Version::One)) {
                wanted.set(Version::One, resources, directory)?;
                continue;
            }
            let name = wanted.name(Version::Two);
            let has = |directory: &&Path| {
                files::read(directory, "cgroup.controllers")
                    .is_some_and(|text| text.split_whitespace().any(|known| known == name))
            };
            match self.unified().filter(has) {
                Some(directory) => wanted.set(Version::Two, resources, directory)?,
                None => return Err(wanted.missing(Version::One)),
            }
        }
        match self.unified() {
            Some(directory) if !self.needs_version_1() => limits::set_unified(resources, directory),
            _ if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) => {
                Err(CgroupError::Unsupported { field: "unified", on: "on cgroup v1" })
            }
            _ => Ok(()),
        }
    }

    /// Whether they stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        match (self.unified(), self.version_1("freezer")) {
            (Some(unified), _) => files::read_number(unified, "cgroup.freeze") == Some(1),
            (None, Some(directory)) => files::read(directory, "freezer.state")
                .is_some_and(|state| state.trim() != "THAWED"),
            (None, None) => false,
        }
    }

    /// Sends a signal to all processes. None is missed: they stand still meanwhile where that can be. False: there is
    /// no cgroup to know them by.
    pub(crate) fn signal_all(&self, signal: i32) -> bool {
        if signal == libc::SIGKILL
            && let Some(unified) = self.unified()
            && files::write(unified, "cgroup.kill", "1").is_ok()
        {
            return true;
        }
        let was_frozen = self.is_frozen();
        let stopped = !was_frozen && self.freeze(true).is_ok();
        let processes = self.processes();
        for pid in processes.iter().flatten() {
            // SAFETY: integers only. One that has gone already is what we want.
            unsafe { libc::kill(pid.as_raw(), signal) };
        }
        // Of version 1's freezer even SIGKILL has to wait for the thaw.
        if stopped || was_frozen && signal == libc::SIGKILL {
            // They have the signal, which is what was asked for.
            let _ = self.freeze(false);
        }
        processes.is_some()
    }

    /// Kills everything in them and removes them.
    ///
    /// # Errors
    /// One that cannot be removed; the others are removed all the same.
    pub fn remove(&self) -> Result<(), CgroupError> {
        match self.unified() {
            // All of them are in it; whom root has moved about, the removal finds.
            Some(unified) => v2::kill_all(unified),
            None => {
                self.0.iter().for_each(|one| super::signal_all(&one.directory, Signal::SIGKILL))
            }
        }
        let mut first_error = Ok(());
        for one in &self.0 {
            let removed = files::remove(&one.directory);
            first_error = first_error.and(removed);
        }
        first_error
    }
}

/// The kernel bounds the depth by the length of a path.
fn collect(directory: &Path, pids: &mut Vec<Pid>) {
    pids.extend(files::read_pids(directory));
    // What goes while we look takes its processes along.
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_those_of_all_descendants_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for (sub, pids) in [("", "7\n5\n0\n"), ("a", "9\n"), ("a/b", "5\n11\n")] {
            std::fs::write(dir.path().join(sub).join("cgroup.procs"), pids).unwrap();
        }
        let one = Membership { controllers: vec![], directory: dir.path().into() };
        let pids = Memberships(vec![one]).processes().unwrap();
        assert_eq!(pids, [5, 7, 9, 11].map(Pid::from_raw));
        assert_eq!(Memberships::default().processes(), None);
    }
}
