//! Folders that nobody but their owner enters.
//!
//! A layer is unpacked as it is: with files that are set-user-ID root, and with whatever secrets
//! somebody left in it. Inside an instance these are the image's own affair; on the host any local
//! user could run the one and read the other. So the folder above them all lets nobody through, and
//! the modes below it do not matter.

use std::env;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{ImageError, io_error};

/// Everything but the owner's permissions.
const OTHERS: u32 = 0o077;

/// Where isolab keeps its data: `$XDG_DATA_HOME/isolab`; without that variable `/var/lib/isolab`
/// for root and `~/.local/share/isolab` for others. [`make_private`] makes it.
pub fn data_dir() -> PathBuf {
    if let Some(dir) = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        return dir.join("isolab");
    }
    match env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) if !nix::unistd::geteuid().is_root() => {
            Path::new(&home).join(".local/share/isolab")
        }
        _ => PathBuf::from("/var/lib/isolab"),
    }
}

/// Makes `folder`, and those above it, unless they are there. Only its owner may enter it from now
/// on, also where it was made by an earlier version, which let everybody in.
///
/// # Errors
/// It cannot be made, or belongs to somebody else.
pub fn make_private(folder: &Path) -> Result<(), ImageError> {
    // Nearly always it is there.
    let found = fs::metadata(folder).ok().filter(Metadata::is_dir);
    let metadata = found.map_or_else(|| make(folder), Ok).map_err(io_error("create", folder))?;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != nix::unistd::geteuid().as_raw() {
        // Root could use it, and its owner what root puts there.
        let why = format!("it belongs to user {owner}, who would reach what is in images");
        return Err(io_error("use", folder)(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    if mode & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(folder, Permissions::from_mode(mode & 0o7777 & !OTHERS)) {
        // As it is, and as its maker wanted it: nothing of it can be changed, nor added to it.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        other => other.map_err(io_error("shut others out of", folder)),
    }
}

fn make(folder: &Path) -> io::Result<Metadata> {
    // Private from the first moment, whatever the umask is: that only takes rights away.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::metadata(folder)
}

/// A temporary folder that nobody else enters; removed with what is in it when dropped.
pub(crate) fn temporary() -> Result<tempfile::TempDir, ImageError> {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .map_err(io_error("make", "a temporary folder"))
}

#[cfg(test)]
mod tests {
    use error_reporter::Report;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn as_root_a_folder_is_shut_when_it_is_made_and_when_it_is_found_open() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("above/data");
        make_private(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&dir.path().join("above"))), (0o700, 0o700));
        for (before, after) in [(0o755, 0o700), (0o1777, 0o1700), (0o2750, 0o2700), (0o700, 0o700)]
        {
            fs::set_permissions(&folder, Permissions::from_mode(before)).unwrap();
            fs::write(folder.join("kept"), "x").unwrap();
            make_private(&folder).unwrap();
            assert_eq!(mode(&folder), after, "{before:o}");
            assert!(folder.join("kept").exists());
        }
        std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
        let error = Report::new(make_private(&folder).unwrap_err()).to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
    }
}
