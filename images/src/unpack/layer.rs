//! One layer's archive into one folder (image-spec, layer.md).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, fchownat, geteuid, linkat, symlinkat};
use tar_core::EntryType;

use super::archive::{Archive, Member};
use super::beneath::{Beneath, Place, is_dir};
use super::implied::Folders;
use super::limits::Limits;
use super::sparse;
use crate::error::{ImageError, io_error};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

/// How much of an entry's name an error tells.
const SHOWN: usize = 200;

/// Of a folder that the archive has no entry for: the same wherever it is unpacked.
const IMPLIED_MODE: Mode = Mode::from_bits_truncate(0o755);
const IMPLIED_TIME: TimeSpec = TimeSpec::new(0, 0);

/// Unpacks `stream` into the empty folder `tree`. Whiteouts become those of overlayfs.
pub(super) fn unpack(
    layer: &str,
    stream: &mut impl Read,
    tree: &Path,
    limits: Limits,
) -> Result<Folders, ImageError> {
    let mut unpacker = Unpacker {
        layer,
        root: Beneath::new(tree, limits).map_err(io_error("open", tree))?,
        is_root: geteuid().is_root(),
        folder_times: Vec::new(),
        has_root: false,
        bytes_left: limits.bytes,
    };
    let mut archive = Archive::new(stream, limits.bytes);
    let result = unpacker.all(&mut archive, limits.entries);
    if archive.is_too_large() || unpacker.bytes_left == 0 {
        let limit = format!("{} bytes uncompressed", limits.bytes);
        return Err(ImageError::TooLarge { layer: layer.to_owned(), limit });
    }
    result?;
    unpacker.finish_folders()
}

struct Unpacker<'a> {
    layer: &'a str,
    root: Beneath,
    is_root: bool,
    /// Set last, as every file that is put into a folder changes the folder's.
    folder_times: Vec<(PathBuf, TimeSpec)>,
    /// The archive has an entry for the root folder.
    has_root: bool,
    /// Of all files with their holes: a small archive can hold a huge sparse file.
    bytes_left: u64,
}

