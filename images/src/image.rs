//! One image of the store.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde_json::Value;

use crate::blob::{BlobId, Blobs};
use crate::error::ImageError;
use crate::store::Store;
use crate::store::lock::FileLock;
use crate::unpack;

/// A manifest, its configuration and its layers.
#[derive(Clone, Debug)]
pub struct Image {
    store: Store,
    reference: Option<String>,
    /// The index entry that led here.
    entry: Descriptor,
    id: BlobId,
    digest: String,
    manifest: ImageManifest,
    config: ImageConfiguration,
    /// Keeps the collector away from what the image needs.
    #[expect(dead_code, reason = "held for its Drop")]
    lease: Option<Arc<FileLock>>,
}

impl Image {
    pub(crate) fn read(
        store: Store,
        descriptor: &Descriptor,
        reference: Option<String>,
    ) -> Result<Self, ImageError> {
        let blobs = store.blobs();
        let (id, manifest) = manifest_for_this_machine(&blobs, descriptor)?;
        let config_id = BlobId::parse(manifest.config().digest().as_ref())?;
        let config = read_config(&blobs, &config_id)?;
        let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
        if layers != diff_ids {
            let why = format!("{diff_ids} diff_ids for {layers} layers");
            return Err(bad_document("config", &config_id, why));
        }
        let entry = descriptor.clone();
        Ok(Self { store, reference, entry, digest: id.full(), id, manifest, config, lease: None })
    }

    pub(crate) fn leased(self, lease: Arc<FileLock>) -> Self {
        Self { lease: Some(lease), ..self }
    }

    pub(crate) fn id(&self) -> &BlobId {
        &self.id
    }

    /// The index entry that led here.
    pub fn entry(&self) -> &Descriptor {
        &self.entry
    }

    /// The image manifest (image-spec, manifest.md).
    pub fn manifest(&self) -> &ImageManifest {
        &self.manifest
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The manifest's digest, `sha256:` and hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The full name it was found by, if it has one.
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// The image configuration (image-spec, config.md).
    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    /// Compressed bytes of all layers.
    pub fn compressed_size(&self) -> u64 {
        self.manifest.layers().iter().map(Descriptor::size).sum()
    }

    /// The layers as folders, topmost first, in the form that overlayfs takes as `lowerdir`.
    /// Unpacked at the first call, then kept.
    ///
    /// # Errors
    /// A layer is missing, damaged or hostile, or the host has no room for it.
    pub fn layers_unpacked(&self) -> Result<Vec<PathBuf>, ImageError> {
        let layers = self.manifest.layers().iter().zip(self.config.rootfs().diff_ids());
        unpack::ensure_all(&self.store, &layers.rev().collect::<Vec<_>>())
    }
}

/// A document that an index entry may name.
pub enum Document {
    /// Of several platforms.
    Index(Box<ImageIndex>),
    /// Of one.
    Manifest(Box<ImageManifest>),
}

impl Document {
    /// Reads whichever it is: a manifest has a configuration, an index has not.
    pub(crate) fn read(blobs: &Blobs, id: &BlobId) -> Result<Self, ImageError> {
        Self::parse(id, &blobs.read_document(id)?)
    }

    /// Reads a document that was verified.
    ///
    /// # Errors
    /// [`ImageError::BadDocument`].
    pub fn parse(id: &BlobId, text: &[u8]) -> Result<Self, ImageError> {
        let mut document = parse_json("document", id, text)?;
        if document.get("config").is_some() {
            fill_list(&mut document, "layers");
            return serde_json::from_value(document)
                .map(|manifest| Self::Manifest(Box::new(manifest)))
                .map_err(|e| bad_document("manifest", id, e));
        }
        fill_list(&mut document, "manifests");
        serde_json::from_value(document)
            .map(|index| Self::Index(Box::new(index)))
            .map_err(|e| bad_document("index", id, e))
    }
}

/// Reads an image's configuration.
pub(crate) fn read_config(blobs: &Blobs, id: &BlobId) -> Result<ImageConfiguration, ImageError> {
    parse_config(id, &blobs.read_document(id)?)
}

pub(crate) fn parse_config(id: &BlobId, text: &[u8]) -> Result<ImageConfiguration, ImageError> {
    let mut document = parse_json("config", id, text)?;
    if let Some(rootfs) = document.get_mut("rootfs") {
        fill_list(rootfs, "diff_ids");
    }
    serde_json::from_value(document).map_err(|e| bad_document("config", id, e))
}

fn parse_json(what: &'static str, id: &BlobId, text: &[u8]) -> Result<Value, ImageError> {
    serde_json::from_slice(text).map_err(|e| bad_document(what, id, e))
}

/// An empty list is `null` where Docker writes it, or left out, as Go does with empty slices.
fn fill_list(document: &mut Value, key: &str) {
    if let Some(members) = document.as_object_mut()
        && members.get(key).is_none_or(Value::is_null)
    {
        members.insert(key.to_owned(), Value::Array(Vec::new()));
    }
}

/// Follows an index down to the manifest for linux/amd64.
pub(crate) fn manifest_for_this_machine(
    blobs: &Blobs,
    descriptor: &Descriptor,
) -> Result<(BlobId, ImageManifest), ImageError> {
    let id = BlobId::parse(descriptor.digest().as_ref())?;
    let index = match Document::read(blobs, &id)? {
        Document::Manifest(manifest) => return Ok((id, *manifest)),
        Document::Index(index) => index,
    };
    let chosen = choose_platform(&index).ok_or_else(|| ImageError::NoPlatform(id.full()))?;
    // An index of indexes is allowed by the specification and made by nobody; one level keeps a
    // hostile image from leading us in circles.
    let id = BlobId::parse(chosen.digest().as_ref())?;
    match Document::read(blobs, &id)? {
        Document::Manifest(manifest) => Ok((id, *manifest)),
        Document::Index(_) => Err(bad_document("index", &id, "an index of indexes")),
    }
}

/// The entry for linux/amd64; one without a platform will do where it is the only one.
pub fn choose_platform(index: &ImageIndex) -> Option<&Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|platform| {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == "amd64"
        })
    };
    index.manifests().iter().find(fits).or(match &index.manifests()[..] {
        [only] if only.platform().is_none() => Some(only),
        _ => None,
    })
}

/// A document that does not parse, or does not say what it has to.
pub fn bad_document(what: &'static str, id: &BlobId, why: impl ToString) -> ImageError {
    ImageError::BadDocument { what, digest: id.full(), why: why.to_string() }
}
