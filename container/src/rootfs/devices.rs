//! `/dev`: the nodes and links of the OCI specification (config-linux.md, "Default Devices" and "Dev symbolic links").

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::bind::bind;
use super::resolve::{DescriptorPath, InnerPath, Target, open_in_root};
use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// A device node to be made in /dev.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    pub path: InnerPath,
    kind: SFlag,
    mode: Mode,
    number: libc::dev_t,
    owner: (libc::uid_t, libc::gid_t),
}

/// Name, major, minor (`Documentation/admin-guide/devices.txt`).
const DEFAULT_DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// (target, name below /dev)
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
    (c"pts/ptmx", c"ptmx"),
];

/// The default devices, then those that the configuration adds.
pub(crate) fn plan(extra: &[LinuxDevice]) -> Result<Vec<DevicePlan>> {
    let defaults = DEFAULT_DEVICES.iter().map(|(path, major, minor)| {
        Ok(DevicePlan {
            path: InnerPath::new(Path::new(path), "default devices")?,
            kind: SFlag::S_IFCHR,
            mode: Mode::from_bits_truncate(0o666),
            number: makedev(*major, *minor),
            owner: (0, 0),
        })
    });
    defaults.chain(extra.iter().map(from_oci)).collect()
}

fn from_oci(device: &LinuxDevice) -> Result<DevicePlan> {
    let field = format!("linux.devices {}", device.path().display());
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => return Err(Error::invalid(field, "type `a` is no device")),
    };
    let number = |number: i64| {
        u64::try_from(number).map_err(|_| Error::invalid(&field, "negative device number"))
    };
    Ok(DevicePlan {
        path: InnerPath::new(device.path(), &field)?,
        kind,
        mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777),
        number: makedev(number(device.major())?, number(device.minor())?),
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

impl DevicePlan {
    /// Type and number, for the rules of the cgroup.
    pub(crate) fn identity(&self) -> (SFlag, libc::dev_t) {
        (self.kind, self.number)
    }

    /// Child: makes the node in `parent`, which can hold nodes, or where there is none, binds one.
    fn create(
        &self,
        parent: Option<&OwnedFd>,
        root: BorrowedFd,
        mount_point: &CStr,
    ) -> Result<(), Errno> {
        let Some((_, name)) = self.path.split() else { return Err(Errno::EINVAL) };
        let Some(parent) = parent else { return self.bind_from_tmpfs(root, mount_point) };
        match self.make(parent.as_fd(), name) {
            // A runtime that runs in a container may lack CAP_MKNOD.
            Err(Errno::EPERM) => self.bind(self.path.as_c_str(), root),
            other => other,
        }
    }

    fn make(&self, parent: BorrowedFd, name: &CStr) -> Result<(), Errno> {
        mknodat(parent, name, self.kind, self.mode, self.number)?;
        if self.owner == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// The root is mounted without devices. So the node is made on a tmpfs that lives as long as the bind of the node,
    /// out of everybody's sight.
    fn bind_from_tmpfs(&self, root: BorrowedFd, mount_point: &CStr) -> Result<(), Errno> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some(c"tmpfs"), mount_point, Some(c"tmpfs"), flags, Some(c"size=4096,mode=700"))?;
        let bound = self.make_and_bind(root, mount_point);
        let unmounted = umount2(mount_point, MntFlags::MNT_DETACH);
        bound.and(unmounted)
    }

    fn make_and_bind(&self, root: BorrowedFd, mount_point: &CStr) -> Result<(), Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let tmpfs = open(mount_point, flags, Mode::empty())?;
        self.make(tmpfs.as_fd(), c"node")?;
        let node = openat(&tmpfs, c"node", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        self.bind(DescriptorPath::new(&node).as_c_str(), root)
    }

    fn bind(&self, source: &CStr, root: BorrowedFd) -> Result<(), Errno> {
        let target = self.path.open_or_create(root, Target::File)?;
        let target = DescriptorPath::new(&target);
        bind(source, target.as_c_str(), MsFlags::empty())
    }
}

/// Child: makes the nodes. `bind`: in a user namespace, where mknod is not allowed, bind the host's nodes instead.
/// `mount_point`: where nodes are made that the root filesystem cannot have itself.
pub(crate) fn create_nodes(
    nodes: &[DevicePlan],
    root: BorrowedFd,
    bind: bool,
    mount_point: &CStr,
) -> Result<(), Failure> {
    // Nearly all are in /dev, which is looked at once.
    let mut last: Option<(&CStr, Option<OwnedFd>)> = None;
    for (index, node) in nodes.iter().enumerate() {
        if bind {
            node.bind(node.path.as_c_str(), root).at_index(Step::Device, index)?;
            continue;
        }
        let path = node.path.split().map_or(c"/", |(parent, _)| parent);
        let parent = match last.take() {
            Some((known, parent)) if known == path => parent,
            _ => open_for_nodes(root, path).at_index(Step::Device, index)?,
        };
        node.create(parent.as_ref(), root, mount_point).at_index(Step::Device, index)?;
        last = Some((path, parent));
    }
    Ok(())
}

/// Child: a directory that nodes can be used in. There is none only where a configuration mounts no /dev, or puts a
/// device elsewhere.
fn open_for_nodes(root: BorrowedFd, path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match open_in_root(root, path) {
        Ok(parent) => {
            let is_nodev = fstatvfs(&parent)?.flags().contains(FsFlags::ST_NODEV);
            Ok((!is_nodev).then_some(parent))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Child: makes the links of /dev. What the image or a mount already put there stays.
pub(crate) fn create_links(root: BorrowedFd) -> Result<(), Failure> {
    let dev = open_in_root(root, c"/dev").at(Step::DeviceLink)?;
    for (index, (target, name)) in LINKS.iter().enumerate() {
        match symlinkat(*target, &dev, *name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).at_index(Step::DeviceLink, index),
        }
    }
    Ok(())
}
