//! Making the root filesystem a mount, and entering it.

use super::resolve::write_decimal;
use crate::config::RootFilesystem;
use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Overlayfs's own limit (`OVL_MAX_STACK`).
const MAX_OVERLAY_LAYERS: usize = 500;

/// Mount data is at most one page.
const MOUNT_DATA_LEN: usize = 4096;

/// The root filesystem, ready to be mounted and entered.
#[derive(Debug)]
pub(crate) struct RootPlan {
    source: Source,
    /// An empty directory of the runtime's: the root is mounted there if it is an overlay.
    pub mount_point: CString,
    /// pivot_root in a container; chroot for a host process.
    pub pivot: bool,
    pub readonly: bool,
    /// `linux.rootfsPropagation`, applied when everything is in place.
    pub propagation: Option<MsFlags>,
    description: String,
}

#[derive(Debug)]
enum Source {
    Directory(CString),
    Overlay { lower: Vec<CString>, upper: CString, work: CString, user: bool },
}

impl RootPlan {
    /// `mount_point`: an empty directory to put an overlay on. `user`: in a user namespace.
    pub(crate) fn new(rootfs: &RootFilesystem, mount_point: &Path, user: bool) -> Result<Self> {
        let (source, description) = match rootfs {
            RootFilesystem::Directory(path) => {
                (Source::Directory(directory(path)?), path.display().to_string())
            }
            RootFilesystem::Overlay { lower, upper, work } => {
                if lower.is_empty() || lower.len() > MAX_OVERLAY_LAYERS {
                    let problem = format!(
                        "{} layers; overlayfs takes 1 to {MAX_OVERLAY_LAYERS}",
                        lower.len()
                    );
                    return Err(Error::invalid("rootfs.lower", problem));
                }
                let layers = lower.iter().map(|path| directory(path)).collect::<Result<_>>()?;
                let (upper_path, work) = (directory(upper)?, directory(work)?);
                let source = Source::Overlay { lower: layers, upper: upper_path, work, user };
                (source, format!("overlay with upper directory {}", upper.display()))
            }
        };
        let mount_point = directory(mount_point)?;
        let (pivot, readonly, propagation) = (true, false, None);
        Ok(RootPlan { source, mount_point, pivot, readonly, propagation, description })
    }

    /// Child: makes the root a mount of its own, of which no device node can be opened, and opens it.
    ///
    /// Whoever makes an image writes its nodes, and what they name is the host's: devices come from the
    /// configuration (`devices`), never from the image.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Failure> {
        // Slave, not private: what the host unmounts must not live on here and keep its disk busy.
        let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(none(), c"/", none(), flags, none()).at(Step::Propagation)?;
        match &self.source {
            Source::Directory(path) => {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(path.as_c_str()), path.as_c_str(), none(), flags, none())
                    .at(Step::MountRoot)?;
                let root = open_directory(path).at(Step::OpenRoot)?;
                super::mounts::remount_bind(&root, MsFlags::MS_NODEV).at(Step::MountRoot)?;
                Ok(root)
            }
            Source::Overlay { lower, upper, work, user } => {
                mount_overlay(lower, upper, work, &self.mount_point, *user)?;
                open_directory(&self.mount_point).at(Step::OpenRoot)
            }
        }
    }

    /// Child: remounts the root read-only, keeping the flags it has.
    pub(crate) fn make_readonly(&self, root: &OwnedFd) -> Result<(), Failure> {
        super::mounts::remount_bind(root, MsFlags::MS_RDONLY).at(Step::ReadonlyRoot)
    }

    /// Child: makes `root` the root directory.
    pub(crate) fn enter(&self, root: &OwnedFd) -> Result<(), Failure> {
        if self.pivot {
            // pivot_root(2): with both arguments "." the old root is stacked on the new one, and "." is the old one.
            fchdir(root).at(Step::ChangeRoot)?;
            pivot_root(c".", c".").at(Step::ChangeRoot)?;
            umount2(c".", MntFlags::MNT_DETACH).at(Step::ChangeRoot)?;
        } else {
            fchdir(root).at(Step::ChangeRoot)?;
            chroot(c".").at(Step::ChangeRoot)?;
        }
        chdir(c"/").at(Step::ChangeRoot)?;
        if let Some(flags) = self.propagation {
            mount(none(), c"/", none(), flags, none()).at(Step::RootPropagation)?;
        }
        Ok(())
    }
}

