//! Locks of the guest's processes (fcntl(2)) as locks of the host, where its processes and other guests of the same
//! folder see them.
//!
//! The host judges who is in whose way. An owner in the guest, which is a process or an open file description there,
//! has an open file description here for each file that it has locks on, to which they belong (F_OFD_SETLK): owners are
//! apart as in the guest, and all that one has goes with one close(2). What is noted beside that is what the host
//! does not tell: whose lock is in the way, how many there are, and who waits for whom.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use super::Share;
use super::budget::Permit;
use super::inodes::Inode;
use crate::poison::unpoisoned;

/// Most ranges that a share's guest has locked: each is memory of the host's kernel.
const MAX_RANGES: usize = 8192;
/// Most that wait at a time: each holds a place in the queue by which others unlock.
const MAX_WAITING: usize = 64;
/// The last byte that a lock can have; one that ends here is of all that a file will ever have.
const LAST: u64 = i64::MAX as u64;

/// What a lock lets others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Lock it for reading as well.
    Read,
    /// Nothing.
    Write,
}

/// Bytes of a file, the last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// The first.
    pub start: u64,
    /// The last.
    pub end: u64,
}

/// What a process of the guest asks for.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    /// The file, by its number.
    pub file: u64,
    /// The open file that it has it by.
    pub handle: u64,
    /// Whose it is to be, as the guest's kernel calls it.
    pub owner: u64,
    /// Of these bytes.
    pub range: LockRange,
    /// None gives them up.
    pub kind: Option<LockKind>,
    /// The process, for others of the guest to be told.
    pub process: u32,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is.
    pub kind: LockKind,
    /// Of these bytes.
    pub range: LockRange,
    /// The guest's process whose it is; 0 where it is not the guest's.
    pub process: u32,
}

/// An owner's locks on one file.
struct Held {
    file: OwnedFd,
    _permit: Permit,
    /// The open file that the last one was had by: a description's locks go with it.
    handle: u64,
    process: u32,
    ranges: Vec<(LockRange, LockKind)>,
}

#[derive(Default)]
struct Table {
    /// By file and owner.
    held: HashMap<(u64, u64), Held>,
    waiting: HashMap<u64, LockRequest>,
    last_ticket: u64,
    /// How often something was given up.
    releases: u64,
}

/// The locks of a share's guest.
#[derive(Clone, Default)]
pub struct Locks(Arc<Mutex<Table>>);

/// A place among those who wait, given up when it is dropped.
pub struct Ticket {
    locks: Locks,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.locks.table().waiting.remove(&self.number);
    }
}

impl LockRange {
    fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// # Errors
    /// EINVAL: it has no byte, or one that no file has.
    fn checked(self) -> Result<Self, Errno> {
        if self.start <= self.end && self.end <= LAST { Ok(self) } else { Err(Errno::EINVAL) }
    }
}

impl Held {
    /// Notes that the bytes of `range` are locked so, or not any more, as the host has it.
    fn note(&mut self, range: LockRange, kind: Option<LockKind>) {
        let mut left = Vec::new();
        self.ranges.retain(|&(old, old_kind)| {
            if !old.overlaps(range) {
                return true;
            }
            if old.start < range.start {
                left.push((LockRange { end: range.start - 1, ..old }, old_kind));
            }
            if old.end > range.end {
                left.push((LockRange { start: range.end + 1, ..old }, old_kind));
            }
            false
        });
        self.ranges.extend(left);
        self.ranges.extend(kind.map(|kind| (range, kind)));
    }

    fn is_in_the_way(&self, range: LockRange, kind: LockKind) -> bool {
        let excludes = |theirs| kind == LockKind::Write || theirs == LockKind::Write;
        self.ranges.iter().any(|&(theirs, their)| theirs.overlaps(range) && excludes(their))
    }
}

impl Table {
    fn ranges(&self) -> usize {
        self.held.values().map(|held| held.ranges.len()).sum()
    }

    fn forget(&mut self, is_gone: impl Fn(&(u64, u64), &Held) -> bool) -> Vec<Held> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let gone: Vec<_> =
            self.held.extract_if(|key, held| is_gone(key, held)).map(|(_, held)| held).collect();
        self.releases += u64::from(!gone.is_empty());
        gone
    }

    /// The owners whose locks are in the way of one.
    fn obstacles(&self, request: &LockRequest) -> impl Iterator<Item = (u64, &Held)> {
        let (file, asking, range, kind) =
            (request.file, request.owner, request.range, request.kind);
        self.held.iter().filter_map(move |(&(of, owner), held)| {
            let kind = kind?;
            let counts = of == file && owner != asking && held.is_in_the_way(range, kind);
            counts.then_some((owner, held))
        })
    }

    /// Whether somebody who is in the way of `request` waits, perhaps by way of others, for its owner.
    fn is_deadlock(&self, request: &LockRequest) -> bool {
        let mut seen = HashSet::new();
        let mut next: Vec<u64> = self.obstacles(request).map(|(owner, _)| owner).collect();
        while let Some(owner) = next.pop() {
            if owner == request.owner {
                return true;
            }
            if !seen.insert(owner) {
                continue;
            }
            for waiting in self.waiting.values().filter(|waiting| waiting.owner == owner) {
                next.extend(self.obstacles(waiting).map(|(owner, _)| owner));
            }
        }
        false
    }
}

