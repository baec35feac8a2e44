//! Mounts at the levels that share the host's kernel.

use std::io;
use std::path::{Path, PathBuf};

use isolab_volumes::{Fill, Lease, Volumes};
use oci_spec::runtime::{Mount, MountBuilder};

use super::copy_up::Covered;
use super::{Filesystem, MountSource, VolumeMount};
use crate::error::IsolationError;
use crate::instances::InstanceFolder;

/// The mounts of an instance, and its hold on the volumes behind them.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) leases: Vec<Lease>,
}

impl Filesystem {
    /// Makes what is to be mounted, for an image of these layers and a workload of this user and group. `map_ids`: as
    /// for the root.
    pub(crate) fn prepare_native(
        &self,
        folder: &InstanceFolder,
        layers: &[PathBuf],
        user: (u32, u32),
        map_ids: bool,
    ) -> Result<Prepared, IsolationError> {
        let mut prepared = Prepared::default();
        for mount in &self.mounts {
            let (kind, source) = match &mount.source {
                MountSource::Host(path) => ("bind", path.clone()),
                MountSource::Memory => ("tmpfs", PathBuf::from("tmpfs")),
                MountSource::Volume { name, copy_up, .. } => {
                    let covered = Covered { layers, target: &mount.target, user };
                    let fill = |folder: &Path| -> io::Result<()> { covered.fill(folder) };
                    let fill: Option<Fill> = if *copy_up { Some(&fill) } else { None };
                    let owner = mount.source.owner(folder);
                    let lease = Volumes::open_default()?.use_folder(name, owner, fill)?;
                    let path = lease.path().to_owned();
                    prepared.leases.push(lease);
                    ("bind", path)
                }
            };
            let mut made = mount.to_oci(kind, &source)?;
            if map_ids && matches!(mount.source, MountSource::Volume { .. }) {
                map_ids_of(&mut made);
            }
            prepared.mounts.push(made);
        }
        Ok(prepared)
    }
}

impl VolumeMount {
    fn to_oci(&self, kind: &str, source: &Path) -> Result<Mount, IsolationError> {
        let mut options = self.options.clone();
        let is_bind = options.iter().any(|word| word == "bind" || word == "rbind");
        if kind == "bind" && !is_bind {
            options.push("rbind".to_owned());
        }
        options.push(if self.read_only { "ro" } else { "rw" }.to_owned());
        let mount = MountBuilder::default().destination(&self.target).typ(kind).source(source);
        mount
            .options(options)
            .build()
            .map_err(|error| IsolationError::Setting { field: "mounts", why: error.to_string() })
    }
}

/// Has a bind mount's files belong to the ids that they have on the disk, in a container's user namespace.
pub(crate) fn map_ids_of(mount: &mut Mount) {
    mount.options_mut().get_or_insert_default().push("idmap".to_owned());
}

/// In an order in which no mount hides another: what is above comes first, and of two on one path the first is left
/// out.
pub(crate) fn in_order(mut mounts: Vec<Mount>) -> Vec<Mount> {
    let targets: Vec<PathBuf> = mounts.iter().map(|mount| mount.destination().clone()).collect();
    let mut number = 0;
    mounts.retain(|mount| {
        number += 1;
        !targets[number..].contains(mount.destination())
    });
    mounts.sort_by_key(|mount| mount.destination().components().count());
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mount_hides_another() {
        let mount = |target: &str, kind: &str| {
            MountBuilder::default().destination(target).typ(kind).build().unwrap()
        };
        let mounts = [("/etc/hosts", "names"), ("/a/b", ""), ("/etc/hosts", "own"), ("/a", "")];
        let ordered = in_order(mounts.iter().map(|(target, kind)| mount(target, kind)).collect());
        let found: Vec<_> = ordered
            .iter()
            .map(|it| (it.destination().to_str().unwrap(), it.typ().as_deref().unwrap()))
            .collect();
        assert_eq!(found, [("/a", ""), ("/a/b", ""), ("/etc/hosts", "own")]);
    }
}
