//! What the store takes on the disk.

use std::collections::HashSet;

use serde::Serialize;

use super::Store;
use super::collect::{Reachable, names_in};
use super::lock::FileLock;
use crate::disk_usage::disk_usage;
use crate::document::manifest_for_this_machine;
use crate::error::ImageError;

/// Things of one kind on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many there are.
    pub total: u64,
    /// How many of them are used right now.
    pub active: u64,
    /// Bytes of the disk that all of them take.
    pub size: u64,
    /// Bytes of these that pruning would give back.
    pub reclaimable: u64,
}

impl Usage {
    /// Counts one more thing, of `size` bytes on the disk.
    pub fn add(&mut self, size: u64, is_active: bool) {
        self.total += 1;
        self.size += size;
        match is_active {
            true => self.active += 1,
            false => self.reclaimable += size,
        }
    }
}

/// The parts of a store. What two of them need counts as the first one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreUsage {
    /// Images; their sizes are those of their compressed layers and documents.
    pub images: Usage,
    /// Unpacked layers, of images.
    pub layers: Usage,
    /// Root file systems as disks.
    pub disks: Usage,
    /// What build steps made: their notes and cache mounts, and the layers that only they need.
    pub build_cache: Usage,
    /// What was begun; what is left of it is reclaimable.
    pub unfinished: Usage,
}

impl Store {
    /// What is on the disk, and what of it [`Store::prune`] would remove by
    /// [`Prune::ALL`](super::Prune::ALL).
    ///
    /// # Errors
    /// The index is damaged, or a folder cannot be read.
    pub fn usage(&self) -> Result<StoreUsage, ImageError> {
        let (active, cached, images) = {
            // Others need not wait while we count bytes.
            let _reading = FileLock::shared(&self.lock_path("index"))?;
            (self.leased()?, self.only_cached()?, self.count_images()?)
        };
        let mut usage = StoreUsage { images, ..StoreUsage::default() };
        for name in names_in(&self.root().join("blobs/sha256"))? {
            let size = disk_usage(&self.root().join("blobs/sha256").join(&name));
            let is_cached = cached.blobs.contains(&name);
            let part = if is_cached { &mut usage.build_cache } else { &mut usage.images };
            part.size += size;
            part.reclaimable += if active.blobs.contains(&name) { 0 } else { size };
        }
        for (folder, used) in [("layers", &active.layers), ("covers", &active.chains)] {
            for name in names_in(&self.root().join(folder))? {
                let size = disk_usage(&self.root().join(folder).join(&name));
                let is_cached = folder == "layers" && cached.layers.contains(&name);
                let part = if is_cached { &mut usage.build_cache } else { &mut usage.layers };
                part.add(size, used.contains(&name));
            }
        }
        for name in names_in(&self.root().join("disks"))? {
            let digest = name.split('.').next().unwrap_or_default();
            let size = disk_usage(&self.root().join("disks").join(&name));
            usage.disks.add(size, active.manifests.contains(digest));
        }
        for name in names_in(&self.root().join("build-cache"))? {
            usage.build_cache.add(disk_usage(&self.root().join("build-cache").join(name)), false);
        }
        for name in names_in(&self.root().join("partial"))? {
            let is_active = FileLock::try_exclusive(&self.lock_path(&name))?.is_none();
            usage.unfinished.add(disk_usage(&self.partial(&name)), is_active);
        }
        Ok(usage)
    }

    /// Images by manifest; those with several names count once, damaged ones by their entries.
    fn count_images(&self) -> Result<Usage, ImageError> {
        let mut seen = HashSet::new();
        let mut images = Usage::default();
        for descriptor in self.index()?.manifests() {
            let digest = manifest_for_this_machine(&self.blobs(), descriptor)
                .map_or_else(|_| descriptor.digest().to_string(), |(id, _)| id.full());
            if seen.insert(digest) {
                images.add(0, self.in_use(descriptor)?);
            }
        }
        Ok(images)
    }

