//! The garbage collector.
//!
//! Roots are the index, the build cache, and the images that a running instance has a lease on.
//! It runs alone among those who bring blobs in (`writers`), so that a blob whose image is not in
//! the index yet is never taken, and holds the index, so that no lease begins meanwhile.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use oci_spec::image::Descriptor;
use serde::Serialize;

use super::lock::FileLock;
use super::names::name_or_digest;
use super::{Store, build_cache};
use crate::blob::BlobId;
use crate::disk_usage::disk_usage;
use crate::document::{self, Document};
use crate::error::{ImageError, io_error};
use crate::removal::remove_tree;

/// What a removal took away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Names that were taken from images.
    pub untagged: Vec<String>,
    /// Digests of manifests, indexes, configurations and layers.
    pub deleted: Vec<String>,
    /// Bytes of disk that were given back, with what was derived from the layers.
    pub freed: u64,
    /// Bytes that stay because the build cache has them, and nothing else.
    pub kept_by_build_cache: u64,
    /// Why nothing more was taken away: nobody knows what a damaged image needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindered: Option<String>,
}

/// How far a collection goes; each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thoroughness {
    /// What no image needs.
    Unreachable,
    /// What was begun and left.
    Unfinished,
    /// What build steps made.
    BuildCacheToo,
}

/// Everything that must stay, by the digits of digests.
#[derive(Default)]
pub(super) struct Reachable {
    pub(super) blobs: HashSet<String>,
    pub(super) manifests: HashSet<String>,
    pub(super) layers: HashSet<String>,
    pub(super) chains: HashSet<String>,
}

impl Store {
    /// Whether a running instance uses the image that an index entry leads to. The caller holds
    /// the index.
    pub(super) fn in_use(&self, descriptor: &Descriptor) -> Result<bool, ImageError> {
        let Ok((id, _)) = document::manifest_for_this_machine(&self.blobs(), descriptor) else {
            // Damaged: nothing can run from it.
            return Ok(false);
        };
        Ok(FileLock::try_exclusive(&self.lease_path(&id))?.is_none())
    }

    /// Removes what no image needs, unless somebody brings blobs in right now.
    pub(crate) fn collect_unreachable(&self) -> Result<(), ImageError> {
        self.collect_now(Thoroughness::Unreachable).map(drop)
    }

    /// Collects, unless somebody brings blobs in right now.
    pub(super) fn collect_now(&self, how: Thoroughness) -> Result<Option<Removed>, ImageError> {
        match FileLock::try_exclusive(&self.lock_path("writers"))? {
            Some(alone) => self.collect(alone, how).map(Some),
            None => Ok(None),
        }
    }

    /// `_alone` is the lock `writers`.
    pub(super) fn collect(
        &self,
        _alone: FileLock,
        how: Thoroughness,
    ) -> Result<Removed, ImageError> {
        let _index = self.change_index()?;
        let mut removed = Removed::default();
        if how >= Thoroughness::BuildCacheToo {
            self.sweep("build-cache", &mut removed, |_| None)?;
        }
        let mut reachable = self.reachable()?;
        removed.kept_by_build_cache = self.mark_build_cache(&mut reachable)?;
        let keep = |set: &HashSet<String>, digits: &str| set.contains(digits).then_some(());
        self.sweep("blobs/sha256", &mut removed, |name| keep(&reachable.blobs, name))?;
        self.sweep("layers", &mut removed, |name| keep(&reachable.layers, name))?;
        self.sweep("folders", &mut removed, |name| keep(&reachable.layers, name))?;
        self.sweep("covers", &mut removed, |name| keep(&reachable.chains, name))?;
        self.sweep("disks", &mut removed, |name| {
            let digits = Path::new(name).file_stem().and_then(OsStr::to_str).unwrap_or("");
            keep(&reachable.manifests, digits)
        })?;
        if how >= Thoroughness::Unfinished {
            self.sweep_unfinished(&mut removed)?;
        }
        self.sweep_locks()?;
        Ok(removed)
    }

    fn reachable(&self) -> Result<Reachable, ImageError> {
        let mut reachable = self.leased()?;
        self.mark_index(&mut reachable, Err)?;
        Ok(reachable)
    }

    /// Marks what the index names. `damaged` is asked about each image that cannot be followed.
    pub(super) fn mark_index(
        &self,
        reachable: &mut Reachable,
        damaged: impl Fn(ImageError) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        for descriptor in self.index()?.manifests() {
            BlobId::parse(descriptor.digest().as_ref())
                .and_then(|id| self.mark(&id, reachable))
                .or_else(|error| damaged(error.of_image(name_or_digest(descriptor))))?;
        }
        Ok(())
    }

