//! `/dev`: the nodes and links of the OCI specification (config-linux.md, "Default Devices" and "Dev symbolic links").

use super::resolve::{DescriptorPath, InnerPath, Target, open_in_root};
use super::root::none;
use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// One device node.
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
    /// Child: makes the node. `bind`: in a user namespace, where mknod is not allowed, bind the host's node instead.
    pub(crate) fn create(&self, root: BorrowedFd, bind: bool) -> Result<(), Errno> {
        if bind {
            return self.bind(root);
        }
        let Some((parent, name)) = self.path.split() else { return Err(Errno::EINVAL) };
        let parent = match open_in_root(root, parent) {
            // Only where a configuration puts a device outside /dev.
            Err(Errno::ENOENT) => return self.create_with_parents(root),
            other => other?,
        };
        self.create_in(parent.as_fd(), name, root)
    }

    fn create_with_parents(&self, root: BorrowedFd) -> Result<(), Errno> {
        // Makes the parents, and a file at the path itself, which makes way for the node.
        drop(self.path.open_or_create(root, Target::File)?);
        let Some((parent, name)) = self.path.split() else { return Err(Errno::EINVAL) };
        let parent = open_in_root(root, parent)?;
        nix::unistd::unlinkat(&parent, name, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
        self.create_in(parent.as_fd(), name, root)
    }

    fn create_in(&self, parent: BorrowedFd, name: &CStr, root: BorrowedFd) -> Result<(), Errno> {
        match mknodat(parent, name, self.kind, self.mode, self.number) {
            Ok(()) => {}
            // A runtime that runs in a container may lack CAP_MKNOD.
            Err(Errno::EPERM) => return self.bind(root),
            Err(errno) => return Err(errno),
        }
        if self.owner == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        fchownat(parent, name, Some(uid), Some(gid), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn bind(&self, root: BorrowedFd) -> Result<(), Errno> {
        let target = self.path.open_or_create(root, Target::File)?;
        let target = DescriptorPath::new(&target);
        mount(Some(self.path.as_c_str()), target.as_c_str(), none(), MsFlags::MS_BIND, none())
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
