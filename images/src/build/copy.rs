//! COPY and ADD: which files go where, and putting them there.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest as _, Sha256};

use super::context::{Source, normal};
use super::merged::Merged;

/// How files are given to the image.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ownership {
    /// `--chown`, or root for files of the context; none keeps the source's, as for files of
    /// other images and of archives.
    pub(super) owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub(super) mode: Option<u32>,
}

/// The files that one instruction copies, by their places in the image.
pub(super) struct Plan {
    items: BTreeMap<PathBuf, Item>,
    ownership: Ownership,
    /// Extended attributes go along from other images, not from the host's context.
    with_attributes: bool,
}

enum Item {
    /// A file of a source, of any kind.
    File { file: PathBuf, metadata: Metadata, owner: (u32, u32) },
    /// A here-document.
    Text(String),
    /// A folder that must be there; WORKDIR.
    Folder,
}

impl Plan {
    pub(super) fn new(ownership: Ownership, with_attributes: bool) -> Self {
        Self { items: BTreeMap::new(), ownership, with_attributes }
    }

    /// Gives what is added from here on to others.
    pub(super) fn set_owner(&mut self, owner: Option<(u32, u32)>) {
        self.ownership.owner = owner;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Makes `path`, resolved already, a folder.
    pub(super) fn add_folder(&mut self, path: PathBuf) {
        self.items.entry(path).or_insert(Item::Folder);
    }

    pub(super) fn add_text(&mut self, target: PathBuf, text: String) {
        self.items.insert(target, Item::Text(text));
    }

    /// Adds the file or folder `path` of `source`. A folder's content goes to `target`; a file
    /// goes to `target`, or below it where that is a folder.
    pub(super) fn add(
        &mut self,
        source: &Source,
        path: &Path,
        target: &Target,
        image: &Merged,
    ) -> io::Result<()> {
        let found = source.files().resolve(path, true)?;
        let Some((file, metadata)) = found.file else {
            return Err(io::Error::other(format!("{} leads nowhere", path.display())));
        };
        if metadata.is_dir() {
            if !target.is_folder(image)? {
                self.add_folder(target.path.clone());
            }
            return self.add_content(source, &found.path, &target.path, image);
        }
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let target = match target.names_folder || target.is_folder(image)? {
            true => target.path.join(name),
            false => target.path.clone(),
        };
        self.add_file(file, metadata, target)
    }

    fn add_file(&mut self, file: PathBuf, metadata: Metadata, target: PathBuf) -> io::Result<()> {
        if metadata.file_type().is_socket() {
            return Ok(());
        }
        let owner = self.ownership.owner.unwrap_or((metadata.uid(), metadata.gid()));
        self.items.insert(target, Item::File { file, metadata, owner });
        Ok(())
    }

    fn add_content(
        &mut self,
        source: &Source,
        folder: &Path,
        target: &Path,
        image: &Merged,
    ) -> io::Result<()> {
        for name in source.files().list(folder)? {
            let path = folder.join(&name);
            let ignored = source.is_ignored(&path);
            let Some((file, metadata)) = source.files().stat(&path)? else { continue };
            let mut target = target.join(&name);
            if !metadata.is_dir() {
                if !ignored {
                    self.add_file(file, metadata, target)?;
                }
                continue;
            }
            // `lib` onto a link `lib` -> `usr/lib` goes into the folder that the link names.
            let found = image.resolve(&target, true)?;
            if found.is_dir() {
                target = found.path;
            }
            if !ignored {
                self.add_file(file, metadata, target.clone())?;
            }
            if !ignored || source.has_exceptions() {
                self.add_content(source, &path, &target, image)?;
            }
        }
        Ok(())
    }

    /// A digest of all that will be in the layer but times, which do not make a file another.
    pub(super) fn digest(&self) -> io::Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let mut links = Links::default();
        for (target, item) in &self.items {
            field(target.as_os_str().as_bytes());
            match item {
                Item::Folder => field(b"folder"),
                Item::Text(text) => field(text.as_bytes()),
                Item::File { file, metadata, owner } => {
                    if let Some(first) = links.first(metadata, *owner, target) {
                        field(b"link");
                        field(first.as_os_str().as_bytes());
                        continue;
                    }
                    let (uid, gid) = *owner;
                    let mode = self.mode(metadata) | (metadata.mode() & libc::S_IFMT);
                    for number in [mode, uid, gid] {
                        field(&number.to_le_bytes());
                    }
                    field(&metadata.rdev().to_le_bytes());
                    if metadata.is_symlink() {
                        field(fs::read_link(file)?.as_os_str().as_bytes());
                    } else if metadata.is_file() {
                        field(&digest_of(file)?);
                    }
                    if self.with_attributes {
                        for (name, value) in attributes(file)? {
                            field(name.as_bytes());
                            field(&value);
                        }
                    }
                }
            }
        }
        let Ownership { owner, mode } = self.ownership;
        field(format!("{owner:?} {mode:?}").as_bytes());
        Ok(hasher.finalize().into())
    }

