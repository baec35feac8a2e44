//! What an instance's file system is made of beside its image: volumes, host folders, memory, and names of hosts.
//!
//! A level makes of it what it can: the levels that share the host's kernel bind folders (`native`), machines get
//! disks and shared folders (`guest`).

mod copy_up;
pub(crate) mod guest;
pub(crate) mod hosts;
mod memory;
pub(crate) mod native;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use isolab_images::Image;
use isolab_volumes::{Owner, VolumeError, VolumeName, Volumes};
use serde::{Deserialize, Serialize};

pub use self::memory::MemoryOptions;
use crate::error::IsolationError;
use crate::instances::InstanceFolder;

/// What the operator says about an instance's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filesystem {
    /// What is mounted over the image, no two on one path.
    pub mounts: Vec<VolumeMount>,
    /// Whether the image's files, and the folders between them, cannot be written.
    pub read_only: bool,
    /// Lines of /etc/hosts beside the instance's own.
    pub hosts: Vec<HostEntry>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Where it is seen in the instance: absolute, without `.` and `..`. What is missing of the path is made.
    pub target: PathBuf,
    /// What is seen there.
    pub source: MountSource,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Further options, in the words of mount(8).
    pub options: Vec<String>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountSource {
    /// A folder, or a file, of the host.
    Host(PathBuf),
    /// A volume.
    Volume {
        /// Its name, which it has from the beginning, also if nobody gave it one.
        name: VolumeName,
        /// Whether nobody did. It is the instance's own then.
        anonymous: bool,
        /// Whether its first user's image may have something to be copied into it.
        copy_up: bool,
    },
    /// Memory: a tmpfs.
    Memory,
}

/// A line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Names.
    pub names: Vec<String>,
    /// Whose address this is.
    pub address: IpAddr,
}

impl Filesystem {
    /// Adds an anonymous volume for each path that the image declares as one, unless something is mounted there.
    ///
    /// # Errors
    /// /dev/urandom cannot be read, or the image declares a path that cannot be one.
    pub fn add_image_volumes(&mut self, image: &Image) -> Result<(), IsolationError> {
        let config = image.config().config().as_ref();
        let declared = config.and_then(|config| config.volumes().clone()).unwrap_or_default();
        for path in declared.into_iter().collect::<BTreeSet<_>>() {
            let Some(target) = clean(Path::new(&path)) else {
                let why = format!("the image declares a volume on `{}`", path.escape_debug());
                return Err(IsolationError::Setting { field: "volume", why });
            };
            if self.mounts.iter().any(|mount| mount.target == target) {
                continue;
            }
            let name = VolumeName::random().map_err(IsolationError::host("read /dev/urandom"))?;
            let source = MountSource::Volume { name, anonymous: true, copy_up: true };
            let options = VolumeMount::options(Vec::new());
            self.mounts.push(VolumeMount { target, source, read_only: false, options });
        }
        Ok(())
    }

    /// The volumes that it uses.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeName> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => Some(name),
            _ => None,
        })
    }

    /// Whether some of its volumes are its own.
    pub fn has_anonymous(&self) -> bool {
        self.mounts
            .iter()
            .any(|mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. }))
    }

    /// Removes its anonymous volumes; the instance is gone.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn remove_anonymous(&self) -> Result<(), IsolationError> {
        for mount in &self.mounts {
            let MountSource::Volume { name, anonymous: true, .. } = &mount.source else { continue };
            match Volumes::open_default()?.remove(name) {
                // It was never started; or somebody gave the volume to another instance.
                Ok(_) | Err(VolumeError::Unknown(_) | VolumeError::InUse(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl MountSource {
    /// Whose an anonymous volume is.
    fn owner(&self, folder: &InstanceFolder) -> Option<Owner> {
        let is_anonymous = matches!(self, Self::Volume { anonymous: true, .. });
        is_anonymous
            .then(|| Owner { instance: folder.id().to_owned(), goes_with_it: !folder.is_kept() })
    }
}

/// A path as a mount's target: absolute, not the root itself, and without `.` and `..`.
pub(crate) fn clean(path: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let mut clean = PathBuf::from("/");
    for component in path.is_absolute().then(|| path.components())? {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let is_plain = !clean.as_os_str().as_encoded_bytes().contains(&0);
    (clean != Path::new("/") && is_plain).then_some(clean)
}

impl VolumeMount {
    /// A path as [`VolumeMount::target`]; None where it cannot be one.
    pub fn target(path: &Path) -> Option<PathBuf> {
        clean(path)
    }

    /// The options of a mount for which `words` are asked: these, and the defaults that they do not undo.
    pub fn options(words: Vec<String>) -> Vec<String> {
        let is_undone =
            |word: &str| words.iter().any(|it| Some(it.as_str()) == word.strip_prefix("no"));
        let safe = SAFE.iter().filter(|word| !is_undone(word)).map(|word| (*word).to_owned());
        safe.collect::<Vec<_>>().into_iter().chain(words).collect()
    }
}

/// What every mount is unless it is asked for otherwise: whoever can write there, on the host or in another instance,
/// gives nobody here more rights by that.
const SAFE: [&str; 2] = ["nosuid", "nodev"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_absolute_and_no_way_up() {
        for (path, target) in [
            ("/a", Some("/a")),
            ("//a/./b/", Some("/a/b")),
            ("/", None),
            ("/.", None),
            ("a", None),
            ("", None),
            ("/a/../b", None),
            ("/a\0b", None),
        ] {
            assert_eq!(clean(Path::new(path)).as_deref(), target.map(Path::new), "{path:?}");
        }
    }
}
