//! The archives of `docker save`: `manifest.json`, which names configurations, tags and layers.

use std::collections::hash_map::{self, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::extract::Members;
use super::origin::Origin;
use crate::blob::{BlobId, HashingReader, hex};
use crate::document::{bad_document, descriptor, parse_config};
use crate::error::{ImageError, io_error};
use crate::store::Store;
use crate::store::names::{full_name, with_name};

/// One image of `manifest.json` (moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem
/// Changeset Format").
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    /// Docker writes `null` for an image without layers.
    #[serde(default, deserialize_with = "list_or_null")]
    pub(super) layers: Vec<String>,
}

fn list_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Takes in every image; gives the new index entries.
pub(super) fn load(
    store: &Store,
    members: &Members,
    origin: &Origin<'_>,
    name: Option<&str>,
) -> Result<Vec<Descriptor>, ImageError> {
    let manifest = member(members, "manifest.json", origin)?;
    let manifest = origin.read_document(manifest)?;
    let images: Vec<Entry> = serde_json::from_slice(&manifest)
        .map_err(|e| origin.not_a_layout(format!("manifest.json: {e}")))?;
    origin.check_one(images.len(), name)?;
    let mut entries = Vec::new();
    let mut layers = HashMap::new();
    for image in &images {
        let descriptor = take_in(store, members, image, origin, &mut layers)?;
        let names = match (name, image.repo_tags.as_deref().unwrap_or_default()) {
            (Some(name), _) => vec![Some(full_name(name)?)],
            (None, []) => vec![None],
            (None, tags) => {
                tags.iter().map(|tag| full_name(tag).map(Some)).collect::<Result<_, _>>()?
            }
        };
        entries.extend(names.into_iter().map(|name| with_name(&descriptor, name)));
    }
    Ok(entries)
}

/// Takes in one image under an OCI manifest that we write for it. `known` are the layers so far: a
/// few bytes can name one of gigabytes thousands of times.
fn take_in<'a>(
    store: &Store,
    members: &'a Members,
    image: &Entry,
    origin: &Origin<'_>,
    known: &mut HashMap<&'a Path, Descriptor>,
) -> Result<Descriptor, ImageError> {
    let path = member(members, &image.config, origin)?;
    let config = origin.read_document(path)?;
    let config_id = store.take_in_bytes(&config)?;
    let parsed = parse_config(&config_id, &config)?;
    let diff_ids = parsed.rootfs().diff_ids();
    if diff_ids.len() != image.layers.len() {
        let why = format!("{} diff_ids for {} layers", diff_ids.len(), image.layers.len());
        return Err(bad_document("config", &config_id, why));
    }
    let mut layers = Vec::new();
    for layer in &image.layers {
        // Which diff_id it has, `load` verifies by unpacking it.
        let path = member(members, layer, origin)?;
        layers.push(match known.entry(path) {
            hash_map::Entry::Occupied(known) => known.get().clone(),
            hash_map::Entry::Vacant(new) => new.insert(take_in_layer(store, path)?).clone(),
        });
    }
    let config = descriptor(MediaType::ImageConfig, &config_id, config.len() as u64)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .map_err(|e| bad_document("config", &config_id, e))?;
    let manifest =
        serde_json::to_vec(&manifest).map_err(|e| bad_document("config", &config_id, e))?;
    let id = store.take_in_bytes(&manifest)?;
    descriptor(MediaType::ImageManifest, &id, manifest.len() as u64)
}

fn take_in_layer(store: &Store, path: &Path) -> Result<Descriptor, ImageError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = Sha256::new();
    let mut reader = HashingReader { source: &mut file, hasher: &mut hasher };
    let size = io::copy(&mut reader, &mut io::sink()).map_err(io_error("read", path))?;
    let id = BlobId::parse(&format!("sha256:{}", hex(&hasher.finalize())))?;
    io::Seek::rewind(&mut file).map_err(io_error("read", path))?;
    let media_type = media_type_of(path)?;
    store.take_in(&id, size, file)?;
    descriptor(media_type, &id, size)
}

fn member<'a>(
    members: &'a Members,
    name: &str,
    origin: &Origin<'_>,
) -> Result<&'a Path, ImageError> {
    members.get(name).ok_or_else(|| origin.not_a_layout(format!("`{name}` is not in it")))
}

/// Docker's layers are plain, other tools' may be compressed.
fn media_type_of(layer: &Path) -> Result<MediaType, ImageError> {
    let mut start = [0; 4];
    let mut file = File::open(layer).map_err(io_error("open", layer))?;
    let count = io::Read::read(&mut file, &mut start).map_err(io_error("read", layer))?;
    Ok(match crate::unpack::Compression::of(&start[..count]) {
        // Unpacking tells what a layer of another form is.
        crate::unpack::Compression::None
        | crate::unpack::Compression::Xz
        | crate::unpack::Compression::Bzip2 => MediaType::ImageLayer,
        crate::unpack::Compression::Gzip => MediaType::ImageLayerGzip,
        crate::unpack::Compression::Zstd => MediaType::ImageLayerZstd,
    })
}
