//! The store: an OCI image layout on disk, with what is derived from its layers beside it.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/DIGEST    the OCI image layout
//! layers/DIFF_ID/                                unpacked layers, in overlayfs's form
//! folders/DIFF_ID, covers/CHAIN_ID/              see `unpack::implied`
//! disks/DIGEST.erofs                             root file systems as disks, by manifest
//! build-cache/KEY.json                           what a build step made of which inputs
//! partial/                                       whatever is not finished yet
//! locks/                                         see `lock`
//! ```
//!
//! Nothing appears under its name before it is whole, verified and on the disk: it is made in
//! `partial`, synced and renamed. A kill at any moment leaves at most something in `partial`.

pub mod build_cache;
mod collect;
mod incoming;
pub mod lock;
mod manage;
pub mod names;
#[cfg(test)]
mod tests;
mod usage;
mod work;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, OciLayoutBuilder};
use serde::Serialize;

use crate::blob::{BlobId, Blobs};
use crate::document;
use crate::error::{ImageError, io_error};
use crate::private::{data_dir, make_private};
use crate::removal::remove_tree;
use lock::FileLock;
use names::{candidates, digest_digits, name_of, with_name};

pub use collect::Removed;
pub use incoming::{Arrival, Incoming};
pub use manage::Prune;
pub use usage::{StoreUsage, Usage};
pub use work::WorkFolder;

