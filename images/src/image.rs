//! One image of the store.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

use crate::blob::BlobId;
use crate::document::{bad_document, manifest_for_this_machine, parse_config};
use crate::error::ImageError;
use crate::healthcheck::{self, ImageHealthcheck};
use crate::store::Store;
use crate::store::lock::FileLock;
use crate::store::names::{name_of, name_or_digest};
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
    healthcheck: Option<ImageHealthcheck>,
    /// Keeps the collector away from what the image needs.
    #[expect(dead_code, reason = "held for its Drop")]
    lease: Option<Arc<FileLock>>,
}

impl Store {
    /// Finds an image by its name (`busybox` stands for `docker.io/library/busybox:latest`, or
    /// else `localhost/busybox:latest`), its digest, or at least four digits of its digest. As
    /// long as the [`Image`] or a clone of it lives, nothing of it is collected.
    ///
    /// # Errors
    /// No such image, or several.
    pub fn resolve(&self, name: &str) -> Result<Image, ImageError> {
        // Until the lease is taken, the collector must wait.
        let _reading = FileLock::shared(&self.lock_path("index"))?;
        let descriptor = self.find(&self.index()?, name)?;
        let image = self.read_image(&descriptor)?;
        let lease = FileLock::shared(&self.lease_path(image.id()))?;
        Ok(Image { lease: Some(Arc::new(lease)), ..image })
    }

    /// The image that an index entry leads to, without a lease.
    pub(crate) fn read_image(&self, descriptor: &Descriptor) -> Result<Image, ImageError> {
        Image::read(self.clone(), descriptor, name_of(descriptor))
            .map_err(|error| error.of_image(name_or_digest(descriptor)))
    }
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
        let text = blobs.read_document(&config_id)?;
        let config = parse_config(&config_id, &text)?;
        let healthcheck = healthcheck::parse(&config_id, &text)?;
        let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
        if layers != diff_ids {
            let why = format!("{diff_ids} diff_ids for {layers} layers");
            return Err(bad_document("config", &config_id, why));
        }
        let entry = descriptor.clone();
        Ok(Self {
            store,
            reference,
            entry,
            digest: id.full(),
            id,
            manifest,
            config,
            healthcheck,
            lease: None,
        })
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

    /// How it wants its workload to be looked after, if it says so.
    pub fn healthcheck(&self) -> Option<&ImageHealthcheck> {
        self.healthcheck.as_ref()
    }

    /// Compressed bytes of all layers.
    pub fn compressed_size(&self) -> u64 {
        self.manifest.layers().iter().map(Descriptor::size).sum()
    }

    /// The layers as folders, topmost first, in the form that overlayfs takes as `lowerdir`. A run
    /// takes them as they are: unpacking, and all formats that layers come in, are for those who
    /// bring images ([`Image::layers_unpacked`]).
    ///
    /// # Errors
    /// [`ImageError::NotUnpacked`].
    pub fn layers(&self) -> Result<Vec<PathBuf>, ImageError> {
        let folders = unpack::all_unpacked(&self.store, &self.layers_topmost_first())?;
        folders.ok_or_else(|| ImageError::NotUnpacked(self.digest.clone()))
    }

    /// As [`Image::layers`], unpacked at the first call, then kept.
    ///
    /// # Errors
    /// A layer is missing, damaged or hostile, or the host has no room for it.
    pub fn layers_unpacked(&self) -> Result<Vec<PathBuf>, ImageError> {
        unpack::ensure_all(&self.store, &self.layers_topmost_first())
    }

    fn layers_topmost_first(&self) -> Vec<(&Descriptor, &String)> {
        self.manifest.layers().iter().zip(self.config.rootfs().diff_ids()).rev().collect()
    }
}
