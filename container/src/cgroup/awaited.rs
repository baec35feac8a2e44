//! A cgroup that somebody else makes, around a process that is there already, as service managers do which own the tree.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use super::detect::Hierarchy;
use super::{Cgroup, Hierarchies, InnerMount, v1, v2};
use crate::error::{Error, Result};

/// Who makes a container's cgroup in place of the runtime.
pub trait CgroupManager: fmt::Debug {
    /// The cgroup it will make, from the top of each hierarchy on: an absolute path.
    fn path(&self) -> &Path;

    /// Makes it, with this process in it, and returns when that is done. The runtime makes it in the hierarchies that the
    /// manager has none in, and sets the limits besides.
    ///
    /// # Errors
    /// The manager is out of reach, or refuses.
    fn adopt(&mut self, pid: i32) -> io::Result<()>;
}

/// A cgroup that is to be made when the process is there.
#[derive(Debug)]
pub(crate) struct Awaited {
    manager: Box<dyn CgroupManager>,
    hierarchies: Hierarchies,
    resources: LinuxResources,
    devices: bool,
}

impl Awaited {
    /// `resources`, `devices`: as of [`Cgroup::place`].
    pub(crate) fn new(
        manager: Box<dyn CgroupManager>,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<Self> {
        // None at all is none of version 1: what the resources need is missing then.
        let hierarchies = match Hierarchies::detect()? {
            Hierarchies::None => Hierarchies::V1(Vec::new()),
            some => some,
        };
        Ok(Awaited { manager, hierarchies, resources: resources.clone(), devices })
    }

    /// What a cgroup mount inside will show, and the directories on the host, in the same order.
    pub(crate) fn shape(&self) -> Result<(InnerMount, Vec<PathBuf>)> {
        Ok(match &self.hierarchies {
            Hierarchies::V1(hierarchies) => {
                let (inner, directories) = self.planned(hierarchies)?.shape();
                (InnerMount::V1(inner), directories)
            }
            Hierarchies::V2 { mount_point, .. } => {
                (InnerMount::V2, vec![v2::directory(mount_point, self.manager.path())])
            }
            // By `new` there is none without any.
            Hierarchies::None => (InnerMount::V1(Vec::new()), Vec::new()),
        })
    }

    /// Has it made, and what the manager leaves to the runtime.
    pub(crate) fn adopt(mut self, pid: Pid) -> Result<Cgroup> {
        let path = self.manager.path().display().to_string();
        let adopted = self.manager.adopt(pid.as_raw());
        adopted.map_err(|source| Error::host(format!("have cgroup {path} made"), source))?;
        let resources = &self.resources;
        Ok(match &self.hierarchies {
            Hierarchies::V2 { mount_point, .. } => {
                Cgroup::V2(v2::Cgroup::adopted(mount_point, self.manager.path(), resources)?)
            }
            Hierarchies::V1(hierarchies) => {
                Cgroup::V1(v1::Cgroup::adopted(self.planned(hierarchies)?, resources, pid)?)
            }
            Hierarchies::None => Cgroup::V1(v1::Cgroup::none()),
        })
    }

    fn planned(&self, hierarchies: &[Hierarchy]) -> Result<v1::Planned> {
        let path = self.manager.path();
        Ok(v1::Planned::new(hierarchies, path, &self.resources, self.devices)?)
    }
}
