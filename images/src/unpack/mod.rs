//! Layers as folders in overlayfs's form, unpacked once and kept by diff_id.

mod beneath;
mod layer;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use oci_spec::image::Descriptor;
use sha2::{Digest as _, Sha256};

use crate::blob::{BlobId, HashingReader, hex};
use crate::error::{ImageError, io_error};
use crate::lock::StoreLock;
use crate::store::Store;

/// What a layer may grow to; more than any honest image has, less than a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the uncompressed archive.
    pub(crate) bytes: u64,
    /// Entries.
    pub(crate) entries: u64,
}

const LIMITS: Limits = Limits { bytes: 64 << 30, entries: 4_000_000 };

/// The folder of the layer with this `diff_id`, unpacking it if need be.
pub(crate) fn ensure_unpacked(
    store: &Store,
    layer: &Descriptor,
    diff_id: &str,
) -> Result<PathBuf, ImageError> {
    let diff_id = BlobId::parse(diff_id)?;
    let layers = store.root().join("layers");
    let target = layers.join(diff_id.hex());
    if target.is_dir() {
        return Ok(target);
    }
    let _lock = StoreLock::take(store.root())?;
    // Somebody else may have done it while we waited.
    if target.is_dir() {
        return Ok(target);
    }
    fs::create_dir_all(&layers).map_err(io_error("create", &layers))?;
    let work = tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(&layers)
        .map_err(io_error("write to", &layers))?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree).map_err(io_error("create", &tree))?;
    let blob = store.blobs().open(&BlobId::parse(layer.digest().as_ref())?)?;
    unpack_verified(layer.digest().as_ref(), blob, &diff_id, &tree, LIMITS)?;
    fs::rename(&tree, &target).map_err(io_error("create", &target))?;
    Ok(target)
}

/// Unpacks a compressed layer into the empty folder `tree` and verifies its diff_id.
fn unpack_verified(
    digest: &str,
    blob: impl Read + 'static,
    diff_id: &BlobId,
    tree: &std::path::Path,
    limits: Limits,
) -> Result<(), ImageError> {
    let bad_layer = |source| ImageError::BadLayer { layer: digest.to_owned(), source };
    let stream = decompress(blob).map_err(bad_layer)?;
    let mut hasher = Sha256::new();
    let mut stream = HashingReader { source: stream, hasher: &mut hasher };
    layer::unpack(digest, &mut stream, tree, limits)?;
    // The archive may end before the stream does; the diff_id is of all of it.
    io::copy(&mut (&mut stream).take(limits.bytes), &mut io::sink()).map_err(bad_layer)?;
    let found = hex(&hasher.finalize());
    if found != diff_id.hex() {
        return Err(ImageError::DigestMismatch { expected: diff_id.full(), found });
    }
    Ok(())
}

/// Uncompresses gzip and zstd, told by their first bytes: media types are often wrong.
pub(crate) fn decompress(source: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut source = BufReader::with_capacity(1 << 17, source);
    let start = source.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(source).map_err(io::Error::other)?)
        }
        _ => Box::new(source),
    })
}
