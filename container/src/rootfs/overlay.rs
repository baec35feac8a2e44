//! Mounting an overlay.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::{self, MsFlags};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::chdir;

use super::bind::open_directory;
use super::resolve::write_decimal;
use crate::step::{At, Failure, Step};

/// Overlayfs's own limit (`OVL_MAX_STACK`).
pub(super) const MAX_LAYERS: usize = 500;

/// Mount data is at most one page.
const DATA_LEN: usize = 4096;

/// Mounts an overlay whose directories are named by descriptor, relative to /proc/self/fd: mount data is limited to a
/// page, which a few dozen paths would fill, and paths may contain the separators `:` and `,`. The descriptors are
/// opened here because newer kernels take layers from the caller's own mount namespace only.
pub(super) fn mount(
    lower: &[CString],
    upper_path: &CStr,
    work: &CStr,
    user: bool,
) -> Result<(), Failure> {
    let mut data = MountData::new();
    data.text(b"lowerdir=");
    // Closed when the overlay holds its own references; an array because the child must not allocate.
    let mut layers: [Option<OwnedFd>; MAX_LAYERS] = [const { None }; MAX_LAYERS];
    for (index, (slot, path)) in layers.iter_mut().zip(lower).enumerate() {
        let fd = open_directory(path).at_index(Step::OverlayLayer, index)?;
        if index > 0 {
            data.text(b":");
        }
        data.descriptor(&fd);
        *slot = Some(fd);
    }
    let upper = open_directory(upper_path).at(Step::OverlayUpper)?;
    data.text(b",upperdir=");
    data.descriptor(&upper);
    let work = open_directory(work).at(Step::OverlayWork)?;
    data.text(b",workdir=");
    data.descriptor(&work);
    if user {
        // Overlayfs's own attributes are trusted.* otherwise, which only the initial user namespace may set.
        data.text(b",userxattr");
    }
    let data = data.as_c_str().ok_or(Errno::E2BIG).at(Step::MountRoot)?;
    chdir(c"/proc/self/fd").at(Step::MountRoot)?;
    mount::mount(Some(c"overlay"), upper_path, Some(c"overlay"), MsFlags::MS_NODEV, Some(data))
        .at(Step::MountRoot)?;
    // Where overlayfs cannot make a folder in `work`, for want of space or inodes, it becomes read-only and tells
    // nobody but the kernel's log.
    if statvfs(upper_path).at(Step::MountRoot)?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(Errno::EROFS).at(Step::MountRoot);
    }
    chdir(c"/").at(Step::MountRoot)
}

/// The option string of an overlay, written without allocating.
struct MountData {
    bytes: [u8; DATA_LEN],
    length: usize,
    overflow: bool,
}

impl MountData {
    fn new() -> Self {
        MountData { bytes: [0; DATA_LEN], length: 0, overflow: false }
    }

    fn text(&mut self, text: &[u8]) {
        // One byte stays zero and ends the string.
        match self.bytes[..DATA_LEN - 1].get_mut(self.length..self.length + text.len()) {
            Some(space) => {
                space.copy_from_slice(text);
                self.length += text.len();
            }
            None => self.overflow = true,
        }
    }

    fn descriptor(&mut self, fd: &OwnedFd) {
        let mut digits = [0u8; 10];
        let length = write_decimal(fd.as_raw_fd().unsigned_abs(), &mut digits);
        self.text(&digits[..length]);
    }

    fn as_c_str(&self) -> Option<&CStr> {
        if self.overflow { None } else { CStr::from_bytes_until_nul(&self.bytes).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_overlay_fits_a_page() {
        let mut data = MountData::new();
        data.text(b"lowerdir=");
        for _ in 0..MAX_LAYERS {
            data.text(b"1523:");
        }
        data.text(b",upperdir=1524,workdir=1525,userxattr");
        assert!(data.as_c_str().is_some());
    }

    #[test]
    fn too_much_data_is_noticed() {
        let mut data = MountData::new();
        data.text(&[b'x'; DATA_LEN]);
        assert!(data.as_c_str().is_none());
    }
}
