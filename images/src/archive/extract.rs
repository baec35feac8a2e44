//! The members of an archive, extracted under names of our own: nothing that an archive says is
//! ever used as a path.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use tar_core::EntryType;
use tempfile::TempDir;

use crate::blob::{BlobId, Blobs};
use crate::error::{ImageError, io_error};
use crate::unpack::archive::Archive;

/// An archive's uncompressed size is bounded by this, so that a bomb ends in an error.
const MAX_ARCHIVE: u64 = 64 << 30;
/// An image has at most a few hundred members.
const MAX_MEMBERS: usize = 100_000;
/// A chain of symbolic links in an archive is at most this long (as Linux's own, path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Members by their names.
pub(super) struct Members {
    dir: TempDir,
    files: HashMap<String, PathBuf>,
    links: HashMap<String, String>,
}

impl Members {
    /// Extracts the archive at `path` into a folder in `work`. Blobs go to `blobs/sha256` there.
    pub(super) fn extract(path: &Path, work: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let stream = crate::unpack::decompress(file).map_err(io_error("read", path))?;
        let mut archive = Archive::new(stream, MAX_ARCHIVE);
        let dir = tempfile::Builder::new().prefix("archive-").tempdir_in(work);
        let dir = dir.map_err(io_error("write to", work))?;
        for folder in ["blobs/sha256", "files"] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        }
        let mut members = Self { dir, files: HashMap::new(), links: HashMap::new() };
        let not_an_archive =
            |e: io::Error| ImageError::NotALayout { path: path.to_owned(), why: e.to_string() };
        while let Some(member) = archive.next().map_err(not_an_archive)? {
            let Some(name) = normal(&member.path) else { continue };
            if members.files.len() + members.links.len() >= MAX_MEMBERS {
                let why = format!("more than {MAX_MEMBERS} members");
                return Err(ImageError::NotALayout { path: path.to_owned(), why });
            }
            match member.kind {
                EntryType::Regular | EntryType::Continuous => {
                    let target = members.place(&name);
                    let mut file = File::create(&target).map_err(io_error("create", &target))?;
                    io::copy(&mut archive.content(), &mut file).map_err(not_an_archive)?;
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
