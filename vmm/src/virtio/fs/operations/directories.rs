//! Directories: opened, listed, synchronized.

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::backend::share::{DirectoryEntry, Entry};
use crate::virtio::fs::protocol::{FSYNC_FDATASYNC, Reply, opcode};
use crate::virtio::fs::session::{Answer, Request, Session};

/// `struct fuse_dirent` without its name, and `struct fuse_entry_out` in front of it.
const DIRENT: usize = 24;
const ENTRY: usize = 128;
/// Most that a listing gives at a time, whatever the guest has room for.
const MAX_LISTING: usize = 128 << 10;

pub fn open(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let handle = session.share().open_directory(request.header.node)?;
    reply.opened(handle, session.directory_flags());
    Ok(Answer::Reply)
}

/// READDIR, and READDIRPLUS, which tells of each entry's file too.
pub fn read(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    // `struct fuse_read_in`.
    let arguments = &mut request.arguments;
    let (handle, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
    let room = (size as usize).min(MAX_LISTING);
    let (share, directory) = (session.share(), request.header.node);
    let with_files = request.header.opcode == opcode::READDIRPLUS;
    // The host's entries are smaller than ours, by so much that few are read in vain.
    let asked = if with_files { room / 4 } else { room };
    let mut too_small = false;
    share.read_directory(handle, offset, asked, |entry| {
        let name = entry.name.to_bytes();
        let length = (DIRENT + name.len()).next_multiple_of(8) + if with_files { ENTRY } else { 0 };
        if reply.length() + length > room {
            too_small = reply.length() == 0;
            return false;
        }
        if with_files {
            let file = share.entry_in(directory, &entry).unwrap_or_else(|| unknown(&entry));
            reply.entry(&file, session.timeout());
        }
        reply.directory_entry(entry.inode, entry.next, entry.kind, name);
        true
    })?;
    if too_small { Err(Errno::EINVAL) } else { Ok(Answer::Reply) }
}

/// A file that the guest has to look up: only its type is known.
fn unknown(entry: &DirectoryEntry<'_>) -> Entry {
    // SAFETY: the structure has numbers only, for which zero is a value.
    let mut attributes: FileStat = unsafe { std::mem::zeroed() };
    attributes.st_ino = entry.inode;
    // `DT_…` are the types of a mode (readdir(3)).
    attributes.st_mode = u32::from(entry.kind) << 12;
    Entry { number: 0, attributes }
}

pub fn synchronize(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let (handle, flags) = (request.arguments.u64()?, request.arguments.u32()?);
    session.share().synchronize_directory(handle, flags & FSYNC_FDATASYNC != 0)?;
    Ok(Answer::Reply)
}
