//! Whether the file system that the instances are on can take what they write: overlayfs asks for
//! more than a place (Documentation/filesystems/overlayfs.rst, "Upper and Lower").

use std::path::Path;

use isolab_container::Error;
use nix::errno::Errno;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;

use crate::error::IsolationError;

/// File systems that overlayfs does not write to, by their numbers (linux/magic.h and their own
/// headers): they are themselves overlays, are somewhere else, or have no extended attributes.
const UNFIT: [(i64, &str); 9] = [
    (0x794c_7630, "overlayfs"),
    (0x6969, "NFS"),
    (0xff53_4d42, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x4d44, "FAT"),
    (0x2011_bab0, "exFAT"),
    (0xf15f, "eCryptfs"),
];

const WAY_OUT: &str = "set XDG_DATA_HOME to a folder on ext4, XFS, Btrfs or tmpfs";

/// Refuses what is known beforehand. Of the others some work in some versions, and only a mount
/// tells.
pub(crate) fn check(folder: &Path) -> Result<(), IsolationError> {
    match kind(folder) {
        Some("overlayfs") => Err(unfit(folder, "overlayfs")),
        _ => Ok(()),
    }
}

/// Says of a failed start what the file system has to do with it.
pub(crate) fn explain(error: Error, folder: &Path) -> IsolationError {
    let Error::Setup { source, .. } = &error else { return error.into() };
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL) => match kind(folder) {
            Some(name) => unfit(folder, name),
            None => error.into(),
        },
        // Read-only: what overlayfs becomes where there is no room for its own folder.
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS) => {
            let room = statvfs(folder).map_or(String::new(), |fs| {
                let bytes = fs.blocks_available() * fs.fragment_size();
                format!(" ({bytes} bytes and {} inodes are free)", fs.files_available())
            });
            let folder = folder.display();
            let why = format!(
                "no room for what the instance writes: {folder} is full{room}; free some, or {WAY_OUT}"
            );
            IsolationError::Setting { field: "data folder", why }
        }
        _ => error.into(),
    }
}

fn kind(folder: &Path) -> Option<&'static str> {
    let magic = statfs(folder).ok()?.filesystem_type().0;
    UNFIT.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

fn unfit(folder: &Path, name: &str) -> IsolationError {
    let folder = folder.display();
    IsolationError::Setting {
        field: "data folder",
        why: format!("{folder} is on {name}, to which overlayfs does not write; {WAY_OUT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_full_disk_is_told_and_other_failures_stay_what_they_are() {
        let setup = |errno: Errno| Error::Setup {
            id: "x".to_owned(),
            attempt: "mount".to_owned(),
            source: io::Error::from(errno),
        };
        let folder = tempfile::tempdir().unwrap();
        let text = |errno| explain(setup(errno), folder.path()).to_string();
        for errno in [Errno::ENOSPC, Errno::EROFS, Errno::EDQUOT] {
            assert!(text(errno).contains("inodes are free"), "{}", text(errno));
        }
        assert!(text(Errno::EPERM).contains("cannot mount"), "{}", text(Errno::EPERM));
        assert!(kind(Path::new("/proc")).is_none());
        let error = unfit(Path::new("/data"), "NFS").to_string();
        assert!(error.contains("/data") && error.contains("XDG_DATA_HOME"), "{error}");
    }
}
