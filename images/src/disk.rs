//! An image's root file system as a read-only disk for a virtual machine.
//!
//! The layers are merged by the kernel's own overlayfs, in a mount namespace that nobody else
//! sees, and packed by mkfs.erofs: EROFS keeps owners, modes, times, links, devices and extended
//! attributes, and a guest maps it without copying (docs.kernel.org/filesystems/erofs.html).

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use tracing::info_span;

use crate::blob::BlobId;
use crate::error::{ImageError, io_error};
use crate::image::Image;
use crate::merged_mount::{MERGED, run_with_merged};
use crate::store::Store;

const TOOL: &str = "mkfs.erofs";

impl Store {
    /// The image's root file system as a read-only EROFS disk, in whole blocks of 4 KiB. Made at
    /// the first call, then kept as long as the image. A caller other than root owns all files of
    /// it, which are root's inside.
    ///
    /// # Errors
    /// As [`Image::layers`]; there is no mkfs.erofs, or it failed; the host has no
    /// overlayfs.
    pub fn root_disk(&self, image: &Image) -> Result<PathBuf, ImageError> {
        let path = self.root().join("disks").join(format!("{}.erofs", image.id().hex()));
        if path.exists() {
            return Ok(path);
        }
        let layers = image.layers()?;
        self.make_once("disk", image.id(), &path, |partial| {
            info_span!("root_disk").in_scope(|| make(image.id(), &layers, partial))
        })?;
        Ok(path)
    }
}

impl Image {
    /// [`Store::root_disk`] of this image.
    ///
    /// # Errors
    /// Those of [`Store::root_disk`].
    pub fn root_disk(&self) -> Result<PathBuf, ImageError> {
        self.store().root_disk(self)
    }
}

/// Makes the disk `target` of `layers`, topmost first.
fn make(id: &BlobId, layers: &[PathBuf], target: &Path) -> Result<(), ImageError> {
    let mut command = Command::new(TOOL);
    // The same disk for the same image, but for the time at which it was made.
    command.arg("--quiet").arg(format!("-U{}", uuid(id)));
    if !geteuid().is_root() {
        command.arg("--all-root");
    }
    let target = std::path::absolute(target).map_err(io_error("find", target))?;
    command.arg(&target).arg(MERGED).stdin(Stdio::null());
    let output = run_with_merged(layers, &mut command).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ImageError::Tool {
            tool: TOOL,
            why: "it is not installed; Debian's package is erofs-utils".to_owned(),
        },
        _ => ImageError::Tool { tool: TOOL, why: format!("cannot mount the layers: {error}") },
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ImageError::Tool { tool: TOOL, why: format!("{}: {said}", output.status) })
}

/// A version 8 UUID (RFC 9562, 5.8) of the image's digest.
fn uuid(id: &BlobId) -> String {
    let hex = id.hex();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{add_image, layer, new_store};

    /// The files of a disk, extracted by another tool.
    fn extract(disk: &Path, target: &Path) {
        let arguments = ["--extract".to_owned() + "=" + target.to_str().unwrap()];
        let output = Command::new("fsck.erofs").args(arguments).arg(disk).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_disk_has_the_merged_files_and_is_made_once() {
        let (_dir, store) = new_store();
        let layers = [
            layer(&[("a", "low"), ("gone", "x"), ("dir/old", "x"), ("dir/low", "x")]),
            layer(&[("a", "high"), (".wh.gone", ""), ("dir/.wh..wh..opq", ""), ("dir/new", "n")]),
        ];
        let image = add_image(&store, Some("app"), &layers);
        assert!(matches!(store.root_disk(&image), Err(ImageError::NotUnpacked(_))));
        image.layers_unpacked().unwrap();
        let disk = store.root_disk(&image).unwrap();
        assert_eq!(fs::metadata(&disk).unwrap().len() % 4096, 0);
        let out = tempfile::tempdir().unwrap();
        let tree = out.path().join("tree");
        extract(&disk, &tree);
        assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "high");
        let mut names: Vec<_> = fs::read_dir(tree.join("dir"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["new"]);
        assert!(!tree.join("gone").exists());

        let made = fs::metadata(&disk).unwrap().modified().unwrap();
        assert_eq!(store.root_disk(&image).unwrap(), disk);
        assert_eq!(fs::metadata(&disk).unwrap().modified().unwrap(), made);
        drop(image);
        store.remove("app", false).unwrap();
        assert!(!disk.exists(), "the disk was not collected");
    }

    #[test]
    fn an_image_may_have_hundreds_of_layers_or_none() {
        let (_dir, store) = new_store();
        let layers: Vec<_> = (0..300).map(|n| layer(&[(&format!("file{n}"), "x")])).collect();
        let image = add_image(&store, Some("many"), &layers);
        image.layers_unpacked().unwrap();
        let out = tempfile::tempdir().unwrap();
        extract(&store.root_disk(&image).unwrap(), &out.path().join("many"));
        assert_eq!(fs::read_dir(out.path().join("many")).unwrap().count(), 300);
        let image = add_image(&store, Some("none"), &[]);
        image.layers_unpacked().unwrap();
        extract(&store.root_disk(&image).unwrap(), &out.path().join("none"));
        assert_eq!(fs::read_dir(out.path().join("none")).unwrap().count(), 0);
    }
}