    /// What the images need that running instances use.
    pub(super) fn leased(&self) -> Result<Reachable, ImageError> {
        let mut reachable = Reachable::default();
        for name in names_in(&self.root().join("locks"))? {
            let Some(digits) = name.strip_prefix("image-") else { continue };
            let is_held = FileLock::try_exclusive(&self.lock_path(&name))?.is_none();
            if let (true, Ok(id)) = (is_held, BlobId::parse(&format!("sha256:{digits}"))) {
                self.mark(&id, &mut reachable)?;
            }
        }
        Ok(reachable)
    }

    /// Marks what the build cache names; gives the bytes on the disk of what nothing else needs.
    pub(super) fn mark_build_cache(&self, reachable: &mut Reachable) -> Result<u64, ImageError> {
        let mut bytes = 0;
        for (layer, diff_id) in build_cache::layers(self)? {
            if reachable.blobs.insert(layer.hex().to_owned()) {
                bytes += disk_usage(&self.blobs().path(&layer));
            }
            if reachable.layers.insert(diff_id.hex().to_owned()) {
                bytes += disk_usage(&self.root().join("layers").join(diff_id.hex()));
            }
        }
        Ok(bytes)
    }

    /// Marks a document and what it leads to. Of an index of several platforms the store has
    /// only some, so that what is missing is no fault.
    fn mark(&self, id: &BlobId, reachable: &mut Reachable) -> Result<(), ImageError> {
        if !self.blobs().path(id).exists() || !reachable.blobs.insert(id.hex().to_owned()) {
            return Ok(());
        }
        let children = match Document::read(&self.blobs(), id)? {
            Document::Index(index) => index.manifests().clone(),
            Document::Manifest(manifest) => {
                reachable.manifests.insert(id.hex().to_owned());
                for part in manifest.layers().iter().chain([manifest.config()]) {
                    let part = BlobId::parse(part.digest().as_ref())?;
                    reachable.blobs.insert(part.hex().to_owned());
                }
                let config = BlobId::parse(manifest.config().digest().as_ref())?;
                if let Ok(config) = document::read_config(&self.blobs(), &config) {
                    let diff_ids = config.rootfs().diff_ids().iter().map(|id| BlobId::parse(id));
                    let diff_ids = diff_ids.collect::<Result<Vec<_>, _>>()?;
                    if diff_ids.is_empty() {
                        reachable.layers.insert(document::empty_layer().hex().to_owned());
                    }
                    let chain = document::chain_id(&diff_ids);
                    reachable.chains.extend(chain.map(|id| id.hex().to_owned()));
                    reachable.layers.extend(diff_ids.iter().map(|id| id.hex().to_owned()));
                }
                Vec::new()
            }
        };
        for child in children {
            self.mark(&BlobId::parse(child.digest().as_ref())?, reachable)?;
        }
        Ok(())
    }

    /// Removes what is in `folder` unless `keep` says something.
    fn sweep(
        &self,
        folder: &str,
        removed: &mut Removed,
        keep: impl Fn(&str) -> Option<()>,
    ) -> Result<(), ImageError> {
        let path = self.root().join(folder);
        for name in names_in(&path)? {
            if keep(&name).is_some() {
                continue;
            }
            let path = path.join(&name);
            // First out of sight, at once: a kill while a layer is being removed must not leave
            // half of it under its name.
            let trash = self.partial(&format!("removed-{name}"));
            remove_tree(&trash).map_err(io_error("remove", &trash))?;
            fs::rename(&path, &trash).map_err(io_error("remove", &path))?;
            removed.freed += remove_tree(&trash).map_err(io_error("remove", &path))?;
            if folder == "blobs/sha256" {
                removed.deleted.push(format!("sha256:{name}"));
            }
        }
        Ok(())
    }

    /// Nobody brings blobs in; layers and disks may be being made, under a lock of that name.
    fn sweep_unfinished(&self, removed: &mut Removed) -> Result<(), ImageError> {
        for name in names_in(&self.root().join("partial"))? {
            if FileLock::try_exclusive(&self.lock_path(&name))?.is_some() {
                let path = self.partial(&name);
                removed.freed += remove_tree(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes the files of locks that nobody holds.
    fn sweep_locks(&self) -> Result<(), ImageError> {
        for name in names_in(&self.root().join("locks"))? {
            if ["index", "writers"].contains(&name.as_str()) {
                continue;
            }
            let path = self.lock_path(&name);
            if let Some(lock) = FileLock::try_exclusive(&path)? {
                lock.remove().map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// The names in a folder; none where there is no such folder.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, ImageError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io_error("list", folder))?.file_name();
        // All names are ours, and ASCII.
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}
