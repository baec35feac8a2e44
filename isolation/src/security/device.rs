//! Devices of the host in a container: `HOST[:CONTAINER[:PERMISSIONS]]`.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::stat::{major, minor};
use nix::unistd::geteuid;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount, Spec,
};
use serde::{Deserialize, Serialize};

use super::Security;
use crate::error::IsolationError;

/// One device, or a folder of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it is to be in the container.
    pub container: PathBuf,
    /// Of `r`, `w` and `m` (make a node of it).
    pub permissions: String,
}

/// All that can be asked for.
const ALL_ACCESS: &str = "rwm";

/// No folder of /dev has as many.
const MOST: usize = 4096;

/// What the container has of its own below /dev, whatever the host has there (as in podman).
const OWN: [&str; 8] = ["console", "core", "fd", "mqueue", "ptmx", "pts", "shm", "tty"];

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_access =
            |text: &str| !text.is_empty() && text.chars().all(|c| ALL_ACCESS.contains(c));
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, permissions) = match parts[..] {
            [host] => (host, host, ALL_ACCESS),
            [host, access] if is_access(access) => (host, host, access),
            [host, container] => (host, container, ALL_ACCESS),
            [host, container, access] if is_access(access) => (host, container, access),
            _ => {
                return Err(
                    "expected HOST[:CONTAINER[:PERMISSIONS]] with permissions of r, w and m"
                        .to_owned(),
                );
            }
        };
        for path in [host, container] {
            let is_plain =
                Path::new(path).components().all(|part| part != std::path::Component::ParentDir);
            if !path.starts_with('/') || !is_plain {
                return Err(format!("`{path}` is not an absolute path without `..`"));
            }
        }
        Ok(Self {
            host: host.into(),
            container: container.into(),
            permissions: permissions.to_owned(),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.host.display(), self.container.display(), self.permissions)
    }
}

/// Adds the nodes and what the device cgroup is to allow.
pub(super) fn apply(asked: &Security, spec: &mut Spec) -> Result<(), IsolationError> {
    let mut found = Found::default();
    for device in &asked.devices {
        found.add(&device.host, &device.container, &device.permissions)?;
    }
    if asked.privileged {
        found.add_folder(Path::new("/dev"), Path::new("/dev"), ALL_ACCESS, true)?;
    }
    if !geteuid().is_root() {
        // Nodes cannot be made in a user namespace; the host's own can be bound.
        let mounts = found.nodes.iter().map(|node| bind(&node.host, node.device.path()));
        spec.mounts_mut().get_or_insert_default().extend(mounts);
        return Ok(());
    }
    let linux = spec.linux_mut().get_or_insert_default();
    let mut rules = found.rules;
    if asked.privileged {
        rules = vec![rule(true, LinuxDeviceType::A, None, ALL_ACCESS)?];
    }
    let nodes = found.nodes.into_iter().map(|node| node.device);
    linux.devices_mut().get_or_insert_default().extend(nodes);
    let resources = linux.resources_mut().get_or_insert_default();
    resources.devices_mut().get_or_insert_default().extend(rules);
    Ok(())
}

fn bind(source: &Path, destination: &Path) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(["bind", "nosuid", "noexec"].map(str::to_owned).to_vec()));
    mount
}

#[derive(Default)]
struct Found {
    nodes: Vec<Node>,
    rules: Vec<LinuxDeviceCgroup>,
}

struct Node {
    host: PathBuf,
    device: LinuxDevice,
}