impl fmt::Display for RootPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

/// An absent argument of mount(2).
pub(crate) fn none() -> Option<&'static CStr> {
    None
}

fn directory(path: &Path) -> Result<CString> {
    let attempt = || format!("open root filesystem directory {}", path.display());
    let path: PathBuf = path.canonicalize().map_err(|source| Error::host(attempt(), source))?;
    if !path.is_dir() {
        return Err(Error::host(attempt(), Errno::ENOTDIR));
    }
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::host(attempt(), Errno::EINVAL))
}

fn open_directory(path: &CStr) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Mounts an overlay whose directories are named by descriptor, relative to /proc/self/fd: mount data is limited to a
/// page, which a few dozen paths would fill, and paths may contain the separators `:` and `,`. The descriptors are
/// opened here because newer kernels take layers from the caller's own mount namespace only.
fn mount_overlay(
    lower: &[CString],
    upper: &CStr,
    work: &CStr,
    mount_point: &CStr,
    user: bool,
) -> Result<(), Failure> {
    let mut data = MountData::new();
    data.text(b"lowerdir=");
    // Closed when the overlay holds its own references; an array because the child must not allocate.
    let mut layers: [Option<OwnedFd>; MAX_OVERLAY_LAYERS] = [const { None }; MAX_OVERLAY_LAYERS];
    for (index, (slot, path)) in layers.iter_mut().zip(lower).enumerate() {
        let fd = open_directory(path).at_index(Step::OverlayLayer, index)?;
        if index > 0 {
            data.text(b":");
        }
        data.descriptor(&fd);
        *slot = Some(fd);
    }
    let upper = open_directory(upper).at(Step::OverlayUpper)?;
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
    mount(Some(c"overlay"), mount_point, Some(c"overlay"), MsFlags::MS_NODEV, Some(data))
        .at(Step::MountRoot)?;
    // Where overlayfs cannot make a folder in `work`, for want of space or inodes, it becomes read-only and tells
    // nobody but the kernel's log.
    if statvfs(mount_point).at(Step::MountRoot)?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(Errno::EROFS).at(Step::MountRoot);
    }
    chdir(c"/").at(Step::MountRoot)
}

/// The option string of an overlay, written without allocating.
struct MountData {
    bytes: [u8; MOUNT_DATA_LEN],
    length: usize,
    overflow: bool,
}

impl MountData {
    fn new() -> Self {
        MountData { bytes: [0; MOUNT_DATA_LEN], length: 0, overflow: false }
    }

    fn text(&mut self, text: &[u8]) {
        // One byte stays zero and ends the string.
        match self.bytes[..MOUNT_DATA_LEN - 1].get_mut(self.length..self.length + text.len()) {
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
        for _ in 0..MAX_OVERLAY_LAYERS {
            data.text(b"1523:");
        }
        data.text(b",upperdir=1524,workdir=1525,userxattr");
        assert!(data.as_c_str().is_some());
    }

    #[test]
    fn too_much_data_is_noticed() {
        let mut data = MountData::new();
        data.text(&[b'x'; MOUNT_DATA_LEN]);
        assert!(data.as_c_str().is_none());
    }

    #[test]
    fn missing_directories_and_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = RootFilesystem::Directory(dir.path().join("absent"));
        let error = RootPlan::new(&missing, dir.path(), false).unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
        std::fs::write(dir.path().join("file"), "").unwrap();
        let file = RootFilesystem::Directory(dir.path().join("file"));
        assert!(RootPlan::new(&file, dir.path(), false).is_err());
        let none = RootFilesystem::Overlay {
            lower: vec![],
            upper: dir.path().into(),
            work: dir.path().into(),
        };
        assert!(RootPlan::new(&none, dir.path(), false).is_err());
    }
}
