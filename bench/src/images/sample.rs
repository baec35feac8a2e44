//! A large image of files as images have them: many small ones, some large, text and what does
//! not compress. The same bytes every time.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Mean size of a file, in bytes, as in Debian's and Ubuntu's images.
const MEAN_FILE: u64 = 32 << 10;
const WORDS: [&str; 16] = [
    "return",
    "the",
    "struct",
    "0x00",
    "license",
    "of",
    "const",
    "\n",
    "void",
    "error",
    "copyright",
    "a",
    "include",
    "import",
    "{",
    "}",
];

/// Writes a tar archive of an OCI image layout: `layers` layers with `bytes` bytes of files in all.
pub(super) fn write(path: &Path, bytes: u64, layers: u32) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for number in 0..layers {
        let plain = layer(&mut random, number, bytes / u64::from(layers.max(1)))?;
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
    add(&mut archive, "index.json", index.to_string().as_bytes())?;
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)?;
    archive.into_inner()?.flush()
}

fn layer(random: &mut Random, number: u32, bytes: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let (mut written, mut count) = (0, 0);
    while written < bytes {
        // A mean of the squares' is a third of their largest: most are small, some are not.
        let root = random.below(1 << 16);
        let size = (root * root / (1 << 16) * 3 * MEAN_FILE / (1 << 16)).min(bytes - written);
        let content = match random.below(4) {
            0 => random.noise(size),
            _ => random.text(size),
        };
        add(&mut archive, &format!("layer{number}/{}/{count}", count / 50), &content)?;
        (written, count) = (written + size.max(1), count + 1);
    }
    archive.into_inner()
}

fn blob<W: Write>(
    archive: &mut tar::Builder<W>,
    kind: &str,
    content: &[u8],
) -> io::Result<serde_json::Value> {
    let digest = digest(content);
    add(archive, &format!("blobs/sha256/{digest}"), content)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len()}))
}

fn add<W: Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_000_000_000);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, content)
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn noise(&mut self, size: u64) -> Vec<u8> {
        let words = size.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(size as usize);
        bytes
    }

    fn text(&mut self, size: u64) -> Vec<u8> {
        let mut text = Vec::with_capacity(size as usize + 16);
        while (text.len() as u64) < size {
            let number = self.next();
            text.extend_from_slice(WORDS[(number % 16) as usize].as_bytes());
            // Now and then something that was not there before.
            match (number >> 8) % 4 {
                0 => text.extend_from_slice(format!("{:x}", number >> 48).as_bytes()),
                _ => text.push(b' '),
            }
        }
        text.truncate(size as usize);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_as_large_as_asked_for_and_the_same_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            write(&path, 3 << 20, 3).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = write("first");
        assert!(first == write("second"));
        // It compresses, as images do, but not to nothing.
        assert!((1 << 20..5 << 19).contains(&first.len()), "{}", first.len());
        let plain = layer(&mut Random(1), 0, 1 << 20).unwrap();
        let mut archive = tar::Archive::new(&plain[..]);
        let sizes: Vec<u64> =
            archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
        assert!((1 << 19..=1 << 20).contains(&sizes.iter().sum::<u64>()), "{sizes:?}");
        assert!((8..200).contains(&sizes.len()), "{sizes:?}");
    }
}
