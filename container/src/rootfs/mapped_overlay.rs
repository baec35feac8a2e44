//! An overlay whose files are the host's ids on the disk, and the container's in its user namespace (mount_setattr(2), "ID
//! mapping"; overlayfs takes such layers from Linux 5.19 on).
//!
//! The runtime makes it and the child attaches it: only who may mount the layers' file systems may map their ids, and only
//! the host's root reads what overlayfs has noted in layers that root unpacked (trusted.overlay.*). Linux takes layers from
//! the caller's mount namespace alone, at least up to 6.12. So that there is one for the while: a thread's, which ends.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use oci_spec::runtime::LinuxIdMapping;

use super::bind::{attach, change, open_directory};
use super::id_mapped::{self, Mappings};
use super::options::Extent;
use super::overlay;
use crate::error::{Error, Result};
use crate::process::capabilities;
use crate::step::Failure;

/// What is said of it in errors.
const WHAT: &str = "the root filesystem";

/// Mounts the overlay, nowhere.
///
/// # Errors
/// A layer is missing or its file system cannot map ids, overlayfs refuses them, or we may not.
pub(super) fn make(
    lower: &[CString],
    upper: &CStr,
    work: &CStr,
    mappings: Mappings,
) -> Result<OwnedFd> {
    let (above, beside) = (path(upper).parent(), path(work).parent());
    let Some(above) = above.filter(|above| Some(*above) == beside) else {
        // Overlayfs wants them in one mount, and only what is above both can be one.
        let problem =
            "the upper and the work directory have to be in one directory, to map its ids";
        return Err(Error::invalid("rootfs.work", problem));
    };
    let namespace = mappings.namespace()?;
    let mapped = |place| {
        let tree = id_mapped::copy(place, Extent::Mount, WHAT)?;
        id_mapped::map(&tree, Extent::Mount, namespace.as_fd(), place, WHAT)?;
        Ok((tree, place))
    };
    let places = [above].into_iter().chain(lower.iter().map(|layer| path(layer)));
    let layers = places.map(mapped).collect::<Result<Vec<_>>>()?;
    let attempt = || {
        format!("mount an overlay with mapped ids and upper directory {}", path(upper).display())
    };
    let mounted = || {
        let failed = |errno| Error::host(attempt(), errno);
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(failed)?;
        change(c"/", MsFlags::MS_PRIVATE | MsFlags::MS_REC).map_err(failed)?;
        for (tree, place) in &layers {
            let place = c_string(place)?;
            let target = open_directory(&place).map_err(failed)?;
            attach(tree, &target).map_err(failed)?;
        }
        become_creator(&mappings).map_err(failed)?;
        overlay::mount(lower, upper, work, false).map_err(|Failure { errno, .. }| failed(errno))?;
        id_mapped::copy(path(upper), Extent::Mount, WHAT)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, mounted);
        let thread = thread.map_err(|source| Error::host("start a thread for mounts", source))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Overlayfs makes folders of its own as whoever mounts it, which is to be the container's root: the host's has no id in the
/// upper directory's mount. The capabilities that go with root's ids stay (credentials(7), capabilities(7)).
fn become_creator(mappings: &Mappings) -> Result<(), Errno> {
    setfsuid(Uid::from_raw(root_of(mappings.uid).ok_or(Errno::EOVERFLOW)?));
    setfsgid(Gid::from_raw(root_of(mappings.gid).ok_or(Errno::EOVERFLOW)?));
    capabilities::make_effective()
}

fn root_of(mappings: &[LinuxIdMapping]) -> Option<u32> {
    mappings.iter().find(|map| map.container_id() == 0).map(LinuxIdMapping::host_id)
}

fn path(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid("rootfs", "contains a NUL byte"))
}
