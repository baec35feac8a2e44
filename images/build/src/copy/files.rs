//! Files as they are read: content, attributes, and which names are of one file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Names of one file stay names of one file.
#[derive(Default)]
pub(super) struct Links<'a>(HashMap<(u64, u64, (u32, u32)), &'a Path>);

impl<'a> Links<'a> {
    /// The first target of the same file, if this is not the first.
    pub(super) fn first(
        &mut self,
        metadata: &Metadata,
        owner: (u32, u32),
        target: &'a Path,
    ) -> Option<&'a Path> {
        if metadata.is_dir() || metadata.nlink() < 2 {
            return None;
        }
        match self.0.entry((metadata.dev(), metadata.ino(), owner)) {
            Entry::Occupied(first) => Some(first.get()),
            Entry::Vacant(new) => {
                new.insert(target);
                None
            }
        }
    }
}

/// Without following a link that took the file's place since it was looked at.
pub(super) fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)
}

pub(super) fn digest_of(file: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hasher) = (open(file)?, Sha256::new());
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Those that belong to the file, not to overlayfs or the host; sorted.
pub(super) fn attributes(file: &Path) -> io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list(file)? {
        let bytes = name.as_bytes();
        let is_overlays =
            bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.");
        if !is_overlays
            && bytes != b"security.selinux"
            && let Some(value) = xattr::get(file, &name)?
        {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}
