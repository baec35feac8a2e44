//! The documents of an image (image-spec): indexes, manifests and configurations, read and verified.

use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
    Sha256Digest,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::blob::{BlobId, Blobs};
use crate::error::ImageError;

/// A document that an index entry may name.
pub enum Document {
    /// A list of manifests, one for each platform.
    Index(Box<ImageIndex>),
    /// Of one platform: names a configuration and layers.
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
        // Nearly all are manifests as the specification has them, and need no tree of values between.
        if let Ok(manifest) = serde_json::from_slice(text) {
            return Ok(Self::Manifest(Box::new(manifest)));
        }
        let mut document: Value = parse_json("document", id, text)?;
        if document.get("config").is_some() {
            fill_list(&mut document, "layers");
            let manifest = parse_json("manifest", id, document.to_string().as_bytes())?;
            return Ok(Self::Manifest(Box::new(manifest)));
        }
        fill_list(&mut document, "manifests");
        let index = parse_json("index", id, document.to_string().as_bytes())?;
        Ok(Self::Index(Box::new(index)))
    }
}

/// Reads an image's configuration.
pub(crate) fn read_config(blobs: &Blobs, id: &BlobId) -> Result<ImageConfiguration, ImageError> {
    parse_config(id, &blobs.read_document(id)?)
}

pub(crate) fn parse_config(id: &BlobId, text: &[u8]) -> Result<ImageConfiguration, ImageError> {
    if let Ok(config) = serde_json::from_slice(text) {
        return Ok(config);
    }
    let mut document: Value = parse_json("config", id, text)?;
    if let Some(rootfs) = document.get_mut("rootfs") {
        fill_list(rootfs, "diff_ids");
    }
    parse_json("config", id, document.to_string().as_bytes())
}

/// Always from text: to read a type from a tree of values takes as much code again.
fn parse_json<T: DeserializeOwned>(
    what: &'static str,
    id: &BlobId,
    text: &[u8],
) -> Result<T, ImageError> {
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

/// A descriptor of a blob of `size` bytes.
///
/// # Errors
/// None is expected: every [`BlobId`] is a digest.
pub fn descriptor(media_type: MediaType, id: &BlobId, size: u64) -> Result<Descriptor, ImageError> {
    let digest: Sha256Digest = id.hex().parse().map_err(|_| ImageError::BadDigest(id.full()))?;
    DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest)
        .size(size)
        .build()
        .map_err(|e| bad_document("descriptor", id, e))
}

/// A chain's name (image-spec, config.md, "Layer ChainID"), of the lowest layer first.
pub(crate) fn chain_id<'a>(diff_ids: impl IntoIterator<Item = &'a BlobId>) -> Option<BlobId> {
    let join = |chain: BlobId, id: &BlobId| {
        BlobId::of(format!("{} {}", chain.full(), id.full()).as_bytes())
    };
    let mut ids = diff_ids.into_iter();
    let first = ids.next()?.clone();
    Some(ids.fold(first, join))
}

/// The diff_id of a layer without anything, not even an end: what an image without layers has, for
/// an overlay needs one at least.
pub(crate) fn empty_layer() -> BlobId {
    BlobId::of(b"")
}

/// The error for a document that does not parse, or does not say what it has to.
pub fn bad_document(what: &'static str, id: &BlobId, why: impl ToString) -> ImageError {
    ImageError::BadDocument { what, digest: id.full(), why: why.to_string() }
}
