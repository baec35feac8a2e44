//! Mounts in a virtual machine: its own disks, folders of the host where its hardware shares them, and memory.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use isolab_guest::initramfs::SeenFile;
use isolab_guest::{FILES_DIR, Mount, MountSource as GuestSource};
use isolab_images::{MERGED, Merged, run_with_merged};
use isolab_volumes::{Kind, Lease, TopFolder, VolumeName, Volumes};

use super::copy_up::Covered;
use super::{Filesystem, MountSource};
use crate::error::IsolationError;
use crate::instance::InstanceSpec;
use crate::level::Level;

/// What a machine gets besides its root.
#[derive(Default)]
pub(crate) struct GuestMounts {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) disks: Vec<GuestDisk>,
    pub(crate) shares: Vec<GuestShare>,
    pub(crate) files: Vec<SeenFile>,
    pub(crate) leases: Vec<Lease>,
}

/// A volume's disk.
#[derive(Debug)]
pub(crate) struct GuestDisk {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// A folder of the host.
#[derive(Debug)]
pub(crate) struct GuestShare {
    pub(crate) path: PathBuf,
    pub(crate) tag: String,
    pub(crate) read_only: bool,
}

/// A PC has four disks, and three are taken: the image, what is written to it, and the control channel.
const MOST_PC_DISKS: usize = 1;
/// As many letters as there are behind `vda` and `vdb`.
const MOST_VIRTIO_DISKS: usize = 24;
/// Bytes of single files, which are in the guest's RAM.
const MOST_FILES: u64 = 4 << 20;

fn refused(why: String) -> IsolationError {
    IsolationError::Setting { field: "volume", why }
}

/// Whether a machine of this level can see `path` of the host. Of a file it sees a copy, which nobody can write: what a
/// guest would write to it could not come back.
fn check_host(level: Level, path: &Path, read_only: bool) -> Result<(), IsolationError> {
    let shown = path.display();
    if path.is_file() {
        return read_only.then_some(()).ok_or_else(|| {
            refused(format!("{shown} is a file, which {level} can see read-only and not otherwise"))
        });
    }
    if level == Level::Fullvirt {
        return Err(refused(format!(
            "{shown} cannot be seen at fullvirt: no PC hardware shares a folder of the host; use a named volume"
        )));
    }
    if !path.is_dir() {
        return Err(refused(format!(
            "{shown} is no folder and no file, and {level} sees only those"
        )));
    }
    Ok(())
}

impl Filesystem {
    /// Refuses what `level` cannot show, as far as that can be known before there is an instance.
    ///
    /// # Errors
    /// The first mount that it cannot show, with the reason.
    pub fn check(&self, level: Level) -> Result<(), IsolationError> {
        let of_host = self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Host(path) => Some((path, mount.read_only)),
            _ => None,
        });
        let mut of_machine = of_host.filter(|_| level.is_virtual_machine());
        of_machine.try_for_each(|(path, read_only)| check_host(level, path, read_only))
    }

    /// Makes what is to be mounted in the machine of this instance.
    pub(crate) fn prepare_guest(
        level: Level,
        spec: &InstanceSpec,
    ) -> Result<GuestMounts, IsolationError> {
        let mut found = GuestMounts::default();
        let mut mounts: Vec<_> = spec.filesystem.mounts.iter().collect();
        // What is above comes first.
        mounts.sort_by_key(|mount| mount.target.components().count());
        for mount in mounts {
            let Some(target) = mount.target.to_str().map(str::to_owned) else {
                return Err(refused(format!(
                    "{:?} is not UTF-8, as a guest needs it",
                    mount.target
                )));
            };
            let source = match &mount.source {
                MountSource::Memory => GuestSource::Memory,
                // The machine's own disk has room for it, and goes with the instance.
                MountSource::Volume { anonymous: true, .. } => GuestSource::Root,
                MountSource::Host(path) => found.share_host(level, path, mount.read_only)?,
                MountSource::Volume { name, copy_up, .. } => {
                    found.volume(level, spec, name, (&mount.target, *copy_up), mount.read_only)?
                }
            };
            let (read_only, options) = (mount.read_only, mount.options.clone());
            found.mounts.push(Mount { target, source, read_only, options });
        }
        let most = if level == Level::Fullvirt { MOST_PC_DISKS } else { MOST_VIRTIO_DISKS };
        if found.disks.len() > most {
            return Err(refused(format!(
                "{} volumes that are disks: at {level} there is room for {most} beside the machine's own",
                found.disks.len()
            )));
        }
        found.check_uuids()?;
        Ok(found)
    }
}

