//! Directories' entries: looked up, made, renamed, removed.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, readlinkat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::inodes::Inode;
use super::name::Name;
use super::{Entry, Share, descriptor_name};

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Who makes a file in the guest, and with what mode.
#[derive(Clone, Copy, Debug)]
pub struct Creator {
    /// The process's file system user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Permission bits, the type for mknod, with the process's umask taken away by its kernel.
    pub mode: u32,
}

impl Creator {
    fn permissions(self) -> Mode {
        Mode::from_bits_truncate(self.mode)
    }
}

impl Share {
    /// The entry `name` of a directory.
    ///
    /// # Errors
    /// The host's; ENFILE.
    pub fn look_up(&self, parent: u64, name: Name<'_>) -> Result<Entry, Errno> {
        let parent = self.inodes.get(parent)?;
        self.look_up_in(parent.as_fd(), name)
    }

    pub(super) fn look_up_in(&self, parent: impl AsFd, name: Name<'_>) -> Result<Entry, Errno> {
        let permit = self.inodes.permit()?;
        let path = openat(parent, name.as_c_str(), PATH, Mode::empty())?;
        let stat = fstat(&path)?;
        let inode = self.inodes.remember(path, &stat, permit);
        Ok(self.entry(&inode, stat))
    }

    /// Makes a regular file, or opens one that is there unless `flags` has O_EXCL: the entry, and the
    /// handle of the open file.
    ///
    /// # Errors
    /// The host's; EROFS, ENFILE.
    pub fn create(
        &self,
        parent: u64,
        name: Name<'_>,
        flags: OFlag,
        creator: Creator,
    ) -> Result<(Entry, u64), Errno> {
        self.writable()?;
        let parent = self.inodes.get(parent)?;
        let permit = self.inodes.permit()?;
        let anew = Self::open_flags(flags) | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let made = {
            let _acting = self.ids.act_as(creator.uid, creator.gid)?;
            openat(parent.as_fd(), name.as_c_str(), anew, creator.permissions())
        };
        match made {
            Ok(file) => {
                let entry = self.entry_of(&file)?;
                Ok((entry, self.handles.add_file(file, permit)))
            }
            // Not by the call above, which would open a pipe or a device.
            Err(Errno::EEXIST) if !flags.contains(OFlag::O_EXCL) => {
                drop(permit);
                let entry = self.look_up_in(parent.as_fd(), name)?;
                match self.open_file(entry.number, flags, false) {
                    Ok(handle) => Ok((entry, handle)),
                    Err(error) => {
                        self.forget(entry.number, 1);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a regular file without a name in a directory (O_TMPFILE).
    ///
    /// # Errors
    /// The host's, among them EOPNOTSUPP; EROFS, ENFILE.
    pub fn create_unnamed(
        &self,
        parent: u64,
        flags: OFlag,
        creator: Creator,
    ) -> Result<(Entry, u64), Errno> {
        self.writable()?;
        let parent = self.inodes.get(parent)?;
        let permit = self.inodes.permit()?;
        let unnamed = Self::open_flags(flags) | OFlag::O_TMPFILE | (flags & OFlag::O_EXCL);
        let file = {
            let _acting = self.ids.act_as(creator.uid, creator.gid)?;
            openat(parent.as_fd(), ".", unnamed, creator.permissions())?
        };
        let entry = self.entry_of(&file)?;
        Ok((entry, self.handles.add_file(file, permit)))
    }

    /// The entry of a file that was made just now.
    fn entry_of(&self, file: &OwnedFd) -> Result<Entry, Errno> {
        let permit = self.inodes.permit()?;
        // Follows the link of /proc, to the file.
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let name = descriptor_name(file);
        let path = openat(&self.descriptors, name.as_str(), flags, Mode::empty())?;
        let stat = fstat(&path)?;
        let inode = self.inodes.remember(path, &stat, permit);
        Ok(self.entry(&inode, stat))
    }

    /// Makes a regular file, a pipe or a socket.
    ///
    /// # Errors
    /// EPERM for devices: the host's kernel would open what the guest chose for whoever on the host
    /// comes upon them. The host's; EROFS, ENFILE.
    pub fn make_node(&self, parent: u64, name: Name<'_>, by: Creator) -> Result<Entry, Errno> {
        let kind = SFlag::from_bits_truncate(by.mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFSOCK => {}
            SFlag::S_IFBLK | SFlag::S_IFCHR => return Err(Errno::EPERM),
            _ => return Err(Errno::EINVAL),
        }
        self.make(parent, name, by, |parent| {
            mknodat(parent, name.as_c_str(), kind, by.permissions(), 0)
        })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// The host's; EROFS, ENFILE.
    pub fn make_directory(&self, parent: u64, name: Name<'_>, by: Creator) -> Result<Entry, Errno> {
        self.make(parent, name, by, |parent| mkdirat(parent, name.as_c_str(), by.permissions()))
    }

    /// Makes a symbolic link. Where it leads is the guest's affair; here nobody follows it.
    ///
    /// # Errors
    /// The host's; EROFS, ENFILE.
    pub fn make_link(
        &self,
        parent: u64,
        name: Name<'_>,
        target: &CStr,
        by: Creator,
    ) -> Result<Entry, Errno> {
        self.make(parent, name, by, |parent| symlinkat(target, parent, name.as_c_str()))
    }

    fn make(
        &self,
        parent: u64,
        name: Name<'_>,
        creator: Creator,
        make: impl FnOnce(&Arc<Inode>) -> Result<(), Errno>,
    ) -> Result<Entry, Errno> {
        self.writable()?;
        let parent = self.inodes.get(parent)?;
        {
            let _acting = self.ids.act_as(creator.uid, creator.gid)?;
            make(&parent)?;
        }
        self.look_up_in(parent.as_fd(), name)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// The host's; EROFS, ENFILE.
    pub fn link(&self, number: u64, parent: u64, name: Name<'_>) -> Result<Entry, Errno> {
        self.writable()?;
        let (inode, parent) = (self.inodes.get(number)?, self.inodes.get(parent)?);
        // By way of /proc: for the descriptor itself one needs CAP_DAC_READ_SEARCH (linkat(2)).
        let old = descriptor_name(&*inode);
        let follow = LinkatFlags::from(AtFlags::AT_SYMLINK_FOLLOW);
        linkat(&self.descriptors, old.as_str(), &*parent, name.as_c_str(), follow)?;
        self.look_up_in(parent.as_fd(), name)
    }

    /// Removes a name; the file stays for who has it open.
    ///
    /// # Errors
    /// The host's; EROFS.
    pub fn remove_file(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        self.remove(parent, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The host's; EROFS.
    pub fn remove_directory(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        self.remove(parent, name, UnlinkatFlags::RemoveDir)
    }

    fn remove(&self, parent: u64, name: Name<'_>, flags: UnlinkatFlags) -> Result<(), Errno> {
        self.writable()?;
        unlinkat(&*self.inodes.get(parent)?, name.as_c_str(), flags)
    }

    /// Renames within the share; `flags` are renameat2(2)'s.
    ///
    /// # Errors
    /// EINVAL for other flags than RENAME_NOREPLACE and RENAME_EXCHANGE: RENAME_WHITEOUT makes a
    /// device node. The host's; EROFS.
    pub fn rename(
        &self,
        from: (u64, Name<'_>),
        to: (u64, Name<'_>),
        flags: u32,
    ) -> Result<(), Errno> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        self.writable()?;
        let (old, new) = (self.inodes.get(from.0)?, self.inodes.get(to.0)?);
        renameat2(&*old, from.1.as_c_str(), &*new, to.1.as_c_str(), flags)
    }

    /// Where a symbolic link leads: bytes without a NUL.
    ///
    /// # Errors
    /// The host's.
    pub fn read_link(&self, number: u64) -> Result<std::ffi::OsString, Errno> {
        let inode = self.inodes.get(number)?;
        if inode.kind() != SFlag::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        readlinkat(&*inode, "")
    }
}
