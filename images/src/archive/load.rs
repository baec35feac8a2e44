//! Taking images in.

use std::fs;
use std::path::Path;

use oci_spec::image::{Descriptor, ImageIndex};

use super::docker;
use super::extract::Members;
use crate::blob::{BlobId, Blobs};
use crate::error::{ImageError, io_error};
use crate::image::{Document, Image, bad_document, choose_platform};
use crate::store::Store;
use crate::store::names::{REF_NAME, full_name, name_of, with_name};

/// Where containerd and Docker put the full name; theirs of the specification is just the tag.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

impl Store {
    /// Takes in every image of what is at `path`: an OCI image layout, as a folder or an archive,
    /// or an archive that `docker save` made; archives plain, gzip or zstd. `name` names the
    /// image where there is just one; otherwise the names in there count.
    ///
    /// # Errors
    /// What is at `path` is neither, or a blob of it is missing or not what its digest says.
    /// The store then has no name more than before.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let metadata = fs::metadata(path).map_err(io_error("open", path))?;
        let _writing = self.writing()?;
        let entries = if metadata.is_dir() {
            let index = path.join("index.json");
            let index =
                fs::read(&index).map_err(|e| not_a_layout(path, format!("index.json: {e}")))?;
            self.load_layout(&Blobs::of_layout(path), &index, path, name)?
        } else {
            let members = Members::extract(path, &self.root().join("partial"))?;
            // Docker's archives since version 25 are both; the layout tells more.
            match (members.get("index.json"), members.get("manifest.json")) {
                (Some(index), _) => {
                    let index = fs::read(index).map_err(io_error("read", index))?;
                    self.load_layout(&members.blobs(), &index, path, name)?
                }
                (None, Some(_)) => docker::load(self, &members, path, name)?,
                (None, None) => {
                    let why = "neither index.json nor docker save's manifest.json is in it";
                    return Err(not_a_layout(path, why.to_owned()));
                }
            }
        };
        let read = |entry| Image::read(self.clone(), entry, name_of(entry));
        let images = entries.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        self.add_to_index(&entries)?;
        Ok(images)
    }

    /// Takes the blobs in and gives the new index entries. `origin` is what the operator named.
    fn load_layout(
        &self,
        source: &Blobs,
        index: &[u8],
        origin: &Path,
        name: Option<&str>,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let index =
            ImageIndex::from_reader(index).map_err(|e| not_a_layout(origin, e.to_string()))?;
        check_one(index.manifests().len(), name, origin)?;
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
        if self.blobs().path(&id).exists() {
            return Ok(());
        }
        self.take_in(&id, descriptor.size(), source.open(&id)?)
    }
}

pub(super) fn not_a_layout(path: &Path, why: String) -> ImageError {
    ImageError::NotALayout { path: path.to_owned(), why }
}

/// One name cannot be given to several images.
pub(super) fn check_one(count: usize, name: Option<&str>, path: &Path) -> Result<(), ImageError> {
    match name {
        Some(_) if count != 1 => {
            Err(not_a_layout(path, format!("it holds {count} images, so one name is not enough")))
        }
        _ => Ok(()),
    }
}

/// The full name that a layout gives an image.
fn given_name(descriptor: &Descriptor, origin: &Path) -> Result<Option<String>, ImageError> {
    let annotation = |key| descriptor.annotations().as_ref()?.get(key).cloned();
    match (annotation(CONTAINERD_NAME), annotation(REF_NAME)) {
        (Some(name), _) => full_name(&name).map(Some),
        (None, Some(name)) => full_name(&complete(&name, origin)).map(Some),
        (None, None) => Ok(None),
    }
}

/// Tools such as skopeo write just the tag into the annotation; the layout's own file name is
/// then the repository.
fn complete(given: &str, origin: &Path) -> String {
    let is_tag_only = !given.contains(['/', ':']);
    match origin.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if is_tag_only && !stem.is_empty() => {
            format!("{}:{given}", stem.to_lowercase())
        }
        _ => given.to_owned(),
    }
}
