//! Folders that stay from build to build, for package managers and compilers.
//!
//! They are in the store as `build-cache/mount-KEY`, where `isolab image prune --all` takes them
//! away with the other caches. Their names are digests, so that no id is a path. Whatever a command
//! left in one, we never look into it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use isolab_images::ingest::{BlobId, FileLock, io_error, publish};
use nix::unistd::geteuid;

use super::option::{Cache, Sharing};
use super::{Copied, Outcome, StageBuilder};

/// Of one id there are so many private folders at most, which is as many builds at once.
const MAX_PRIVATE: usize = 64;

/// How often a lock that somebody holds is tried.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

impl StageBuilder<'_, '_> {
    /// The cache's folder, with the lock that says that it is in use.
    pub(super) fn cache_folder(
        &mut self,
        cache: &Cache,
        content: Option<Copied>,
    ) -> Outcome<(PathBuf, FileLock)> {
        let key = BlobId::of(cache.id.as_bytes()).hex().to_owned();
        let (name, lock) = self.lock_cache(cache.sharing, &key)?;
        let store = self.build.store;
        let folder = store.root().join("build-cache");
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let path = folder.join(&name);
        // Two builds that share it may make it at once.
        let _making = FileLock::exclusive(&store.lock_path(&format!("{name}-making")))?;
        if path.is_dir() {
            return Ok((path, lock));
        }
        let new = self.folder("cache")?;
        if let Some(copied) = content {
            if copied.name.is_some() {
                return Err("a cache begins with a folder, and source= names a file".into());
            }
            self.make(&copied, new.clone())?;
        }
        if geteuid().is_root() {
            let (uid, gid) = cache.owner;
            lchown(&new, Some(uid), Some(gid)).map_err(io_error("give away", &new))?;
        }
        let mode = fs::Permissions::from_mode(cache.mode);
        fs::set_permissions(&new, mode).map_err(io_error("set the mode of", &new))?;
        publish(&new, &path)?;
        Ok((path, lock))
    }

    fn lock_cache(&mut self, sharing: Sharing, key: &str) -> Outcome<(String, FileLock)> {
        let name = format!("mount-{key}");
        let path = self.build.store.lock_path(&name);
        match sharing {
            Sharing::Shared => Ok((name, FileLock::shared(&path)?)),
            Sharing::Locked => {
                let mut is_told = false;
                loop {
                    if let Some(lock) = FileLock::try_exclusive(&path)? {
                        return Ok((name, lock));
                    }
                    if !is_told {
                        self.build.tell("    waiting for a build that has the same cache");
                        is_told = true;
                    }
                    // Waiting for the lock itself could not be interrupted.
                    self.check()?;
                    thread::sleep(RETRY_INTERVAL);
                }
            }
            Sharing::Private => {
                for number in 0..MAX_PRIVATE {
                    let name = format!("{name}-{number}");
                    let path = self.build.store.lock_path(&name);
                    if let Some(lock) = FileLock::try_exclusive(&path)? {
                        return Ok((name, lock));
                    }
                }
                Err("too many builds use this private cache at once".into())
            }
        }
    }
}
