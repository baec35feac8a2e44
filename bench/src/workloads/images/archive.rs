//! An OCI image layout in a tar archive, as engines take it in.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Writes one with these layers, each an uncompressed tar archive.
pub(in crate::workloads) fn write(
    path: &Path,
    layers: impl Iterator<Item = io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(path)?));
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for layer in layers {
        let plain = layer?;
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(&plain)?;
        let packed = packer.finish()?;
        diff_ids.push(format!("sha256:{}", digest(&plain)));
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        descriptors.push(blob(&mut archive, kind, &packed)?);
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = blob(&mut archive, kind, config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors,
    });
    let manifest = blob(&mut archive, kind, manifest.to_string().as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    add(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
    add(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion": "1.0.0"}"#)?;
    archive.into_inner()?.flush()
}

fn blob<W: Write>(
    archive: &mut tar::Builder<W>,
    kind: &str,
    content: &[u8],
) -> io::Result<serde_json::Value> {
    let digest = digest(content);
    add(archive, &format!("blobs/sha256/{digest}"), 0o644, content)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len()}))
}

/// A file of root's, of one time.
pub(in crate::workloads) fn add<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = of_root(tar::EntryType::Regular, mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

/// A folder of root's, of one time.
pub(in crate::workloads) fn folder<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
) -> io::Result<()> {
    let mut header = of_root(tar::EntryType::Directory, mode);
    archive.append_data(&mut header, name, io::empty())
}

/// A symbolic link of root's, of one time.
pub(in crate::workloads) fn link<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    target: &str,
) -> io::Result<()> {
    let mut header = of_root(tar::EntryType::Symlink, 0o777);
    archive.append_link(&mut header, name, target)
}

fn of_root(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(mode);
    header.set_mtime(1_000_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
