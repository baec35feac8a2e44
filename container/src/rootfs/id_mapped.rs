//! Bind mounts in which files belong to others (mount_setattr(2), "ID mapping", Linux 5.12): made by the runtime, as
//! only who may mount the file system itself may map its ids, and attached by the child.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
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
}

/// A copy of the mount of `source`, or of all of its tree, that is nowhere yet.
pub(super) fn tree(
    source: &Path,
    mounts: Extent,
    mapped: Extent,
    mappings: Mappings,
    field: &str,
) -> Result<OwnedFd> {
    let namespace = IdMaps::new(mappings.uid, mappings.gid)?.namespace()?;
    let attempt = |attempt: &str| format!("{attempt} {} for {field}", source.display());
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(field, "contains a NUL byte"))?;
    let recursive = |extent| if extent == Extent::Tree { libc::AT_RECURSIVE } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive(mounts) as u32;
    // SAFETY: a C string, which the kernel reads.
    let opened =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let tree =
        Errno::result(opened).map_err(|errno| Error::host(attempt("copy the mount"), errno))?;
    // SAFETY: a new descriptor that nobody else owns.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    match set_attributes(&tree, recursive(mapped), &attributes) {
        Ok(()) => Ok(tree),
        Err(Errno::EINVAL) => {
            let words = attempt("map the ids (can its file system?) of");
            Err(Error::host(words, Errno::EINVAL))
        }
        Err(errno) => Err(Error::host(attempt("map the ids of"), errno)),
    }
}
