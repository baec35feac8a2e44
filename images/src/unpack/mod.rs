//! Layers as folders in overlayfs's form, unpacked once and kept by diff_id.

pub(crate) mod archive;
mod beneath;
#[cfg(test)]
mod fidelity;
mod implied;
mod layer;
mod limits;
mod sparse;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use oci_spec::image::Descriptor;
use sha2::{Digest as _, Sha256};
use tracing::info_span;

use crate::blob::{BlobId, HashingReader, hex};
use crate::document::{chain_id, empty_layer};
use crate::error::{ImageError, io_error};
use crate::store::Store;
use implied::Folders;
use limits::Limits;

pub(crate) use limits::LIMITS;

/// The folder of the layer with this `diff_id`, unpacking it if need be.
fn ensure_unpacked(
    store: &Store,
    layer: &Descriptor,
    diff_id: &str,
) -> Result<implied::Tree, ImageError> {
    let diff_id = BlobId::parse(diff_id)?;
    let target = folder_of(store, &diff_id);
    store.make_once("layer", &diff_id, &target, |tree| {
        let _span = info_span!("unpack", layer = %layer.digest(), bytes = layer.size()).entered();
        create_tree(tree)?;
        let blob = store.blobs().open(&BlobId::parse(layer.digest().as_ref())?)?;
        let folders = unpack_verified(layer.digest().as_ref(), blob, &diff_id, tree, LIMITS)?;
        folders.keep(store, &diff_id)
    })?;
    Ok((target, diff_id))
}

fn create_tree(tree: &Path) -> Result<(), ImageError> {
    fs::create_dir(tree).map_err(io_error("create", tree))?;
    // overlayfs shows the topmost layer's root as `/`, whatever our umask is.
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(tree, mode).map_err(io_error("create", tree))
}

fn ensure_empty(store: &Store) -> Result<PathBuf, ImageError> {
    let diff_id = empty_layer();
    let target = folder_of(store, &diff_id);
    store.make_once("layer", &diff_id, &target, |tree| {
        create_tree(tree)?;
        Folders::default().keep(store, &diff_id)
    })?;
    Ok(target)
}

fn is_unpacked(store: &Store, diff_id: &str) -> bool {
    BlobId::parse(diff_id).is_ok_and(|id| folder_of(store, &id).is_dir())
}

fn folder_of(store: &Store, diff_id: &BlobId) -> PathBuf {
    store.root().join("layers").join(diff_id.hex())
}

/// The folders that [`ensure_all`] gives for these layers, if all of them are there.
pub(crate) fn all_unpacked(
    store: &Store,
    layers: &[(&Descriptor, &String)],
) -> Result<Option<Vec<PathBuf>>, ImageError> {
    if layers.is_empty() {
        return Ok(Some(vec![folder_of(store, &empty_layer())]).filter(|all| all[0].is_dir()));
    }
    let cover = match chain_of(layers)? {
        Some(chain) => implied::found(store, &chain),
        None => Some(None),
    };
    let Some(cover) = cover else { return Ok(None) };
    let mut folders: Vec<_> = cover.into_iter().collect();
    for (_, diff_id) in without_repetitions(layers) {
        let folder = folder_of(store, &BlobId::parse(diff_id)?);
        if !folder.is_dir() {
            return Ok(None);
        }
        folders.push(folder);
    }
    Ok(Some(folders))
}

/// Of layers with their diff_ids, topmost first.
fn chain_of(layers: &[(&Descriptor, &String)]) -> Result<Option<BlobId>, ImageError> {
    let diff_ids = layers.iter().rev().map(|(_, diff_id)| BlobId::parse(diff_id));
    Ok(chain_id(&diff_ids.collect::<Result<Vec<_>, _>>()?))
}

