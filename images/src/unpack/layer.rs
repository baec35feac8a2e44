//! One layer's archive into one folder (image-spec, layer.md).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, fchownat, geteuid, linkat, symlinkat};
use tar::{Archive, Entry, EntryType};

use super::Limits;
use super::beneath::{Beneath, Place, is_dir};
use crate::error::{ImageError, io_error};

const WHITEOUT: &str = ".wh.";
const OPAQUE_WHITEOUT: &str = ".wh..wh..opq";
/// PAX records of this prefix are extended attributes.
const PAX_XATTR: &str = "SCHILY.xattr.";

/// Unpacks `stream` into the empty folder `tree`. Whiteouts become those of overlayfs.
pub(super) fn unpack(
    layer: &str,
    stream: &mut impl Read,
    tree: &Path,
    limits: Limits,
) -> Result<(), ImageError> {
    let bad_layer = |source| ImageError::BadLayer { layer: layer.to_owned(), source };
    let mut unpacker = Unpacker {
        layer,
        root: Beneath::new(tree).map_err(io_error("open", tree))?,
        is_root: geteuid().is_root(),
        folder_times: Vec::new(),
    };
    let mut bounded = BoundedReader { source: stream, left: limits.bytes, exceeded: false };
    let mut archive = Archive::new(WholeBlocks { source: &mut bounded, in_block: 0 });
    let mut result = Ok(());
    for (count, entry) in archive.entries().map_err(bad_layer)?.enumerate() {
        if count as u64 >= limits.entries {
            let limit = format!("{} entries", limits.entries);
            return Err(ImageError::TooLarge { layer: layer.to_owned(), limit });
        }
        result = entry.map_err(bad_layer).and_then(|entry| unpacker.add(entry));
        if result.is_err() {
            break;
        }
    }
    if bounded.exceeded {
        let limit = format!("{} bytes uncompressed", limits.bytes);
        return Err(ImageError::TooLarge { layer: layer.to_owned(), limit });
    }
    result?;
    unpacker.set_folder_times()
}

struct Unpacker<'a> {
    layer: &'a str,
    root: Beneath,
    is_root: bool,
    /// Set last, as every file that is put into a folder changes the folder's.
    folder_times: Vec<(PathBuf, TimeSpec)>,
}

