//! Making the root filesystem a mount, and entering it.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{self, Path};
use std::{fmt, io};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};
use procfs::process::MountInfo;

use super::bind::{NONE, add_flags, attach, bind, change, open_directory};
use super::id_mapped::Mappings;
use super::mapped_overlay;
use super::overlay::{self, MAX_LAYERS};
use crate::config::RootFilesystem;
use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// The root filesystem, ready to be mounted and entered.
#[derive(Debug)]
pub(crate) struct RootPlan {
    source: Source,
    pub entry: Entry,
    /// The mount namespace is not the container's alone: what is mounted there already stays as it is.
    pub shares_namespace: bool,
    pub readonly: bool,
    /// `linux.rootfsPropagation`, applied when everything is in place.
    propagation: Option<MsFlags>,
    /// What is mounted inside is to be seen outside, by binds of what the host shares: its mounts stay shared, but the
    /// one that the root is in, or it would be seen there.
    shared_in: Option<CString>,
}

/// How a root file system becomes the root directory.
#[derive(Debug)]
pub(crate) enum Entry {
    /// By pivot_root(2): nothing else is left in the mount namespace.
    Pivot,
    /// Moved over the root directory, which cannot be pivoted from where it is an initramfs: beneath, the host's mounts
    /// stay, without these, procfs and sysfs, which would let a user namespace inside mount its own.
    Move { hidden: Vec<CString> },
    /// By chroot(2): of a host process, and in a mount namespace of others.
    Chroot,
}

impl Entry {
    /// [`Entry::Move`] of what is mounted at `root`.
    pub(crate) fn moved(root: &CStr) -> Result<Self> {
        let root = Path::new(OsStr::from_bytes(root.to_bytes()));
        let is_full = |kind: &str| kind == "proc" || kind == "sysfs";
        let mounts = own_mounts()?.into_iter();
        let hidden =
            mounts.filter(|one| is_full(&one.fs_type) && !one.mount_point.starts_with(root));
        let hidden =
            hidden.filter_map(|one| CString::new(one.mount_point.into_os_string().into_vec()).ok());
        Ok(Entry::Move { hidden: hidden.collect() })
    }
}

#[derive(Debug)]
enum Source {
    Directory(CString),
    Overlay {
        lower: Vec<CString>,
        upper: CString,
        work: CString,
        user: bool,
    },
    /// An overlay that the runtime has made, and that is nowhere yet.
    Mapped {
        tree: OwnedFd,
        upper: CString,
    },
}

impl RootPlan {
    /// `user`: in a user namespace. What is missing or no directory is found by the child.
    pub(crate) fn new(rootfs: &RootFilesystem, user: bool) -> Result<Self> {
        let source = match rootfs {
            RootFilesystem::Directory(path) => Source::Directory(absolute(path)?),
            RootFilesystem::Overlay { lower, upper, work } => {
                if lower.is_empty() || lower.len() > MAX_LAYERS {
                    let problem =
                        format!("{} layers; overlayfs takes 1 to {MAX_LAYERS}", lower.len());
                    return Err(Error::invalid("rootfs.lower", problem));
                }
                let lower = lower.iter().map(|path| absolute(path)).collect::<Result<_>>()?;
                Source::Overlay { lower, upper: absolute(upper)?, work: absolute(work)?, user }
            }
        };
        let (propagation, shared_in) = (None, None);
        let (entry, readonly, shares_namespace) = (Entry::Pivot, false, false);
        Ok(RootPlan { source, entry, shares_namespace, readonly, propagation, shared_in })
    }

    /// An overlay whose files are of the container's ids, by these maps.
    pub(crate) fn mapped(rootfs: &RootFilesystem, mappings: Mappings) -> Result<Self> {
        let mut plan = Self::new(rootfs, false)?;
        match &plan.source {
            Source::Overlay { lower, upper, work, .. } => {
                let tree = mapped_overlay::make(lower, upper, work, mappings)?;
                plan.source = Source::Mapped { tree, upper: upper.clone() };
                Ok(plan)
            }
            _ => Err(Error::unsupported("rootfs", "ids are mapped of an overlay alone")),
        }
    }

