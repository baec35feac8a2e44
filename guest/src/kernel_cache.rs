//! The guest kernels that are kept on this host.
//!
//! ```text
//! kernels/NAME/          vmlinuz or vmlinux (perhaps bzImage too), config, System.map, version
//! kernels/NAME/modules/  the root of its lib/modules, if it has modules
//! kernels/slim           a link to the slim kernel of the newest config and source
//! kernels/.NAME-NUMBER/  one that is being made, or removed
//! ```
//!
//! A kernel appears whole, by a rename. Whoever uses a folder, or fills it, holds a lock on it
//! (flock(2)), which goes with its holder: what nobody holds may be removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::{env, process};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use serde::Serialize;

/// `${XDG_CACHE_HOME:-~/.cache}/isolab`.
pub fn cache_dir() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    base.or_else(|| home().map(|home| home.join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/var/cache"))
        .join("isolab")
}

/// The cache of guest kernels in one folder.
#[derive(Clone, Debug)]
pub struct KernelCache {
    folder: PathBuf,
}

/// A kernel of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CachedKernel {
    /// What `isolab run` calls it.
    pub name: String,
    /// `uname -r`, where it is known.
    pub release: Option<String>,
    /// A vmlinux or bzImage.
    pub image: PathBuf,
    /// The folder with all that belongs to it.
    pub folder: PathBuf,
    /// Whether a machine is being started from it.
    pub in_use: bool,
}

/// What could not be done with the cache.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct CacheError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl KernelCache {
    /// The folder `kernels` in [`cache_dir`].
    pub fn open_default() -> Self {
        Self::at(&cache_dir().join("kernels"))
    }

    /// The cache in `folder`, which need not be there yet.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder that kernels are in, one in each.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernels, by name. One that a link leads to has the link's name.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn list(&self) -> Result<Vec<CachedKernel>, CacheError> {
        let (mut links, mut folders) = (Vec::new(), Vec::new());
        for name in self.names()?.into_iter().filter(|name| !name.starts_with('.')) {
            match fs::read_link(self.folder.join(&name)) {
                Ok(target) => links.push((name, self.folder.join(target))),
                Err(_) => folders.push((name.clone(), self.folder.join(name))),
            }
        }
        folders.retain(|(_, folder)| links.iter().all(|(_, target)| target != folder));
        let kernels = links.into_iter().chain(folders).filter_map(|(name, folder)| {
            let release = fs::read_to_string(folder.join("version")).ok();
            let release = release.map(|text| text.trim().to_owned());
            let in_use = lock(&folder, FlockArg::LockExclusiveNonblock).is_err();
            Some(CachedKernel { name, release, image: image_in(&folder)?, folder, in_use })
        });
        let mut kernels: Vec<_> = kernels.collect();
        kernels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(kernels)
    }

    /// The folders that were begun and left.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn abandoned(&self) -> Result<Vec<PathBuf>, CacheError> {
        Ok(self.lock_abandoned()?.into_iter().map(|(path, _lock)| path).collect())
    }

    /// Removes them. `removing` is told of each before.
    ///
    /// # Errors
    /// The cache cannot be read, or one of them not be removed.
    pub fn remove_abandoned(&self, mut removing: impl FnMut(&Path)) -> Result<(), CacheError> {
        for (folder, _lock) in self.lock_abandoned()? {
            removing(&folder);
            fs::remove_dir_all(&folder).map_err(error("remove", &folder))?;
        }
        Ok(())
    }

    fn lock_abandoned(&self) -> Result<Vec<(PathBuf, Flock<File>)>, CacheError> {
        let hidden = self.names()?.into_iter().filter(|name| name.starts_with('.'));
        let folders = hidden.map(|name| self.folder.join(name)).filter(|path| !path.is_symlink());
        let lock = |path: PathBuf| {
            let lock = lock(&path, FlockArg::LockExclusiveNonblock).ok()?;
            Some((path, lock))
        };
        Ok(folders.filter_map(lock).collect())
    }

    /// An empty folder to make a kernel in. What others began and left is removed.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn begin(&self, name: &str) -> Result<NewKernel, CacheError> {
        fs::create_dir_all(&self.folder).map_err(error("create", &self.folder))?;
        self.remove_abandoned(|_| {})?;
        let mut number = process::id();
        loop {
            let path = self.folder.join(format!(".{name}-{number}"));
            number = number.wrapping_add(1);
            match DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(error("create", &path)(source)),
            }
            // Whoever came between took it for abandoned, and removes it.
            if let Ok(lock) = lock(&path, FlockArg::LockExclusiveNonblock)
                && path.is_dir()
            {
                return Ok(NewKernel { work: path, _lock: lock });
            }
        }
    }

    /// Removes a kernel, unless it is used. Gives whether it is gone.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, kernel: &CachedKernel) -> Result<bool, CacheError> {
        let Ok(_lock) = lock(&kernel.folder, FlockArg::LockExclusiveNonblock) else {
            return Ok(false);
        };
        // Out of sight at once, so that nobody sees half of it.
        let trash = self.folder.join(format!(".removed-{}-{}", kernel.name, process::id()));
        fs::rename(&kernel.folder, &trash).map_err(error("remove", &kernel.folder))?;
        let link = self.folder.join(&kernel.name);
        if link.is_symlink() && !link.exists() {
            fs::remove_file(&link).map_err(error("remove", &link))?;
        }
        fs::remove_dir_all(&trash).map_err(error("remove", &trash))?;
        Ok(true)
    }

    /// Makes `link` lead to the kernel `name`, in one step.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn link(&self, link: &str, name: &str) -> Result<(), CacheError> {
        let (path, new) = (self.folder.join(link), self.folder.join(format!(".{link}-link")));
        match fs::remove_file(&new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
        .and_then(|()| symlink(name, &new))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(error("create", &path))
    }

    /// The names in the folder; none where there is no folder.
    fn names(&self) -> Result<Vec<String>, CacheError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(error("read", &self.folder))?,
        };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        let names: io::Result<Vec<_>> = names.collect();
        Ok(names.map_err(error("read", &self.folder))?.into_iter().flatten().collect())
    }
}

