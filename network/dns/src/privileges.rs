//! Giving up what root may.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;

/// linux/capability.h, `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// From here on we have no capability, and no program that we could execute would have one. Files of root
/// stay readable: we are their owner.
pub fn drop_all() -> Result<()> {
    prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    prctl::set_dumpable(false).context("cannot set dumpable")?;
    let header = Header { version: VERSION, pid: 0 };
    let none = [Capabilities { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads a header and two structures of capabilities (capset(2)), which live.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    Errno::result(result).map(drop).context("cannot drop capabilities")
}
