//! Putting planned files into a layer.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use isolab_images::Merged;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use super::files::{Links, attributes, open};
use super::{CopyPlan, Item, Ownership};
use crate::Check;

impl CopyPlan {
    /// Puts the files into `upper`, the layer over `image`.
    pub(crate) fn write(&self, upper: &Path, image: &Merged, check: Check<'_>) -> io::Result<()> {
        let writer = Writer { upper, image, ownership: &self.ownership };
        // The layer's root is the image's root from now on.
        writer.folder(Path::new(""))?;
        let mut links = Links::default();
        for (target, item) in &self.items {
            check()?;
            let place = writer.place(target)?;
            match item {
                Item::Folder => writer.folder(target)?,
                Item::Text(text) => {
                    writer.check_file(target)?;
                    fs::write(&place, text)?;
                    self.finish(
                        &place,
                        self.ownership.owner.unwrap_or_default(),
                        self.mode_of(0o644, false),
                    )?;
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
        self.finish(&place, owner, self.mode(metadata))?;
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
        fs::set_permissions(place, fs::Permissions::from_mode(mode))
    }
}

/// Knows the folders above a file.
struct Writer<'a> {
    upper: &'a Path,
    image: &'a Merged,
    ownership: &'a Ownership,
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