/// Layers with their diff_ids, topmost first, as folders for overlayfs in the same order, and
/// before them what covers implied folders. Several are unpacked at once. An image without layers
/// has an empty one.
pub fn ensure_all(
    store: &Store,
    layers: &[(&Descriptor, &String)],
) -> Result<Vec<PathBuf>, ImageError> {
    if layers.is_empty() {
        return Ok(vec![ensure_empty(store)?]);
    }
    let chain = chain_of(layers)?;
    let layers = without_repetitions(layers);
    // Threads are for work only: nearly always all layers are there. To count the processors takes a
    // dozen system calls (cgroup quotas).
    let workers = match layers.iter().filter(|(_, diff_id)| !is_unpacked(store, diff_id)).count() {
        missing @ 2.. => thread::available_parallelism().map_or(1, usize::from).min(missing),
        few => few,
    };
    let folders: Vec<OnceLock<_>> = layers.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((number, (layer, diff_id))) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            layers.get(number).map(|layer| (number, layer))
        } {
            // Each number is taken once, so that nothing is set yet.
            let _ = folders[number].set(ensure_unpacked(store, layer, diff_id));
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers {
            // Where the host refuses a thread (RLIMIT_NPROC, pids.max), there is one worker less.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let unpacked = folders.into_iter().filter_map(OnceLock::into_inner);
    let trees: Vec<implied::Tree> = unpacked.collect::<Result<_, _>>()?;
    let cover = match chain {
        Some(chain) => implied::cover(store, &chain, &trees)?,
        None => None,
    };
    Ok(cover.into_iter().chain(trees.into_iter().map(|(tree, _)| tree)).collect())
}

/// Leaves out every layer that occurs above itself. overlayfs takes no folder twice (ELOOP), and the
/// lower occurrence never shows: whatever a layer says of a name, that it is a file, a folder, an
/// opaque folder, or gone, its upper occurrence says as well and earlier, also against what the
/// layers between them say; and of what it says nothing of, the lower one says nothing either. Where
/// folders merge, the lower one adds only names that the upper one has. Metadata of folders that
/// are only implied come from below both (`implied::cover`).
fn without_repetitions<'a>(
    layers: &[(&'a Descriptor, &'a String)],
) -> Vec<(&'a Descriptor, &'a String)> {
    let mut seen = HashSet::new();
    layers.iter().filter(|(_, diff_id)| seen.insert(*diff_id)).copied().collect()
}

/// Unpacks a compressed layer into the empty folder `tree` and verifies its diff_id.
fn unpack_verified(
    digest: &str,
    blob: impl Read + 'static,
    diff_id: &BlobId,
    tree: &Path,
    limits: Limits,
) -> Result<Folders, ImageError> {
    let bad_layer = |source| ImageError::BadLayer { layer: digest.to_owned(), source };
    let stream = decompress(blob).map_err(bad_layer)?;
    let mut hasher = Sha256::new();
    let mut stream = HashingReader { source: stream, hasher: &mut hasher };
    let folders = layer::unpack(digest, &mut stream, tree, limits)?;
    // The archive may end before the stream does; the diff_id is of all of it.
    io::copy(&mut (&mut stream).take(limits.bytes), &mut io::sink()).map_err(bad_layer)?;
    let found = hex(&hasher.finalize());
    if found != diff_id.hex() {
        return Err(ImageError::DigestMismatch { expected: diff_id.full(), found });
    }
    Ok(folders)
}

/// Whether a file is a tar archive, plain or compressed.
pub fn is_archive(file: &Path) -> io::Result<bool> {
    let mut header = Vec::new();
    let start = decompress(File::open(file)?).and_then(|s| s.take(512).read_to_end(&mut header));
    // What cannot be uncompressed is no archive.
    Ok(start.is_ok() && is_header(&header))
}

/// Whether a block is a member's header, of whatever form: POSIX's and GNU's have a magic (pax(1),
/// tar(5)), Unix version 7's a checksum only.
fn is_header(block: &[u8]) -> bool {
    if block.len() != 512 {
        return false;
    }
    let text = str::from_utf8(&block[148..156]).unwrap_or_default();
    let written = u32::from_str_radix(text.trim_matches([' ', '\0']), 8);
    let bytes = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let own = block[148..156].iter().map(|byte| u32::from(*byte)).sum::<u32>();
    written == Ok(bytes - own + 8 * u32::from(b' ')) && block[0] != 0
}

/// Unpacks an archive, called `name` in errors, into the empty folder `tree`.
pub fn unpack_archive(name: &str, file: &Path, tree: &Path) -> Result<(), ImageError> {
    let bad = |source| ImageError::BadLayer { layer: name.to_owned(), source };
    let file = File::open(file).map_err(io_error("open", file))?;
    layer::unpack(name, &mut decompress(file).map_err(bad)?, tree, LIMITS).map(drop)
}

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// Of archives only, as the next: layers are never packed so (image-spec, layer.md).
    Xz,
    Bzip2,
}

impl Compression {
    /// Told by the first bytes: media types are often wrong.
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// Uncompresses gzip, zstd, xz and bzip2.
pub(crate) fn decompress(source: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut source = BufReader::with_capacity(1 << 17, source);
    Ok(match Compression::of(source.fill_buf()?) {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => Box::new(ZstdFrames::new(source)?),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(source, true)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Compression::None => Box::new(source),
    })
}

/// Zstandard streams may consist of several frames (RFC 8878, 3.1), and parallel compressors make
/// such; the crate's decoder ends with the first.
struct ZstdFrames<R: BufRead> {
    frame: Option<ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(source: R) -> io::Result<Self> {
        let frame = ruzstd::decoding::StreamingDecoder::new(source).map_err(io::Error::other)?;
        Ok(Self { frame: Some(frame) })
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            let count = frame.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(ended) = self.frame.take() else { break };
            let mut source = ended.into_inner();
            if source.fill_buf()?.is_empty() {
                break;
            }
            *self = Self::new(source)?;
        }
        Ok(0)
    }
}