impl GuestMounts {
    fn share_host(
        &mut self,
        level: Level,
        path: &Path,
        read_only: bool,
    ) -> Result<GuestSource, IsolationError> {
        check_host(level, path, read_only)?;
        if path.is_file() {
            return self.copy(path);
        }
        Ok(self.share(path.to_owned(), read_only))
    }

    fn copy(&mut self, path: &Path) -> Result<GuestSource, IsolationError> {
        let taken: usize = self.files.iter().map(|file| file.content.len()).sum();
        let inside = format!("{FILES_DIR}/{}", self.files.len());
        let file = SeenFile::read(path, inside.clone(), MOST_FILES - taken as u64);
        let file = file
            .map_err(|source| IsolationError::HostFile { path: path.to_owned(), source })?
            .ok_or_else(|| {
                let shown = path.display();
                refused(format!(
                    "{shown}: single files of a machine are 4 MiB at most; a folder may hold more"
                ))
            })?;
        self.files.push(file);
        Ok(GuestSource::File(inside))
    }

    fn share(&mut self, path: PathBuf, read_only: bool) -> GuestSource {
        let tag = format!("volume{}", self.shares.len());
        self.shares.push(GuestShare { path, tag: tag.clone(), read_only });
        GuestSource::Share(tag)
    }

    fn volume(
        &mut self,
        level: Level,
        spec: &InstanceSpec,
        name: &VolumeName,
        (target, copy_up): (&Path, bool),
        read_only: bool,
    ) -> Result<GuestSource, IsolationError> {
        let volumes = Volumes::open_default()?;
        let is_disk = level == Level::Fullvirt
            || volumes.get(name).is_ok_and(|volume| volume.kind == Some(Kind::Disk));
        let user = spec.spec.process().as_ref().map(|process| process.user());
        let user = user.map_or((0, 0), |user| (user.uid(), user.gid()));
        let layers = spec.image.layers()?;
        let covered = Covered { layers: &layers, target, user };
        let lease = match (is_disk, copy_up) {
            (true, true) => volumes.use_disk(name, None, |make, disk| covered.format(make, disk)),
            (true, false) => volumes
                .use_disk(name, None, |make, disk| Ok((make.arg(disk).output()?, covered.empty()))),
            (false, true) => volumes.use_folder(name, None, Some(&|folder| covered.fill(folder))),
            (false, false) => volumes.use_folder(name, None, None),
        }?;
        let (path, uuid) = (lease.path().to_owned(), lease.uuid());
        self.leases.push(lease);
        if !is_disk {
            return Ok(self.share(path, read_only));
        }
        self.disks.push(GuestDisk { path, read_only });
        Ok(GuestSource::Disk(uuid))
    }

    /// The guest finds each by its UUID, which its user can change: two alike are refused before they are mixed up.
    fn check_uuids(&self) -> Result<(), IsolationError> {
        for (at, lease) in self.leases.iter().enumerate() {
            let is_same = |other: &Lease| other.uuid() == lease.uuid() && lease.uuid() != [0; 16];
            if self.leases[..at].iter().any(is_same) {
                let path = lease.path().display();
                return Err(refused(format!(
                    "{path} has the UUID of another volume's file system"
                )));
            }
        }
        Ok(())
    }
}

impl Covered<'_> {
    /// Runs `make`, an mke2fs, for `disk` with what the image has there.
    fn format(&self, make: &mut Command, disk: &Path) -> io::Result<(Output, TopFolder)> {
        let found = Merged::new(self.layers.to_vec()).resolve(self.target, true)?;
        let Some((_, metadata)) = found.file.filter(|(_, metadata)| metadata.is_dir()) else {
            return Ok((make.arg(disk).output()?, self.empty()));
        };
        make.arg("-d").arg(Path::new(MERGED).join(found.path)).arg(std::path::absolute(disk)?);
        let output = run_with_merged(self.layers, make)?;
        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        Ok((output, TopFolder { uid, gid, mode }))
    }

    /// As a folder is where the image has none.
    fn empty(&self) -> TopFolder {
        let (uid, gid) = self.user;
        TopFolder { uid, gid, mode: 0o755 }
    }
}
