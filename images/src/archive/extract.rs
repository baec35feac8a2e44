//! The members of an archive, extracted under names of our own: nothing that an archive says is
//! ever used as a path.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use tar_core::EntryType;

use super::origin::Origin;
use crate::blob::{BlobId, Blobs};
use crate::error::{ImageError, io_error};
use crate::store::{Store, WorkFolder};
use crate::unpack::archive::Archive;

/// An archive's uncompressed size is bounded by this, so that a bomb ends in an error.
const MAX_ARCHIVE: u64 = 64 << 30;
/// An image has at most a few hundred members.
const MAX_MEMBERS: usize = 100_000;
/// A chain of symbolic links in an archive is at most this long (as Linux's own, path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Members by their names.
pub(super) struct Members {
    dir: WorkFolder,
    files: HashMap<String, PathBuf>,
    links: HashMap<String, String>,
}

impl Members {
    /// Extracts an archive into a folder of its own in the store. Blobs go to `blobs/sha256` there.
    pub(super) fn extract(
        store: &Store,
        source: impl Read + 'static,
        origin: &Origin<'_>,
    ) -> Result<Self, ImageError> {
        // What the host says while it reads is not the archive's fault.
        let bad = |error: io::Error| match error.raw_os_error() {
            Some(_) => io_error("read", origin.name())(error),
            None => origin.not_a_layout(error.to_string()),
        };
        let stream = crate::unpack::decompress(source).map_err(bad)?;
        let mut archive = Archive::new(stream, MAX_ARCHIVE);
        let dir = store.work_folder("archive")?;
        for folder in ["blobs/sha256", "files"] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        }
        let mut members = Self { dir, files: HashMap::new(), links: HashMap::new() };
        while let Some(member) = archive.next().map_err(bad)? {
            let Some(name) = normal(&member.path) else { continue };
            if members.files.len() + members.links.len() >= MAX_MEMBERS {
                return Err(origin.not_a_layout(format!("more than {MAX_MEMBERS} members")));
            }
            match member.kind {
                EntryType::Regular | EntryType::Continuous => {
                    let target = members.place(&name);
                    let file = File::create(&target).map_err(io_error("create", &target))?;
                    copy(&mut archive.content(), file, &target, bad)?;
                    members.files.insert(name, target);
                }
                // docker save writes a layer that occurs twice as a link.
                EntryType::Symlink | EntryType::Link => {
                    let is_symlink = member.kind == EntryType::Symlink;
                    let base = Path::new(&name).parent().filter(|_| is_symlink);
                    let target = member.link.unwrap_or_default();
                    let target = normal(&base.unwrap_or(Path::new("")).join(target));
                    members.links.extend(target.map(|target| (name, target)));
                }
                _ => {}
            }
        }
        Ok(members)
    }

    fn place(&self, name: &str) -> PathBuf {
        let digits = name.strip_prefix("blobs/sha256/").unwrap_or_default();
        match BlobId::parse(&format!("sha256:{digits}")) {
            Ok(id) => self.blobs().path(&id),
            Err(_) => self.dir.path().join("files").join(self.files.len().to_string()),
        }
    }

    pub(super) fn blobs(&self) -> Blobs {
        Blobs::of_layout(self.dir.path())
    }

    /// The file of that name, links followed.
    pub(super) fn get(&self, name: &str) -> Option<&Path> {
        let mut name = normal(Path::new(name))?;
        for _ in 0..MAX_LINKS {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

/// What fails here may be the archive, or the disk that it is written to.
fn copy(
    source: &mut impl Read,
    mut file: File,
    path: &Path,
    bad: impl FnOnce(io::Error) -> ImageError,
) -> Result<(), ImageError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                file.write_all(&buffer[..count]).map_err(io_error("write to", path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(bad(error)),
        }
    }
}

/// A name without `.` and `..`; none for one that is no UTF-8 or leads out.
fn normal(name: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            _ => {}
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_normal() {
        assert_eq!(normal(Path::new("./a/../b/./c")).unwrap(), "b/c");
        assert_eq!(normal(Path::new("/etc/passwd")).unwrap(), "etc/passwd");
        assert_eq!(normal(Path::new("../x")), None);
    }
}
