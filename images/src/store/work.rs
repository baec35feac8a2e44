//! Folders in `partial` for the time that somebody works: an archive's members, a build's steps.
//!
//! Each has a lock of its name, which the kernel gives back however its holder ends. So the next who
//! brings something in sees whose owner is gone (Ctrl-C, a kill, a crash), and removes it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::collect::names_in;
use super::{Store, lock::FileLock};
use crate::error::{ImageError, io_error};
use crate::removal::remove_tree;

/// How the names begin of what is made under a lock of its own and never resumed, and of what the
/// collector was removing, which is never at work beside those who sweep. What came of a blob stays,
/// for the next who fetches it, until it is pruned.
const SWEPT: [&str; 6] = ["archive-", "build-", "layer-", "cover-", "disk-", "removed-"];

/// A folder that is removed when this is dropped, or by others when we did not get to that.
pub struct WorkFolder {
    path: PathBuf,
    /// Taken when the folder is gone.
    lock: Option<FileLock>,
}

impl Store {
    /// A new folder for `kind` of work, one of those that are swept.
    pub fn work_folder(&self, kind: &str) -> Result<WorkFolder, ImageError> {
        let mut number = 0;
        loop {
            // Several PID namespaces may share the store: the lock decides.
            let name = format!("{kind}-{}-{number}", std::process::id());
            number += 1;
            let Some(lock) = FileLock::try_exclusive(&self.lock_path(&name))? else { continue };
            let path = self.partial(&name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(WorkFolder { path, lock: Some(lock) }),
                // Of somebody who had our number before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create", path)(error)),
            }
        }
    }

    /// Removes what those have left who did not get to the end; the caller holds `writers`. What cannot be removed is not this
    /// command's trouble; `prune` tells of it.
    pub(super) fn sweep_abandoned(&self) {
        let names = names_in(&self.root.join("partial")).unwrap_or_default();
        for name in names.iter().filter(|name| SWEPT.iter().any(|kind| name.starts_with(kind))) {
            if let Ok(Some(lock)) = FileLock::try_exclusive(&self.lock_path(name))
                && remove_tree(&self.partial(name)).is_ok()
            {
                let _ = lock.remove();
            }
        }
    }
}

impl WorkFolder {
    /// The folder's path; it is removed with this value.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // Where removing fails, the next sweep tries again.
        if remove_tree(&self.path).is_ok()
            && let Some(lock) = self.lock.take()
        {
            let _ = lock.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::testing::new_store;

    #[test]
    fn a_folder_goes_with_its_owner_and_an_abandoned_one_with_the_next_work() {
        let (_dir, store) = new_store();
        let held = store.work_folder("build").unwrap();
        let (first, second) = {
            let first = store.work_folder("archive").unwrap();
            let second = store.work_folder("archive").unwrap();
            fs::create_dir_all(first.path().join("a/b")).unwrap();
            (first.path().to_owned(), second.path().to_owned())
        };
        assert!(first != second && !first.exists() && !second.exists());
        // As a kill leaves them: their locks are free.
        for name in ["archive-1-0", "build-9-9", "layer-00", "removed-00"] {
            fs::create_dir_all(store.partial(name).join("deep/er")).unwrap();
        }
        fs::write(store.partial("blob-00"), "to be resumed").unwrap();
        drop(store.writing().unwrap());
        let mut left: Vec<_> = fs::read_dir(store.root().join("partial"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        assert_eq!(left, [store.partial("blob-00"), held.path().to_owned()]);
    }
}
