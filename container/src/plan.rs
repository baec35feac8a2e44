//! Everything the child needs, prepared before it exists: after clone it makes system calls and reads this, nothing
//! else, because it must not allocate (see `clone`).

use crate::cgroup::InnerMount;
use crate::error::{Error, Result};
use crate::namespaces::JoinedNamespace;
use crate::process::plan::ProcessPlan;
use crate::process::stdio::StdioPlan;
use crate::rootfs::devices::DevicePlan;
use crate::rootfs::mounts::MountPlan;
use crate::rootfs::resolve::InnerPath;
use crate::rootfs::root::RootPlan;
use nix::mount::MsFlags;
use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// What the child does between clone and execve.
#[derive(Debug)]
pub(crate) struct Plan {
    pub stdio: StdioPlan,
    /// The child waits for its uid and gid maps.
    pub user_namespace: bool,
    pub join_namespaces: Vec<JoinedNamespace>,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub loopback: bool,
    pub root: RootPlan,
    pub mounts: Vec<MountPlan>,
    /// How the mount of type `cgroup` looks, if there is one.
    pub cgroup_mount: Option<CgroupMountPlan>,
    /// Nodes of /dev; empty if the configuration binds a /dev of its own.
    pub devices: Vec<DevicePlan>,
    pub device_links: bool,
    pub masked: Vec<InnerPath>,
    pub readonly: Vec<InnerPath>,
    /// (path below /proc/sys of the host, value)
    pub sysctls: Vec<(CString, CString)>,
    /// The runtime moves the child into its cgroups while the child works, and says so.
    pub await_cgroup: bool,
    pub cgroup_namespace: bool,
    pub process: ProcessPlan,
}

/// The cgroup tree inside the container.
#[derive(Debug)]
pub(crate) struct CgroupMountPlan {
    pub target: InnerPath,
    pub flags: MsFlags,
    pub layout: CgroupLayout,
}

#[derive(Debug)]
pub(crate) enum CgroupLayout {
    V2,
    V1(Vec<V1MountPlan>),
}

#[derive(Debug)]
pub(crate) struct V1MountPlan {
    pub target: InnerPath,
    /// None: the version 2 part of a hybrid tree.
    pub data: Option<CString>,
}

impl CgroupMountPlan {
    pub(crate) fn new(mount: &MountPlan, inner: &InnerMount) -> Result<Self> {
        let destination = mount.target.as_c_str().to_string_lossy().into_owned();
        let layout = match inner {
            InnerMount::V2 => CgroupLayout::V2,
            InnerMount::V1(hierarchies) => {
                let one = |(name, data): &(String, Option<String>)| {
                    let target =
                        InnerPath::new(&Path::new(&destination).join(name), "cgroup mount")?;
                    let data = data.as_deref().map(CString::new).transpose();
                    let data =
                        data.map_err(|_| Error::invalid("cgroup mount", "contains a NUL byte"))?;
                    Ok(V1MountPlan { target, data })
                };
                CgroupLayout::V1(hierarchies.iter().map(one).collect::<Result<_>>()?)
            }
        };
        let target = InnerPath::new(Path::new(&destination), "cgroup mount")?;
        Ok(CgroupMountPlan { target, flags: mount.flags(), layout })
    }
}

impl Plan {
    /// The descriptors, ascending, that the child keeps besides its standard streams.
    /// `own`: the channel's and the trampoline's.
    pub(crate) fn descriptors(&self, own: [RawFd; 2]) -> Vec<RawFd> {
        let namespaces = self.join_namespaces.iter().map(|joined| joined.fd.as_raw_fd());
        let mut all: Vec<RawFd> = self.stdio.descriptors().chain(namespaces).chain(own).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn mount_label(&self, index: usize) -> String {
        self.mounts
            .get(index)
            .map(|mount| mount.target.as_c_str().to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn mount_description(&self, index: usize) -> String {
        self.mounts.get(index).map(MountPlan::describe).unwrap_or_default()
    }

    pub(crate) fn cgroup_mount_label(&self, index: usize) -> String {
        match self.cgroup_mount.as_ref().map(|mount| (&mount.layout, &mount.target)) {
            Some((CgroupLayout::V1(mounts), target)) => {
                let target = mounts.get(index).map_or(target, |mount| &mount.target);
                target.as_c_str().to_string_lossy().into_owned()
            }
            Some((CgroupLayout::V2, target)) => target.as_c_str().to_string_lossy().into_owned(),
            None => String::new(),
        }
    }

    pub(crate) fn device_label(&self, index: usize) -> String {
        self.devices
            .get(index)
            .map(|device| device.path.as_c_str().to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn masked_label(&self, index: usize) -> String {
        self.masked
            .get(index)
            .map(|path| path.as_c_str().to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn readonly_label(&self, index: usize) -> String {
        self.readonly
            .get(index)
            .map(|path| path.as_c_str().to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn sysctl_label(&self, index: usize) -> String {
        self.sysctls
            .get(index)
            .map(|(path, _)| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}
