//! The cgroup tree inside the container: version 2 as it is, version 1 as a tmpfs with a directory for each hierarchy.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::bind::add_flags;
use super::mounts::MountPlan;
use super::resolve::{DescriptorPath, InnerPath, Target};
use crate::cgroup::InnerMount;
use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// The mount of type `cgroup`.
#[derive(Debug)]
pub(crate) struct CgroupMountPlan {
    target: InnerPath,
    flags: MsFlags,
    /// The hierarchies of version 1; none where version 2 is mounted alone.
    hierarchies: Option<Vec<HierarchyMount>>,
}

#[derive(Debug)]
struct HierarchyMount {
    target: InnerPath,
    /// None: the version 2 part of a hybrid tree.
    data: Option<CString>,
}

impl CgroupMountPlan {
    pub(crate) fn new(mount: &MountPlan, inner: &InnerMount) -> Result<Self> {
        let destination = mount.target.as_c_str().to_string_lossy();
        let path = |path: &Path| InnerPath::new(path, "cgroup mount");
        let one = |(name, data): &(String, Option<String>)| {
            let target = path(&Path::new(&*destination).join(name))?;
            let data = data.as_deref().map(CString::new).transpose();
            let data = data.map_err(|_| Error::invalid("cgroup mount", "contains a NUL byte"))?;
            Ok(HierarchyMount { target, data })
        };
        let hierarchies = match inner {
            InnerMount::V2 => None,
            InnerMount::V1(hierarchies) => {
                Some(hierarchies.iter().map(one).collect::<Result<_>>()?)
            }
        };
        let target = path(Path::new(&*destination))?;
        Ok(CgroupMountPlan { target, flags: mount.flags(), hierarchies })
    }

    /// Child: mounts it below `root`.
    pub(crate) fn mount(&self, root: BorrowedFd) -> Result<(), Failure> {
        let open = |path: &InnerPath| path.open_or_create(root, Target::Directory);
        let on = |target: &OwnedFd, fstype: &CStr, flags: MsFlags, data: Option<&CStr>| {
            let target = DescriptorPath::new(target);
            mount(Some(fstype), target.as_c_str(), Some(fstype), flags, data)
        };
        let top = open(&self.target).at(Step::CgroupMount)?;
        let Some(hierarchies) = &self.hierarchies else {
            return on(&top, c"cgroup2", self.flags, None).at(Step::CgroupMount);
        };
        let writable = self.flags - MsFlags::MS_RDONLY;
        on(&top, c"tmpfs", writable, Some(c"mode=755,size=64k")).at(Step::CgroupMount)?;
        for (index, hierarchy) in hierarchies.iter().enumerate() {
            let mount_one = || -> Result<(), Errno> {
                let target = open(&hierarchy.target)?;
                match &hierarchy.data {
                    Some(controllers) => on(&target, c"cgroup", self.flags, Some(controllers)),
                    None => on(&target, c"cgroup2", self.flags, None),
                }
            };
            mount_one().at_index(Step::CgroupMount, index)?;
        }
        if self.flags.contains(MsFlags::MS_RDONLY) {
            let mounted = self.target.open(root).at(Step::CgroupMount)?;
            add_flags(&mounted, MsFlags::MS_RDONLY).at(Step::CgroupMount)?;
        }
        Ok(())
    }

    /// Where the hierarchy of that index goes, for the words of a failure.
    pub(crate) fn describe(&self, index: usize) -> String {
        let hierarchy = self.hierarchies.iter().flatten().nth(index);
        hierarchy.map_or(&self.target, |one| &one.target).to_string()
    }
}
