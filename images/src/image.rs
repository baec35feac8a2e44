//! One image of the store.

use std::path::PathBuf;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};

use crate::blob::{BlobId, Blobs};
use crate::error::ImageError;
use crate::initramfs;
use crate::store::Store;
use crate::unpack;

const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest, its configuration and its layers.
#[derive(Clone, Debug)]
pub struct Image {
    store: Store,
    reference: Option<String>,
    id: BlobId,
    digest: String,
    manifest: ImageManifest,
    config: ImageConfiguration,
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
        let config = blobs.read_document(&config_id)?;
        let config = ImageConfiguration::from_reader(&config[..])
            .map_err(|e| bad_document("config", &config_id, e))?;
        let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
        if layers != diff_ids {
            let why = format!("{diff_ids} diff_ids for {layers} layers");
            return Err(bad_document("config", &config_id, why));
        }
        Ok(Self { store, reference, digest: id.full(), id, manifest, config })
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
        layers
            .rev()
            .map(|(layer, diff_id)| unpack::ensure_unpacked(&self.store, layer, diff_id))
            .collect()
    }

    /// The whole root file system as an uncompressed cpio archive for a guest's initramfs. Made
    /// at the first call, then kept. Extended attributes have no place in it.
    ///
    /// # Errors
    /// As [`Image::layers_unpacked`].
    pub fn initramfs(&self) -> Result<PathBuf, ImageError> {
        initramfs::ensure(&self.store, &self.id, || self.layers_unpacked())
    }
}

/// Follows indexes down to the manifest for linux/amd64.
fn manifest_for_this_machine(
    blobs: &Blobs,
    descriptor: &Descriptor,
) -> Result<(BlobId, ImageManifest), ImageError> {
    let id = BlobId::parse(descriptor.digest().as_ref())?;
    let document = blobs.read_document(&id)?;
    if !is_index(descriptor) {
        let manifest = ImageManifest::from_reader(&document[..])
            .map_err(|e| bad_document("manifest", &id, e))?;
        return Ok((id, manifest));
    }
    let index =
        ImageIndex::from_reader(&document[..]).map_err(|e| bad_document("index", &id, e))?;
    let chosen = choose_platform(&index).ok_or_else(|| ImageError::NoPlatform(id.full()))?;
    // An index of indexes is allowed by the specification and made by nobody; one level keeps a
    // hostile image from leading us in circles.
    let id = BlobId::parse(chosen.digest().as_ref())?;
    let manifest = ImageManifest::from_reader(&blobs.read_document(&id)?[..])
        .map_err(|e| bad_document("manifest", &id, e))?;
    Ok((id, manifest))
}

/// Whether a descriptor leads to an index rather than to a manifest.
pub(crate) fn is_index(descriptor: &Descriptor) -> bool {
    match descriptor.media_type() {
        MediaType::ImageIndex => true,
        MediaType::Other(other) => other == DOCKER_MANIFEST_LIST,
        _ => false,
    }
}

/// The entry for linux/amd64; one without a platform will do where it is the only one.
pub(crate) fn choose_platform(index: &ImageIndex) -> Option<&Descriptor> {
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

pub(crate) fn bad_document(what: &'static str, id: &BlobId, why: impl ToString) -> ImageError {
    ImageError::BadDocument { what, digest: id.full(), why: why.to_string() }
}
