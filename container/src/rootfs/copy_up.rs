//! `tmpcopyup`: a tmpfs that begins with what it is mounted over. What is there is the image's: nothing is followed,
//! opened for longer than it takes, or made that could be more than a file.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::sendfile::sendfile;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

/// Folders in folders, each of which takes a part of the stack.
const MAX_DEPTH: u32 = 64;

/// What getdents64(2) fills at a time, aligned as its records are.
#[repr(C, align(8))]
struct Records([u8; 2048]);

/// Child: copies what is in one directory to another, empty one.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    // Both may be for naming only (O_PATH).
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = openat(from, c".", flags, Mode::empty())?;
    let to = openat(to, c".", flags, Mode::empty())?;
    copy_directory(from.as_fd(), to.as_fd(), MAX_DEPTH)
}

/// Child: owner and permissions.
pub(super) fn copy_rights(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let stat = fstat(from)?;
    let to = openat(to, c".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    give_rights(to.as_fd(), &stat)
}

fn copy_directory(from: BorrowedFd, to: BorrowedFd, depth: u32) -> Result<(), Errno> {
    let mut records = Records([0; 2048]);
    loop {
        let (buffer, room) = (records.0.as_mut_ptr(), records.0.len());
        // SAFETY: the kernel writes at most `room` bytes to the buffer, which is ours.
        let filled = unsafe { libc::syscall(libc::SYS_getdents64, from.as_raw_fd(), buffer, room) };
        let filled = Errno::result(filled)? as usize;
        if filled == 0 {
            return Ok(());
        }
        let mut rest = records.0.get(..filled).ok_or(Errno::EIO)?;
        // struct linux_dirent64 of getdents64(2): inode and offset, the record's length, the type, the name.
        while let Some(&[low, high]) = rest.get(16..18) {
            let (record, next) = rest
                .split_at_checked(usize::from(u16::from_le_bytes([low, high])))
                .ok_or(Errno::EIO)?;
            let name = CStr::from_bytes_until_nul(record.get(19..).ok_or(Errno::EIO)?);
            let name = name.map_err(|_| Errno::EIO)?;
            if name != c"." && name != c".." {
                copy_one(from, to, name, depth)?;
            }
            rest = next;
        }
    }
}

fn copy_one(from: BorrowedFd, to: BorrowedFd, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let private = Mode::S_IRWXU;
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => {
            let depth = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
            mkdirat(to, name, private)?;
            let flags = flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let inner = openat(from, name, flags, Mode::empty())?;
            let made = openat(to, name, flags, Mode::empty())?;
            copy_directory(inner.as_fd(), made.as_fd(), depth)?;
            give_rights(made.as_fd(), &stat)
        }
        SFlag::S_IFREG => {
            let source =
                openat(from, name, flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
            let made = openat(
                to,
                name,
                flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL,
                private,
            )?;
            // Ends, or fails, when the tmpfs is full.
            while sendfile(&made, &source, None, 1 << 20)? > 0 {}
            give_rights(made.as_fd(), &stat)
        }
        SFlag::S_IFLNK => copy_link(from, to, name, &stat),
        SFlag::S_IFIFO => {
            mknodat(to, name, SFlag::S_IFIFO, Mode::from_bits_truncate(stat.st_mode), 0)?;
            own(to, name, &stat)
        }
        // Devices come from the configuration, and a socket is nothing without who listens.
        _ => Ok(()),
    }
}

fn copy_link(from: BorrowedFd, to: BorrowedFd, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let mut target = [0u8; libc::PATH_MAX as usize];
    let room = target.len() - 1;
    // SAFETY: the kernel writes at most `room` bytes to the buffer, which is ours; a zero stays behind them.
    let length = unsafe {
        libc::readlinkat(from.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), room)
    };
    Errno::result(length)?;
    let target = CStr::from_bytes_until_nul(&target).map_err(|_| Errno::EINVAL)?;
    symlinkat(target, to, name)?;
    own(to, name, stat)
}

fn own(to: BorrowedFd, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The owner first, as a change of it takes setuid away.
fn give_rights(file: BorrowedFd, stat: &FileStat) -> Result<(), Errno> {
    fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(file, Mode::from_bits_truncate(stat.st_mode & 0o7777))
}
