//! Files of the host's /proc, written before the child leaves it for its own root.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// Child: writes to a file of the host's /proc, all at once, as those want it.
pub(crate) fn write(path: &CStr, value: &CStr) -> Result<(), Errno> {
    // Whatever is mounted on the way, or linked there: what is written to is procfs (CVE-2025-52881).
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open(c"/proc", flags, Mode::empty())?;
    if fstatfs(&proc)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::ENODEV);
    }
    let below = path.to_bytes_with_nul().strip_prefix(b"/proc/").ok_or(Errno::EINVAL)?;
    let below = CStr::from_bytes_with_nul(below).map_err(|_| Errno::EINVAL)?;
    let how = OpenHow::new().flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    let file = openat2(&proc, below, how)?;
    nix::unistd::write(&file, value.to_bytes()).map(drop)
}
