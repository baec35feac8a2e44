//! The files that the guest's kernel knows, by the numbers that it knows them by.
//!
//! Each is held by an `O_PATH` descriptor: it opens nothing, names the file whatever is renamed, and
//! keeps its inode from being used for another. Nothing here is found by a path.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use super::budget::{Budget, Permit};
use crate::poison::unpoisoned;

/// The number of the shared folder itself (`FUSE_ROOT_ID`).
pub const ROOT: u64 = 1;

/// A file of the host that the guest knows.
#[derive(Debug)]
pub struct Inode {
    number: u64,
    path: OwnedFd,
    kind: SFlag,
    key: (u64, u64),
    /// None for the root, which is always there.
    _permit: Option<Permit>,
}

impl Inode {
    /// What the guest calls it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Regular file, directory, symbolic link and so on, which a file stays for all its life.
    pub fn kind(&self) -> SFlag {
        self.kind
    }
}

impl AsFd for Inode {
    /// Its `O_PATH` descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.path.as_fd()
    }
}

/// The file's type, out of its mode.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

struct Known {
    inode: Arc<Inode>,
    /// How often the guest was told of it, less how often it forgot.
    lookups: u64,
}

#[derive(Default)]
struct Table {
    by_number: HashMap<u64, Known>,
    /// By device and inode number on the host, without the root.
    by_key: HashMap<(u64, u64), u64>,
    last: u64,
}

/// All of them.
pub struct Inodes {
    root: Arc<Inode>,
    table: Mutex<Table>,
    budget: Budget,
}

impl Inodes {
    /// None but the root, whose `O_PATH` descriptor and attributes are given.
    pub fn new(root: OwnedFd, stat: &FileStat, budget: Budget) -> Self {
        let key = (stat.st_dev, stat.st_ino);
        let root = Inode { number: ROOT, path: root, kind: kind(stat), key, _permit: None };
        let table = Table { last: ROOT, ..Table::default() };
        Self { root: Arc::new(root), table: Mutex::new(table), budget }
    }

    /// The file that the guest calls `number`.
    ///
    /// # Errors
    /// ESTALE: it calls none so.
    pub fn get(&self, number: u64) -> Result<Arc<Inode>, Errno> {
        if number == ROOT {
            return Ok(Arc::clone(&self.root));
        }
        let table = unpoisoned(self.table.lock());
        let known = table.by_number.get(&number).ok_or(Errno::ESTALE)?;
        Ok(Arc::clone(&known.inode))
    }

    /// Leave for one more, to be had before it is opened.
    ///
    /// # Errors
    /// ENFILE.
    pub fn permit(&self) -> Result<Permit, Errno> {
        self.budget.take()
    }

    /// The guest is told of the file behind an `O_PATH` descriptor: once more, if it knows it.
    pub fn remember(&self, path: OwnedFd, stat: &FileStat, permit: Permit) -> Arc<Inode> {
        let key = (stat.st_dev, stat.st_ino);
        if key == self.root.key {
            return Arc::clone(&self.root);
        }
        let mut table = unpoisoned(self.table.lock());
        let table = &mut *table;
        let number = table.by_key.get(&key);
        if let Some(known) = number.and_then(|number| table.by_number.get_mut(number)) {
            known.lookups = known.lookups.saturating_add(1);
            return Arc::clone(&known.inode);
        }
        // Not used up in the life of a host.
        table.last += 1;
        let number = table.last;
        let inode = Inode { number, path, kind: kind(stat), key, _permit: Some(permit) };
        let inode = Arc::new(inode);
        table.by_key.insert(key, number);
        table.by_number.insert(number, Known { inode: Arc::clone(&inode), lookups: 1 });
        inode
    }

    /// The guest forgets `lookups` of the times that it was told of `number`.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut table = unpoisoned(self.table.lock());
        let Some(known) = table.by_number.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups > 0 {
            return;
        }
        let gone = table.by_number.remove(&number);
        if let Some(known) = &gone {
            table.by_key.remove(&known.inode.key);
        }
        // Closing may take its time.
        drop(table);
        drop(gone);
    }

    /// The guest has forgotten everything.
    pub fn clear(&self) {
        let table = &mut *unpoisoned(self.table.lock());
        *table = Table { last: table.last, ..Table::default() };
    }

    /// How many descriptors there may still be.
    pub fn left(&self) -> usize {
        self.budget.left()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::{Mode, fstat};

    use super::*;

    fn path(name: &std::path::Path) -> (OwnedFd, FileStat) {
        let fd = open(name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).unwrap();
        let stat = fstat(&fd).unwrap();
        (fd, stat)
    }

    #[test]
    fn a_file_has_one_number_until_it_is_forgotten_as_often_as_it_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("file");
        File::create(&name).unwrap();
        let (root, root_stat) = path(folder.path());
        let inodes = Inodes::new(root, &root_stat, Budget::new(1));
        let remember = || {
            let (fd, stat) = path(&name);
            Ok::<_, Errno>(inodes.remember(fd, &stat, inodes.permit()?).number())
        };
        let number = remember().unwrap();
        assert_ne!(number, ROOT);
        // The budget is spent, as the caller finds out before it opens anything.
        assert_eq!(remember(), Err(Errno::ENFILE));
        inodes.forget(number, 1);
        assert_eq!(inodes.get(number).unwrap_err(), Errno::ESTALE);
        assert_eq!(inodes.left(), 1);
        // A number is not given twice, lest an old one means a new file.
        assert_ne!(remember().unwrap(), number);
        inodes.clear();
        assert_eq!(inodes.left(), 1);
        inodes.forget(ROOT, u64::MAX);
        assert_eq!(inodes.get(ROOT).unwrap().number(), ROOT);
    }
}