impl Unpacker<'_> {
    fn add(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), ImageError> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bad = |why: String| ImageError::BadEntry {
            layer: self.layer.to_owned(),
            entry: name.clone(),
            why,
        };
        let path = inside(&entry.path().map_err(|e| bad(e.to_string()))?)
            .ok_or_else(|| bad("it leads out of the root file system".to_owned()))?;
        let refused = |error: io::Error| bad(error.to_string());
        let Some(file_name) = path.file_name().and_then(|n| n.to_str()) else {
            // The root folder itself, or a name that is no UTF-8 and so no whiteout.
            return match path.as_os_str().is_empty() {
                true => self.set_root_metadata(&mut entry).map_err(refused),
                false => self.make(&mut entry, &path).map_err(refused),
            };
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if file_name == OPAQUE_WHITEOUT {
            return self.make_opaque(parent).map_err(refused);
        }
        if let Some(hidden) = file_name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden == "." || hidden == ".." {
                return Err(bad("a whiteout of nothing".to_owned()));
            }
            return self.make_whiteout(&parent.join(hidden)).map_err(refused);
        }
        self.make(&mut entry, &path).map_err(refused)
    }

    fn make(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let place = self.root.place(path)?;
        let keep_folder = kind.is_dir() && place.stat()?.is_some_and(|stat| is_dir(&stat));
        if !keep_folder {
            place.clear()?;
        }
        let (parent, name) = (place.parent(), place.name());
        match kind {
            EntryType::Directory if keep_folder => {}
            EntryType::Directory => mkdirat(parent, name, Mode::from_bits_truncate(0o755))?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                io::copy(entry, &mut create_file(&place)?).map(drop)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(Errno::EINVAL)?;
                symlinkat(target.as_ref(), parent, name)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(Errno::EINVAL)?;
                let target = inside(&target).ok_or_else(|| {
                    io::Error::other(format!("its target {} leads out", target.display()))
                })?;
                let target = self.root.place(&target)?;
                linkat(target.parent(), target.name(), parent, name, LinkatFlags::empty())?;
                // The metadata is the target's own.
                return Ok(());
            }
            EntryType::Char => make_node(entry, &place, SFlag::S_IFCHR)?,
            EntryType::Block => make_node(entry, &place, SFlag::S_IFBLK)?,
            EntryType::Fifo => make_node(entry, &place, SFlag::S_IFIFO)?,
            other => return Err(io::Error::other(format!("unknown type {other:?}"))),
        }
        self.set_metadata(entry, &place, path)
    }

    fn set_metadata(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        place: &Place,
        path: &Path,
    ) -> io::Result<()> {
        let (parent, name) = (place.parent(), place.name());
        let is_symlink = entry.header().entry_type().is_symlink();
        // Not root: everything belongs to us, and is mapped to root by the user namespace.
        if self.is_root {
            let (uid, gid) = owner(entry)?;
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if !is_symlink {
            // After the owner: chown clears the set-user-ID bit.
            let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o7777);
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        // After the owner too: chown drops security.capability.
        for (attribute, value) in extended_attributes(entry)? {
            match xattr::set(place.proc_path(), &attribute, &value) {
                // trusted.* and security.* are root's.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && !self.is_root => {}
                other => other?,
            }
        }
        let time = modification_time(entry)?;
        if entry.header().entry_type().is_dir() {
            self.folder_times.push((path.to_owned(), time));
            return Ok(());
        }
        Ok(utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    /// `./`: the root folder's own entry.
    fn set_root_metadata(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let root = self.root.root();
        if self.is_root {
            let (uid, gid) = owner(entry)?;
            fchownat(root, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
        }
        let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o7777);
        Ok(fchmodat(root, c".", mode, FchmodatFlags::FollowSymlink)?)
    }

    fn make_opaque(&self, folder: &Path) -> io::Result<()> {
        let attribute = if self.is_root { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        // A place below the folder makes sure that the folder is there.
        let below = self.root.place(&folder.join("x"))?;
        let folder = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&below.parent()));
        xattr::set_deref(folder, attribute, b"y")
    }

    fn make_whiteout(&self, hidden: &Path) -> io::Result<()> {
        let place = self.root.place(hidden)?;
        place.clear()?;
        // A character device 0:0 is overlayfs's whiteout, which needs no privilege.
        Ok(mknodat(place.parent(), place.name(), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
    }

    fn set_folder_times(&self) -> Result<(), ImageError> {
        for (path, time) in self.folder_times.iter().rev() {
            let set = || -> io::Result<()> {
                let place = self.root.place(path)?;
                // A later entry may have put something else there.
                if place.stat()?.is_some_and(|stat| is_dir(&stat)) {
                    let flags = UtimensatFlags::NoFollowSymlink;
                    utimensat(place.parent(), place.name(), time, time, flags)?;
                }
                Ok(())
            };
            set().map_err(io_error("set the time of", path))?;
        }
        Ok(())
    }
}

/// An entry's name relative to the root: absolute names are taken as relative, `.` is dropped,
/// and `..` is taken only where it stays inside.
fn inside(name: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

fn create_file(place: &Place) -> io::Result<File> {
    // O_EXCL: whatever was there has been cleared, and a link is never followed.
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file: OwnedFd =
        openat(place.parent(), place.name(), flags, Mode::from_bits_truncate(0o600))?;
    Ok(file.into())
}

fn make_node(entry: &Entry<'_, impl Read>, place: &Place, kind: SFlag) -> io::Result<()> {
    let header = entry.header();
    let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    let device = makedev(major.into(), minor.into());
    let mode = Mode::from_bits_truncate(0o600);
    if kind == SFlag::S_IFCHR && device == 0 {
        return Err(io::Error::other("a character device 0:0 would hide a file of a lower layer"));
    }
    match mknodat(place.parent(), place.name(), kind, mode, device) {
        // Devices are root's; without root an empty file stands in, as podman does it.
        Err(Errno::EPERM) if !geteuid().is_root() => create_file(place).map(drop),
        other => Ok(other?),
    }
}

fn owner(entry: &Entry<'_, impl Read>) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
    let (header, fields) = (entry.header(), entry.header().as_old());
    let uid = id(or_nothing(header.uid(), &fields.uid)?)?;
    let gid = id(or_nothing(header.gid(), &fields.gid)?)?;
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

fn modification_time(entry: &Entry<'_, impl Read>) -> io::Result<TimeSpec> {
    let header = entry.header();
    let seconds = or_nothing(header.mtime(), &header.as_old().mtime)?;
    Ok(TimeSpec::new(i64::try_from(seconds).map_err(io::Error::other)?, 0))
}

/// A number that was left out is nought, as Go's reader takes it, with which most layers are read.
fn or_nothing(number: io::Result<u64>, field: &[u8]) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { number }
}

fn extended_attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let Some(records) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut attributes = Vec::new();
    for record in records {
        let record = record?;
        let key = record.key().map_err(io::Error::other)?;
        if let Some(name) = key.strip_prefix(PAX_XATTR) {
            // overlayfs's own would let a layer hide or redirect what lower layers hold.
            if !name.starts_with("trusted.overlay.") && !name.starts_with("user.overlay.") {
                attributes.push((name.to_owned(), record.value_bytes().to_vec()));
            }
        }
    }
    Ok(attributes)
}

/// Fills the last block up. Some tools (umoci) leave out the padding behind the last file and the
/// end-of-archive marker, and Go's reader, which most others use, does not mind. Whether anything
/// else is missing shows in the diff_id.
struct WholeBlocks<R> {
    source: R,
    in_block: usize,
}

const BLOCK: usize = 512;

impl<R: Read> Read for WholeBlocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.source.read(buffer)?;
        if count == 0 && self.in_block > 0 {
            count = buffer.len().min(BLOCK - self.in_block);
            buffer[..count].fill(0);
        }
        self.in_block = (self.in_block + count) % BLOCK;
        Ok(count)
    }
}

/// Fails when more is read than an honest layer has.
struct BoundedReader<'a, R> {
    source: &'a mut R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for BoundedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::Error::other("the layer is too large"));
            }
        }
        Ok(count)
    }
}
