//! An image's root file system as a cpio archive (newc) for a guest's initramfs.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cpio::{NewcBuilder, newc::trailer};

use crate::blob::BlobId;
use crate::build::merged::{is_opaque, is_whiteout};
use crate::error::{ImageError, io_error};
use crate::store::Store;

/// The archive of the image with manifest `id`, made from `layers` if need be.
pub(crate) fn ensure(
    store: &Store,
    id: &BlobId,
    layers: impl FnOnce() -> Result<Vec<PathBuf>, ImageError>,
) -> Result<PathBuf, ImageError> {
    let path = store.root().join("initramfs").join(format!("{}.cpio", id.hex()));
    if path.exists() {
        return Ok(path);
    }
    let layers = layers()?;
    store.make_once("initramfs", id, &path, |partial| {
        let file = File::create(partial).map_err(io_error("create", partial))?;
        let mut archive = Archive { out: BufWriter::new(file), inodes: HashMap::new() };
        archive.add_merged(&layers, Path::new("")).map_err(io_error("pack", &path))?;
        trailer(&mut archive.out).map_err(io_error("pack", &path))?;
        archive.out.flush().map_err(io_error("pack", &path))
    })?;
    Ok(path)
}

struct Archive<W: Write> {
    out: W,
    /// Inode numbers of the archive by those of the layers: members with the same one and more
    /// than one link are hard links of each other.
    inodes: HashMap<(u64, u64), u32>,
}

impl<W: Write> Archive<W> {
    /// Adds what overlayfs would show in the folder `path` of the `layers`, topmost first.
    fn add_merged(&mut self, layers: &[PathBuf], path: &Path) -> io::Result<()> {
        // Per name: the topmost entry, and the layers whose folders of that name merge.
        let mut names: BTreeMap<OsString, Vec<&PathBuf>> = BTreeMap::new();
        for layer in layers {
            for entry in fs::read_dir(layer.join(path))? {
                names.entry(entry?.file_name()).or_default().push(layer);
            }
            if is_opaque(&layer.join(path)) {
                break;
            }
        }
        for (name, holders) in names {
            let path = path.join(name);
            let top = holders[0].join(&path);
            let metadata = fs::symlink_metadata(&top)?;
            if is_whiteout(&metadata) {
                continue;
            }
            self.add(&top, &path, &metadata)?;
            if metadata.is_dir() {
                let is_dir = |layer: &&&PathBuf| {
                    fs::symlink_metadata(layer.join(&path)).is_ok_and(|m| m.is_dir())
                };
                // A file or whiteout in between hides everything below it.
                let merging: Vec<PathBuf> =
                    holders.iter().take_while(is_dir).map(|&layer| layer.clone()).collect();
                self.add_merged(&merging, &path)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &Path, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let name = path
            .to_str()
            .ok_or_else(|| io::Error::other(format!("the name {} is no UTF-8", path.display())))?;
        let next = self.inodes.len() as u32 + 1;
        let inode = *self.inodes.entry((metadata.dev(), metadata.ino())).or_insert(next);
        let is_new = inode == next;
        let content = Content::of(file, metadata, is_new)?;
        let device = metadata.rdev();
        let member = NewcBuilder::new(name)
            .ino(inode)
            .mode(metadata.mode())
            .uid(metadata.uid())
            .gid(metadata.gid())
            .nlink(metadata.nlink() as u32)
            .mtime(u32::try_from(metadata.mtime()).unwrap_or(0))
            .rdev_major(libc::major(device))
            .rdev_minor(libc::minor(device));
        let mut writer = member.write(&mut self.out, content.length()?);
        match content {
            Content::None => {}
            Content::Bytes(bytes) => writer.write_all(&bytes)?,
            Content::File(mut file, _) => io::copy(&mut file, &mut writer).map(drop)?,
        }
        writer.finish().map(drop)
    }
}

enum Content {
    None,
    Bytes(Vec<u8>),
    File(File, u64),
}

impl Content {
    /// Links' targets and files' content; of hard links only the first carries it.
    fn of(path: &Path, metadata: &Metadata, is_new: bool) -> io::Result<Self> {
        Ok(if metadata.is_symlink() {
            Content::Bytes(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() && is_new {
            Content::File(File::open(path)?, metadata.len())
        } else {
            Content::None
        })
    }

    fn length(&self) -> io::Result<u32> {
        let length = match self {
            Content::None => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, length) => *length,
        };
        u32::try_from(length).map_err(|_| io::Error::other("a file of 4 GiB or more"))
    }
}