/// Images by digest, and names for them.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in `root`, and makes one where there is none. Nobody else can enter it. What
    /// is on a read-only file system can be read.
    ///
    /// # Errors
    /// The folder cannot be written, or holds a layout of a version that is unknown.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let store = Self { root: root.to_owned() };
        make_private(root)?;
        for folder in ["blobs/sha256", "partial", "locks"] {
            let folder = root.join(folder);
            match fs::create_dir_all(&folder) {
                // An image layout of somebody else's, perhaps. What is in it can be read.
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
                other => other.map_err(io_error("create", &folder))?,
            }
        }
        if !root.join("oci-layout").exists() {
            let lock = store.change_index()?;
            let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build();
            let layout = layout.map_err(|e| store.not_a_layout(e))?;
            // The index first: other tools take a layout without one for damaged.
            if !root.join("index.json").exists() {
                store.write_index(Vec::new(), &lock)?;
            }
            store.write_json("oci-layout", &layout)?;
        }
        Ok(store)
    }

    /// Opens the store `images` in [`data_dir`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_default() -> Result<Self, ImageError> {
        let data = data_dir();
        make_private(&data)?;
        Self::open(&data.join("images"))
    }

    /// The entry of `index` that [`Store::resolve`] would take.
    pub(crate) fn find(&self, index: &ImageIndex, name: &str) -> Result<Descriptor, ImageError> {
        let named = |wanted: &String| {
            let is_it = |d: &&Descriptor| name_of(d).as_ref() == Some(wanted);
            index.manifests().iter().find(is_it).cloned()
        };
        // Other tools may have given it a name that is no reference.
        if let Some(descriptor) = named(&name.to_owned()) {
            return Ok(descriptor);
        }
        let names = candidates(name);
        if let Some(descriptor) = names.iter().flatten().find_map(named) {
            return Ok(descriptor);
        }
        if let Some((repository, digest)) = name.split_once('@') {
            return self.find_pinned(index, name, repository, digest);
        }
        let Some(digits) = digest_digits(name) else {
            names?;
            return Err(ImageError::NotFound(name.to_owned()));
        };
        let mut found: Vec<&Descriptor> = Vec::new();
        for descriptor in index.manifests() {
            let is_new = !found.iter().any(|other| other.digest() == descriptor.digest());
            if is_new && self.has_digest(descriptor, digits) {
                found.push(descriptor);
            }
        }
        match found[..] {
            [descriptor] => Ok(descriptor.clone()),
            [] => Err(ImageError::NotFound(name.to_owned())),
            _ => Err(ImageError::Ambiguous(name.to_owned())),
        }
    }

    /// `REPOSITORY[:TAG]@DIGEST`: the digest decides, but only among images of that repository.
    fn find_pinned(
        &self,
        index: &ImageIndex,
        name: &str,
        repository: &str,
        digest: &str,
    ) -> Result<Descriptor, ImageError> {
        let id = BlobId::parse(digest)?;
        let wanted = names::parse(repository)?;
        let same_repository = |descriptor: &&Descriptor| {
            name_of(descriptor).and_then(|name| names::parse(&name).ok()).is_some_and(|other| {
                other.registry() == wanted.registry() && other.repository() == wanted.repository()
            })
        };
        let mut entries = index.manifests().iter().filter(same_repository);
        let found = entries.find(|descriptor| self.has_digest(descriptor, id.hex()));
        found.cloned().ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// Whether the index entry's digest, or that of the manifest it leads to, begins so.
    pub(crate) fn has_digest(&self, descriptor: &Descriptor, digits: &str) -> bool {
        descriptor.digest().digest().starts_with(digits)
            || document::manifest_for_this_machine(&self.blobs(), descriptor)
                .is_ok_and(|(id, _)| id.hex().starts_with(digits))
    }

    /// The folder of the layout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The blobs of the layout.
    pub fn blobs(&self) -> Blobs {
        Blobs::of_layout(&self.root)
    }

    /// The place of something unfinished.
    pub fn partial(&self, name: &str) -> PathBuf {
        self.root.join("partial").join(name)
    }

    /// The file of the lock of that name; see `lock`.
    pub fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    /// The lock that keeps the content of the image with this manifest.
    pub(crate) fn lease_path(&self, manifest: &BlobId) -> PathBuf {
        self.lock_path(&format!("image-{}", manifest.hex()))
    }

    /// Held from the first blob that comes in until the index names it, so that the collector
    /// does not take it for garbage.
    pub fn writing(&self) -> Result<FileLock, ImageError> {
        let lock = FileLock::shared(&self.lock_path("writers"))?;
        self.sweep_abandoned();
        Ok(lock)
    }

    pub(crate) fn change_index(&self) -> Result<FileLock, ImageError> {
        FileLock::exclusive(&self.lock_path("index"))
    }

    pub(crate) fn index(&self) -> Result<ImageIndex, ImageError> {
        let path = self.root.join("index.json");
        if !path.exists() {
            return self.new_index(Vec::new());
        }
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&text).map_err(|e| self.not_a_layout(e))
    }

    fn new_index(&self, manifests: Vec<Descriptor>) -> Result<ImageIndex, ImageError> {
        ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests(manifests)
            .build()
            .map_err(|e| self.not_a_layout(e))
    }

    /// Gives each descriptor's name to it alone. An image that loses its last name so stays,
    /// nameless, until it is pruned.
    pub fn add_to_index(&self, new: &[Descriptor]) -> Result<(), ImageError> {
        let lock = self.change_index()?;
        let mut manifests = self.index()?.manifests().clone();
        for descriptor in new {
            let name = name_of(descriptor);
            let takes_name = |old: &Descriptor| name.is_some() && name_of(old) == name;
            let (losing, mut kept): (Vec<_>, Vec<_>) = manifests.into_iter().partition(takes_name);
            // Named or not, it has an entry now.
            kept.retain(|old| old.digest() != descriptor.digest() || name_of(old).is_some());
            let is_kept = |digest| kept.iter().any(|other| other.digest() == digest);
            if name.is_some() || !is_kept(descriptor.digest()) {
                kept.push(descriptor.clone());
            }
            for old in losing {
                if !kept.iter().any(|other| other.digest() == old.digest()) {
                    kept.push(with_name(&old, None));
                }
            }
            manifests = kept;
        }
        self.write_index(manifests, &lock)
    }

    /// The caller holds the index alone.
    fn write_index(&self, manifests: Vec<Descriptor>, _lock: &FileLock) -> Result<(), ImageError> {
        self.write_json("index.json", &self.new_index(manifests)?)
    }

    fn write_json(&self, name: &str, document: &impl Serialize) -> Result<(), ImageError> {
        let path = self.partial(name);
        let text = serde_json::to_vec(document).map_err(|e| io_error("write", &path)(e.into()))?;
        fs::write(&path, text).map_err(io_error("write", &path))?;
        publish(&path, &self.root.join(name))
    }

    /// Makes `target`, a file or a folder, unless it is there. Of several processes that want it
    /// one makes it. `make` is given the path to make it at.
    pub(crate) fn make_once(
        &self,
        kind: &str,
        id: &BlobId,
        target: &Path,
        make: impl FnOnce(&Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        if target.exists() {
            return Ok(());
        }
        let name = format!("{kind}-{}", id.hex());
        let _lock = FileLock::exclusive(&self.lock_path(&name))?;
        // Somebody else may have done it while we waited.
        if target.exists() {
            return Ok(());
        }
        let folder = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let partial = self.partial(&name);
        // Of somebody who did not finish.
        remove_tree(&partial).map_err(io_error("remove", &partial))?;
        let made = make(&partial).and_then(|()| publish(&partial, target));
        if made.is_err() {
            // The first error is the one to tell; what stays is collected later.
            let _ = remove_tree(&partial);
        }
        made
    }

    fn not_a_layout(&self, why: impl ToString) -> ImageError {
        ImageError::NotALayout { path: self.root.clone(), why: why.to_string() }
    }
}

/// Gives what is finished its name, durably: content first, then the name (rename(2) is atomic).
pub fn publish(partial: &Path, target: &Path) -> Result<(), ImageError> {
    let file = File::open(partial).map_err(io_error("open", partial))?;
    let is_dir = file.metadata().map_err(io_error("inspect", partial))?.is_dir();
    // A folder is as durable as all that is in it.
    let synced =
        if is_dir { nix::unistd::syncfs(&file).map_err(Into::into) } else { file.sync_all() };
    synced.map_err(io_error("sync", partial))?;
    fs::rename(partial, target).map_err(io_error("create", target))?;
    let folder = target.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(io_error("sync", folder))
}
