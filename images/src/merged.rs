//! Layers seen as one file system, without mounting anything: what overlayfs would show.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// As the kernel's (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// An image's files without a mount: its unpacked layers, topmost first, as overlayfs shows them.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    layers: Vec<PathBuf>,
}

/// What a name leads to.
#[derive(Debug)]
pub struct Found {
    /// Without links, relative to the root.
    pub path: PathBuf,
    /// Where it really is; the topmost where folders merge. None where there is nothing.
    pub file: Option<(PathBuf, Metadata)>,
}

impl Found {
    /// Whether a folder is there.
    pub fn is_dir(&self) -> bool {
        self.file.as_ref().is_some_and(|(_, metadata)| metadata.is_dir())
    }
}

impl Merged {
    /// `layers` as [`Image::layers_unpacked`](crate::Image::layers_unpacked) gives them.
    pub fn new(layers: Vec<PathBuf>) -> Self {
        Self { layers }
    }

    /// What is at `path`, which has no links in it but perhaps itself: where it really is, and its
    /// metadata. None where there is nothing, or a layer removed it.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn stat(&self, path: &Path) -> io::Result<Option<(PathBuf, Metadata)>> {
        'layers: for layer in &self.layers {
            // A folder of this layer that hides what lower layers have in it.
            let mut hides = false;
            let mut so_far = layer.clone();
            let parts: Vec<_> = path.components().collect();
            for (depth, part) in std::iter::once(None).chain(parts.iter().map(Some)).enumerate() {
                so_far.extend(part);
                let metadata = match fs::symlink_metadata(&so_far) {
                    Ok(metadata) => metadata,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        if hides {
                            return Ok(None);
                        }
                        continue 'layers;
                    }
                    Err(error) => return Err(error),
                };
                if is_whiteout(&metadata) {
                    return Ok(None);
                }
                if depth == parts.len() {
                    return Ok(Some((so_far, metadata)));
                }
                if !metadata.is_dir() {
                    return Ok(None);
                }
                hides |= is_opaque(&so_far);
            }
        }
        Ok(None)
    }

    /// Follows links, the last one too where `follow`; none leads out of the root.
    pub fn resolve(&self, path: &Path, follow: bool) -> io::Result<Found> {
        let mut left: VecDeque<OsString> = names(path);
        let mut resolved = PathBuf::new();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let next = resolved.join(&name);
            let found = self.stat(&next)?;
            if let Some((file, metadata)) = &found
                && metadata.is_symlink()
                && (follow || !left.is_empty())
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(nix::errno::Errno::ELOOP.into());
                }
                let target = fs::read_link(file)?;
                if target.is_absolute() {
                    resolved = PathBuf::new();
                }
                for part in names(&target).into_iter().rev() {
                    left.push_front(part);
                }
                continue;
            }
            resolved = next;
        }
        let file = match resolved.as_os_str().is_empty() {
            true => self.root()?,
            false => self.stat(&resolved)?,
        };
        Ok(Found { path: resolved, file })
    }

    fn root(&self) -> io::Result<Option<(PathBuf, Metadata)>> {
        let Some(top) = self.layers.first() else { return Ok(None) };
        Ok(Some((top.clone(), fs::symlink_metadata(top)?)))
    }

    /// The names in a folder, sorted. `path` has no links in it.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = std::collections::BTreeSet::new();
        for layer in self.layers.iter().filter(|layer| is_real_folder(layer, path)) {
            match fs::read_dir(layer.join(path)) {
                Ok(entries) => {
                    for entry in entries {
                        names.insert(entry?.file_name());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // What a layer hides, `stat` does not show.
        let mut shown = Vec::new();
        for name in names {
            if self.stat(&path.join(&name))?.is_some() {
                shown.push(name);
            }
        }
        Ok(shown)
    }

    /// The text of a file, such as `etc/passwd`; empty where there is none. Links are followed, none
    /// of them out of the image.
    ///
    /// # Errors
    /// A layer cannot be read, or links go in a circle.
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        match self.resolve(Path::new(path), true)?.file {
            Some((file, metadata)) if metadata.is_file() => {
                Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
            }
            _ => Ok(String::new()),
        }
    }
}

/// Whether no part of `path` is a link in this layer, which would lead out of it.
pub fn is_real_folder(layer: &Path, path: &Path) -> bool {
    let is_folder = |path: &Path| {
        fs::symlink_metadata(layer.join(path)).is_ok_and(|metadata| metadata.is_dir())
    };
    path.ancestors().all(is_folder)
}

fn names(path: &Path) -> VecDeque<OsString> {
    let part = |component| match component {
        Component::Normal(name) => Some(OsString::from(name)),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

/// overlayfs's sign that a lower layer's file is gone.
pub fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// overlayfs's sign that a folder hides what lower layers have in it.
pub fn is_opaque(folder: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| matches!(xattr::get(folder, name), Ok(Some(value)) if value == b"y"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    use super::*;

    /// Two layers: the upper one hides `gone`, and all of `opaque` that is not its own.
    fn layers() -> (tempfile::TempDir, Merged) {
        let dir = tempfile::tempdir().unwrap();
        let (top, bottom) = (dir.path().join("top"), dir.path().join("bottom"));
        for folder in ["usr/lib", "opaque", "both"] {
            fs::create_dir_all(top.join(folder)).unwrap();
            fs::create_dir_all(bottom.join(folder)).unwrap();
        }
        fs::write(bottom.join("usr/lib/low"), "low").unwrap();
        fs::write(bottom.join("gone"), "gone").unwrap();
        fs::write(bottom.join("opaque/old"), "old").unwrap();
        fs::write(bottom.join("both/low"), "").unwrap();
        symlink("usr/lib", bottom.join("lib")).unwrap();
        symlink("/../../lib/low", bottom.join("absolute")).unwrap();
        symlink("loop", bottom.join("loop")).unwrap();
        fs::write(top.join("opaque/new"), "new").unwrap();
        fs::write(top.join("both/high"), "").unwrap();
        mknod(&top.join("gone"), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
        xattr::set(top.join("opaque"), "trusted.overlay.opaque", b"y").unwrap();
        (dir, Merged::new(vec![top, bottom]))
    }

    #[test]
    fn as_root_what_upper_layers_hide_is_not_there() {
        let (_dir, merged) = layers();
        let exists = |path: &str| merged.stat(Path::new(path)).unwrap().is_some();
        assert!(exists("usr/lib/low") && exists("opaque/new") && exists("both/low"));
        assert!(!exists("gone") && !exists("opaque/old") && !exists("gone/below"));
        assert_eq!(merged.list(Path::new("both")).unwrap(), ["high", "low"]);
        assert_eq!(merged.list(Path::new("opaque")).unwrap(), ["new"]);
    }

    #[test]
    fn as_root_links_are_followed_and_stay_inside() {
        let (_dir, merged) = layers();
        let path = |name: &str| merged.resolve(Path::new(name), true).unwrap().path;
        assert_eq!(path("/lib/new"), Path::new("usr/lib/new"));
        assert_eq!(path("absolute"), Path::new("usr/lib/low"));
        assert_eq!(path("../../../usr"), Path::new("usr"));
        assert_eq!(merged.read_text("/absolute").unwrap(), "low");
        assert!(merged.resolve(Path::new("loop"), true).is_err());
        assert_eq!(merged.resolve(Path::new("lib"), false).unwrap().path, Path::new("lib"));
    }
}
