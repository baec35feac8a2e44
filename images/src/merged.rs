//! Layers seen as one file system, without mounting anything: what overlayfs would show.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::resolve::{follow_links, open_without_links};

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
        Ok(match self.look(path)? {
            Look::File(file, metadata) => Some((file, metadata)),
            Look::Nothing | Look::Link => None,
        })
    }

    /// One system call for each layer that is asked and has something else on the way, or the file.
    fn look(&self, path: &Path) -> io::Result<Look> {
        for (number, layer) in self.layers.iter().enumerate() {
            match open_in(layer, path) {
                Ok(file) => {
                    let metadata = File::from(file).metadata()?;
                    return Ok(match is_whiteout(&metadata) {
                        true => Look::Nothing,
                        false => Look::File(join(layer, path), metadata),
                    });
                }
                Err(Errno::ENOENT) => {
                    let is_last = number + 1 == self.layers.len();
                    // What is missing may be hidden in the layers below.
                    if !is_last && path.ancestors().skip(1).any(|p| is_opaque(&join(layer, p))) {
                        return Ok(Look::Nothing);
                    }
                }
                // A file of another kind, or a whiteout, is on the way, and hides what is below.
                Err(Errno::ENOTDIR) => return Ok(Look::Nothing),
                Err(Errno::ELOOP) => return Ok(Look::Link),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Look::Nothing)
    }

    /// Follows links, the last one too where `follow`; none leads out of the root.
    ///
    /// # Errors
    /// A layer cannot be read, or links go in a circle.
    pub fn resolve(&self, path: &Path, follow: bool) -> io::Result<Found> {
        // Nearly always there is no link, and the whole way is one look.
        if let Some(plain) = without_dots(path) {
            match self.look(&plain)? {
                Look::File(_, metadata) if follow && metadata.is_symlink() => {}
                Look::File(file, metadata) => {
                    return Ok(Found { path: plain, file: Some((file, metadata)) });
                }
                Look::Nothing => return Ok(Found { path: plain, file: None }),
                Look::Link => {}
            }
        }
        let path = follow_links(path, follow, |next| match self.look(next)? {
            Look::File(file, metadata) if metadata.is_symlink() => fs::read_link(file).map(Some),
            _ => Ok(None),
        })?;
        let file = match path.as_os_str().is_empty() {
            true => self.root()?,
            false => self.stat(&path)?,
        };
        Ok(Found { path, file })
    }

    fn root(&self) -> io::Result<Option<(PathBuf, Metadata)>> {
        let Some(top) = self.layers.first() else { return Ok(None) };
        Ok(Some((top.clone(), fs::symlink_metadata(top)?)))
    }

    /// The names in a folder, sorted. `path` has no links in it.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = BTreeSet::new();
        for layer in self.layers.iter().filter(|layer| is_real_folder(layer, path)) {
            for entry in fs::read_dir(layer.join(path))? {
                names.insert(entry?.file_name());
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

/// What is at a path without following anything.
enum Look {
    File(PathBuf, Metadata),
    Nothing,
    /// There is a link on the way.
    Link,
}

/// Opens `path`, which has no `..`, in a layer, to look at it.
fn open_in(layer: &Path, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, &join(layer, path), how) {
        // Links on the way to the layer are the host's affair, and are followed.
        Err(Errno::ELOOP) => {
            let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            open_without_links(open(layer, folder, Mode::empty())?, path, OFlag::O_NOFOLLOW)
        }
        other => other,
    }
}

/// Without a slash at the end, which makes the kernel follow a link there.
fn join(layer: &Path, path: &Path) -> PathBuf {
    layer.components().chain(path.components()).collect()
}

/// `path` relative to the root, where it does not go up anywhere.
fn without_dots(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(plain).filter(|plain| !plain.as_os_str().is_empty())
}

/// Whether `path` is a folder of this layer, without a link on the way, which would lead out of it.
pub fn is_real_folder(layer: &Path, path: &Path) -> bool {
    open_in(layer, path).is_ok_and(|file| File::from(file).metadata().is_ok_and(|m| m.is_dir()))
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

    use nix::sys::stat::{SFlag, makedev, mknod};

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
        fs::create_dir(top.join("shadow")).unwrap();
        symlink("usr/lib", bottom.join("lib")).unwrap();
        symlink("usr/lib", bottom.join("shadow")).unwrap();
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
        // A folder of the upper layer is none of what the lower one's link leads to.
        assert_eq!(path("shadow/low"), Path::new("shadow/low"));
        assert!(merged.stat(Path::new("shadow/low")).unwrap().is_none());
    }

    #[test]
    fn as_root_a_host_s_links_on_the_way_to_a_layer_are_followed() {
        let (dir, merged) = layers();
        let link = dir.path().join("link");
        symlink(dir.path(), &link).unwrap();
        let through: Vec<PathBuf> = ["top", "bottom"].map(|name| link.join(name)).to_vec();
        let through = Merged::new(through);
        for name in ["usr/lib/low", "opaque/old", "lib/low", "gone", "lib", "both", "nothing/x"] {
            let found = |merged: &Merged| {
                let found = merged.resolve(Path::new(name), false).unwrap();
                (found.path, found.file.map(|(_, metadata)| metadata.ino()))
            };
            assert_eq!(found(&through), found(&merged), "{name}");
        }
    }
}
