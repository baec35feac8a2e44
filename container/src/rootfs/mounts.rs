//! The `mounts` of the configuration.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, absolute};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Mount;

use super::bind::{add_flags, bind, change};
use super::options::MountOptions;
use super::resolve::{DescriptorPath, InnerPath, Target};
use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// One mount, ready for mount(2).
#[derive(Debug)]
pub(crate) struct MountPlan {
    pub target: InnerPath,
    kind: Kind,
    source: CString,
    fstype: CString,
    /// The flags of the first mount(2).
    flags: MsFlags,
    /// A bind mount ignores most flags until it is remounted.
    remount: Option<MsFlags>,
    propagation: Vec<MsFlags>,
    data: CString,
    /// What to do where a user namespace may not mount sysfs: bind the host's.
    sysfs_fallback: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Filesystem,
    Bind(Target),
    /// The cgroup tree; the runtime knows its shape, see `cgroup::mounts`.
    Cgroup,
}

impl MountPlan {
    pub(crate) fn new(mount: &Mount, index: usize) -> Result<Self> {
        let field = format!("mounts[{index}]");
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Error::unsupported(field, "id-mapped mounts are not implemented yet"));
        }
        let target = InnerPath::new(mount.destination(), &format!("{field}.destination"))?;
        if target.is_root() {
            return Err(Error::invalid(field, "cannot mount over the root filesystem"));
        }
        let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
        if let Some(word) = options.unsupported.first() {
            return Err(Error::unsupported(
                format!("{field}.options"),
                format!("{word} is not implemented yet"),
            ));
        }
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let text = |text: &[u8]| {
            CString::new(text).map_err(|_| Error::invalid(&field, "contains a NUL byte"))
        };
        let default_source =
            Path::new(if fstype.is_empty() { "none" } else { fstype }).to_path_buf();
        let source = mount.source().as_ref().unwrap_or(&default_source);
        let bind = options.is_bind() || fstype == "bind";
        let (kind, source) = if bind {
            let attempt = || format!("find the bind mount source {}", source.display());
            let found = source.metadata().map_err(|error| Error::host(attempt(), error))?;
            let target = if found.is_dir() { Target::Directory } else { Target::File };
            // The child's working directory is another.
            let source = absolute(source).map_err(|error| Error::host(attempt(), error))?;
            (Kind::Bind(target), source)
        } else if fstype == "cgroup" || fstype == "cgroup2" {
            (Kind::Cgroup, source.clone())
        } else if fstype.is_empty() {
            return Err(Error::invalid(
                format!("{field}.type"),
                "missing, and the mount is not a bind mount",
            ));
        } else {
            (Kind::Filesystem, source.clone())
        };
        let (flags, remount) = split_flags(options.flags, bind);
        Ok(MountPlan {
            target,
            kind,
            source: text(source.as_os_str().as_bytes())?,
            fstype: text(fstype.as_bytes())?,
            flags,
            remount,
            propagation: options.propagation,
            data: text(options.data.join(",").as_bytes())?,
            sysfs_fallback: fstype == "sysfs",
        })
    }

    /// A recursive bind of a host directory onto the same path inside, receiving the host's later mounts.
    pub(crate) fn host_tree(path: &Path) -> Result<Self> {
        let mount = oci_spec::runtime::MountBuilder::default()
            .destination(path)
            .source(path)
            .typ("bind")
            .options(["rbind", "rslave"].map(String::from).to_vec())
            .build();
        MountPlan::new(&mount.map_err(|error| Error::invalid("mounts", error.to_string()))?, 0)
    }

    pub(crate) fn is_cgroup(&self) -> bool {
        self.kind == Kind::Cgroup
    }

    pub(crate) fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind(_))
    }

    /// Of the first mount(2); a bind mount's others come with its remount.
    pub(crate) fn flags(&self) -> MsFlags {
        self.flags
    }

    pub(crate) fn describe(&self) -> String {
        let target = self.target.as_c_str().to_string_lossy();
        match self.kind {
            Kind::Bind(_) => format!("{} on {target}", self.source.to_string_lossy()),
            _ => format!("{} on {target}", self.fstype.to_string_lossy()),
        }
    }

    /// Child: mounts it below `root`.
    pub(crate) fn mount(&self, root: BorrowedFd, index: usize) -> Result<(), Failure> {
        let kind = match self.kind {
            Kind::Bind(kind) => kind,
            _ => Target::Directory,
        };
        let target = self.target.open_or_create(root, kind).at_index(Step::MountTarget, index)?;
        self.mount_on(&target).at_index(Step::Mount, index)?;
        if self.remount.is_none() && self.propagation.is_empty() {
            return Ok(());
        }
        // The descriptor names the directory below the mount; look again for the mount itself.
        let mounted = self.target.open(root).at_index(Step::MountOptions, index)?;
        if let Some(flags) = self.remount {
            add_flags(&mounted, flags).at_index(Step::MountOptions, index)?;
        }
        for flags in &self.propagation {
            let path = DescriptorPath::new(&mounted);
            change(path.as_c_str(), *flags).at_index(Step::MountOptions, index)?;
        }
        Ok(())
    }

    fn mount_on(&self, target: &OwnedFd) -> Result<(), Errno> {
        let path = DescriptorPath::new(target);
        let (source, path) = (self.source.as_c_str(), path.as_c_str());
        if self.is_bind() {
            return bind(source, path, self.flags);
        }
        let (fstype, data) = (self.fstype.as_c_str(), self.data.as_c_str());
        match mount(Some(source), path, Some(fstype), self.flags, Some(data)) {
            // Without a network namespace of its own, a user namespace may not mount sysfs; without a fully
            // visible /sys on the host neither. The host's, read-only as far as its user may write at all:
            Err(Errno::EPERM) if self.sysfs_fallback => bind(c"/sys", path, MsFlags::MS_REC),
            other => other,
        }
    }
}

/// The flags for the first mount(2), and those for a bind mount's remount.
fn split_flags(flags: MsFlags, bind: bool) -> (MsFlags, Option<MsFlags>) {
    if !bind {
        return (flags, None);
    }
    let structure = MsFlags::MS_BIND | MsFlags::MS_REC;
    let rest = flags - structure;
    ((flags & structure) | MsFlags::MS_BIND, (!rest.is_empty()).then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;

    #[test]
    fn a_readonly_bind_takes_two_steps() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY;
        assert_eq!(
            split_flags(flags, true),
            (MsFlags::MS_BIND | MsFlags::MS_REC, Some(MsFlags::MS_RDONLY))
        );
        assert_eq!(split_flags(MsFlags::MS_RDONLY, false), (MsFlags::MS_RDONLY, None));
    }

    #[test]
    fn impossible_mounts_are_refused_before_anything_happens() {
        let build = |destination: &str, typ: &str, option: &str| {
            let mount = MountBuilder::default()
                .destination(destination)
                .typ(typ)
                .source("/absent-source")
                .options(vec![option.to_owned()]);
            MountPlan::new(&mount.build().unwrap(), 3)
        };
        for (destination, typ, option, expected) in [
            ("/", "tmpfs", "ro", "root filesystem"),
            ("rel", "tmpfs", "ro", "absolute"),
            ("/x", "", "ro", "mounts[3].type"),
            ("/x", "bind", "ro", "/absent-source"),
            ("/x", "tmpfs", "idmap", "idmap"),
        ] {
            let error = build(destination, typ, option).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