impl Locks {
    fn table(&self) -> MutexGuard<'_, Table> {
        unpoisoned(self.0.lock())
    }

    /// Changes whenever some who wait may go on, as far as that is this guest's doing.
    pub fn releases(&self) -> u64 {
        self.table().releases
    }

    /// A process of the guest has closed the file: it has no locks on it any more (fcntl(2)).
    pub fn closed(&self, file: u64, owner: u64) {
        let gone = self.table().forget(|key, _| *key == (file, owner));
        // Closing may take its time.
        drop(gone);
    }

    /// Nobody in the guest has this open file any more.
    pub fn released(&self, handle: u64) {
        let gone = self.table().forget(|_, held| held.handle == handle);
        drop(gone);
    }

    /// The guest has no locks any more.
    pub fn clear(&self) {
        let gone = self.table().forget(|_, _| true);
        drop(gone);
    }
}

impl Share {
    /// The guest's locks.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Locks, or gives up what was locked. It does not wait.
    ///
    /// # Errors
    /// EAGAIN: another lock is in the way, of the guest's or not. ENOLCK: these are too many. EBADF, EINVAL, the host's.
    pub fn lock(&self, request: &LockRequest) -> Result<(), Errno> {
        let range = request.range.checked()?;
        self.handles.file(request.handle)?;
        let key = (request.file, request.owner);
        let mut table = self.locks.table();
        let Some(kind) = request.kind else {
            let Some(held) = table.held.get_mut(&key) else { return Ok(()) };
            set(&held.file, libc::F_UNLCK, range)?;
            held.note(range, None);
            let is_over = held.ranges.is_empty();
            let gone = if is_over { table.held.remove(&key) } else { None };
            table.releases += 1;
            drop(table);
            drop(gone);
            return Ok(());
        };
        // Two more than before, where this one is in the middle of another.
        if table.ranges() + 2 > MAX_RANGES {
            return Err(Errno::ENOLCK);
        }
        let c_kind = match kind {
            LockKind::Read => libc::F_RDLCK,
            LockKind::Write => libc::F_WRLCK,
        };
        if let Some(held) = table.held.get_mut(&key) {
            set(&held.file, c_kind, range)?;
            held.note(range, Some(kind));
            (held.handle, held.process) = (request.handle, request.process);
            // It may have been more before.
            table.releases += u64::from(kind == LockKind::Read);
            return Ok(());
        }
        let inode = self.inodes.get(request.file)?;
        let permit = self.inodes.permit()?;
        let file = self.open_for_locks(&inode)?;
        set(&file, c_kind, range)?;
        let (handle, process, ranges) = (request.handle, request.process, vec![(range, kind)]);
        table.held.insert(key, Held { file, _permit: permit, handle, process, ranges });
        Ok(())
    }

    /// A place to wait in for what [`Share::lock`] has just refused with EAGAIN, and is to be asked for again.
    ///
    /// # Errors
    /// EDEADLK: it would be for ever, as far as that is seen in this guest. ENOLCK: too many wait.
    pub fn wait_for_lock(&self, request: &LockRequest) -> Result<Ticket, Errno> {
        let mut table = self.locks.table();
        if table.is_deadlock(request) {
            return Err(Errno::EDEADLK);
        }
        if table.waiting.len() >= MAX_WAITING {
            return Err(Errno::ENOLCK);
        }
        table.last_ticket += 1;
        let number = table.last_ticket;
        table.waiting.insert(number, *request);
        Ok(Ticket { locks: self.locks.clone(), number })
    }

    /// What is in the way of a lock; none if it could be had.
    ///
    /// # Errors
    /// EBADF, EINVAL, the host's.
    pub fn obstacle(&self, request: &LockRequest) -> Result<Option<Obstacle>, Errno> {
        let range = request.range.checked()?;
        let opened = self.handles.file(request.handle)?;
        let mut lock = match request.kind.ok_or(Errno::EINVAL)? {
            LockKind::Read => flock(libc::F_RDLCK, range),
            LockKind::Write => flock(libc::F_WRLCK, range),
        };
        let table = self.locks.table();
        // An owner's own locks are not in its way; what the guest has open has none.
        let own = table.held.get(&(request.file, request.owner));
        let file = own.map_or(&*opened, |held| &held.file);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        let kind = match i32::from(lock.l_type) {
            libc::F_UNLCK => return Ok(None),
            libc::F_RDLCK => LockKind::Read,
            _ => LockKind::Write,
        };
        // The kernel gives none that is negative.
        let (start, length) = (lock.l_start.unsigned_abs(), lock.l_len.unsigned_abs());
        let end = if length == 0 { LAST } else { start + (length - 1) };
        let process = table.obstacles(request).map(|(_, held)| held.process).next().unwrap_or(0);
        Ok(Some(Obstacle { kind, range: LockRange { start, end }, process }))
    }

    /// For both kinds of lock, where the host lets us: one for writing takes a descriptor for writing. The guest's
    /// kernel has looked whether its process may have it.
    fn open_for_locks(&self, inode: &Inode) -> Result<OwnedFd, Errno> {
        if self.read_only {
            return self.reopen(inode, OFlag::O_RDONLY);
        }
        match self.reopen(inode, OFlag::O_RDWR) {
            Err(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ETXTBSY) => {
                self.reopen(inode, OFlag::O_RDONLY)
            }
            opened => opened,
        }
    }
}

fn flock(kind: i32, range: LockRange) -> libc::flock {
    let length = if range.end == LAST { 0 } else { range.end - range.start + 1 };
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        // Ranges are below 2^63 ([`LockRange::checked`]).
        l_start: range.start.cast_signed(),
        l_len: length.cast_signed(),
        // Has to be for a description's locks.
        l_pid: 0,
    }
}

fn set(file: &OwnedFd, kind: i32, range: LockRange) -> Result<(), Errno> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(kind, range))) {
        // Either may be told (fcntl(2)).
        Err(Errno::EACCES) => Err(Errno::EAGAIN),
        set => set.map(drop),
    }
}
