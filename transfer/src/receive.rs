//! Into a tree.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType};
use xattr::FileExt;

use crate::error::{Attempt, TransferError};
use crate::metered::{MAX_HEADER, Metered};
use crate::send::{ATTRIBUTE, path_of};
use crate::tree::{Tree, names_below};

/// How many bytes the names of an archive's folders may take, which are kept to its end.
const MAX_FOLDERS: usize = 64 << 20;

/// Bytes written at a time, and of a hole at least.
const PIECE: usize = 64 << 10;

/// What becomes of the rights that a file gives who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// They are the file's, in an instance as before.
    Kept,
    /// Set-user-ID, set-group-ID and capabilities are taken away: nobody on the host is to run a program as root that an
    /// instance has written.
    Dropped,
}

/// What a folder gets when all is in it.
struct Unfinished {
    /// Not open: an archive may have more folders than there are descriptors.
    path: PathBuf,
    mode: u32,
    modified: TimeSpec,
}

impl Tree {
    /// Puts the files of an archive into `folder`, with owners (as root), modes, times and attributes. What is there
    /// under a file's name is replaced, and a folder kept.
    ///
    /// # Errors
    /// The archive is damaged or leads out of the folder, or something cannot be made.
    pub fn receive(
        &self,
        folder: &Path,
        rights: Rights,
        input: impl Read,
    ) -> Result<(), TransferError> {
        let top = self.resolve(folder, OFlag::O_DIRECTORY).at("open", folder)?;
        let damaged = |source| TransferError::Archive { action: "read", source };
        let left = Cell::new(MAX_HEADER);
        let mut archive = Archive::new(Metered::new(input, &left));
        let mut unfinished = Vec::new();
        let mut folders = 0;
        let mut entries = archive.entries().map_err(damaged)?;
        while let Some(entry) = {
            left.set(MAX_HEADER);
            entries.next()
        } {
            let mut entry = entry.map_err(damaged)?;
            left.set(u64::MAX);
            let path = path_of(&entry.path_bytes());
            let Some(names) = names_below(&path) else {
                return Err(TransferError::Astray(path.to_string_lossy().into_owned()));
            };
            // The folder itself, which is there.
            let Some((name, above)) = names.split_last() else { continue };
            let parent = folder_at(&top, above).at("open the folder of", &path)?;
            let member = Member { path: &path, parent: &parent, name, rights };
            if let Some(folder) = member.take(&top, &mut entry)? {
                folders += size_of::<Unfinished>() + folder.path.as_os_str().len();
                if folders > MAX_FOLDERS {
                    let why =
                        format!("the names of its folders take more than {MAX_FOLDERS} bytes");
                    return Err(damaged(io::Error::other(why)));
                }
                unfinished.push(folder);
            }
        }
        // The innermost first, as every file that is put into a folder changes the folder's time.
        for Unfinished { path, mode, modified } in unfinished.into_iter().rev() {
            let names = names_below(&path).unwrap_or_default();
            let folder = File::from(folder_at(&top, &names).at("open", &path)?);
            let set = folder.set_permissions(Permissions::from_mode(mode));
            let set = set.and_then(|()| Ok(futimens(&folder, &modified, &modified)?));
            set.at("finish", &path)?;
        }
        Ok(())
    }
}

/// Opens the folder below `top` that these names lead to, none of which is a link; what is missing is made.
fn folder_at(top: &OwnedFd, names: &[CString]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder = openat(top, ".", flags, Mode::empty())?;
    for name in names {
        folder = match openat(&folder, name.as_c_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                mkdirat(&folder, name.as_c_str(), Mode::from_bits_truncate(0o755))?;
                openat(&folder, name.as_c_str(), flags, Mode::empty())?
            }
            other => other?,
        };
    }
    Ok(folder)
}

/// A member of an archive, and its place.
struct Member<'a> {
    path: &'a Path,
    parent: &'a OwnedFd,
    name: &'a CStr,
    rights: Rights,
}

