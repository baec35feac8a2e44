//! What is in the store, told.

use oci_spec::image::{ImageConfiguration, MediaType};
use serde::Serialize;
use serde_json::Value;

use crate::blob::BlobId;
use crate::document::bad_document;
use crate::error::ImageError;
use crate::store::Store;
use crate::store::lock::FileLock;
use crate::store::names::name_of;

/// What is in the store.
#[derive(Debug, Default)]
pub struct Listing {
    /// The images that are whole, sorted by name.
    pub images: Vec<ImageRecord>,
    /// What is wrong with each of the others.
    pub damaged: Vec<ImageError>,
}

/// One name in the store.
#[derive(Clone, Debug, Serialize)]
pub struct ImageRecord {
    /// The full name, `docker.io/library/busybox:latest`; absent where there is none.
    pub reference: Option<String>,
    /// The manifest's digest.
    pub digest: String,
    /// Compressed bytes of all layers.
    pub size: u64,
    /// When it was made, as its configuration says (RFC 3339).
    pub created: Option<String>,
}

/// Everything about one image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageDetails {
    /// The full name it was found by, if it has one.
    pub reference: Option<String>,
    /// All names that the image has in the store.
    pub names: Vec<String>,
    /// The manifest's digest.
    pub digest: String,
    /// The configuration's digest, which Docker and podman call the image's id.
    pub config_digest: String,
    /// The manifest's media type, where it tells it.
    pub media_type: Option<String>,
    /// When it was made (RFC 3339).
    pub created: Option<String>,
    /// Who made it, as the configuration says.
    pub author: Option<String>,
    /// The CPU it is for, in Go's words (`amd64`).
    pub architecture: String,
    /// The operating system it is for.
    pub os: String,
    /// Compressed bytes of all layers.
    pub size: u64,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerDetails>,
    /// The configuration's `config`, as it stands in the image.
    pub config: Value,
}

/// One layer of an image.
#[derive(Clone, Debug, Serialize)]
pub struct LayerDetails {
    /// The blob's digest, which is of its bytes as they are packed.
    pub digest: String,
    /// Of the uncompressed archive.
    pub diff_id: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Its media type, which tells how it is packed.
    pub media_type: String,
}

/// One step of an image's making, the latest first.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryRecord {
    /// When the step was done (RFC 3339).
    pub created: Option<String>,
    /// The command of the step, as its builder writes it.
    pub created_by: Option<String>,
    /// The builder's remark on the step.
    pub comment: Option<String>,
    /// Compressed bytes of the step's layer; none where it made none.
    pub size: Option<u64>,
    /// The digest of the step's layer.
    pub layer: Option<String>,
}

impl Store {
    /// Everything in the store, by name. A damaged image does not keep the others from being told.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn list(&self) -> Result<Listing, ImageError> {
        let _reading = FileLock::shared(&self.lock_path("index"))?;
        let mut listing = Listing::default();
        for descriptor in self.index()?.manifests() {
            let image = match self.read_image(descriptor) {
                Ok(image) => image,
                Err(error) => {
                    listing.damaged.push(error);
                    continue;
                }
            };
            listing.images.push(ImageRecord {
                reference: name_of(descriptor),
                digest: image.digest().to_owned(),
                size: image.compressed_size(),
                created: image.config().created().as_ref().map(ToString::to_string),
            });
        }
        listing.images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(listing)
    }

    /// Tells everything about an image.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub fn inspect(&self, name: &str) -> Result<ImageDetails, ImageError> {
        let image = self.resolve(name)?;
        let (manifest, config) = (image.manifest(), image.config());
        let config_id = BlobId::parse(manifest.config().digest().as_ref())?;
        // As a value, to show also what the specification does not name.
        let document = self.blobs().read_document(&config_id)?;
        let document: Value =
            serde_json::from_slice(&document).map_err(|e| bad_document("config", &config_id, e))?;
        let layers = manifest.layers().iter().zip(config.rootfs().diff_ids());
        Ok(ImageDetails {
            reference: image.reference().map(str::to_owned),
            names: self.names_of(image.id())?,
            digest: image.digest().to_owned(),
            config_digest: config_id.full(),
            media_type: manifest.media_type().as_ref().map(MediaType::to_string),
            created: config.created().clone(),
            author: config.author().clone(),
            architecture: config.architecture().to_string(),
            os: config.os().to_string(),
            size: image.compressed_size(),
            layers: layers
                .map(|(layer, diff_id)| LayerDetails {
                    digest: layer.digest().to_string(),
                    diff_id: diff_id.clone(),
                    size: layer.size(),
                    media_type: layer.media_type().to_string(),
                })
                .collect(),
            config: document.get("config").cloned().unwrap_or(Value::Null),
        })
    }

    /// Tells how an image was made, the latest step first.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryRecord>, ImageError> {
        let image = self.resolve(name)?;
        let mut layers = image.manifest().layers().iter();
        let mut records = Vec::new();
        for step in ImageConfiguration::history(image.config()).iter().flatten() {
            let is_empty = step.empty_layer().unwrap_or(false);
            let layer = if is_empty { None } else { layers.next() };
            records.push(HistoryRecord {
                created: step.created().clone(),
                created_by: step.created_by().clone(),
                comment: step.comment().clone(),
                size: layer.map(|layer| layer.size()),
                layer: layer.map(|layer| layer.digest().to_string()),
            });
        }
        // Layers that the history leaves out: it is optional.
        records.extend(layers.map(|layer| HistoryRecord {
            created: None,
            created_by: None,
            comment: None,
            size: Some(layer.size()),
            layer: Some(layer.digest().to_string()),
        }));
        records.reverse();
        Ok(records)
    }

    fn names_of(&self, manifest: &BlobId) -> Result<Vec<String>, ImageError> {
        let _reading = FileLock::shared(&self.lock_path("index"))?;
        let index = self.index()?;
        let entries = index.manifests().iter();
        let same = entries.filter(|descriptor| self.has_digest(descriptor, manifest.hex()));
        Ok(same.filter_map(name_of).collect())
    }
}
