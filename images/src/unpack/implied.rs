//! Folders that a layer has files in but no entry for, as umoci, kaniko and Bazel make layers.
//!
//! Such a folder is the lower layers' folder, with their owner, mode, times and attributes. For
//! overlayfs, though, the topmost folder of a name gives all of these, and a layer's tree, which
//! several images share, has to have some folder there. So it is noted which folders of a tree are
//! only implied, and a chain of layers whose implied folders differ from what they stand for is
//! covered by one more layer: of those folders alone, as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::geteuid;

use crate::blob::BlobId;
use crate::error::{ImageError, io_error};
use crate::merged::Merged;
use crate::store::Store;

/// Which folders of a layer are whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folders {
    /// The layer has an entry for the root folder itself.
    pub(super) has_root: bool,
    /// Relative to the root.
    pub(super) implied: BTreeSet<PathBuf>,
}

/// A layer's tree and its diff_id.
pub(super) type Tree = (PathBuf, BlobId);

impl Folders {
    fn path(store: &Store, diff_id: &BlobId) -> PathBuf {
        store.root().join("folders").join(diff_id.hex())
    }

    /// Keeps them for [`cover`]. Whoever publishes the tree syncs them with it.
    pub(super) fn keep(&self, store: &Store, diff_id: &BlobId) -> Result<(), ImageError> {
        let path = Self::path(store, diff_id);
        let mut bytes = vec![u8::from(self.has_root) + b'0'];
        for folder in &self.implied {
            bytes.push(0);
            bytes.extend_from_slice(folder.as_os_str().as_bytes());
        }
        let folder = store.root().join("folders");
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let partial = store.partial(&format!("folders-{}", diff_id.hex()));
        fs::write(&partial, bytes).map_err(io_error("write", &partial))?;
        fs::rename(&partial, &path).map_err(io_error("create", &path))
    }

    fn load(store: &Store, diff_id: &BlobId) -> Result<Self, ImageError> {
        let path = Self::path(store, diff_id);
        let bytes = match fs::read(&path) {
            // A tree that was unpacked before there were such notes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { has_root: true, implied: BTreeSet::new() });
            }
            other => other.map_err(io_error("read", &path))?,
        };
        let mut records = bytes.split(|byte| *byte == 0);
        let has_root = records.next() == Some(b"1");
        let implied = records.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect();
        Ok(Self { has_root, implied })
    }
}

/// The layer that has to cover these, topmost first, if there has to be one. Made once for each
/// chain; of the chain's layers, those that occur twice are in `layers` once.
pub(super) fn cover(
    store: &Store,
    id: &BlobId,
    layers: &[Tree],
) -> Result<Option<PathBuf>, ImageError> {
    let target = place(store, id);
    store.make_once("cover", id, &target, |partial| {
        let folders: Vec<Folders> =
            layers.iter().map(|(_, id)| Folders::load(store, id)).collect::<Result<_, _>>()?;
        let trees = layers.iter().map(|(tree, _)| tree.clone()).collect();
        make(partial, trees, &folders).map_err(io_error("make", &target))
    })?;
    // An empty file says that there is nothing to cover.
    Ok(target.is_dir().then_some(target))
}

/// What [`cover`] gave for this chain; None if it was never asked.
pub(super) fn found(store: &Store, id: &BlobId) -> Option<Option<PathBuf>> {
    let cover = place(store, id);
    let kind = fs::symlink_metadata(&cover).ok()?.file_type();
    Some(kind.is_dir().then_some(cover))
}

fn place(store: &Store, id: &BlobId) -> PathBuf {
    store.root().join("covers").join(id.hex())
}

