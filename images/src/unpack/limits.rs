//! What a layer may cost: more than any honest image needs, and less than what would keep the host
//! busy for minutes, or bring forth what its own tools cannot handle.

use std::cell::Cell;
use std::io;
use std::path::Path;

/// What a layer may grow to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the uncompressed archive, and of its files with their holes.
    pub(crate) bytes: u64,
    /// Entries of the archive.
    pub(crate) entries: u64,
    /// Bytes of a name with all folders on its way. A path is at most PATH_MAX (4096) bytes long,
    /// and the layer's own folder on the host comes before it.
    pub(crate) path: usize,
    /// Folders on the way to a file.
    pub(crate) depth: usize,
    /// Bytes of the names of all folders, which are kept in memory until the end.
    pub(crate) folder_names: u64,
    /// Folders that are passed on the way to all files, those that links lead through too.
    pub(crate) lookups: u64,
}

pub(crate) const LIMITS: Limits = Limits {
    bytes: 64 << 30,
    entries: 4_000_000,
    path: 3072,
    depth: 512,
    folder_names: 512 << 20,
    lookups: 256 << 20,
};

/// What keeping a folder's name costs beside its bytes.
const NAME_OVERHEAD: u64 = 64;
/// What a step costs that we make by system calls of our own, in lookups of the kernel's.
const STEP: u64 = 16;

/// What of the limits on names a layer has left.
pub(super) struct Budget {
    path: usize,
    depth: usize,
    folder_names: Cell<u64>,
    lookups: Cell<u64>,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        let Limits { path, depth, folder_names, lookups, .. } = limits;
        Self { path, depth, folder_names: folder_names.into(), lookups: lookups.into() }
    }

    /// Checks a path that something is to be put at.
    pub(super) fn check(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().len() > self.path {
            let limit = self.path;
            return Err(refused(format!("its path has more than {limit} bytes")));
        }
        if path.components().count() > self.depth {
            return Err(refused(format!("it is more than {} folders deep", self.depth)));
        }
        Ok(())
    }

    /// The kernel looks `path` up.
    pub(super) fn look_up(&self, path: &Path) -> io::Result<()> {
        self.spend_lookups(path.components().count() as u64)
    }

    /// We take one step ourselves, and look `path` up for it.
    pub(super) fn step(&self, path: &Path) -> io::Result<()> {
        self.spend_lookups(path.components().count() as u64 + STEP)
    }

    fn spend_lookups(&self, count: u64) -> io::Result<()> {
        match spend(&self.lookups, count) {
            true => Ok(()),
            false => {
                Err(refused("the layer's names lead through too many folders and links".to_owned()))
            }
        }
    }

    /// The name of a folder is kept.
    pub(super) fn keep_name(&self, folder: &Path) -> io::Result<()> {
        match spend(&self.folder_names, folder.as_os_str().len() as u64 + NAME_OVERHEAD) {
            true => Ok(()),
            false => Err(refused("the layer has too many folders".to_owned())),
        }
    }
}

fn spend(left: &Cell<u64>, cost: u64) -> bool {
    let rest = left.get().checked_sub(cost);
    left.set(rest.unwrap_or(0));
    rest.is_some()
}

fn refused(why: String) -> io::Error {
    io::Error::other(why)
}
