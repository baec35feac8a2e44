//! What the guest has open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::budget::Permit;
use super::directory::Directory;
use crate::poison::unpoisoned;

#[derive(Clone)]
enum Handle {
    File(Arc<OwnedFd>),
    Directory(Arc<Directory>),
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, (Handle, Permit)>,
    last: u64,
}

/// Open files and directories, by the numbers that the guest has for them.
#[derive(Default)]
pub struct Handles(Mutex<Table>);

impl Handles {
    /// A number for an open file.
    pub fn add_file(&self, file: OwnedFd, permit: Permit) -> u64 {
        self.add(Handle::File(Arc::new(file)), permit)
    }

    /// A number for an open directory.
    pub fn add_directory(&self, directory: Directory, permit: Permit) -> u64 {
        self.add(Handle::Directory(Arc::new(directory)), permit)
    }

    fn add(&self, handle: Handle, permit: Permit) -> u64 {
        let mut table = unpoisoned(self.0.lock());
        table.last += 1;
        let number = table.last;
        table.open.insert(number, (handle, permit));
        number
    }

    /// The file of this number.
    ///
    /// # Errors
    /// EBADF.
    pub fn file(&self, number: u64) -> Result<Arc<OwnedFd>, Errno> {
        match unpoisoned(self.0.lock()).open.get(&number) {
            Some((Handle::File(file), _)) => Ok(Arc::clone(file)),
            _ => Err(Errno::EBADF),
        }
    }

    /// The directory of this number.
    ///
    /// # Errors
    /// EBADF.
    pub fn directory(&self, number: u64) -> Result<Arc<Directory>, Errno> {
        match unpoisoned(self.0.lock()).open.get(&number) {
            Some((Handle::Directory(directory), _)) => Ok(Arc::clone(directory)),
            _ => Err(Errno::EBADF),
        }
    }

    /// The guest closed it.
    ///
    /// # Errors
    /// EBADF.
    pub fn remove(&self, number: u64) -> Result<(), Errno> {
        let closed = unpoisoned(self.0.lock()).open.remove(&number);
        closed.map(drop).ok_or(Errno::EBADF)
    }

    /// The guest has nothing open any more.
    pub fn clear(&self) {
        unpoisoned(self.0.lock()).open.clear();
    }
}
