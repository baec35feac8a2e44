//! Out of a tree.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};
use tar::{Builder, EntryType, Header};
use xattr::FileExt;

use crate::error::{Attempt, TransferError};
use crate::tree::{Tree, is, open_name, reopen, split_dot};

/// How many folders within each other are copied: each is held open, and there are not many more descriptors.
const MAX_DEPTH: usize = 512;
/// How many bytes the names of files with several may take, which are kept to the archive's end; beyond it, each name
/// becomes a file of its own.
const MAX_LINKED: usize = 64 << 20;
/// What PAX calls an attribute, before its name.
pub(crate) const ATTRIBUTE: &str = "SCHILY.xattr.";

impl Tree {
    /// Writes what is at `path` as an archive in which it is called `name`: files, folders and links, with owners, modes,
    /// times and attributes. A link is copied as such, unless the path ends with `/.` or `/`.
    ///
    /// # Errors
    /// Something cannot be read or written, or is of no kind that is copied.
    pub fn send(&self, path: &Path, name: &Path, output: impl Write) -> Result<(), TransferError> {
        let (bare, follows) = split_dot(path);
        let found = match (bare.file_name(), bare.parent()) {
            (Some(last), Some(parent)) if !follows => {
                let parent = self.resolve(parent, OFlag::O_DIRECTORY);
                parent.and_then(|parent| open_name(parent, last))
            }
            _ => self.resolve(path, OFlag::empty()),
        };
        let found = match found {
            Err(nix::errno::Errno::ENOENT) => return Err(TransferError::Missing(path.to_owned())),
            other => other.at("open", path)?,
        };
        let mut sender = Sender { archive: Builder::new(output), linked: HashMap::new(), bytes: 0 };
        sender.send(&found, (&bare, name), 0)?;
        let written = sender.archive.into_inner().and_then(|mut output| output.flush());
        written.map_err(|source| TransferError::Archive { action: "write", source })
    }
}

/// An archive in the making.
struct Sender<W: Write> {
    archive: Builder<W>,
    /// The first name in it of each file that has more than one, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
    /// How much that is.
    bytes: usize,
}

impl<W: Write> Sender<W> {
    /// Puts it into the archive; `path` is for messages, `name` its name there.
    fn send(
        &mut self,
        found: &OwnedFd,
        (path, name): (&Path, &Path),
        depth: usize,
    ) -> Result<(), TransferError> {
        let broken = |source| TransferError::Archive { action: "write", source };
        let stat = fstat(found).at("look at", path)?;
        let mut header = header(&stat);
        if let Some(first) = self.first_name(&stat, name) {
            header.set_entry_type(EntryType::Link);
            return self.archive.append_link(&mut header, name, first).map_err(broken);
        }
        let archive = &mut self.archive;
        if is(&stat, SFlag::S_IFLNK) {
            let target = readlinkat(found, "").at("read the link", path)?;
            header.set_entry_type(EntryType::Symlink);
            return archive.append_link(&mut header, name, Path::new(&target)).map_err(broken);
        }
        if is(&stat, SFlag::S_IFIFO) {
            header.set_entry_type(EntryType::Fifo);
            return archive.append_data(&mut header, name, io::empty()).map_err(broken);
        }
        let is_folder = is(&stat, SFlag::S_IFDIR);
        if !is_folder && !is(&stat, SFlag::S_IFREG) {
            return Err(TransferError::Special(path.to_owned()));
        }
        let mut file = reopen(found).at("open", path)?;
        send_attributes(archive, &file).map_err(broken)?;
        if !is_folder {
            let length = stat.st_size.unsigned_abs();
            header.set_entry_type(EntryType::Regular);
            header.set_size(length);
            // One that shrinks meanwhile is as long as it was said to be.
            let content = (&mut file).take(length).chain(io::repeat(0)).take(length);
            return archive.append_data(&mut header, name, content).map_err(broken);
        }
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, name, io::empty()).map_err(broken)?;
        if depth == MAX_DEPTH {
            return Err(TransferError::Deep { path: path.to_owned(), limit: MAX_DEPTH });
        }
        for entry in fs::read_dir(format!("/proc/self/fd/{}", file.as_raw_fd())).at("read", path)? {
            let entry = entry.at("read", path)?.file_name();
            let path = path.join(&entry);
            let found = match open_name(&file, &entry) {
                // It has gone meanwhile.
                Err(nix::errno::Errno::ENOENT) => continue,
                other => other.at("open", &path)?,
            };
            self.send(&found, (&path, &name.join(&entry)), depth + 1)?;
        }
        Ok(())
    }

    /// The name under which a file is in the archive already. Of one that is new and has further names, `name` is kept.
    fn first_name(&mut self, stat: &FileStat, name: &Path) -> Option<PathBuf> {
        if stat.st_nlink < 2 || !is(stat, SFlag::S_IFREG) {
            return None;
        }
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.linked.get(&file) {
            return Some(first.clone());
        }
        self.bytes += size_of::<PathBuf>() + name.as_os_str().len();
        if self.bytes <= MAX_LINKED {
            self.linked.insert(file, name.to_owned());
        }
        None
    }
}

fn header(stat: &FileStat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// The user's own attributes, and a program's capabilities. Others are the file system's or the host's affair.
fn send_attributes<W: Write>(archive: &mut Builder<W>, file: &File) -> io::Result<()> {
    // A file system without attributes has none.
    let Ok(names) = file.list_xattr() else { return Ok(()) };
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    for name in names {
        let Some(text) = name.to_str() else { continue };
        if (text.starts_with("user.") || text == "security.capability")
            && let Some(value) = file.get_xattr(&name)?
        {
            records.push((format!("{ATTRIBUTE}{text}"), value));
        }
    }
    match records.is_empty() {
        true => Ok(()),
        false => archive.append_pax_extensions(
            records.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
        ),
    }
}

/// A path from bytes of an archive.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