    fn mode(&self, metadata: &Metadata) -> u32 {
        self.ownership.mode.unwrap_or(metadata.mode() & 0o7777)
    }

    /// Puts the files into `upper`, the layer over `image`.
    pub(super) fn write(&self, upper: &Path, image: &Merged) -> io::Result<()> {
        let writer = Writer { upper, image, ownership: self.ownership };
        // The layer's root is the image's root from now on.
        writer.folder(Path::new(""))?;
        let mut links = Links::default();
        for (target, item) in &self.items {
            let place = writer.place(target)?;
            match item {
                Item::Folder => writer.folder(target)?,
                Item::Text(text) => {
                    writer.check_file(target)?;
                    fs::write(&place, text)?;
                    self.finish(&place, self.ownership.owner.unwrap_or_default(), 0o644)?;
                }
                Item::File { file, metadata, owner } => {
                    if let Some(first) = links.first(metadata, *owner, target) {
                        writer.check_file(target)?;
                        fs::hard_link(upper.join(first), place)?;
                        continue;
                    }
                    self.write_file(&writer, target, (file, metadata), *owner)?;
                }
            }
        }
        // Last, as every file that is put into a folder changes the folder's.
        for (target, item) in self.items.iter().rev() {
            if let Item::File { metadata, .. } = item {
                let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
                let flags = UtimensatFlags::NoFollowSymlink;
                utimensat(nix::fcntl::AT_FDCWD, &upper.join(target), &time, &time, flags)?;
            }
        }
        Ok(())
    }

    fn write_file(
        &self,
        writer: &Writer<'_>,
        target: &Path,
        (file, metadata): (&Path, &Metadata),
        owner: (u32, u32),
    ) -> io::Result<()> {
        let place = writer.upper.join(target);
        if metadata.is_dir() {
            writer.folder(target)?;
        } else {
            writer.check_file(target)?;
            make(file, metadata, &place)?;
        }
        if metadata.is_symlink() {
            return give(&place, owner);
        }
        self.finish(&place, owner, metadata.mode() & 0o7777)?;
        if self.with_attributes {
            for (name, value) in attributes(file)? {
                xattr::set(&place, name, &value)?;
            }
        }
        Ok(())
    }

    fn finish(&self, place: &Path, owner: (u32, u32), mode: u32) -> io::Result<()> {
        // In this order: chown clears the set-user-ID bit.
        give(place, owner)?;
        let mode = self.ownership.mode.unwrap_or(mode);
        fs::set_permissions(place, fs::Permissions::from_mode(mode))
    }
}

/// Names of one file stay names of one file.
#[derive(Default)]
struct Links<'a>(HashMap<(u64, u64, (u32, u32)), &'a Path>);

impl<'a> Links<'a> {
    /// The first target of the same file, if this is not the first.
    fn first(
        &mut self,
        metadata: &Metadata,
        owner: (u32, u32),
        target: &'a Path,
    ) -> Option<&'a Path> {
        if metadata.is_dir() || metadata.nlink() < 2 {
            return None;
        }
        match self.0.entry((metadata.dev(), metadata.ino(), owner)) {
            Entry::Occupied(first) => Some(first.get()),
            Entry::Vacant(new) => {
                new.insert(target);
                None
            }
        }
    }
}

/// Where an instruction copies to.
pub(super) struct Target {
    /// Resolved in the image.
    pub(super) path: PathBuf,
    /// Whether it is written as a folder, with a slash at its end.
    pub(super) names_folder: bool,
}