impl Unpacker<'_> {
    fn all(&mut self, archive: &mut Archive<impl Read>, limit: u64) -> Result<(), ImageError> {
        let layer = self.layer;
        let bad_layer = |source| ImageError::BadLayer { layer: layer.to_owned(), source };
        let mut count = 0;
        while let Some(member) = archive.next().map_err(bad_layer)? {
            if count == limit {
                let limit = format!("{limit} entries");
                return Err(ImageError::TooLarge { layer: layer.to_owned(), limit });
            }
            count += 1;
            self.add(&member, &mut archive.content())?;
        }
        Ok(())
    }

    fn add(&mut self, member: &Member, content: &mut impl Read) -> Result<(), ImageError> {
        let layer = self.layer;
        let bad = |why: String| ImageError::BadEntry {
            layer: layer.to_owned(),
            entry: shown(&member.path),
            why,
        };
        let refused = |error: io::Error| match is_hosts(&error) {
            true => io_error("unpack", shown(&member.path))(error),
            false => bad(error.to_string()),
        };
        let path = inside(&member.path);
        let path = path.ok_or_else(|| bad("it leads out of the root file system".to_owned()))?;
        let Some(file_name) = path.file_name().map(OsStr::as_bytes) else {
            return self.set_root_metadata(member).map_err(refused);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        // A name need not be UTF-8, nor does that of what a whiteout hides.
        let Some(hidden) = file_name.strip_prefix(WHITEOUT) else {
            return self.make(member, content, &path).map_err(refused);
        };
        // umoci notes what is gone of a folder also where the layer puts something else in the
        // folder's place, which hides it all.
        if !self.root.may_be_folder(parent).map_err(refused)? {
            return Ok(());
        }
        if file_name == OPAQUE_WHITEOUT {
            return self.make_opaque(parent).map_err(refused);
        }
        // AUFS's own files, which have no meaning (image-spec, layer.md, "Whiteouts").
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if [&b""[..], b".", b".."].contains(&hidden) {
            return Err(bad("a whiteout of nothing".to_owned()));
        }
        self.make_whiteout(&parent.join(OsStr::from_bytes(hidden))).map_err(refused)
    }

    fn make(&mut self, member: &Member, content: &mut impl Read, path: &Path) -> io::Result<()> {
        let kind = member.kind;
        let place = self.root.place(path)?;
        let keep_folder =
            kind == EntryType::Directory && place.stat()?.is_some_and(|stat| is_dir(&stat));
        if !keep_folder {
            place.clear()?;
        }
        let (parent, name) = (place.parent(), place.name());
        match kind {
            EntryType::Directory if keep_folder => {}
            EntryType::Directory => mkdirat(parent, name, Mode::from_bits_truncate(0o755))?,
            EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => {
                self.write_file(member, content, &place)?;
            }
            EntryType::Symlink => {
                let target = member.link.as_deref().ok_or(Errno::EINVAL)?;
                symlinkat(target, parent, name)?;
            }
            EntryType::Link => {
                let target = member.link.as_deref().ok_or(Errno::EINVAL)?;
                let target = inside(target).ok_or_else(|| {
                    io::Error::other(format!("its target {} leads out", target.display()))
                })?;
                let target = self.root.place(&target)?;
                linkat(target.parent(), target.name(), parent, name, LinkatFlags::empty())?;
                // The metadata is the target's own.
                return Ok(());
            }
            EntryType::Char => make_node(member, &place, SFlag::S_IFCHR)?,
            EntryType::Block => make_node(member, &place, SFlag::S_IFBLK)?,
            EntryType::Fifo => make_node(member, &place, SFlag::S_IFIFO)?,
            other => return Err(io::Error::other(format!("unknown type {other:?}"))),
        }
        self.set_metadata(member, &place)
    }

    fn write_file(
        &mut self,
        member: &Member,
        content: &mut impl Read,
        place: &Place,
    ) -> io::Result<()> {
        self.bytes_left = self.bytes_left.saturating_sub(member.size);
        if self.bytes_left == 0 {
            return Err(io::Error::other("the layer's files are too large"));
        }
        let mut file = create_file(place)?;
        match &member.sparse {
            Some(map) => sparse::write(map, member.size, content, &file),
            None => io::copy(content, &mut file).map(drop),
        }
    }

    fn set_metadata(&mut self, member: &Member, place: &Place) -> io::Result<()> {
        let (parent, name) = (place.parent(), place.name());
        let is_symlink = member.kind == EntryType::Symlink;
        // Not root: everything belongs to us, and is mapped to root by the user namespace.
        if self.is_root {
            let (uid, gid) = owner(member)?;
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if !is_symlink {
            // After the owner: chown clears the set-user-ID bit.
            let mode = Mode::from_bits_truncate(member.mode);
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        // After the owner too: chown drops security.capability.
        for (attribute, value) in &member.attributes {
            // overlayfs's own would let a layer hide or redirect what lower layers hold.
            let is_overlays = [&b"trusted.overlay."[..], b"user.overlay."]
                .iter()
                .any(|prefix| attribute.starts_with(prefix));
            if is_overlays {
                continue;
            }
            match xattr::set(place.proc_path(), OsStr::from_bytes(attribute), value) {
                // trusted.* and security.* are root's.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && !self.is_root => {}
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    let name = String::from_utf8_lossy(attribute);
                    return Err(io::Error::other(format!(
                        "the store's file system keeps no attribute `{name}`, as tmpfs before \
                         Linux 6.6; put the store on another by $XDG_DATA_HOME"
                    )));
                }
                other => other?,
            }
        }
        if member.kind == EntryType::Directory {
            self.root.was_named(place.path())?;
            self.folder_times.push((place.path().to_owned(), member.modified));
            return Ok(());
        }
        let time = &member.modified;
        Ok(utimensat(parent, name, time, time, UtimensatFlags::NoFollowSymlink)?)
    }

    /// `./`: the root folder's own entry.
    fn set_root_metadata(&mut self, member: &Member) -> io::Result<()> {
        self.has_root = true;
        let root = self.root.root();
        if self.is_root {
            let (uid, gid) = owner(member)?;
            fchownat(root, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
        }
        let mode = Mode::from_bits_truncate(member.mode);
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

    fn finish_folders(&self) -> Result<Folders, ImageError> {
        let implied = self.root.take_implied();
        for path in &implied {
            self.set_implied(path).map_err(io_error("set the mode of", path))?;
        }
        for (path, time) in self.folder_times.iter().rev() {
            let set = || -> io::Result<()> {
                if let Some(place) = self.folder_still_at(path)? {
                    let flags = UtimensatFlags::NoFollowSymlink;
                    utimensat(place.parent(), place.name(), time, time, flags)?;
                }
                Ok(())
            };
            set().map_err(io_error("set the time of", path))?;
        }
        Ok(Folders { has_root: self.has_root, implied })
    }

    fn set_implied(&self, path: &Path) -> io::Result<()> {
        if let Some(place) = self.folder_still_at(path)? {
            let (parent, name) = (place.parent(), place.name());
            fchmodat(parent, name, IMPLIED_MODE, FchmodatFlags::FollowSymlink)?;
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(parent, name, &IMPLIED_TIME, &IMPLIED_TIME, flags)?;
        }
        Ok(())
    }

    /// The place of a folder, unless a later entry has put something else there, or on the way.
    fn folder_still_at(&self, path: &Path) -> io::Result<Option<Place>> {
        let Some(place) = self.root.place_if_there(path)? else { return Ok(None) };
        Ok(place.stat()?.is_some_and(|stat| is_dir(&stat)).then_some(place))
    }
}

/// A name as an error tells it: a hostile one is long, or has codes for a terminal in it.
fn shown(name: &Path) -> String {
    let text = name.to_string_lossy();
    let mut shown = String::new();
    for (number, letter) in text.chars().enumerate() {
        if number == SHOWN {
            return shown + "\u{2026}";
        }
        match letter.is_control() {
            true => shown.extend(letter.escape_default()),
            false => shown.push(letter),
        }
    }
    shown
}

/// Whether the host is to blame, and not the layer.
fn is_hosts(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::OutOfMemory
    ) || matches!(error.raw_os_error(), Some(libc::EIO | libc::EMFILE | libc::ENFILE))
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

fn make_node(member: &Member, place: &Place, kind: SFlag) -> io::Result<()> {
    let (major, minor) = member.device;
    let device = match kind {
        SFlag::S_IFIFO => 0,
        _ => makedev(major.into(), minor.into()),
    };
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

/// chown(2) takes -1 for "as it is", which is root: a set-user-ID file of that owner would become root's.
fn owner(member: &Member) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(io::Error::other(format!("its owner or group is {id}, which no file can have"))),
    };
    Ok((Uid::from_raw(id(member.uid)?), Gid::from_raw(id(member.gid)?)))
}