impl Found {
    fn add(&mut self, host: &Path, container: &Path, access: &str) -> Result<(), IsolationError> {
        let metadata = fs::metadata(host).map_err(|source| io_error("look at", host, source))?;
        if metadata.is_dir() {
            let before = self.nodes.len();
            self.add_folder(host, container, access, false)?;
            return match self.nodes.len() > before {
                true => Ok(()),
                false => {
                    Err(setting(format!("{}: there is no device in this folder", host.display())))
                }
            };
        }
        let file_type = metadata.file_type();
        let kind = match (file_type.is_char_device(), file_type.is_block_device()) {
            (true, _) => LinuxDeviceType::C,
            (_, true) => LinuxDeviceType::B,
            _ => return Err(setting(format!("{} is no device", host.display()))),
        };
        let number = (major(metadata.rdev()) as i64, minor(metadata.rdev()) as i64);
        let mut device = LinuxDevice::default();
        device
            .set_path(container.to_owned())
            .set_typ(kind)
            .set_major(number.0)
            .set_minor(number.1)
            .set_file_mode(Some(metadata.mode() & 0o7777))
            .set_uid(Some(metadata.uid()))
            .set_gid(Some(metadata.gid()));
        self.nodes.push(Node { host: host.to_owned(), device });
        // A node that is made may be used; what was not asked for is taken away again.
        let denied: String = ALL_ACCESS.chars().filter(|c| !access.contains(*c)).collect();
        if !denied.is_empty() {
            self.rules.push(rule(false, kind, Some(number), &denied)?);
        }
        Ok(())
    }

    /// All devices in a folder and those below. `is_host`: it is the host's /dev.
    fn add_folder(
        &mut self,
        host: &Path,
        container: &Path,
        access: &str,
        is_host: bool,
    ) -> Result<(), IsolationError> {
        let entries = fs::read_dir(host).map_err(|source| io_error("list", host, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| io_error("list", host, source))?;
            let (name, path) = (entry.file_name(), entry.path());
            if is_host && OWN.iter().any(|own| name == *own) {
                continue;
            }
            // Links are not followed: what they lead to is found in its own place.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.add_folder(&path, &container.join(&name), access, false)?;
            } else if kind.is_char_device() || kind.is_block_device() {
                let place = container.join(&name);
                // The usual ones are there already.
                if is_host && USUAL.iter().any(|usual| name == *usual) {
                    continue;
                }
                self.add(&path, &place, access)?;
            }
            if self.nodes.len() > MOST {
                return Err(setting(format!("{}: more than {MOST} devices", host.display())));
            }
        }
        Ok(())
    }
}

/// In every container.
const USUAL: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    number: Option<(i64, i64)>,
    access: &str,
) -> Result<LinuxDeviceCgroup, IsolationError> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some((major, minor)) = number {
        rule = rule.major(major).minor(minor);
    }
    rule.build().map_err(|error| setting(error.to_string()))
}

fn setting(why: String) -> IsolationError {
    IsolationError::Setting { field: "devices", why }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> IsolationError {
    IsolationError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_podman_s() {
        for (text, shown) in [
            ("/dev/fuse", "/dev/fuse:/dev/fuse:rwm"),
            ("/dev/fuse:r", "/dev/fuse:/dev/fuse:r"),
            ("/dev/sda:/dev/xvda", "/dev/sda:/dev/xvda:rwm"),
            ("/dev/sda:/dev/xvda:rw", "/dev/sda:/dev/xvda:rw"),
        ] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), shown);
        }
        for bad in ["", "fuse", "/dev/a:/dev/b:x", "/dev/a:b", "/dev/../x", "/a:/b:r:w"] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let mut found = Found::default();
        let add = |found: &mut Found, path: &str| {
            found.add(Path::new(path), Path::new("/dev/x"), "r").map_err(|error| error.to_string())
        };
        assert!(add(&mut found, "/etc/passwd").unwrap_err().contains("is no device"));
        assert!(add(&mut found, "/dev/absent").unwrap_err().contains("/dev/absent"));
        add(&mut found, "/dev/null").unwrap();
        let device = &found.nodes[0].device;
        assert_eq!((device.major(), device.minor()), (1, 3));
        assert_eq!(found.rules[0].access().as_deref(), Some("wm"));
    }
}