impl Target {
    /// `text` as it stands in the Dockerfile, relative to `workdir`.
    pub(super) fn new(text: &str, workdir: &str, image: &Merged) -> io::Result<Self> {
        let names_folder = text.ends_with('/') || text.ends_with("/.") || text == ".";
        let path = normal(&Path::new("/").join(workdir).join(text));
        Ok(Self { path: image.resolve(&path, true)?.path, names_folder })
    }

    pub(super) fn is_folder(&self, image: &Merged) -> io::Result<bool> {
        if self.path.as_os_str().is_empty() {
            return Ok(true);
        }
        Ok(image.stat(&self.path)?.is_some_and(|(_, metadata)| metadata.is_dir()))
    }
}

struct Writer<'a> {
    upper: &'a Path,
    image: &'a Merged,
    ownership: Ownership,
}

impl Writer<'_> {
    /// The place of `target`, with the folders above it made as they are in the image.
    fn place(&self, target: &Path) -> io::Result<PathBuf> {
        let mut above: Vec<&Path> = target.ancestors().skip(1).collect();
        above.reverse();
        for folder in above {
            self.folder(folder)?;
        }
        Ok(self.upper.join(target))
    }

    /// Makes a folder unless it is there, with what the image's has, or else as Docker does.
    fn folder(&self, path: &Path) -> io::Result<()> {
        let place = self.upper.join(path);
        if fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir()) {
            // The root is there from the beginning, but not yet as in the image.
            if !path.as_os_str().is_empty() {
                return Ok(());
            }
        } else if fs::symlink_metadata(&place).is_ok() {
            return Err(not_a_folder(path));
        } else {
            fs::create_dir(&place)?;
        }
        let known = match path.as_os_str().is_empty() {
            true => self.image.resolve(path, false)?.file,
            false => self.image.stat(path)?,
        };
        let (owner, mode) = match &known {
            Some((_, metadata)) if metadata.is_dir() => {
                ((metadata.uid(), metadata.gid()), metadata.mode() & 0o7777)
            }
            Some(_) => return Err(not_a_folder(path)),
            None if path.as_os_str().is_empty() => ((0, 0), 0o755),
            None => (self.ownership.owner.unwrap_or_default(), 0o755),
        };
        give(&place, owner)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        let Some((file, metadata)) = known else { return Ok(()) };
        for (name, value) in attributes(&file)? {
            xattr::set(&place, name, &value)?;
        }
        let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
        let flags = UtimensatFlags::NoFollowSymlink;
        Ok(utimensat(nix::fcntl::AT_FDCWD, &place, &time, &time, flags)?)
    }

    /// A file takes a file's place, or a link's, but not a folder's.
    fn check_file(&self, target: &Path) -> io::Result<()> {
        if self.image.stat(target)?.is_some_and(|(_, metadata)| metadata.is_dir()) {
            return Err(io::Error::other(format!("/{} is a folder", target.display())));
        }
        Ok(())
    }
}

fn not_a_folder(path: &Path) -> io::Error {
    io::Error::other(format!("/{} is no folder", path.display()))
}

fn make(file: &Path, metadata: &Metadata, place: &Path) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(file)?, place);
    }
    if kind.is_file() {
        let mut target = File::create_new(place)?;
        return io::copy(&mut open(file)?, &mut target).map(drop);
    }
    let form = if kind.is_fifo() {
        SFlag::S_IFIFO
    } else if kind.is_block_device() {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    Ok(mknod(place, form, Mode::from_bits_truncate(0o600), metadata.rdev())?)
}

/// The owner is set only by root; others own all that they make.
fn give(place: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() { lchown(place, Some(uid), Some(gid)) } else { Ok(()) }
}

/// Without following a link that took the file's place since it was looked at.
fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)
}

fn digest_of(file: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hasher) = (open(file)?, Sha256::new());
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Those that belong to the file, not to overlayfs or the host; sorted.
fn attributes(file: &Path) -> io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list(file)? {
        let bytes = name.as_bytes();
        let is_overlays =
            bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.");
        if !is_overlays
            && bytes != b"security.selinux"
            && let Some(value) = xattr::get(file, &name)?
        {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}
