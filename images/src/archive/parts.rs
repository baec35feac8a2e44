//! The blobs that an image is made of.

use oci_spec::image::{Descriptor, MediaType, Platform};

use crate::blob::BlobId;
use crate::document::{Document, bad_document, descriptor};
use crate::error::ImageError;
use crate::image::Image;
use crate::store::Store;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Everything that has to go along when an image leaves the store.
pub struct Parts {
    /// What names the image: its index where the store has all of that, otherwise its manifest.
    pub top: Descriptor,
    /// Configurations and layers, with their sizes in bytes.
    pub blobs: Vec<(BlobId, u64)>,
    /// Indexes and manifests, each after those that it leads to, with their media types.
    pub documents: Vec<(BlobId, String)>,
}

impl Parts {
    /// The parts of the image that `top`, an index entry, leads to.
    pub fn of(store: &Store, image: &Image, top: &Descriptor) -> Result<Self, ImageError> {
        let mut parts = Self { top: top.clone(), blobs: Vec::new(), documents: Vec::new() };
        let id = BlobId::parse(top.digest().as_ref())?;
        if parts.add(store, &id, top.media_type().as_ref(), 0)? {
            return Ok(parts);
        }
        // Of the other platforms something is not here: what can go is our own.
        (parts.blobs, parts.documents) = (Vec::new(), Vec::new());
        if !parts.add(store, image.id(), manifest_type(image), 0)? {
            let layers = image.manifest().layers().iter();
            for part in layers.chain([image.manifest().config()]) {
                store.blobs().open(&BlobId::parse(part.digest().as_ref())?)?;
            }
            return Err(ImageError::MissingBlob(image.id().full()));
        }
        parts.top = descriptor_of(store, image)?;
        Ok(parts)
    }

    /// Adds what `id` leads to; false when something of it is not in the store.
    fn add(
        &mut self,
        store: &Store,
        id: &BlobId,
        media_type: &str,
        depth: usize,
    ) -> Result<bool, ImageError> {
        let blobs = store.blobs();
        if self.documents.iter().any(|(known, _)| known == id) {
            return Ok(true);
        }
        if !blobs.path(id).exists() {
            return Ok(false);
        }
        match Document::read(&blobs, id)? {
            Document::Index(_) if depth > 0 => {
                return Err(bad_document("index", id, "an index of indexes"));
            }
            Document::Index(index) => {
                for child in index.manifests() {
                    let child_id = BlobId::parse(child.digest().as_ref())?;
                    if !self.add(store, &child_id, child.media_type().as_ref(), depth + 1)? {
                        return Ok(false);
                    }
                }
            }
            Document::Manifest(manifest) => {
                for part in manifest.layers().iter().chain([manifest.config()]) {
                    let part_id = BlobId::parse(part.digest().as_ref())?;
                    if !blobs.path(&part_id).exists() {
                        return Ok(false);
                    }
                    if !self.blobs.iter().any(|(known, _)| *known == part_id) {
                        self.blobs.push((part_id, part.size()));
                    }
                }
            }
        }
        self.documents.push((id.clone(), media_type.to_owned()));
        Ok(true)
    }
}

fn manifest_type(image: &Image) -> &str {
    image.manifest().media_type().as_ref().map_or(OCI_MANIFEST, AsRef::as_ref)
}

/// A descriptor of an image's manifest.
fn descriptor_of(store: &Store, image: &Image) -> Result<Descriptor, ImageError> {
    let size = store.blobs().read_document(image.id())?.len() as u64;
    let mut platform = Platform::default();
    platform.set_architecture(image.config().architecture().clone());
    platform.set_os(image.config().os().clone());
    let mut descriptor = descriptor(MediaType::from(manifest_type(image)), image.id(), size)?;
    descriptor.set_platform(Some(platform));
    Ok(descriptor)
}