    /// What only the build cache needs.
    fn only_cached(&self) -> Result<Reachable, ImageError> {
        let mut of_images = self.leased()?;
        self.mark_index(&mut of_images, |_| Ok(()))?;
        let mut cached = Reachable::default();
        self.mark_build_cache(&mut cached)?;
        cached.blobs.retain(|digits| !of_images.blobs.contains(digits));
        cached.layers.retain(|digits| !of_images.layers.contains(digits));
        Ok(cached)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Prune;
    use super::*;
    use crate::testing::{add_image, layer, new_store};

    #[test]
    fn what_is_used_is_active_and_the_rest_is_what_prune_gives_back() {
        let (_dir, store) = new_store();
        let used = add_image(&store, Some("used"), &[layer(&[("a", "a")]), layer(&[("b", "b")])]);
        let idle = add_image(&store, Some("idle"), &[layer(&[("a", "a")]), layer(&[("c", "c")])]);
        store.tag("idle", "again").unwrap();
        used.layers_unpacked().unwrap();
        idle.layers_unpacked().unwrap();
        drop(idle);
        fs::write(store.partial("blob-00"), [1; 5000]).unwrap();
        let held = store.work_folder("build").unwrap();

        let usage = store.usage().unwrap();
        let counts = |usage: Usage| (usage.total, usage.active);
        assert_eq!(counts(usage.images), (2, 1));
        // Three layers, and for each image the note that nothing has to be covered.
        assert_eq!(counts(usage.layers), (5, 3));
        assert_eq!(counts(usage.unfinished), (2, 1));
        assert!(usage.images.reclaimable > 0 && usage.images.reclaimable < usage.images.size);
        assert!(usage.unfinished.reclaimable >= 5000);
        assert_eq!(usage.build_cache, Usage::default());

        let all = [usage.images, usage.layers, usage.disks, usage.unfinished];
        let reclaimable: u64 = all.iter().map(|usage| usage.reclaimable).sum();
        let before: u64 = all.iter().map(|usage| usage.size).sum();
        store.prune(Prune::ALL).unwrap();
        let usage = store.usage().unwrap();
        let all = [usage.images, usage.layers, usage.disks, usage.unfinished];
        assert_eq!(all.iter().map(|usage| usage.size).sum::<u64>(), before - reclaimable);
        assert_eq!(all.iter().map(|usage| usage.reclaimable).sum::<u64>(), 0);
        assert_eq!(counts(usage.images), (1, 1));
        drop((held, used));
    }

    #[test]
    fn the_build_cache_has_what_no_image_needs() {
        let (_dir, store) = new_store();
        let image = add_image(&store, Some("app"), &[layer(&[("a", "a")])]);
        image.layers_unpacked().unwrap();
        let part = image.manifest().layers()[0].clone();
        let diff_id = image.config().rootfs().diff_ids()[0].clone();
        let step = serde_json::json!({"layer":
            {"digest": part.digest().to_string(), "size": part.size(), "diff_id": diff_id}});
        let folder = store.root().join("build-cache");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("{}.json", "0".repeat(64))), step.to_string()).unwrap();
        let usage = store.usage().unwrap();
        assert_eq!((usage.build_cache.total, usage.layers.total), (1, 2));
        drop(image);
        store.remove("app", false).unwrap();
        let usage = store.usage().unwrap();
        // The note, and the unpacked layer.
        assert_eq!((usage.build_cache.total, usage.layers.total, usage.images.size), (2, 0, 0));
        assert_eq!(usage.build_cache.reclaimable, usage.build_cache.size);
    }

    #[test]
    fn a_damaged_image_does_not_hide_the_rest() {
        let (_dir, store) = new_store();
        let image = add_image(&store, Some("broken"), &[layer(&[("a", "a")])]);
        fs::write(store.blobs().path(image.id()), "{}").unwrap();
        drop(image);
        drop(add_image(&store, Some("whole"), &[layer(&[("b", "b")])]));
        let usage = store.usage().unwrap();
        assert_eq!((usage.images.total, usage.images.active), (2, 0));
    }
}
