//! Taking images in.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use oci_spec::image::Descriptor;

use super::docker;
use super::extract::Members;
use super::origin::Origin;
use crate::blob::{BlobId, Blobs};
use crate::document::{Document, bad_document, choose_platform};
use crate::error::{ImageError, io_error};
use crate::image::Image;
use crate::store::Store;
use crate::store::names::{REF_NAME, full_name, name_of, with_name};

/// Where containerd and Docker put the full name; theirs of the specification is just the tag.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

impl Store {
    /// Takes in every image of what is at `path`: an OCI image layout, as a folder or an archive,
    /// or an archive that `docker save` made; archives plain, gzip or zstd. `name` names the
    /// image where there is just one; otherwise the names in there count. Layers are unpacked, which
    /// is what shows that they are sound.
    ///
    /// # Errors
    /// What is at `path` is neither, or a blob of it is missing or not what its digest says, or a
    /// layer is damaged or hostile. The store then has no image more than before.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let origin = Origin::Path(path);
        if fs::metadata(path).map_err(io_error("open", path))?.is_dir() {
            return self.load_all(|| {
                let index = path.join("index.json");
                if !index.exists() {
                    return Err(origin.not_a_layout("there is no index.json in it".to_owned()));
                }
                let index = origin.read_document(&index)?;
                self.load_layout(&Blobs::of_layout(path), &index, &origin, name)
            });
        }
        let file = File::open(path).map_err(io_error("open", path))?;
        self.load_all(|| self.load_archive(file, &origin, name))
    }

    /// As [`Store::load`], of an archive that is read from `source`.
    ///
    /// # Errors
    /// Those of [`Store::load`].
    pub fn load_stream(
        &self,
        source: impl Read + 'static,
        name: Option<&str>,
    ) -> Result<Vec<Image>, ImageError> {
        self.load_all(|| self.load_archive(source, &Origin::Stream, name))
    }

    /// Names what `take_in` gives, once it is known to be sound.
    fn load_all(
        &self,
        take_in: impl FnOnce() -> Result<Vec<Descriptor>, ImageError>,
    ) -> Result<Vec<Image>, ImageError> {
        let writing = self.writing()?;
        let load = || -> Result<Vec<Image>, ImageError> {
            let entries = take_in()?;
            let read = |entry| Image::read(self.clone(), entry, name_of(entry));
            let images = entries.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            for image in &images {
                image.layers_unpacked()?;
            }
            self.add_to_index(&entries)?;
            Ok(images)
        };
        let loaded = load();
        drop(writing);
        if loaded.is_err() {
            // The error to tell is the one that led here; what is not collected now is later.
            let _ = self.collect_unreachable();
        }
        loaded
    }

    fn load_archive(
        &self,
        source: impl Read + 'static,
        origin: &Origin<'_>,
        name: Option<&str>,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let members = Members::extract(self, source, origin)?;
        // Docker's archives since version 25 are both; the layout tells more.
        match (members.get("index.json"), members.get("manifest.json")) {
            (Some(index), _) => {
                let index = origin.read_document(index)?;
                self.load_layout(&members.blobs(), &index, origin, name)
            }
            (None, Some(_)) => docker::load(self, &members, origin, name),
            (None, None) => {
                let why = "neither index.json nor docker save's manifest.json is in it";
                Err(origin.not_a_layout(why.to_owned()))
            }
        }
    }

    /// Takes the blobs in and gives the new index entries. `origin` is what the operator named.
    fn load_layout(
        &self,
        source: &Blobs,
        index: &[u8],
        origin: &Origin<'_>,
        name: Option<&str>,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let id = BlobId::of(index);
        let index = match Document::parse(&id, index) {
            Ok(Document::Index(index)) => index,
            Ok(Document::Manifest(_)) => {
                return Err(origin.not_a_layout("index.json is no index".to_owned()));
            }
            Err(error) => return Err(origin.not_a_layout(format!("index.json: {error}"))),
        };
        origin.check_one(index.manifests().len(), name)?;
        let mut entries = Vec::new();
        for descriptor in index.manifests() {
            self.take_in_tree(source, descriptor)?;
            let name = match name {
                Some(name) => Some(full_name(name)?),
                None => given_name(descriptor, origin)?,
            };
            entries.push(with_name(descriptor, name));
        }
        Ok(entries)
    }

    /// Takes in a manifest and everything it refers to; of an index, what is for this machine.
    fn take_in_tree(&self, source: &Blobs, descriptor: &Descriptor) -> Result<(), ImageError> {
        let id = BlobId::parse(descriptor.digest().as_ref())?;
        let manifest = match Document::read(source, &id)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let chosen = choose_platform(&index);
                let chosen = chosen.ok_or_else(|| ImageError::NoPlatform(id.full()))?;
                let chosen_id = BlobId::parse(chosen.digest().as_ref())?;
                let Document::Manifest(manifest) = Document::read(source, &chosen_id)? else {
                    return Err(bad_document("index", &id, "an index of indexes"));
                };
                self.take_in_from(source, chosen)?;
                manifest
            }
        };
        for part in manifest.layers().iter().chain([manifest.config()]) {
            self.take_in_from(source, part)?;
        }
        self.take_in_from(source, descriptor)
    }

    fn take_in_from(&self, source: &Blobs, descriptor: &Descriptor) -> Result<(), ImageError> {
        let id = BlobId::parse(descriptor.digest().as_ref())?;
        if let Ok(known) = fs::metadata(self.blobs().path(&id)) {
            let (digest, expected, found) = (id.full(), descriptor.size(), known.len());
            return match expected == found {
                true => Ok(()),
                false => Err(ImageError::SizeMismatch { digest, expected, found }),
            };
        }
        self.take_in(&id, descriptor.size(), source.open(&id)?)
    }
}

/// The full name that a layout gives an image.
fn given_name(descriptor: &Descriptor, origin: &Origin<'_>) -> Result<Option<String>, ImageError> {
    let annotation = |key| descriptor.annotations().as_ref()?.get(key).cloned();
    match (annotation(CONTAINERD_NAME), annotation(REF_NAME)) {
        (Some(name), _) => full_name(&name).map(Some),
        (None, Some(name)) => complete(&name, origin).map(|name| full_name(&name)).transpose(),
        (None, None) => Ok(None),
    }
}

/// Tools such as skopeo write just the tag into the annotation; the layout's own file name is
/// then the repository. Nothing tells one where there is no file name.
fn complete(given: &str, origin: &Origin<'_>) -> Option<String> {
    if given.contains(['/', ':']) {
        return Some(given.to_owned());
    }
    let Origin::Path(path) = origin else { return None };
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if !stem.is_empty() => Some(format!("{}:{given}", stem.to_lowercase())),
        _ => Some(given.to_owned()),
    }
}