/// Makes the cover of `trees`, topmost first, or an empty file where none is needed.
fn make(target: &Path, trees: Vec<PathBuf>, folders: &[Folders]) -> io::Result<()> {
    // For each implied folder the one it stands for, if lower layers have one.
    let mut stands_for: BTreeMap<PathBuf, Option<PathBuf>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (number, own) in folders.iter().enumerate().rev() {
        let below = Merged::new(trees[number + 1..].to_vec());
        let root = PathBuf::new();
        let root = (!own.has_root).then_some(&root);
        for name in own.implied.iter().chain(root) {
            let found = below.stat(name)?.filter(|(_, metadata)| metadata.is_dir());
            let real = found.and_then(|(file, _)| match stands_for.get(&file) {
                Some(further) => further.clone(),
                None => Some(file),
            });
            stands_for.insert(join(&trees[number], name), real);
            names.insert(name.clone());
        }
    }
    let all = Merged::new(trees);
    // As it is, and as it should be.
    let visible = |name: &Path| -> io::Result<Option<(PathBuf, PathBuf)>> {
        let Some((file, metadata)) = all.stat(name)? else { return Ok(None) };
        let real = stands_for.get(&file).cloned().flatten().unwrap_or_else(|| file.clone());
        Ok(metadata.is_dir().then_some((file, real)))
    };
    let mut needed: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for name in names {
        let Some((file, real)) = visible(&name)? else { continue };
        if file == real || is_same(&file, &real, name.as_os_str().is_empty())? {
            continue;
        }
        // Those above it, too, are in the cover, and so have to be right.
        for above in name.ancestors() {
            if let Some((_, real)) = visible(above)? {
                needed.insert(above.to_owned(), real);
            }
        }
    }
    if needed.is_empty() {
        return fs::write(target, "");
    }
    // A folder comes before what is below it.
    for (name, real) in &needed {
        let folder = join(target, name);
        fs::create_dir(&folder)?;
        let metadata = fs::symlink_metadata(real)?;
        if geteuid().is_root() {
            chown(&folder, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        fs::set_permissions(&folder, Permissions::from_mode(metadata.mode() & 0o7777))?;
        for (attribute, value) in attributes(real)? {
            xattr::set(&folder, attribute, &value)?;
        }
    }
    for (name, real) in needed.iter().rev() {
        let time = modified(&fs::symlink_metadata(real)?);
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(AT_FDCWD, &join(target, name), &time, &time, flags)?;
    }
    Ok(())
}

/// Without the slash that an empty name would leave at the end.
fn join(folder: &Path, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() { folder.to_owned() } else { folder.join(name) }
}

/// The root's time changes with every mount point that is made in it.
fn is_same(one: &Path, other: &Path, is_root: bool) -> io::Result<bool> {
    let (a, b) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
    let facts = |m: &Metadata| (m.uid(), m.gid(), m.mode());
    let is_same_time = is_root || modified(&a) == modified(&b);
    Ok(facts(&a) == facts(&b) && is_same_time && attributes(one)? == attributes(other)?)
}

fn modified(metadata: &Metadata) -> TimeSpec {
    TimeSpec::new(metadata.mtime(), metadata.mtime_nsec())
}

/// All but overlayfs's own signs.
fn attributes(folder: &Path) -> io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for name in xattr::list(folder)? {
        let bytes = name.as_bytes();
        if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") {
            continue;
        }
        attributes.extend(xattr::get(folder, &name)?.map(|value| (name, value)));
    }
    attributes.sort();
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_image, layer_of, new_store};

    /// What an overlay of the image's layers has in `name`: mode and time.
    fn seen(folders: &[PathBuf], name: &str) -> (u32, i64) {
        let merged = Merged::new(folders.to_vec());
        let (_, metadata) = merged.stat(Path::new(name)).unwrap().unwrap();
        (metadata.mode() & 0o7777, metadata.mtime())
    }

    #[test]
    fn implied_folders_are_those_of_the_layers_below() {
        let (_dir, store) = new_store();
        let layers = [
            layer_of(&[("./", 0o1751, 1), ("a/", 0o700, 2), ("a/b/", 0o2770, 3), ("c/", 0o711, 4)]),
            layer_of(&[("a/b/file", 0o644, 5), ("c/", 0o755, 6), ("new/file", 0o644, 7)]),
            layer_of(&[("a/b/file", 0o600, 8), ("c/file", 0o600, 9), ("a/.wh.gone", 0o644, 9)]),
        ];
        let image = add_image(&store, Some("app"), &layers);
        let folders = image.layers_unpacked().unwrap();
        assert_eq!(folders.len(), 4);
        for (name, mode, time) in
            [("a", 0o700, 2), ("a/b", 0o2770, 3), ("c", 0o755, 6), ("a/b/file", 0o600, 8)]
        {
            assert_eq!(seen(&folders, name), (mode, time), "{name}");
        }
        assert_eq!(seen(&folders, "").0, 0o1751);
        // One that no lower layer has is the same wherever it is unpacked.
        assert_eq!(seen(&folders, "new"), (0o755, 0));
        // Found again, and gone with the image.
        assert_eq!(image.layers_unpacked().unwrap(), folders);
        drop(image);
        store.remove("app", false).unwrap();
        for folder in ["covers", "folders", "layers"] {
            assert_eq!(fs::read_dir(store.root().join(folder)).unwrap().count(), 0, "{folder}");
        }
    }

    #[test]
    fn layers_that_say_everything_need_no_cover() {
        let (_dir, store) = new_store();
        let layers = [
            layer_of(&[("./", 0o755, 1), ("a/", 0o700, 2)]),
            layer_of(&[("a/", 0o700, 2), ("a/file", 0o644, 3)]),
        ];
        let image = add_image(&store, None, &layers);
        assert_eq!(image.layers_unpacked().unwrap().len(), 2);
    }

    /// A folder that was removed and made anew below is not the one from before.
    #[test]
    fn what_is_hidden_between_does_not_count() {
        let (_dir, store) = new_store();
        let layers = [
            layer_of(&[("a/", 0o700, 2), ("b/", 0o700, 2)]),
            layer_of(&[(".wh.a", 0o644, 3), (".wh.b", 0o644, 3)]),
            layer_of(&[("a/file", 0o644, 4)]),
        ];
        let image = add_image(&store, None, &layers);
        let folders = image.layers_unpacked().unwrap();
        assert_eq!(seen(&folders, "a"), (0o755, 0));
        let merged = Merged::new(folders);
        assert!(merged.stat(Path::new("b")).unwrap().is_none());
    }
}
