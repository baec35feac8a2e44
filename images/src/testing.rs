//! Small images for tests.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::image::MediaType;
use serde_json::json;
use tempfile::TempDir;

use crate::blob::BlobId;
use crate::document::descriptor;
use crate::image::Image;
use crate::store::Store;
use crate::store::names::{full_name, with_name};

/// An empty store in a folder that goes with the guard.
pub fn new_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// A layer's archive with these files.
pub fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A layer's archive with these names, modes and times; one that ends with a slash is a folder's.
pub fn layer_of(members: &[(&str, u32, u64)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode, time) in members {
        let mut header = tar::Header::new_ustar();
        let is_folder = name.ends_with('/');
        let kind = if is_folder { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(*mode);
        header.set_mtime(*time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_path(name).unwrap();
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// `bytes` as gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Adds an image of these uncompressed layers, which are stored as gzip.
pub fn add_image(store: &Store, name: Option<&str>, layers: &[Vec<u8>]) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|layer| BlobId::of(layer).full()).collect();
    let history: Vec<_> =
        (0..layers.len()).map(|n| json!({"created_by": format!("step {n}")})).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": {"Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_id = store.take_in_bytes(&config).unwrap();
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let blob = gzip(layer);
            let id = store.take_in_bytes(&blob).unwrap();
            descriptor(MediaType::ImageLayerGzip, &id, blob.len() as u64).unwrap()
        })
        .collect();
    let config = descriptor(MediaType::ImageConfig, &config_id, config.len() as u64).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers,
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let id = store.take_in_bytes(&manifest).unwrap();
    let entry = descriptor(MediaType::ImageManifest, &id, manifest.len() as u64).unwrap();
    let entry = with_name(&entry, name.map(|name| full_name(name).unwrap()));
    store.add_to_index(&[entry]).unwrap();
    store.resolve(&id.full()).unwrap()
}