impl Member<'_> {
    fn take(
        &self,
        top: &OwnedFd,
        entry: &mut Entry<impl Read>,
    ) -> Result<Option<Unfinished>, TransferError> {
        let path = self.path;
        let damaged = |source| TransferError::Archive { action: "read", source };
        let header = entry.header();
        let owner = (
            u32::try_from(header.uid().map_err(damaged)?).unwrap_or(u32::MAX - 1),
            u32::try_from(header.gid().map_err(damaged)?).unwrap_or(u32::MAX - 1),
        );
        let mode = header.mode().map_err(damaged)? & 0o7777;
        let mode = if self.rights == Rights::Dropped { mode & 0o1777 } else { mode };
        let seconds = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        let modified = TimeSpec::new(seconds, 0);
        match header.entry_type() {
            EntryType::Directory => {
                let file = self.folder().at("create", path)?;
                own(&file, owner).at("give the owner of", path)?;
                self.attributes(&file, entry).at("give the attributes of", path)?;
                Ok(Some(Unfinished { path: path.to_owned(), mode, modified }))
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear().at("replace", path)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                let private = Mode::from_bits_truncate(0o600);
                let file = openat(self.parent, self.name, flags | OFlag::O_CLOEXEC, private);
                let mut file = File::from(file.at("create", path)?);
                copy_with_holes(&mut *entry, &mut file).at("write to", path)?;
                own(&file, owner).at("give the owner of", path)?;
                // In this order: chown takes set-user-ID and capabilities away.
                let set = file.set_permissions(Permissions::from_mode(mode));
                set.at("give the mode of", path)?;
                self.attributes(&file, entry).at("give the attributes of", path)?;
                futimens(&file, &modified, &modified).at("give the time of", path)?;
                Ok(None)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                self.clear().at("replace", path)?;
                symlinkat(path_of(&target).as_path(), self.parent, self.name).at("create", path)?;
                self.own_link(owner).at("give the owner of", path)?;
                Ok(None)
            }
            EntryType::Link => {
                let target = path_of(&entry.link_name_bytes().unwrap_or_default());
                let Some(names) = names_below(&target) else {
                    return Err(TransferError::Astray(target.to_string_lossy().into_owned()));
                };
                self.clear().at("replace", path)?;
                link(top, &names, self).at("create", path)?;
                Ok(None)
            }
            EntryType::Fifo => {
                self.clear().at("replace", path)?;
                let made = Mode::from_bits_truncate(mode);
                mknodat(self.parent, self.name, SFlag::S_IFIFO, made, 0).at("create", path)?;
                self.own_link(owner).at("give the owner of", path)?;
                Ok(None)
            }
            // Of the whole archive.
            EntryType::XGlobalHeader => Ok(None),
            _ => Err(TransferError::Special(self.path.to_owned())),
        }
    }

    /// The folder, which is made unless it is there.
    fn folder(&self) -> io::Result<File> {
        match mkdirat(self.parent, self.name, Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(self.parent, self.name, flags, Mode::empty())?.into())
    }

    /// Takes away what has the name, which is no folder.
    fn clear(&self) -> io::Result<()> {
        match unlinkat(self.parent, self.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn own_link(&self, (uid, gid): (u32, u32)) -> io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(fchownat(self.parent, self.name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    fn attributes(&self, file: &File, entry: &mut Entry<impl Read>) -> io::Result<()> {
        let Some(records) = entry.pax_extensions()? else { return Ok(()) };
        for record in records {
            let record = record?;
            let Some(name) = record.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE)) else {
                continue;
            };
            let is_right = name == "security.capability" && self.rights == Rights::Kept;
            if name.starts_with("user.") || is_right {
                match file.set_xattr(name, record.value_bytes()) {
                    // A file system without them.
                    Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

/// Writes all of it, but for pieces that are all zeros: there the file has a hole, as a sparse one had.
fn copy_with_holes(mut source: impl Read, file: &mut File) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match source.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let piece = &piece[..filled];
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, length)?;
        }
        length += filled as u64;
        if filled < PIECE {
            return file.set_len(length);
        }
    }
}

/// Without root a file is the caller's.
fn own(file: &File, (uid, gid): (u32, u32)) -> io::Result<()> {
    if geteuid().is_root() { fchown(file, Some(uid), Some(gid)) } else { Ok(()) }
}

fn link(top: &OwnedFd, names: &[CString], member: &Member<'_>) -> io::Result<()> {
    let Some((name, above)) = names.split_last() else { return Err(Errno::EINVAL.into()) };
    let folder = folder_at(top, above)?;
    Ok(linkat(&folder, name.as_c_str(), member.parent, member.name, AtFlags::empty())?)
}
