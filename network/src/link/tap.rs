//! Taps: links whose other end is a program (Documentation/networking/tuntap.rst).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::NetworkError;

/// Frames without a header of the tap's own, and with virtio-net's before each.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Makes a tap, and gives a descriptor for each of its queues. It is gone with the last one.
///
/// # Errors
/// There is no /dev/net/tun, we may not, or a link has the name.
pub(crate) fn make(name: &str, queues: u16) -> Result<Vec<OwnedFd>, NetworkError> {
    let multi_queue = if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    (0..queues.max(1)).map(|_| open_queue(name, FLAGS | multi_queue)).collect()
}

fn open_queue(name: &str, flags: i32) -> Result<OwnedFd, NetworkError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun").map_err(|source| NetworkError::NoTun { source })?;
    // SAFETY: `ifreq` is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // Our names are shorter than IFNAMSIZ, so that the last byte stays 0.
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } < 0 {
        return Err(NetworkError::kernel("make the tap", name)(io::Error::last_os_error()));
    }
    Ok(file.into())
}
