//! All of a container's root filesystem: the root itself, and what is put into it.

use std::os::fd::BorrowedFd;

use super::cgroup_mount::CgroupMountPlan;
use super::devices::{self, DevicePlan};
use super::mask;
use super::mounts::MountPlan;
use super::resolve::InnerPath;
use super::root::RootPlan;
use crate::step::{Failure, Parts, Step};

/// Made in this order, in a new mount namespace.
#[derive(Debug)]
pub(crate) struct RootfsPlan {
    pub root: RootPlan,
    pub mounts: Vec<MountPlan>,
    /// How the mount of type `cgroup` looks, if there is one.
    pub cgroup_mount: Option<CgroupMountPlan>,
    /// Nodes of /dev; empty if the configuration binds a /dev of its own.
    pub devices: Vec<DevicePlan>,
    /// Make the links of /dev.
    pub device_links: bool,
    pub masked: Vec<InnerPath>,
    pub readonly: Vec<InnerPath>,
}

impl RootfsPlan {
    /// The root and further mounts, nothing else.
    pub(crate) fn with_mounts(root: RootPlan, mounts: Vec<MountPlan>) -> Self {
        RootfsPlan {
            root,
            mounts,
            cgroup_mount: None,
            devices: Vec::new(),
            device_links: false,
            masked: Vec::new(),
            readonly: Vec::new(),
        }
    }

    /// Child: puts everything below `root`, which is mounted and not yet entered. `bind_devices`: nodes cannot be made.
    /// `enter_cgroup`: called before the cgroup tree is mounted, which shows the container's own cgroup as the top only
    /// from within its cgroup namespace.
    pub(crate) fn fill(
        &self,
        root: BorrowedFd,
        bind_devices: bool,
        mut enter_cgroup: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for (index, one) in self.mounts.iter().enumerate() {
            if !one.is_cgroup() {
                one.mount(root, index)?;
            } else if let Some(cgroup_mount) = &self.cgroup_mount {
                enter_cgroup()?;
                cgroup_mount.mount(root)?;
            }
        }
        devices::create_nodes(&self.devices, root, bind_devices, self.root.mount_point())?;
        if self.device_links {
            devices::create_links(root)?;
        }
        mask::mask(&self.masked, root)?;
        mask::make_readonly(&self.readonly, root)
    }
}

impl Parts for RootfsPlan {
    fn part(&self, step: Step, index: usize) -> String {
        let path = |paths: &[InnerPath]| paths.get(index).map(InnerPath::to_string);
        let mount = |words: fn(&MountPlan) -> String| self.mounts.get(index).map(words);
        let found = match step {
            Step::OverlayLayer => Some(self.root.layer(index)),
            Step::OverlayUpper
            | Step::OverlayWork
            | Step::MountRoot
            | Step::OpenRoot
            | Step::ChangeRoot => Some(self.root.to_string()),
            Step::MountTarget | Step::CopyUp => mount(|mount| mount.target.to_string()),
            Step::Mount | Step::MountOptions => mount(MountPlan::describe),
            Step::CgroupMount => self.cgroup_mount.as_ref().map(|mount| mount.describe(index)),
            Step::Device => self.devices.get(index).map(|device| device.path.to_string()),
            Step::MaskPath => path(&self.masked),
            Step::ReadonlyPath => path(&self.readonly),
            _ => None,
        };
        found.unwrap_or_default()
    }
}