    /// What the child needs of the runtime's.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &self.source {
            Source::Mapped { tree, .. } => Some(tree.as_raw_fd()),
            _ => None,
        }
    }

    /// Sets `linux.rootfsPropagation`.
    pub(crate) fn propagate(&mut self, flags: MsFlags) -> Result<()> {
        self.propagation = Some(flags);
        if flags.contains(MsFlags::MS_SHARED) {
            self.shared_in = Some(mount_of(self.mount_point())?);
        }
        Ok(())
    }

    /// Where the root is mounted before it is entered: over the directory itself, or over the upper one. Both are the
    /// container's own, so that no other directory has to be made and removed.
    pub(crate) fn mount_point(&self) -> &CStr {
        match &self.source {
            Source::Directory(path) => path,
            Source::Overlay { upper, .. } | Source::Mapped { upper, .. } => upper,
        }
    }

    /// An overlay's read-only layer, for the words of a failure.
    pub(crate) fn layer(&self, index: usize) -> String {
        match &self.source {
            Source::Overlay { lower, .. } => lower.get(index),
            Source::Directory(_) | Source::Mapped { .. } => None,
        }
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default()
    }

    /// Child: makes the root a mount of its own, of which no device node can be opened, and opens it.
    ///
    /// Whoever makes an image writes its nodes, and what they name is the host's: devices come from the
    /// configuration (`devices`), never from the image.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Failure> {
        // Slave, not private: what the host unmounts must not live on here and keep its disk busy.
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        match &self.shared_in {
            _ if self.shares_namespace => {}
            None => change(c"/", slave).at(Step::Propagation)?,
            Some(mount) => change(mount, MsFlags::MS_PRIVATE).at(Step::Propagation)?,
        }
        match &self.source {
            Source::Directory(path) => {
                bind(path, path, MsFlags::MS_REC).at(Step::MountRoot)?;
                let root = open_directory(path).at(Step::OpenRoot)?;
                add_flags(&root, MsFlags::MS_NODEV).at(Step::MountRoot)?;
                Ok(root)
            }
            Source::Overlay { lower, upper, work, user } => {
                overlay::mount(lower, upper, work, *user)?;
                open_directory(upper).at(Step::OpenRoot)
            }
            Source::Mapped { tree, .. } => {
                // Over the root, which paths begin beneath: what is root's alone on the host, as the upper directory is,
                // is out of reach here.
                let target = open_directory(c"/").at(Step::OpenRoot)?;
                attach(tree, &target).at(Step::MountRoot)?;
                fcntl(tree, FcntlArg::F_DUPFD_CLOEXEC(0)).at(Step::OpenRoot).map(|fd| {
                    // SAFETY: a new descriptor that nobody else owns.
                    unsafe { OwnedFd::from_raw_fd(fd) }
                })
            }
        }
    }

    /// Child: remounts the root read-only, keeping the flags it has.
    pub(crate) fn make_readonly(&self, root: &OwnedFd) -> Result<(), Failure> {
        add_flags(root, MsFlags::MS_RDONLY).at(Step::ReadonlyRoot)
    }

    /// Child: makes `root` the root directory.
    pub(crate) fn enter(&self, root: &OwnedFd) -> Result<(), Failure> {
        if let Entry::Move { hidden } = &self.entry {
            hide(hidden)?;
        }
        fchdir(root).at(Step::ChangeRoot)?;
        if let Entry::Pivot = self.entry {
            // pivot_root(2): with both arguments "." the old root is stacked on the new one, and "." is the old one.
            let old = self.shared_in.as_ref().map(|_| open_directory(c"/"));
            let old = old.transpose().at(Step::ChangeRoot)?;
            pivot_root(c".", c".").at(Step::ChangeRoot)?;
            if let Some(old) = &old {
                // Or what is unmounted here would be unmounted on the host. mount(2) takes "." for the new root.
                fchdir(old).at(Step::ChangeRoot)?;
                let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
                change(c".", slave).at(Step::ChangeRoot)?;
            }
            umount2(c".", MntFlags::MNT_DETACH).at(Step::ChangeRoot)?;
        } else {
            if let Entry::Move { .. } = self.entry {
                mount(Some(c"."), c"/", NONE, MsFlags::MS_MOVE, NONE).at(Step::ChangeRoot)?;
            }
            chroot(c".").at(Step::ChangeRoot)?;
        }
        chdir(c"/").at(Step::ChangeRoot)?;
        if let Some(flags) = self.propagation {
            change(c"/", flags).at(Step::RootPropagation)?;
        }
        Ok(())
    }
}

impl fmt::Display for RootPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.mount_point().to_string_lossy();
        match &self.source {
            Source::Directory(_) => write!(f, "{path}"),
            _ => write!(f, "overlay with upper directory {path}"),
        }
    }
}

/// The child's working directory is another.
fn absolute(path: &Path) -> Result<CString> {
    let attempt = || format!("name the root filesystem directory {}", path.display());
    let path = path::absolute(path).map_err(|source| Error::host(attempt(), source))?;
    CString::new(path.into_os_string().into_vec())
        .map_err(|_| Error::host(attempt(), Errno::EINVAL))
}

/// The mount that a directory is in, by its mount point.
fn mount_of(path: &CStr) -> Result<CString> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let real = path.canonicalize();
    let real = real.map_err(|source| {
        Error::host(format!("find the root filesystem {}", path.display()), source)
    })?;
    let above = own_mounts()?.into_iter().filter(|mount| real.starts_with(&mount.mount_point));
    // Of several on one point, the last is on top.
    let nearest = above.max_by_key(|mount| mount.mount_point.as_os_str().len());
    let point = nearest.map_or_else(|| "/".into(), |mount| mount.mount_point);
    CString::new(point.into_os_string().into_vec())
        .map_err(|error| Error::host("name a mount point", io::Error::from(error)))
}

/// What is mounted in our own mount namespace.
fn own_mounts() -> Result<Vec<MountInfo>> {
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    let mounts = mounts
        .map_err(|error| Error::host("read /proc/self/mountinfo", io::Error::other(error)))?;
    Ok(mounts.into_iter().collect())
}

/// Child: takes mounts away, or where the user namespace of who mounted them forbids that, puts an empty one over them.
fn hide(paths: &[CString]) -> Result<(), Failure> {
    for path in paths {
        match umount2(path.as_c_str(), MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => {
                mount(Some(c"tmpfs"), path.as_c_str(), Some(c"tmpfs"), MsFlags::MS_RDONLY, NONE)
                    .at(Step::ChangeRoot)?
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_has_layers_and_not_too_many() {
        let overlay = |layers| RootFilesystem::Overlay {
            lower: vec!["/layer".into(); layers],
            upper: "/upper".into(),
            work: "/work".into(),
        };
        for (layers, is_possible) in [(0, false), (1, true), (500, true), (501, false)] {
            assert_eq!(RootPlan::new(&overlay(layers), false).is_ok(), is_possible, "{layers}");
        }
    }
}