/// A folder in the cache that only we know. Removed when dropped.
#[derive(Debug)]
pub struct NewKernel {
    work: PathBuf,
    _lock: Flock<File>,
}

impl NewKernel {
    /// Where to make it, with whatever is needed for that.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Gives the folder `made`, which is in [`NewKernel::work`], its name in the cache. Where
    /// somebody else was quicker, theirs stays.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn publish(self, made: &Path, name: &str) -> Result<(), CacheError> {
        let target = self.work.parent().unwrap_or(Path::new("/")).join(name);
        match renameat2(AT_FDCWD, made, AT_FDCWD, &target, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(error("create", &target)(errno.into())),
        }
    }
}

impl Drop for NewKernel {
    fn drop(&mut self) {
        // What stays is abandoned, and goes with the next one that is made.
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// The kernel image in a folder; the uncompressed one first: it needs no decompression.
pub(crate) fn image_in(folder: &Path) -> Option<PathBuf> {
    ["vmlinux", "vmlinuz"].map(|file| folder.join(file)).into_iter().find(|file| file.is_file())
}

/// A lock on a folder, held until it is dropped.
pub(crate) fn lock(folder: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(folder)?, how).map_err(|(_, errno)| errno.into())
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    move |source| CacheError { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(cache: &KernelCache, name: &str, release: &str) {
        let new = cache.begin(name).unwrap();
        let made = new.work().join("kernel");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("vmlinux"), release).unwrap();
        fs::write(made.join("version"), format!("{release}\n")).unwrap();
        new.publish(&made, name).unwrap();
    }

    fn names(cache: &KernelCache) -> Vec<String> {
        cache.list().unwrap().into_iter().map(|kernel| kernel.name).collect()
    }

    fn entries(cache: &KernelCache) -> usize {
        fs::read_dir(cache.folder()).unwrap().count()
    }

    #[test]
    fn a_kernel_appears_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(&dir.path().join("kernels"));
        assert_eq!(names(&cache), [""; 0]);
        make(&cache, "stock", "6.1");
        make(&cache, "stock", "6.2");
        make(&cache, "slim-1", "6.3");
        make(&cache, "slim-2", "6.4");
        cache.link("slim", "slim-1").unwrap();
        cache.link("slim", "slim-2").unwrap();
        let kernels = cache.list().unwrap();
        let told: Vec<_> =
            kernels.iter().map(|k| (k.name.as_str(), k.release.as_deref(), k.in_use)).collect();
        let wanted = [
            ("slim", Some("6.4"), false),
            ("slim-1", Some("6.3"), false),
            ("stock", Some("6.1"), false),
        ];
        assert_eq!(told, wanted);
        assert_eq!(kernels[0].folder, cache.folder().join("slim-2"));
        assert_eq!(entries(&cache), 4);
    }

    #[test]
    fn what_is_used_or_being_made_stays_and_what_was_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(dir.path());
        make(&cache, "slim-1", "6.3");
        cache.link("slim", "slim-1").unwrap();
        let slim = cache.list().unwrap().remove(0);
        let lease = lock(&slim.folder, FlockArg::LockShared).unwrap();
        assert!(cache.list().unwrap()[0].in_use);
        assert!(!cache.remove(&slim).unwrap());
        drop(lease);
        assert!(cache.remove(&slim).unwrap());
        assert_eq!(entries(&cache), 0);

        let held = cache.begin("stock").unwrap();
        fs::create_dir_all(dir.path().join(".slim-1/src")).unwrap();
        assert_eq!(cache.abandoned().unwrap(), [dir.path().join(".slim-1")]);
        let second = cache.begin("stock").unwrap();
        assert!(held.work() != second.work() && held.work().is_dir());
        drop((held, second));
        assert_eq!(entries(&cache), 0);
    }
}
