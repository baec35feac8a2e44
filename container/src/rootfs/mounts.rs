//! The `mounts` of the configuration.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, absolute};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Mount;

use super::bind::{attach, bind, change, change_flags, change_tree};
use super::copy_up;
use super::id_mapped::{self, Mappings};
use super::options::{Attributes, Extent, MountOptions};
use super::resolve::{DescriptorPath, InnerPath, Target};
use crate::error::{Error, Result};
use crate::namespaces::is_root_of_host;
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
    remount: Option<Change>,
    recursive: Attributes,
    /// Begin with what is there.
    copy_up: bool,
    /// The bind mount itself, made by the runtime, with ids mapped.
    tree: Option<OwnedFd>,
    propagation: Vec<MsFlags>,
    data: CString,
    /// What to do where a user namespace may not mount sysfs: bind the host's.
    sysfs_fallback: bool,
}

/// Flags that a bind mount is to have, and not to have, whatever its source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    add: MsFlags,
    take: MsFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Filesystem,
    Bind(Target),
    /// The cgroup tree; the runtime knows its shape, see `cgroup::mounts`.
    Cgroup,
}

fn extent_of(flags: MsFlags) -> Extent {
    if flags.contains(MsFlags::MS_REC) { Extent::Tree } else { Extent::Mount }
}

impl MountPlan {
    pub(crate) fn new(mount: &Mount, index: usize, container: Option<Mappings>) -> Result<Self> {
        let field = format!("mounts[{index}]");
        let target = InnerPath::new(mount.destination(), &format!("{field}.destination"))?;
        if target.is_root() {
            return Err(Error::invalid(field, "cannot mount over the root filesystem"));
        }
        let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
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
        if options.copy_up && fstype != "tmpfs" {
            return Err(Error::invalid(format!("{field}.options"), "tmpcopyup is for a tmpfs"));
        }
        let own = Mappings::of_mount(mount, &field)?;
        let tree = match (own.or(container), options.id_mapped) {
            (Some(mappings), extent) if extent.is_some() || own.is_some() => {
                if !bind {
                    let problem = "ids are mapped of bind mounts alone";
                    return Err(Error::invalid(format!("{field}.options"), problem));
                }
                let mapped = extent.unwrap_or(Extent::Mount);
                let mounts = extent_of(options.flags);
                Some(id_mapped::tree(&source, mounts, mapped, mappings, &field)?)
            }
            (None, Some(_)) => {
                let problem =
                    "idmap needs uidMappings and gidMappings, of the mount or the container";
                return Err(Error::invalid(format!("{field}.options"), problem));
            }
            // What is root's alone on the host is out of reach of root of a user namespace.
            (Some(_), None) if bind && is_root_of_host() => {
                Some(id_mapped::copy(&source, extent_of(options.flags), &field)?)
            }
            _ => None,
        };
        let (flags, remount) = split_flags(options.flags, options.cleared, bind);
        Ok(MountPlan {
            target,
            kind,
            source: text(source.as_os_str().as_bytes())?,
            fstype: text(fstype.as_bytes())?,
            flags,
            remount,
            recursive: options.recursive,
            copy_up: options.copy_up,
            tree,
            propagation: options.propagation,
            data: text(options.data.join(",").as_bytes())?,
            sysfs_fallback: fstype == "sysfs",
        })
    }

    /// `linux.mountLabel`: the SELinux context of what is in a file system that is made here, and holds no labels yet.
    pub(crate) fn label(&mut self, label: &str) -> Result<()> {
        let is_labelled = [c"tmpfs", c"devpts", c"mqueue"].contains(&self.fstype.as_c_str());
        if self.kind != Kind::Filesystem || !is_labelled {
            return Ok(());
        }
        let invalid = |problem: &str| Err(Error::invalid("linux.mountLabel", problem));
        if label.contains(['"', ',', '\0']) {
            return invalid("contains a quotation mark, a comma or a NUL byte");
        }
        let data = self.data.to_string_lossy();
        let comma = if data.is_empty() { "" } else { "," };
        match CString::new(format!("{data}{comma}context=\"{label}\"")) {
            Ok(data) => self.data = data,
            Err(_) => return invalid("contains a NUL byte"),
        }
        Ok(())
    }

