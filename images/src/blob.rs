//! Blobs: files named by the digest of their content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{ImageError, io_error};

/// Documents (indexes, manifests, configs) beyond this size are refused, as registries do.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// A sha256 digest: 64 hexadecimal digits, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(String);

impl BlobId {
    /// Parses `sha256:` and 64 hexadecimal digits. The strictness is what makes a digest safe to
    /// use as a file name.
    ///
    /// # Errors
    /// [`ImageError::BadDigest`].
    pub fn parse(digest: &str) -> Result<Self, ImageError> {
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        match digest.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.chars().all(is_hex) => Ok(Self(hex.to_owned())),
            _ => Err(ImageError::BadDigest(digest.to_owned())),
        }
    }

    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(hex(&Sha256::digest(content)))
    }

    /// Of a digest that was computed.
    pub fn from_digest(digest: &[u8]) -> Self {
        Self(hex(digest))
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// With its algorithm, as everybody writes it.
    pub fn full(&self) -> String {
        format!("sha256:{}", self.0)
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A folder of blobs, `blobs/sha256` of an OCI image layout.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// The blobs of the layout in `layout`.
    pub(crate) fn of_layout(layout: &Path) -> Self {
        Self { dir: layout.join("blobs/sha256") }
    }

    /// Where the blob is, or would be.
    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.dir.join(id.hex())
    }

    /// Opens a blob. Its content is not verified.
    ///
    /// # Errors
    /// There is no such blob, or the host refuses to open it.
    pub fn open(&self, id: &BlobId) -> Result<File, ImageError> {
        let path = self.path(id);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::MissingBlob(id.full()),
            _ => io_error("open", path)(error),
        })
    }

    /// Reads a document and verifies it.
    ///
    /// # Errors
    /// It is missing, or its content has another digest.
    pub fn read_document(&self, id: &BlobId) -> Result<Vec<u8>, ImageError> {
        let failed = || io_error("read", self.path(id));
        let file = self.open(id)?;
        let length = file.metadata().map_err(failed())?.len().min(MAX_DOCUMENT);
        // One more, so that one read finds all of it and the next its end.
        let mut content = Vec::with_capacity(length as usize + 1);
        file.take(MAX_DOCUMENT).read_to_end(&mut content).map_err(failed())?;
        let found = BlobId::of(&content);
        if found != *id {
            return Err(ImageError::DigestMismatch {
                expected: id.full(),
                found: found.hex().to_owned(),
            });
        }
        Ok(content)
    }
}

/// Hashes what is read through it.
pub(crate) struct HashingReader<'a, R> {
    pub(crate) source: R,
    pub(crate) hasher: &'a mut Sha256,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex(&[0, 9, 10, 0x5f, 0xff]), "00090a5fff");
        assert_eq!(hex(&[]), "");
    }

    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(BlobId::parse(&good).unwrap().full(), good);
        for bad in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &good.to_uppercase()] {
            assert!(matches!(BlobId::parse(bad), Err(ImageError::BadDigest(_))), "{bad}");
        }
    }

    #[test]
    fn a_document_that_was_changed_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::of_layout(dir.path());
        let id = BlobId::of(b"content");
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(blobs.path(&id), b"changed").unwrap();
        let error = blobs.read_document(&id).unwrap_err();
        assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    }
}
