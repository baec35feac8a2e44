//! Closing what a clone or fork copied from the runtime.

use std::os::fd::RawFd;

use nix::errno::Errno;

/// Child: closes all descriptors above the standard streams but `keep`, which is ascending: above all the ends of other
/// containers' channels, whose end-of-file would otherwise wait for this process.
pub(crate) fn close_all_but(keep: &[RawFd]) -> Result<(), Errno> {
    let mut first: u32 = 3;
    for fd in keep {
        let fd = fd.unsigned_abs();
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: closes descriptors of this process only; their owners live in the parent's memory, of which this is a
    // copy that runs none of their destructors.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) }).map(drop)
}
