//! The cgroup tree inside the container: version 2 as it is, version 1 as a tmpfs with a directory for each hierarchy.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::bind::{add_flags, bind};
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
    /// Those of version 1, each in a directory of its own; none where version 2 is alone.
    hierarchies: Option<Vec<HierarchyMount>>,
    /// Of version 2 alone.
    unified: Source,
}

#[derive(Debug)]
struct HierarchyMount {
    target: InnerPath,
    source: Source,
}

/// What is shown of a hierarchy.
#[derive(Debug)]
enum Source {
    /// Version 1, with these controllers, from the cgroup namespace's root on.
    Controllers(CString),
    /// Version 2, likewise.
    Unified,
    /// This directory, where no cgroup namespace hides the rest.
    Directory(CString),
}

impl CgroupMountPlan {
    /// `own`: the container's directories in the hierarchies, in their order, which are bound where there is no cgroup
    /// namespace.
    pub(crate) fn new(
        mount: &MountPlan,
        inner: &InnerMount,
        own: Option<&[PathBuf]>,
    ) -> Result<Self> {
        let destination = mount.target.as_c_str().to_string_lossy();
        let path = |path: &Path| InnerPath::new(path, "cgroup mount");
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| Error::invalid("cgroup mount", "contains a NUL byte"))
        };
        let directory = |index: usize| match own.and_then(|own| own.get(index)) {
            Some(own) => text(own.as_os_str().as_bytes()).map(Source::Directory).map(Some),
            None => Ok(None),
        };
        let one = |(index, (name, data)): (usize, &(String, Option<String>))| {
            let target = path(&Path::new(&*destination).join(name))?;
            let source = match (directory(index)?, data) {
                (Some(own), _) => own,
                (None, Some(controllers)) => Source::Controllers(text(controllers.as_bytes())?),
                (None, None) => Source::Unified,
            };
            Ok(HierarchyMount { target, source })
        };
        let hierarchies = match inner {
            InnerMount::V2 => None,
            InnerMount::V1(hierarchies) => {
                Some(hierarchies.iter().enumerate().map(one).collect::<Result<_>>()?)
            }
        };
        let target = path(Path::new(&*destination))?;
        let unified = directory(0)?.unwrap_or(Source::Unified);
        Ok(CgroupMountPlan { target, flags: mount.flags(), hierarchies, unified })
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
            return self.show(root, &self.target, &self.unified).at(Step::CgroupMount);
        };
        let writable = self.flags - MsFlags::MS_RDONLY;
        on(&top, c"tmpfs", writable, Some(c"mode=755,size=64k")).at(Step::CgroupMount)?;
        for (index, hierarchy) in hierarchies.iter().enumerate() {
            let shown = self.show(root, &hierarchy.target, &hierarchy.source);
            shown.at_index(Step::CgroupMount, index)?;
        }
        if self.flags.contains(MsFlags::MS_RDONLY) {
            let mounted = self.target.open(root).at(Step::CgroupMount)?;
            add_flags(&mounted, MsFlags::MS_RDONLY).at(Step::CgroupMount)?;
        }
        Ok(())
    }

    fn show(&self, root: BorrowedFd, target: &InnerPath, source: &Source) -> Result<(), Errno> {
        let below = target.open_or_create(root, Target::Directory)?;
        let path = DescriptorPath::new(&below);
        let on = |path: &DescriptorPath, fstype: &CStr, data: Option<&CStr>| {
            mount(Some(fstype), path.as_c_str(), Some(fstype), self.flags, data)
        };
        match source {
            Source::Controllers(controllers) => on(&path, c"cgroup", Some(controllers)),
            Source::Unified => match on(&path, c"cgroup2", None) {
                // It is there already, of the host's /sys that is bound where a user namespace may have none of its own
                // (sysfs belongs to a network), and no file system is mounted on itself. Between them an empty one, so
                // that the host's tree does not come to light below either.
                Err(Errno::EBUSY) => {
                    on(&path, c"tmpfs", Some(c"mode=555,size=4k"))?;
                    on(&DescriptorPath::new(&target.open(root)?), c"cgroup2", None)
                }
                other => other,
            },
            Source::Directory(own) => {
                bind(own, path.as_c_str(), MsFlags::empty())?;
                add_flags(&target.open(root)?, self.flags)
            }
        }
    }

    /// Where the hierarchy of that index goes, for the words of a failure.
    pub(crate) fn describe(&self, index: usize) -> String {
        let hierarchy = self.hierarchies.iter().flatten().nth(index);
        hierarchy.map_or(&self.target, |one| &one.target).to_string()
    }
}
