//! From a folder in overlayfs's form to a layer's blob: the same bytes for the same files.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use isolab_images::ingest::{
    BlobId, build_cache::CachedLayer, hex, io_error, is_opaque, is_whiteout,
};
use isolab_images::{ImageError, Store};
use nix::unistd::{getegid, geteuid};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::Check;

/// Packs `tree` and takes it into the store. None when there is nothing in it. No file's time is
/// later than `epoch`, in seconds since 1970, if there is one. `partial` is a file to write to.
pub(super) fn pack(
    store: &Store,
    tree: &Path,
    epoch: Option<u64>,
    partial: &Path,
    check: Check<'_>,
) -> Result<Option<CachedLayer>, ImageError> {
    let is_empty = fs::read_dir(tree).map_err(io_error("list", tree))?.next().is_none();
    if is_empty && !is_opaque(tree) {
        return Ok(None);
    }
    let file = File::create(partial).map_err(io_error("create", partial))?;
    let compressed = Hashing::new(BufWriter::new(file));
    let plain = Hashing::new(GzEncoder::new(compressed, Compression::default()));
    let mut archive = Builder::new(plain);
    archive.sparse(false);
    let own = (!geteuid().is_root()).then(|| (geteuid().as_raw(), getegid().as_raw()));
    let mut packer = Packer { archive, epoch, own, links: HashMap::new(), check };
    let packed = packer.folder(tree, Path::new("")).and_then(|()| packer.archive.into_inner());
    let plain = packed.map_err(io_error("pack", tree))?;
    let diff_id = hex(&plain.hasher.finalize());
    let compressed = plain.inner.finish().map_err(io_error("write", partial))?;
    let mut file = compressed.inner;
    file.flush().map_err(io_error("write", partial))?;
    let id = BlobId::parse(&format!("sha256:{}", hex(&compressed.hasher.finalize())))?;
    store.adopt(&id, partial)?;
    let diff_id = format!("sha256:{diff_id}");
    Ok(Some(CachedLayer {
        digest: id.full(),
        size: compressed.written,
        diff_id,
        created: String::new(),
    }))
}

struct Packer<'a, W: Write> {
    archive: Builder<W>,
    epoch: Option<u64>,
    /// Without root all files are ours, and root's in the user namespace of a step.
    own: Option<(u32, u32)>,
    /// The first name of every file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    check: Check<'a>,
}

impl<W: Write> Packer<'_, W> {
    /// Adds what is in the folder `path` of `tree`, sorted.
    fn folder(&mut self, tree: &Path, path: &Path) -> io::Result<()> {
        if is_opaque(&tree.join(path)) {
            self.marker(&path.join(".wh..wh..opq"))?;
        }
        let entries = fs::read_dir(tree.join(path))?;
        let mut names =
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            (self.check)()?;
            let path = path.join(&name);
            let file = tree.join(&path);
            let metadata = fs::symlink_metadata(&file)?;
            if is_whiteout(&metadata) {
                let mut marker = std::ffi::OsString::from(".wh.");
                marker.push(&name);
                self.marker(&path.with_file_name(marker))?;
                continue;
            }
            self.entry(&file, &path, &metadata)?;
            if metadata.is_dir() {
                self.folder(tree, &path)?;
            }
        }
        Ok(())
    }

    fn marker(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.archive.append_data(&mut header, path, io::empty())
    }

    fn entry(&mut self, file: &Path, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        // A socket is of no use without its process, and tar has no form for it.
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(metadata.mode() & 0o7777);
        let inside = |id, own| if Some(id) == own { 0 } else { u64::from(id) };
        header.set_uid(inside(metadata.uid(), self.own.map(|(uid, _)| uid)));
        header.set_gid(inside(metadata.gid(), self.own.map(|(_, gid)| gid)));
        // Before 1970 there is no time in this form.
        let time = u64::try_from(metadata.mtime()).unwrap_or(0);
        header.set_mtime(self.epoch.map_or(time, |epoch| time.min(epoch)));
        if metadata.nlink() > 1 && !metadata.is_dir() {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&inode) {
                header.set_entry_type(EntryType::Link);
                return self.archive.append_link(&mut header, path, first);
            }
            self.links.insert(inode, path.to_owned());
        }
        self.extended_attributes(file)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            return self.archive.append_data(&mut header, path, io::empty());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self.archive.append_link(&mut header, path, fs::read_link(file)?);
        }
        if kind.is_file() {
            header.set_size(metadata.len());
            return self.archive.append_data(&mut header, path, File::open(file)?);
        }
        let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
        header.set_entry_type(if kind.is_fifo() {
            EntryType::Fifo
        } else if kind.is_block_device() {
            EntryType::Block
        } else {
            EntryType::Char
        });
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
        self.archive.append_data(&mut header, path, io::empty())
    }

    /// As PAX records of the entry that follows, sorted.
    fn extended_attributes(&mut self, file: &Path) -> io::Result<()> {
        let mut records = Vec::new();
        let mut names: Vec<_> = xattr::list(file)?.collect();
        names.sort();
        for name in names {
            let bytes = name.as_bytes();
            let own = |prefix: &[u8]| bytes.strip_prefix(prefix);
            if let Some(sign) = own(b"trusted.overlay.").or_else(|| own(b"user.overlay.")) {
                // Part of the file would be in another layer, in a form that is overlayfs's only.
                if sign == b"redirect" || sign == b"metacopy" {
                    return Err(io::Error::other(format!(
                        "{} has overlayfs's {}; switch redirect_dir and metacopy off",
                        file.display(),
                        name.display()
                    )));
                }
                continue;
            }
            // SELinux labels are the host's.
            if bytes == b"security.selinux" {
                continue;
            }
            // Under another name it would be another attribute.
            let text = name.to_str().ok_or_else(|| {
                let (file, name) = (file.display(), bytes.escape_ascii());
                io::Error::other(format!(
                    "{file}: the attribute `{name}` has a name that is no UTF-8"
                ))
            })?;
            let key = format!("SCHILY.xattr.{text}");
            records.push((key, xattr::get(file, &name)?.unwrap_or_default()));
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.archive.append_pax_extensions(records)
    }
}

/// Hashes what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    written: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), written: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