    /// A recursive bind of a host directory onto the same path inside, receiving the host's later mounts.
    pub(crate) fn host_tree(path: &Path) -> Result<Self> {
        let mount = oci_spec::runtime::MountBuilder::default()
            .destination(path)
            .source(path)
            .typ("bind")
            .options(["rbind", "rslave"].map(String::from).to_vec())
            .build();
        MountPlan::new(
            &mount.map_err(|error| Error::invalid("mounts", error.to_string()))?,
            0,
            None,
        )
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
        if self.remount.is_none()
            && self.propagation.is_empty()
            && self.recursive.is_empty()
            && !self.copy_up
        {
            return Ok(());
        }
        // The descriptor names the directory below the mount; look again for the mount itself.
        let mounted = self.target.open(root).at_index(Step::MountOptions, index)?;
        if self.copy_up {
            self.copy_up(&target, &mounted).at_index(Step::CopyUp, index)?;
        }
        if let Some(Change { add, take }) = self.remount {
            change_flags(&mounted, add, take).at_index(Step::MountOptions, index)?;
        }
        if !self.recursive.is_empty() {
            change_tree(&mounted, self.recursive).at_index(Step::MountOptions, index)?;
        }
        for flags in &self.propagation {
            let path = DescriptorPath::new(&mounted);
            change(path.as_c_str(), *flags).at_index(Step::MountOptions, index)?;
        }
        Ok(())
    }

    /// The mount's descriptor, which the child needs.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.tree.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn copy_up(&self, below: &OwnedFd, mounted: &OwnedFd) -> Result<(), Errno> {
        copy_up::copy(below, mounted)?;
        let says = |word: &[u8]| {
            self.data.to_bytes().split(|c| *c == b',').any(|one| one.starts_with(word))
        };
        if says(b"mode=") || says(b"uid=") || says(b"gid=") {
            return Ok(());
        }
        copy_up::copy_rights(below, mounted)
    }

    fn mount_on(&self, target: &OwnedFd) -> Result<(), Errno> {
        let path = DescriptorPath::new(target);
        let (source, path) = (self.source.as_c_str(), path.as_c_str());
        if let Some(tree) = &self.tree {
            return attach(tree, target);
        }
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

/// The flags for the first mount(2), and what a bind mount's remount changes.
fn split_flags(flags: MsFlags, cleared: MsFlags, bind: bool) -> (MsFlags, Option<Change>) {
    if !bind {
        return (flags, None);
    }
    let structure = MsFlags::MS_BIND | MsFlags::MS_REC;
    let change = Change { add: flags - structure, take: cleared - structure };
    let is_change = !(change.add | change.take).is_empty();
    ((flags & structure) | MsFlags::MS_BIND, is_change.then_some(change))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;

    #[test]
    fn a_readonly_bind_takes_two_steps() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY;
        let none = MsFlags::empty();
        let change = Change { add: MsFlags::MS_RDONLY, take: none };
        let rbind = MsFlags::MS_BIND | MsFlags::MS_REC;
        assert_eq!(split_flags(flags, none, true), (rbind, Some(change)));
        assert_eq!(split_flags(rbind, none, true), (rbind, None));
        assert_eq!(split_flags(MsFlags::MS_RDONLY, none, false), (MsFlags::MS_RDONLY, None));
    }

    #[test]
    fn a_label_is_for_what_holds_none_yet() {
        for (typ, options, expected) in [
            ("tmpfs", vec!["size=1k"], r#"size=1k,context="system_u:object_r:x:s0:c1 c2""#),
            ("mqueue", vec![], r#"context="system_u:object_r:x:s0:c1 c2""#),
            ("proc", vec![], ""),
        ] {
            let options = options.into_iter().map(String::from).collect::<Vec<_>>();
            let mount = MountBuilder::default().destination("/x").typ(typ).options(options).build();
            let mut plan = MountPlan::new(&mount.unwrap(), 0, None).unwrap();
            plan.label("system_u:object_r:x:s0:c1 c2").unwrap();
            assert_eq!(plan.data.to_str().unwrap(), expected);
            assert!(typ == "proc" || plan.label("a,b").is_err());
        }
    }

    #[test]
    fn impossible_mounts_are_refused_before_anything_happens() {
        let build = |destination: &str, typ: &str, option: &str| {
            let mount = MountBuilder::default()
                .destination(destination)
                .typ(typ)
                .source("/absent-source")
                .options(vec![option.to_owned()]);
            MountPlan::new(&mount.build().unwrap(), 3, None)
        };
        for (destination, typ, option, expected) in [
            ("/", "tmpfs", "ro", "root filesystem"),
            ("rel", "tmpfs", "ro", "absolute"),
            ("/x", "", "ro", "mounts[3].type"),
            ("/x", "bind", "ro", "/absent-source"),
            ("/x", "tmpfs", "idmap", "idmap"),
            ("/x", "proc", "tmpcopyup", "tmpcopyup"),
        ] {
            let error = build(destination, typ, option).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
