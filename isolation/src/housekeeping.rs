//! What isolab keeps on this host's disks: how much that is, and removing what nothing uses.

use std::path::{Path, PathBuf};

use isolab_guest::kernel_cache::{KernelCache, cache_dir};
pub use isolab_images::Usage;
use isolab_images::{Prune, Removed, Store, StoreUsage, remove_tree};
use isolab_volumes::{VolumeError, VolumeName, Volumes};
use serde::Serialize;

use crate::error::IsolationError;
use crate::instances::{Instances, Leftover};
use crate::scratch_disk;

/// Everything on the disk, by what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskUsage {
    /// The image store.
    #[serde(flatten)]
    pub store: StoreUsage,
    /// Guest kernels, with what is derived from them.
    pub kernels: Usage,
    /// Instances, with what their workloads wrote; those without an owner are reclaimable.
    pub instances: Usage,
    /// Volumes; those that no instance has are reclaimable.
    pub volumes: Usage,
}

/// What [`prune`] removes beside what killed instances left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Images that no instance uses, named or not, with their layers and disks.
    pub images: bool,
    /// What build steps made.
    pub build_cache: bool,
    /// Guest kernels that no machine is being started from.
    pub kernels: bool,
    /// Volumes that no instance has, running or not.
    pub volumes: bool,
}

/// What [`prune`] removed.
#[derive(Debug, Default, Serialize)]
pub struct Pruned {
    /// What instances had left whose monitor was killed.
    pub instances: Vec<Leftover>,
    /// Of the image store.
    pub images: Removed,
    /// The names of kernels.
    pub kernels: Vec<String>,
    /// The names of volumes.
    pub volumes: Vec<VolumeName>,
    /// Bytes of disk that were given back, of all of these.
    pub freed: u64,
    /// What could not be removed of instances.
    #[serde(skip)]
    pub failures: Vec<IsolationError>,
}

/// Tells how much is on the disk. `has_user`: whether an instance has a volume, running or not.
///
/// # Errors
/// The store, the cache or the folder of the instances or the volumes cannot be read.
pub fn disk_usage(has_user: impl Fn(&VolumeName) -> bool) -> Result<DiskUsage, IsolationError> {
    let (kernels, cache) = (KernelCache::open_default(), cache_dir());
    let instances = Instances::open_default()?;
    let mut usage = DiskUsage {
        store: Store::open_default()?.usage()?,
        kernels: Usage::default(),
        instances: instances.usage()?,
        volumes: Usage::default(),
    };
    let volumes = Volumes::open_default()?;
    for volume in volumes.list()? {
        let is_active = has_user(&volume.name) || volumes.is_used(&volume.name)?;
        usage.volumes.add(volumes.size_on_disk(&volume.name), is_active);
    }
    let outdated = outdated(instances.folder())?;
    usage.instances.reclaimable +=
        outdated.iter().map(|path| isolab_images::disk_usage(path)).sum::<u64>();
    for kernel in kernels.list()? {
        usage.kernels.add(isolab_images::disk_usage(&kernel.folder), kernel.in_use);
    }
    let derived = derived(&cache).into_iter().chain(kernels.abandoned()?);
    let derived: u64 = derived.map(|path| isolab_images::disk_usage(&path)).sum();
    usage.kernels.size += derived;
    usage.kernels.reclaimable += derived;
    Ok(usage)
}

/// Removes what nothing uses: what killed instances and other versions of isolab left, and `what`. `has_user` is as in
/// [`disk_usage`].
///
/// # Errors
/// The store is damaged, or the cache cannot be written.
pub fn prune(
    what: Pruning,
    has_user: impl Fn(&VolumeName) -> bool,
) -> Result<Pruned, IsolationError> {
    // What they hold of images and kernels is free then.
    let instances = Instances::open_default()?;
    let sweep = instances.sweep()?;
    let mut pruned = Pruned {
        freed: sweep.removed.iter().map(|leftover| leftover.freed).sum(),
        instances: sweep.removed,
        failures: sweep.failures,
        ..Pruned::default()
    };
    for path in outdated(instances.folder())? {
        pruned.freed += remove(&path)?;
    }
    pruned.freed += sweep_volumes(&instances)?;
    if what.volumes {
        let (volumes, freed) = prune_volumes(has_user)?;
        pruned.freed += freed;
        pruned.volumes = volumes;
    }
    if what.images || what.build_cache {
        let prune = Prune { named: what.images, build_cache: what.build_cache };
        pruned.images = Store::open_default()?.prune(prune)?;
        pruned.freed += pruned.images.freed;
    }
    if what.kernels {
        prune_kernels(&KernelCache::open_default(), &cache_dir(), &mut pruned)?;
    }
    Ok(pruned)
}

