//! Writing images out.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{LinkatFlags, linkat};
use oci_spec::image::{Descriptor, ImageIndexBuilder, OciLayoutBuilder};
use serde::Serialize;

use super::docker::Entry;
use super::parts::Parts;
use crate::blob::BlobId;
use crate::error::{ImageError, io_error};
use crate::private::make_private;
use crate::store::Store;
use crate::store::names::with_name;

/// How the names begin of what is not finished.
const TEMPORARY: &str = ".isolab-save-";

/// The forms in which images can be written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A tar archive of an OCI image layout.
    OciArchive,
    /// A folder that is an OCI image layout.
    OciDir,
    /// An archive as `docker save` makes it.
    DockerArchive,
}

impl Store {
    /// Writes images to `path`, all into one archive or layout. What is there already is not
    /// overwritten. An archive appears when it is whole, or not at all. Only the caller may read
    /// it, as with Docker: what is in an image is not everybody's.
    ///
    /// # Errors
    /// No such image, `path` is there or cannot be written.
    pub fn save(
        &self,
        names: &[String],
        path: &Path,
        format: ArchiveFormat,
    ) -> Result<(), ImageError> {
        if fs::symlink_metadata(path).is_ok() {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(io_error("write to", path)(error));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        match format {
            ArchiveFormat::OciDir => self.save_folder(names, path, folder),
            _ => self.save_file(names, path, folder, format),
        }
    }

    fn save_folder(&self, names: &[String], path: &Path, folder: &Path) -> Result<(), ImageError> {
        let mut work = tempfile::Builder::new();
        work.prefix(TEMPORARY).permissions(Permissions::from_mode(0o700));
        let work = work.tempdir_in(folder).map_err(io_error("write to", folder))?;
        let unfinished = work.path().join("unfinished");
        make_private(&unfinished)?;
        self.save_to(names, &mut Folder(&unfinished))?;
        fs::rename(&unfinished, path).map_err(io_error("write to", path))
    }

    /// The file has no name until it is whole (open(2), O_TMPFILE), so that an interrupt leaves
    /// nothing, nor does a kill.
    fn save_file(
        &self,
        names: &[String],
        path: &Path,
        folder: &Path,
        format: ArchiveFormat,
    ) -> Result<(), ImageError> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match open(folder, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => {
                let file = File::from(file);
                self.save_stream(names, BufWriter::new(&file), format)?;
                let open_file = format!("/proc/self/fd/{}", file.as_raw_fd());
                let (here, flags) = (AT_FDCWD, LinkatFlags::AT_SYMLINK_FOLLOW);
                linkat(here, Path::new(&open_file), here, path, flags)
                    .map_err(|errno| io_error("write to", path)(errno.into()))
            }
            // Not every file system has files without a name.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
                let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder);
                let file = file.map_err(io_error("write to", folder))?;
                self.save_stream(names, BufWriter::new(file.as_file()), format)?;
                file.persist_noclobber(path)
                    .map(drop)
                    .map_err(|e| io_error("write to", path)(e.error))
            }
            Err(errno) => Err(io_error("write to", path)(errno.into())),
        }
    }

    /// Writes images to a stream, as an archive.
    ///
    /// # Errors
    /// No such image, the stream cannot be written, or `format` is a folder's.
    pub fn save_stream(
        &self,
        names: &[String],
        mut out: impl Write,
        format: ArchiveFormat,
    ) -> Result<(), ImageError> {
        let stream = Path::new("the archive");
        let mut archive = Archive(tar::Builder::new(&mut out));
        match format {
            ArchiveFormat::DockerArchive => self.save_docker(names, &mut archive)?,
            ArchiveFormat::OciArchive => self.save_to(names, &mut archive)?,
            ArchiveFormat::OciDir => {
                let error = io::Error::other("a folder cannot be written to a stream");
                return Err(io_error("write to", stream)(error));
            }
        }
        archive.0.finish().map_err(io_error("write to", stream))?;
        drop(archive);
        out.flush().map_err(io_error("write to", stream))
    }

    fn save_to(&self, names: &[String], out: &mut impl Output) -> Result<(), ImageError> {
        let mut entries: Vec<Descriptor> = Vec::new();
        let mut blobs = BTreeMap::new();
        // Held to the end, so that nothing is collected meanwhile.
        let mut images = Vec::new();
        for name in names {
            let image = self.resolve(name)?;
            let parts = Parts::of(self, &image, image.entry())?;
            let digest_only = image.reference().is_none_or(|full| full.contains('@'));
            let name = image.reference().filter(|_| !digest_only).map(str::to_owned);
            entries.push(with_name(&parts.top, name));
            for (id, size) in parts.blobs {
                blobs.insert(id.hex().to_owned(), (id, size));
            }
            for (id, _) in parts.documents {
                let size = self.blobs().read_document(&id)?.len() as u64;
                blobs.insert(id.hex().to_owned(), (id, size));
            }
            images.push(image);
        }
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build();
        let index = ImageIndexBuilder::default().schema_version(2u32).manifests(entries).build();
        let broken =
            |e: oci_spec::OciSpecError| io_error("write", "index.json")(io::Error::other(e));
        out.add_json("oci-layout", &layout.map_err(broken)?)?;
        out.add_json("index.json", &index.map_err(broken)?)?;
        for (id, size) in blobs.into_values() {
            let name = format!("blobs/sha256/{}", id.hex());
            out.add(&name, size, &mut self.blobs().open(&id)?)?;
        }
        Ok(())
    }

    fn save_docker(&self, names: &[String], out: &mut impl Output) -> Result<(), ImageError> {
        let mut entries: Vec<(BlobId, Entry)> = Vec::new();
        let mut written = Vec::new();
        for name in names {
            let image = self.resolve(name)?;
            let tags = image.reference().filter(|full| !full.contains('@')).map(str::to_owned);
            if let Some((_, known)) = entries.iter_mut().find(|(id, _)| id == image.id()) {
                known.repo_tags.get_or_insert_default().extend(tags);
                continue;
            }
            let config_id = BlobId::parse(image.manifest().config().digest().as_ref())?;
            let config = format!("{}.json", config_id.hex());
            let text = self.blobs().read_document(&config_id)?;
            if !written.contains(&config) {
                out.add(&config, text.len() as u64, &mut &text[..])?;
                written.push(config.clone());
            }
            let mut layers = Vec::new();
            for (layer, diff_id) in
                image.manifest().layers().iter().zip(image.config().rootfs().diff_ids())
            {
                let name = format!("{}.tar", BlobId::parse(diff_id)?.hex());
                if !written.contains(&name) {
                    self.save_plain(layer, &name, out)?;
                    written.push(name.clone());
                }
                layers.push(name);
            }
            let repo_tags = Some(tags.into_iter().collect());
            entries.push((image.id().clone(), Entry { config, repo_tags, layers }));
        }
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        out.add_json("manifest.json", &entries)
    }

    /// Adds a layer uncompressed. An archive says a member's size before its content, so that it
    /// is uncompressed once to learn it and once more to write it.
    fn save_plain(
        &self,
        layer: &Descriptor,
        name: &str,
        out: &mut impl Output,
    ) -> Result<(), ImageError> {
        let id = BlobId::parse(layer.digest().as_ref())?;
        let bad = |source| ImageError::BadLayer { layer: id.full(), source };
        let open = || crate::unpack::decompress(self.blobs().open(&id)?).map_err(bad);
        let limit = crate::unpack::LIMITS.bytes;
        let size = io::copy(&mut open()?.take(limit), &mut io::sink()).map_err(bad)?;
        if size == limit {
            let limit = format!("{limit} bytes uncompressed");
            return Err(ImageError::TooLarge { layer: id.full(), limit });
        }
        out.add(name, size, &mut open()?)
    }
}

/// What the files of a saved image are written to: an archive or a folder.
trait Output {
    fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), ImageError>;

    fn add_json(&mut self, name: &str, document: &impl Serialize) -> Result<(), ImageError> {
        let text = serde_json::to_vec(document).map_err(|e| io_error("write", name)(e.into()))?;
        self.add(name, text.len() as u64, &mut &text[..])
    }
}

/// The same bytes for the same images: no times, no owners.
struct Archive<W: Write>(tar::Builder<W>);

impl<W: Write> Output for Archive<W> {
    fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), ImageError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let result = self.0.append_data(&mut header, name, content);
        result.map_err(io_error("write", name))
    }
}

struct Folder<'a>(&'a Path);

impl Output for Folder<'_> {
    fn add(&mut self, name: &str, _size: u64, content: &mut dyn Read) -> Result<(), ImageError> {
        let path = self.0.join(name);
        let folder = path.parent().unwrap_or(self.0);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let mut file = File::create(&path).map_err(io_error("create", &path))?;
        io::copy(content, &mut file).map_err(io_error("write", &path)).map(drop)
    }
}
