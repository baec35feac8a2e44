//! What a plan comes to, as the cache's key.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use sha2::{Digest as _, Sha256};

use super::files::{Links, attributes, digest_of};
use super::{CopyPlan, Item};
use crate::Check;

impl CopyPlan {
    /// A digest of all that will be in the layer but times, which do not make a file another.
    pub(crate) fn digest(&self, check: Check<'_>) -> io::Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let mut links = Links::default();
        for (target, item) in &self.items {
            check()?;
            field(target.as_os_str().as_bytes());
            match item {
                Item::Folder => field(b"folder"),
                Item::Text(text) => {
                    field(b"text");
                    field(text.as_bytes());
                }
                Item::File { file, metadata, owner } => {
                    if let Some(first) = links.first(metadata, *owner, target) {
                        field(b"link");
                        field(first.as_os_str().as_bytes());
                        continue;
                    }
                    let (uid, gid) = *owner;
                    let mode = self.mode(metadata) | (metadata.mode() & libc::S_IFMT);
                    for number in [mode, uid, gid] {
                        field(&number.to_le_bytes());
                    }
                    field(&metadata.rdev().to_le_bytes());
                    if metadata.is_symlink() {
                        field(fs::read_link(file)?.as_os_str().as_bytes());
                    } else if metadata.is_file() {
                        field(&digest_of(file)?);
                    }
                    if self.with_attributes {
                        for (name, value) in attributes(file)? {
                            field(name.as_bytes());
                            field(&value);
                        }
                    }
                }
            }
        }
        field(format!("{:?}", self.ownership).as_bytes());
        Ok(hasher.finalize().into())
    }
}