/// Removes the anonymous volumes of instances whose `isolab` was killed, and gives the bytes of disk that this gave back.
///
/// # Errors
/// They cannot be read, or not be removed.
pub fn sweep_volumes(instances: &Instances) -> Result<u64, IsolationError> {
    let mut unread = None;
    // In this order: whose volume is seen has its folder already.
    let swept = Volumes::open_default()?.sweep(|id| match instances.list() {
        Ok(entries) => entries.iter().any(|entry| entry.id == id),
        Err(error) => {
            unread = Some(error);
            true
        }
    });
    unread.map_or(Ok(swept?), Err)
}

/// Removes the volumes that no instance has, and gives their names and the bytes of disk that this gave back.
///
/// # Errors
/// They cannot be read, or not be removed.
pub fn prune_volumes(
    has_user: impl Fn(&VolumeName) -> bool,
) -> Result<(Vec<VolumeName>, u64), IsolationError> {
    let volumes = Volumes::open_default()?;
    let (mut removed, mut freed) = (Vec::new(), 0);
    for volume in volumes.list()?.into_iter().filter(|volume| !has_user(&volume.name)) {
        match volumes.remove(&volume.name) {
            Ok(bytes) => {
                freed += bytes;
                removed.push(volume.name);
            }
            // Somebody was quicker.
            Err(VolumeError::InUse(_) | VolumeError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((removed, freed))
}

fn prune_kernels(
    kernels: &KernelCache,
    cache: &Path,
    pruned: &mut Pruned,
) -> Result<(), IsolationError> {
    for kernel in kernels.list()? {
        let size = isolab_images::disk_usage(&kernel.folder);
        if kernels.remove(&kernel)? {
            pruned.freed += size;
            pruned.kernels.push(kernel.name);
        }
    }
    kernels.remove_abandoned(|folder| pruned.freed += isolab_images::disk_usage(folder))?;
    for path in derived(cache) {
        pruned.freed += remove(&path)?;
    }
    Ok(())
}

/// Templates of the scratch disk that this version does not copy.
fn outdated(instances: &Path) -> Result<Vec<PathBuf>, IsolationError> {
    let path = instances.to_owned();
    scratch_disk::outdated(instances).map_err(|source| IsolationError::Io {
        action: "read",
        path,
        source,
    })
}

/// Gives the bytes of disk that this gave back.
fn remove(path: &Path) -> Result<u64, IsolationError> {
    let path = path.to_owned();
    remove_tree(&path).map_err(|source| IsolationError::Io { action: "remove", path, source })
}

/// Uncompressed kernels (`isolab_vmm`'s cache of bzImages), and the package lists that kernels were
/// fetched by. Whoever misses one makes it again.
fn derived(cache: &Path) -> [PathBuf; 2] {
    ["vmlinux", "apt"].map(|name| cache.join(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn kernels_go_with_what_is_derived_from_them_unless_they_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(&dir.path().join("kernels"));
        for name in ["stock", "cloud"] {
            fs::create_dir_all(cache.folder().join(name)).unwrap();
            fs::write(cache.folder().join(name).join("vmlinuz"), [1; 10_000]).unwrap();
        }
        fs::create_dir_all(cache.folder().join(".slim-1/src")).unwrap();
        fs::create_dir_all(dir.path().join("vmlinux/by-file")).unwrap();
        fs::create_dir_all(dir.path().join("images/busybox")).unwrap();
        let making = cache.begin("slim").unwrap();
        fs::create_dir_all(cache.folder().join(".slim-1/src")).unwrap();
        let stock = fs::File::open(cache.folder().join("stock")).unwrap();
        let lease = nix::fcntl::Flock::lock(stock, nix::fcntl::FlockArg::LockShared).unwrap();

        let mut pruned = Pruned::default();
        prune_kernels(&cache, dir.path(), &mut pruned).unwrap();
        assert_eq!(pruned.kernels, ["cloud"]);
        assert!(pruned.freed >= 10_000);
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!((left(cache.folder()), left(dir.path())), (2, 2));
        assert!(making.work().is_dir());
        drop((lease, making));
        prune_kernels(&cache, dir.path(), &mut pruned).unwrap();
        assert_eq!(pruned.kernels, ["cloud", "stock"]);
        assert_eq!(left(cache.folder()), 0);
    }
}
