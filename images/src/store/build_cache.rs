//! What a build step made of which inputs.
//!
//! An entry is a file `build-cache/KEY.json`, where the key is the digest of everything that the
//! step's outcome depends on. It names the layer that the step made. Folders beside them,
//! `mount-KEY`, are what steps mount as their cache (`isolab-build`'s `stage/mounts`).

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Store, publish};
use crate::blob::BlobId;
use crate::error::{ImageError, io_error};

/// A layer that a step made; none where the step changed no file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedStep {
    /// The layer that the step made; none where it changed no file.
    pub layer: Option<CachedLayer>,
}

/// A layer that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedLayer {
    /// The blob's digest: of the layer as it is kept, compressed.
    pub digest: String,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the uncompressed archive.
    pub diff_id: String,
    /// As RFC 3339 has it.
    #[serde(default)]
    pub created: String,
}

fn path(store: &Store, key: &BlobId) -> PathBuf {
    store.root().join("build-cache").join(format!("{}.json", key.hex()))
}

/// What the step with this key made, if it was done before and its layer is still there. A
/// damaged entry is none.
pub fn find(store: &Store, key: &BlobId) -> Option<CachedStep> {
    let step: CachedStep = serde_json::from_slice(&fs::read(path(store, key)).ok()?).ok()?;
    if let Some(layer) = &step.layer {
        let id = BlobId::parse(&layer.digest).ok()?;
        BlobId::parse(&layer.diff_id).ok()?;
        if !store.blobs().path(&id).exists() {
            return None;
        }
    }
    Some(step)
}

/// Remembers what the step with this key made.
pub fn remember(store: &Store, key: &BlobId, step: &CachedStep) -> Result<(), ImageError> {
    let target = path(store, key);
    let folder = store.root().join("build-cache");
    fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    // Two builds may end the same step at once; what they write is of equal worth.
    let partial = store.partial(&format!("step-{}-{}", std::process::id(), key.hex()));
    let text = serde_json::to_vec(step).map_err(|e| io_error("write", &partial)(e.into()))?;
    fs::write(&partial, text).map_err(io_error("write", &partial))?;
    publish(&partial, &target)
}

/// Blob and diff_id of every layer that the cache names: the collector keeps them.
pub(super) fn layers(store: &Store) -> Result<Vec<(BlobId, BlobId)>, ImageError> {
    let folder = store.root().join("build-cache");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("list", &folder))?,
    };
    let mut layers = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error("list", &folder))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        // A damaged entry keeps nothing; `find` does not trust it either.
        let Ok(CachedStep { layer: Some(layer) }) = serde_json::from_slice(&text) else { continue };
        if let (Ok(id), Ok(diff_id)) = (BlobId::parse(&layer.digest), BlobId::parse(&layer.diff_id))
        {
            layers.push((id, diff_id));
        }
    }
    Ok(layers)
}
