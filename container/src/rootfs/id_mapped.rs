//! Bind mounts in which files belong to others (mount_setattr(2), "ID mapping", Linux 5.12): made by the runtime, as
//! only who may mount the file system itself may map its ids, and attached by the child.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxIdMapping, Mount};

use super::bind::set_attributes;
use super::options::Extent;
use crate::error::{Error, Result};
use crate::idmap::IdMaps;

/// Which ids become which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mappings<'a> {
    pub uid: &'a [LinuxIdMapping],
    pub gid: &'a [LinuxIdMapping],
}

impl<'a> Mappings<'a> {
    /// A mount's own.
    pub(super) fn of_mount(mount: &'a Mount, field: &str) -> Result<Option<Self>> {
        match (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref()) {
            (None | Some([]), None | Some([])) => Ok(None),
            (Some(uid), Some(gid)) => Ok(Some(Mappings { uid, gid })),
            _ => Err(Error::invalid(field, "uidMappings and gidMappings come together")),
        }
    }

    /// A user namespace that has them.
    pub(super) fn namespace(self) -> Result<OwnedFd> {
        let [user] = IdMaps::new(self.uid, self.gid)?.namespaces(CloneFlags::empty(), ["user"])?;
        Ok(user)
    }
}

/// A copy of the mount of `source`, or of all of its tree, that is nowhere yet.
pub(super) fn tree(
    source: &Path,
    mounts: Extent,
    mapped: Extent,
    mappings: Mappings,
    field: &str,
) -> Result<OwnedFd> {
    let namespace = mappings.namespace()?;
    let tree = copy(source, mounts, field)?;
    map(&tree, mapped, namespace.as_fd(), source, field)?;
    Ok(tree)
}

/// As [`tree`], with the ids as they are.
pub(super) fn copy(source: &Path, mounts: Extent, field: &str) -> Result<OwnedFd> {
    let attempt = || format!("copy the mount {} for {field}", source.display());
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(field, "contains a NUL byte"))?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive(mounts) as u32;
    // SAFETY: a C string, which the kernel reads.
    let opened =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let tree = Errno::result(opened).map_err(|errno| Error::host(attempt(), errno))?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(tree as i32) })
}

/// Maps the ids of a copy of `source`'s mount, as the user namespace has them.
pub(super) fn map(
    tree: &OwnedFd,
    extent: Extent,
    namespace: BorrowedFd,
    source: &Path,
    field: &str,
) -> Result<()> {
    let attempt = |attempt: &str| format!("{attempt} {} for {field}", source.display());
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        // A copy of a shared mount is shared with it: what is mounted in it would be the host's, too.
        propagation: libc::MS_SLAVE,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    match set_attributes(tree, recursive(extent), &attributes) {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL) => {
            let words = attempt("map the ids (can its file system?) of");
            Err(Error::host(words, Errno::EINVAL))
        }
        Err(errno) => Err(Error::host(attempt("map the ids of"), errno)),
    }
}

fn recursive(extent: Extent) -> libc::c_int {
    if extent == Extent::Tree { libc::AT_RECURSIVE } else { 0 }
}
